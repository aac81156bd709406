"""The command `graph`."""

from __future__ import annotations

from litetq.cli.graph import command as graph

__all__ = ["graph"]
