"""Signals: those of `litetq.signals`, and one that Celery has beside."""

from __future__ import annotations

from typing import Any

from litetq import signals
from litetq.compat.mirror import mirror


class _TaskSent(signals.Signal):
    """Follows `after_task_publish` from the moment when somebody listens."""

    def _connect(self, *args: Any, **options: Any) -> Any:
        signals.after_task_publish.connect(self._follow, weak=False)
        return super()._connect(*args, **options)

    def _follow(self, sender: Any, headers: Any, body: Any, **_: Any) -> None:
        args, kwargs, _embed = body
        self.send(
            sender=sender,
            task_id=headers["id"],
            task=sender,
            args=args,
            kwargs=kwargs,
            eta=headers["eta"],
            taskset=headers["group"],
        )


task_sent = _TaskSent({"task_id", "task", "args", "kwargs", "eta", "taskset"}, name="task_sent")

mirror(__name__, signals)
