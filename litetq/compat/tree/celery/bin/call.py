"""The command `call`."""

from __future__ import annotations

from litetq.cli.call import command as call

__all__ = ["call"]
