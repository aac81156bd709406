"""The command `list`."""

from __future__ import annotations

from litetq.cli.listing import command as list_

__all__ = ["list_"]
