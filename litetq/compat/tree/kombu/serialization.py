"""Serializers by name: what is registered here, tasks and results can be written with."""

from __future__ import annotations

from typing import Any

from litetq.compat.alias import register_serializer as register
from litetq.serialization import content_type_of, decode, encode, unregister

__all__ = ["dumps", "loads", "register", "registry", "unregister"]


def dumps(data: Any, serializer: str | None = None) -> tuple[str, str, Any]:
    """Return content type, encoding and bytes of a value."""
    content_type, body = encode(data, serializer or "json")
    return content_type or "application/json", "utf-8", body


def loads(data: Any, content_type: str, content_encoding: str, accept: Any = None, **_: Any) -> Any:
    """Return the value that bytes stand for."""
    from litetq.serialization import accept_set

    body = data.encode() if isinstance(data, str) else data
    return decode(body, content_type, frozenset({content_type}) if accept is None else accept_set(accept))


class _Registry:
    """The register of serializers."""

    register = staticmethod(register)
    unregister = staticmethod(unregister)
    dumps = staticmethod(dumps)
    loads = staticmethod(loads)
    content_type_of = staticmethod(content_type_of)


registry = _Registry()
