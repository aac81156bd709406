"""Times written as text."""

from __future__ import annotations

from datetime import datetime

__all__ = ["parse_iso8601"]


def parse_iso8601(datestring: str) -> datetime:
    """Return the time; ValueError for what is none."""
    return datetime.fromisoformat(datestring.replace("Z", "+00:00"))
