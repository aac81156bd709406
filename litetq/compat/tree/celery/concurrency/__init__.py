"""Pools: where a worker runs its tasks."""

from __future__ import annotations

from typing import Any

from litetq import pools

from ..utils.imports import symbol_by_name

__all__ = ["get_available_pool_names", "get_implementation"]

ALIASES = {
    "prefork": "celery.concurrency.prefork:TaskPool",
    "processes": "celery.concurrency.prefork:TaskPool",
    "solo": "celery.concurrency.solo:TaskPool",
    "threads": "celery.concurrency.thread:TaskPool",
}


def get_implementation(cls: Any) -> Any:
    """Return the class of a pool by its name."""
    return symbol_by_name(cls, ALIASES)


def get_available_pool_names() -> tuple[str, ...]:
    """Return the names that `-P` takes."""
    return pools.NAMES
