"""The command `migrate`."""

from __future__ import annotations

from litetq.cli.migrate import command as migrate

__all__ = ["migrate"]
