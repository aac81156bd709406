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
    "ChannelError",
    "ConnectionError",
    "ContentDisallowed",
    "DecodeError",
    "EncodeError",
    "KombuError",
    "OperationalError",
    "SerializationError",
    "SerializerNotInstalled",
]


class ConnectionError(OperationalError):
    """A broker's connection failed; for `except` clauses, none is raised here."""


class ChannelError(KombuError):
    """A broker refused what it was asked for; for `except` clauses, none is raised here."""
