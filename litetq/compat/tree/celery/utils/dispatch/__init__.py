"""Signals."""

from __future__ import annotations

from litetq.signals import Signal

__all__ = ["Signal"]
