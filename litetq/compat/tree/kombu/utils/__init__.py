"""Small things."""

from __future__ import annotations

from functools import cached_property

from litetq.compat.below import modules_below
from litetq.message import uuid

from .imports import symbol_by_name

__all__ = ["cached_property", "symbol_by_name", "uuid"]

__getattr__ = modules_below(__name__, __path__)
