"""The command `beat`."""

from __future__ import annotations

from litetq.cli.beat import command as beat

__all__ = ["beat"]
