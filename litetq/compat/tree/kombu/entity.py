"""Queues and exchanges, as settings name them."""

from __future__ import annotations

from typing import Any

from litetq.routing import Queue as _Queue

__all__ = ["Exchange", "Queue"]


class Exchange:
    """A name and a type; a file has queues only."""

    def __init__(self, name: str = "", type: str = "direct", channel: Any = None, **more: Any) -> None:
        self.name = name
        self.type = type
        self.__dict__.update(more)

    def __repr__(self) -> str:
        return f"<Exchange {self.name!r} ({self.type})>"

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exchange) and (self.name, self.type) == (other.name, other.type)

    def __hash__(self) -> int:
        return hash((self.name, self.type))


class Queue(_Queue):
    """A queue, its exchange given by name or as an object."""

    def __init__(self, name: str = "", exchange: Any = None, routing_key: str = "", **more: Any) -> None:
        made = Exchange(exchange) if isinstance(exchange, str) else exchange or Exchange(name)
        super().__init__(name, exchange=made, routing_key=routing_key or name, **more)
