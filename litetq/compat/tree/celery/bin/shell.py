"""The command `shell`."""

from __future__ import annotations

from litetq.cli.shell import command as shell

__all__ = ["shell"]
