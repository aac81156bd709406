"""Sending and reading events."""

from __future__ import annotations

from litetq.events import Events

__all__ = ["Events"]
