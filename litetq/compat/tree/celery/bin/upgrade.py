"""The command `upgrade`."""

from __future__ import annotations

from litetq.cli.upgrade import command as upgrade

__all__ = ["upgrade"]
