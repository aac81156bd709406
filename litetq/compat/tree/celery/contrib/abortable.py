"""Tasks that look now and then whether they are to stop."""

from __future__ import annotations

from typing import Any

from litetq.result import AsyncResult
from litetq.task import Task

__all__ = ["AbortableAsyncResult", "AbortableTask"]

ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult[Any]):
    """The result of a task that can be asked to stop."""

    def is_aborted(self) -> bool:
        """Return whether it was asked."""
        return self.state == ABORTED

    def abort(self) -> Any:
        """Ask it to stop; it does so when it next looks. A task that has ended is left alone."""
        app: Any = self.app
        return app.engine.update_state(self.id, ABORTED, None, None)


class AbortableTask(Task[..., Any]):
    """The base of such tasks: `is_aborted` is for the body, `AsyncResult` gives who calls it `abort`."""

    abstract = True

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Enqueue a call; its result can be aborted."""
        options.setdefault("result_cls", AbortableAsyncResult)
        return super().apply_async(*args, **options)

    def AsyncResult(self, task_id: str, **options: Any) -> AbortableAsyncResult:
        """Return the result of a call of this task."""
        return AbortableAsyncResult(task_id, app=self.app, **options)

    def is_aborted(self, **kwargs: Any) -> bool:
        """Return whether the call that runs here (or `task_id`) was asked to stop."""
        return self.AsyncResult(kwargs.get("task_id") or self.request.id or "").is_aborted()
