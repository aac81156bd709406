"""The command `logtool`."""

from __future__ import annotations

from litetq.cli.logtool import command as logtool

__all__ = ["logtool"]
