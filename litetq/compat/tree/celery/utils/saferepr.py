"""Values as text of bounded length."""

from __future__ import annotations

from typing import Any

from litetq.execution import shorten

__all__ = ["saferepr"]


def saferepr(o: Any, maxlen: int | None = None, maxlevels: int = 3, seen: Any = None) -> str:
    """Return a value as text; one whose own text cannot be made is told as such."""
    try:
        text = repr(o)
    except Exception as error:
        text = f"<Unrepresentable {type(o).__name__!r}: {type(error).__name__}>"
    return shorten(text, maxlen) if maxlen else text
