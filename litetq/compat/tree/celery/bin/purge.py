"""The command `purge`."""

from __future__ import annotations

from litetq.cli.purge import command as purge

__all__ = ["purge"]
