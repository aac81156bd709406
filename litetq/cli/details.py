"""One task whole: what it was called with, when what happened to it, each attempt with its error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from litetq import clock
from litetq.browse import Browse
from litetq.cli.tasks import arguments, as_dict, in_words, outcome
from litetq.cli.text import Paper, ago, iso, runtime, visible

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.browse import Found
    from litetq.message import Record


class Details:
    """What the file knows of one task, with its arguments and result whole."""

    def __init__(self, app: LiteTQ, record: Record) -> None:
        found = Browse(app.engine.database).by_ids([record.id])[record.id]
        self.record = record
        self.task: Found = found._replace(body=record.body, result=record.result)
        self.attempts: list[dict[str, Any]] = app.engine.store.records.attempts_of(record.id)

    def lines(self, sheet: Paper) -> Iterator[str]:
        task, now = self.task, clock.now()
        yield f"{sheet.paint(visible(task.name or '?'), 'bold')}  {sheet.paint(task.label, task.label)}"
        facts = {
            "id": visible(task.id),
            "queue": visible(task.queue or "-") + (" (paused)" if task.paused else ""),
            "sent": _point(task.sent_at, now),
            "due": _point(task.due_at, now),
            "started": _point(task.started_at, now),
            "ended": _point(task.done_at, now)
            + (f", after {runtime(task.runtime)}" if task.runtime is not None else ""),
            "worker": visible(task.worker or ""),
            "retries": str(task.retries or ""),
            "parent": visible(self.record.parent_id or ""),
            "arguments": arguments(task),
            "error" if self._has_failed() else "result" if task.place == "DONE" else "said": outcome(task),
            "reason": visible(self.record.reason or "") + (" (dead letter)" if task.dead else ""),
        }
        for name, value in facts.items():
            if value:
                yield f"  {name:<10} {value}"
        yield from self._attempt_lines(now)
        if self.record.traceback:
            yield "  traceback"
            yield from (f"    {visible(line)}" for line in self.record.traceback.rstrip().splitlines())

    def _has_failed(self) -> bool:
        return self.task.place == "DONE" and self.task.state in ("FAILURE", "REVOKED")

    def _attempt_lines(self, now: float) -> Iterator[str]:
        for place, attempt in enumerate(self.attempts):
            error = attempt["error"]
            what = "" if error is None else in_words(error, attempt["error_type"], len(error))
            by = f" on {visible(attempt['worker'])}" if attempt["worker"] else ""
            when = _point(attempt["ended_at"], now)
            yield f"  {'' if place else 'attempts':<10} {attempt['attempt']}. {attempt['outcome']} {when}{by} {what}".rstrip()

    def as_dict(self, workflow: Sequence[Record]) -> Mapping[str, Any]:
        """Return it for JSON, with the other tasks of its workflow."""
        return {
            **as_dict(self.task),
            "parent": self.record.parent_id,
            "root": self.record.root_id,
            "traceback": self.record.traceback,
            "reason": self.record.reason,
            "attempts": [
                {
                    "attempt": attempt["attempt"],
                    "outcome": attempt["outcome"],
                    "worker": attempt["worker"],
                    "ended": iso(attempt["ended_at"]),
                    "error": None
                    if attempt["error"] is None
                    else in_words(attempt["error"], attempt["error_type"], len(attempt["error"])),
                    "traceback": attempt["traceback"],
                }
                for attempt in self.attempts
            ],
            "workflow": [
                {"id": each.id, "name": each.name, "state": each.state, "place": each.place, "parent": each.parent_id}
                for each in workflow
                if each.id != self.record.id
            ],
        }


def _point(seconds: float | None, now: float) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S} ({ago(seconds, now)})"
