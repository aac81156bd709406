"""Reading events."""

from __future__ import annotations

from litetq.events import EventReceiver

__all__ = ["EventReceiver"]
