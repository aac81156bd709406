"""The command `events`."""

from __future__ import annotations

from litetq.cli.events import command as events

__all__ = ["events"]
