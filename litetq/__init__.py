"""A task queue with Celery's interface, where one SQLite file is broker, result store, schedule and control channel."""

from __future__ import annotations

from typing import cast

from litetq import context, signals, states
from litetq.app import LiteTQ, current_or_default_app, shared_task
from litetq.canvas import (
    Signature,
    StampingVisitor,
    chain,
    chord,
    chunks,
    group,
    maybe_signature,
    signature,
    subtask,
    xmap,
    xstarmap,
)
from litetq.log import get_task_logger
from litetq.message import uuid
from litetq.progress import progress
from litetq.result import AsyncResult, GroupResult, ResultSet, result_from_tuple
from litetq.routing import Queue
from litetq.task import Forward, Task

__version__ = "0.1.0"

Celery = LiteTQ

current_app: LiteTQ = cast(LiteTQ, Forward(current_or_default_app))
current_task: Task[..., object] = cast("Task[..., object]", Forward(context.get_current_task))


def bugreport(app: LiteTQ | None = None) -> str:
    """Return what a bug report needs about this app, by default the current one."""
    return (app or current_or_default_app()).bugreport()


def freeze_support() -> None:
    """Call this first below `if __name__ == "__main__":` in a program that is frozen into one binary (PyInstaller and such).

    A pool's child is the same binary started once more; it becomes a child here and does not return. In a program that is
    not frozen, nothing happens. The counterpart of `multiprocessing.freeze_support`.
    """
    import sys

    if getattr(sys, "frozen", False):
        from litetq import child

        child.freeze_support()


__all__ = [
    "AsyncResult",
    "Celery",
    "GroupResult",
    "LiteTQ",
    "Queue",
    "ResultSet",
    "Signature",
    "StampingVisitor",
    "Task",
    "__version__",
    "bugreport",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "freeze_support",
    "get_task_logger",
    "group",
    "maybe_signature",
    "progress",
    "result_from_tuple",
    "shared_task",
    "signals",
    "signature",
    "states",
    "subtask",
    "uuid",
    "xmap",
    "xstarmap",
]
