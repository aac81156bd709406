"""What differs between platforms."""

from __future__ import annotations

from typing import Any

__all__ = ["register_after_fork"]


def register_after_fork(obj: Any, func: Any) -> None:
    """Call a function with an object in each process that `multiprocessing` forks."""
    from multiprocessing import util

    util.register_after_fork(obj, func)
