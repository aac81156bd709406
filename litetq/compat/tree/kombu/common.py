"""Queues that every worker has a copy of."""

from __future__ import annotations

from litetq.routing import Broadcast

__all__ = ["Broadcast"]
