"""Graphs."""

from __future__ import annotations

from litetq.graph import DependencyGraph

__all__ = ["DependencyGraph"]
