"""Queues and routes."""

from __future__ import annotations

from litetq.parts import Amqp as AMQP
from litetq.routing import declared as Queues

__all__ = ["AMQP", "Queues"]
