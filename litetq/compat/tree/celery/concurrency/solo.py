"""One task at a time, in the worker itself."""

from __future__ import annotations

from litetq.pool import SoloPool as TaskPool

__all__ = ["TaskPool"]
