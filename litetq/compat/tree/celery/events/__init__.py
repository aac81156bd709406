"""Events."""

from __future__ import annotations

import time
from typing import Any

from litetq.events import EventDispatcher, EventReceiver, State

__all__ = ["Event", "EventDispatcher", "EventReceiver", "State"]


def Event(type: str, _fields: Any = None, **fields: Any) -> dict[str, Any]:
    """Return an event of this type; its time is now, unless it has one."""
    event: dict[str, Any] = {**(_fields or {}), **fields}
    event.setdefault("timestamp", time.time())
    event["type"] = type
    return event
