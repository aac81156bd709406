"""The same answers in the form of Flower's HTTP API, for scripts that were written for it.

Points in time are UTC seconds, as there. What Flower gathers from events is read from the file, so it needs neither `-E` nor a
Flower that ran when it happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from litetq import states
from litetq.browse import Found
from litetq.cli.tasks import arguments, outcome
from litetq.cli.text import iso
from litetq.dashboard.answers import FILTERS, Answers, Query, Refused

# Flower's words for what the page calls otherwise.
_NAMES: Final = {"taskname": "name", "search": "text", "received_start": None, "received_end": "before"}
_STATES: Final = {states.STARTED: "running", states.PENDING: "waiting", states.RECEIVED: "waiting"}


def tasks(answers: Answers, query: Query) -> dict[str, Any]:
    """Return tasks by id, those sent last first: `/api/tasks`."""
    if query.get("sort_by"):
        raise Refused(
            "sort_by has no effect here: tasks come in the order in which they were sent, the last one first."
        )
    found, _ = answers.tasks(_as_asked_here(query))
    return {task.id: _task(task) for task in found}


def task(answers: Answers, id: str) -> dict[str, Any] | None:
    """Return one task with its traceback: `/api/task/info/ID`; None where the file does not know it."""
    record = answers.engine.read(id)
    found = answers.browse.by_ids([id]).get(id)
    if record is None or found is None:
        return None
    return {
        **_task(found._replace(body=record.body, result=record.result)),
        "traceback": record.traceback,
        "parent_id": record.parent_id,
        "root_id": record.root_id or id,
    }


def workers(answers: Answers, query: Query) -> dict[str, Any]:
    """Return workers by name: `/api/workers`; with `status=1` only whether each one lives."""
    wanted = query.get("workername")
    found = {worker["name"]: worker for worker in answers.workers() if wanted in (None, "", worker["name"])}
    if wanted and not found:
        raise Refused(f"No worker {wanted!r} is signed on.")
    if query.get("status"):
        return {name: bool(worker["alive"]) for name, worker in found.items()}
    return {name: _worker(worker) for name, worker in found.items()}


def queue_lengths(answers: Answers) -> dict[str, Any]:
    """Return how much waits in each queue: `/api/queues/length`."""
    return {
        "active_queues": [{"name": queue["name"], "messages": queue["waiting"]} for queue in answers.queues() or ()]
    }


def _as_asked_here(query: Query) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in query.items():
        if name == "received_start":
            raise Refused("received_start has no effect here; newer=2h asks for what was sent within two hours.")
        found[_NAMES.get(name) or name] = value
    if "state" in found:
        found["state"] = _STATES.get(found["state"], found["state"])
    if "workername" in found:
        raise Refused(f"workername has no effect here; there are {', '.join(FILTERS)}.")
    return found


def _task(task: Found) -> dict[str, Any]:
    has_failed = task.place == "DONE" and task.state in (states.FAILURE, states.REVOKED)
    ended = {states.SUCCESS: "succeeded", states.FAILURE: "failed", states.REVOKED: "revoked"}
    said = outcome(task) if task.result is not None else None
    return {
        "uuid": task.id,
        "name": task.name,
        "state": states.STARTED if task.label == "RUNNING" else task.state,
        "place": task.place,
        "args": arguments(task),
        "result": None if has_failed else said,
        "exception": said if has_failed else None,
        "received": task.sent_at,
        "started": task.started_at,
        **{name: task.done_at if task.state == state else None for state, name in ended.items()},
        "timestamp": max(at for at in (task.sent_at, task.started_at, task.done_at) if at is not None),
        "runtime": task.runtime,
        "eta": iso(task.due_at),
        "retries": task.retries,
        "worker": task.worker,
        "routing_key": task.queue,
    }


def _worker(worker: Mapping[str, Any]) -> dict[str, Any]:
    since = datetime.fromisoformat(worker["since"]).timestamp()
    return {
        "status": bool(worker["alive"]),
        "active": worker["running"],
        "active_queues": [{"name": name} for name in worker["queues"] or ()],
        "processed": worker["processed"],
        "stats": {
            "pid": worker["pid"],
            "pool": {"implementation": worker["pool"], "max-concurrency": worker["concurrency"]},
        },
        "timestamp": since,
    }
