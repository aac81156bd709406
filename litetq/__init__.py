"""A task queue with Celery's interface, where one SQLite file is broker, result store, schedule and control channel."""

from __future__ import annotations

import os as _os

from litetq import signals, states
from litetq.app import LiteTQ, bugreport, current_app, current_task, shared_task
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
from litetq.task import Task

__version__ = "0.1.0"

Celery = LiteTQ


def freeze_support() -> None:
    """Call this first below `if __name__ == "__main__":` in a program that is frozen into one binary (PyInstaller and such).

    A pool's child is the same binary started once more; it becomes a child here and does not return. In a program that is
    not frozen, nothing happens. The counterpart of `multiprocessing.freeze_support`.
    """
    import sys

    if getattr(sys, "frozen", False):
        from litetq import child

        child.freeze_support()


def install_as_celery() -> None:
    """Make `import celery` mean litetq from now on, in this process and in those that it starts.

    Call it before anything imports Celery: at the top of the first module of the program. More calls do nothing.

    Raises ImproperlyConfigured when Celery itself is loaded already.
    """
    from litetq import compat

    compat.install()


def uninstall_celery_alias() -> None:
    """Undo `install_as_celery`: `import celery` brings an installed Celery, or fails. For tests."""
    from litetq import compat

    compat.uninstall()


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
    "install_as_celery",
    "maybe_signature",
    "progress",
    "result_from_tuple",
    "shared_task",
    "signals",
    "signature",
    "states",
    "subtask",
    "uninstall_celery_alias",
    "uuid",
    "xmap",
    "xstarmap",
]

# Processes below one with the alias have it too: children of a pool, beat, what unpickles a task.
if _os.environ.get("LITETQ_AS_CELERY"):
    install_as_celery()
