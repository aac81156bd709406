"""What tools wrap in children of a pool; the pools are those of multiprocessing."""

from __future__ import annotations

from multiprocessing.pool import Pool, ThreadPool
from typing import Any

__all__ = ["Pool", "ThreadPool", "Worker"]


class Worker:
    """A child of a pool; litetq's children are not made of it, so what is assigned here changes nothing."""

    def workloop(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: nobody calls it."""
