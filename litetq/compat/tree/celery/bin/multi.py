"""The command `multi`."""

from __future__ import annotations

from litetq.cli.multi import command as multi

__all__ = ["multi"]
