"""Tasks in threads of the worker."""

from __future__ import annotations

from litetq.pool import ThreadPool as TaskPool

__all__ = ["TaskPool"]
