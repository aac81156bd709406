"""Texts and bytes."""

from __future__ import annotations

from typing import Any

__all__ = ["bytes_to_str", "ensure_bytes", "safe_repr", "safe_str", "str_to_bytes"]


def ensure_bytes(s: Any) -> bytes:
    """Return the UTF-8 of a text; bytes as they are."""
    return s if isinstance(s, bytes) else str(s).encode()


def bytes_to_str(s: Any) -> Any:
    """Return UTF-8 as text; texts as they are."""
    return s.decode() if isinstance(s, bytes) else s


str_to_bytes = ensure_bytes


def safe_str(s: Any, errors: str = "replace") -> str:
    """Return anything as text; what is not UTF-8 is replaced."""
    return s.decode(errors=errors) if isinstance(s, bytes) else str(s)


def safe_repr(o: Any, errors: str = "replace") -> str:
    """Return the text of a value; one that has none is told as such."""
    try:
        return repr(o)
    except Exception as error:
        return f"<Unrepresentable {type(o)!r}: {error!r}>"
