"""What is current: the app, the task, and what to do with each app that comes."""

from __future__ import annotations

from typing import Any

from litetq import app as _app
from litetq import context
from litetq.app import connect_on_app_finalize, current_app, current_task
from litetq.app import current_or_default_app as get_current_app
from litetq.context import get_current_task, set_default_app
from litetq.context import set_current_app as _set_current_app

get_current_worker_task = get_current_task

__all__ = [
    "connect_on_app_finalize", "current_app", "current_task", "get_current_app", "get_current_task",
    "get_current_worker_task", "set_default_app", "_set_current_app",
]  # fmt: skip


class _TaskStack:
    """The tasks that run in this context, the innermost on top."""

    def __init__(self) -> None:
        self._pushed: list[tuple[Any, Any]] = []

    @property
    def stack(self) -> list[Any]:
        """All of them, outermost first."""
        return [task for task, _ in context._running.get()]

    @property
    def top(self) -> Any:
        """The innermost, or None."""
        return context.get_current_task()

    def push(self, task: Any) -> None:
        """Make a task the one that runs here."""
        self._pushed.append((task, context.enter(task, context.Context())))

    def pop(self) -> Any:
        """Undo the last `push`; return the task, or None."""
        if not self._pushed:
            return None
        task, token = self._pushed.pop()
        context.leave(token)
        return task

    def __len__(self) -> int:
        return len(self.stack)


_task_stack = _TaskStack()


def _get_active_apps() -> set[Any]:
    return set(_app._apps)


def _announce_app_finalized(app: Any) -> None:
    app.finalize()
