"""Errors, the very ones that litetq raises."""

from __future__ import annotations

from litetq.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    KombuError,
    OperationalError,
    SerializationError,
    SerializerNotInstalled,
)

__all__ = [
    "ContentDisallowed",
    "DecodeError",
    "EncodeError",
    "KombuError",
    "OperationalError",
    "SerializationError",
    "SerializerNotInstalled",
]
