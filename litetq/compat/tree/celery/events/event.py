"""One event."""

from __future__ import annotations

from . import Event

__all__ = ["Event"]
