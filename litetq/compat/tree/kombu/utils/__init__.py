"""Small things."""

from __future__ import annotations

from functools import cached_property

from litetq.message import uuid

__all__ = ["cached_property", "uuid"]
