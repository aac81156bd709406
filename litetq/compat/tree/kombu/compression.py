"""Compressions by name: what is registered here, tasks and results can be written with."""

from __future__ import annotations

from litetq.compat.alias import register_compression as register

__all__ = ["register"]
