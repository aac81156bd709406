"""JSON as tasks travel in it."""

from __future__ import annotations

from typing import Any

from litetq.serialization import JSON, decode, encode, register_type

__all__ = ["dumps", "loads", "register_type"]


def dumps(s: Any, **_: Any) -> str:
    """Return a value as text."""
    return encode(s, "json")[1].decode()


def loads(s: Any, **_: Any) -> Any:
    """Return the value that a text stands for."""
    return decode(s.encode() if isinstance(s, str) else bytes(s), None, frozenset({JSON}))
