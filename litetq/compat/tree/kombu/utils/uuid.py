"""Ids."""

from __future__ import annotations

from litetq.message import uuid

__all__ = ["uuid"]
