"""The request of a task as the worker's main process sees it."""

from __future__ import annotations

from typing import Any

from litetq.parts import Request

__all__ = ["Request", "create_request_cls"]


def create_request_cls(
    base: type[Request], task: Any, pool: Any = None, hostname: str | None = None, *_: Any, **__: Any
) -> Any:
    """Return a class of requests of this task: its own (`Task.Request`) or `base`."""
    return Request.class_for(task) or base
