"""Calls that are made later."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litetq.steps import Timer

__all__ = ["Timer", "to_timestamp"]


def to_timestamp(d: Any, default_timezone: Any = None, time: Any = None) -> float:
    """Return a point in time as UTC seconds; one without a zone is in `default_timezone`, or local."""
    if not isinstance(d, datetime):
        return float(d)
    return (d.replace(tzinfo=default_timezone) if d.tzinfo is None else d).timestamp()
