"""Sending events."""

from __future__ import annotations

from litetq.events import EventDispatcher

__all__ = ["EventDispatcher"]
