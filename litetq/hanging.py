"""What hangs on a running task, as Celery shows it: dicts of signatures, made from the rows of the file.

The rows say who waits for whom; the form in which it was written down is gone. So groups within groups are shown flat, and
steps after a chord follow it instead of standing in its body: the same workflow, in other words.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from litetq import serialization
from litetq.message import Kind, Role

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.message import Delivery, Hanging, Waiting

VIEWS: Final = ("chain", "callbacks", "errbacks", "chord")
CALLBACK: Final = "is_callback"  # a header of what was linked to a task by `link`, and is no step of its chain

_OPTIONS_OF_HEADERS: Final = {
    "group": "group_id",
    "group_index": "group_index",
    "ignore_result": "ignore_result",
    "shadow": "shadow",
    "reply_to": "reply_to",
    "stamped_headers": "stamped_headers",
    "headers": "headers",
}


def views_of(app: LiteTQ, delivery: Delivery) -> dict[str, Any]:
    """Return the fields of a request named in VIEWS, None where nothing hangs on the task.

    What came embedded in a message is in the headers of its delivery; else one read of the file tells.
    """
    if delivery.headers is not None and '"embed"' in delivery.headers:
        embed = json.loads(delivery.headers).get("embed")
        if embed is not None:
            return {view: embed.get(view) for view in VIEWS}
    return views_in(app, app.engine.hanging(delivery.seq), delivery.seq)


def views_in(app: LiteTQ, hanging: Hanging, seq: int, *, nests: bool = False) -> dict[str, Any]:
    """Return what hangs on one task of a workflow, as VIEWS names it.

    With `nests`, steps after a chord stand in its body: workers of Celery run them only there.
    """
    view = _View(app, hanging, nests)
    steps, _ = view.steps_after(seq)
    return {
        "chain": steps[::-1] or None,
        "callbacks": view.callbacks(seq) or None,
        "errbacks": view.errbacks(seq) or None,
        "chord": view.body_after(seq),
    }


class _View:
    def __init__(self, app: LiteTQ, hanging: Hanging, nests: bool) -> None:
        self.app = app
        self.hanging = hanging
        self.nests = nests
        self._headers = {
            number: json.loads(task.headers) if task.headers else {} for number, task in self.hanging.tasks.items()
        }

    def steps_after(self, seq: int) -> tuple[list[dict[str, Any]], int | None]:
        """Return the steps of the chain behind a task, in order, and the chord that the last one is a member of."""
        steps: list[dict[str, Any]] = []
        while True:
            following = self._following(seq, is_callback=False)
            if not following:
                join = self._outermost(self.hanging.member_of.get(seq))
                if steps and join is not None and self.hanging.joins[join][0] is not None:
                    steps[-1]["options"]["chord"] = self._body_and_more(join)
                return steps, join
            if len(following) == 1:
                [(seq, kind)] = following
                steps.append(self._signature(seq, kind))
                continue
            members, joins = [], set()
            for target, kind in following:
                rest, join = self.steps_after(target)
                if rest:
                    rest[-1]["options"].pop("chord", None)
                members.append(_canvas([self._signature(target, kind), *rest]))
                joins.add(join)
            join = joins.pop() if len(joins) == 1 else None
            body = None if join is None else self.hanging.joins[join][0]
            if join is None or body is None:
                steps.append(_group(members))
                return steps, None
            sig = self._body(join)
            if self.nests and sig is not None:
                for member in members:
                    _leave_group(member)
                rest, outer = self.steps_after(body)
                if not rest and outer is not None:
                    sig["options"]["chord"] = self._body_and_more(outer)
                steps.append(_of("celery.chord", {"header": _group(members), "body": _canvas([sig, *rest])}, "chord"))
                return steps, outer
            steps.append(_of("celery.chord", {"header": _group(members), "body": sig}, "chord"))
            seq = body

    def callbacks(self, seq: int) -> list[dict[str, Any]]:
        return [
            _canvas([self._signature(target, kind), *self.steps_after(target)[0]])
            for target, kind in self._following(seq, is_callback=True)
        ]

    def errbacks(self, seq: int) -> list[dict[str, Any]]:
        return [
            _canvas([self._signature(target, kind), *self.steps_after(target)[0]])
            for target, kind in self.hanging.links.get(seq, ())
            if kind == Kind.ERRBACK
        ]

    def body_after(self, seq: int) -> dict[str, Any] | None:
        join = self._outermost(self.hanging.member_of.get(seq))
        return None if join is None else self._body_and_more(join)

    def _following(self, seq: int, *, is_callback: bool) -> list[tuple[int, int]]:
        return [
            (target, kind)
            for target, kind in self.hanging.links.get(seq, ())
            if kind != Kind.ERRBACK
            and self.hanging.tasks[target].role != Role.ERRBACK
            and bool(self._headers[target].get(CALLBACK)) is is_callback
        ]

    def _outermost(self, join: int | None) -> int | None:
        while join is not None and self.hanging.joins[join][1] is not None:
            join = self.hanging.joins[join][1]
        return join

    def _body(self, join: int) -> dict[str, Any] | None:
        body, _, size = self.hanging.joins[join]
        if body is None:
            return None
        sig = self._signature(body, Kind.VALUE)
        sig["chord_size"] = size
        return sig

    def _body_and_more(self, join: int) -> dict[str, Any] | None:
        """Return the body of a chord, with the steps that follow it in its options: where no chain around it names them."""
        body = self.hanging.joins[join][0]
        sig = self._body(join)
        if body is not None and sig is not None:
            steps, outer = self.steps_after(body)
            if steps:
                sig["options"]["chain"] = steps[::-1]
            elif outer is not None:
                sig["options"]["chord"] = self._body_and_more(outer)
        return sig

    def _signature(self, seq: int, kind: int) -> dict[str, Any]:
        task, headers = self.hanging.tasks[seq], self._headers[seq]
        args, kwargs = self._arguments(task)
        options: dict[str, Any] = {"task_id": task.id, "queue": task.queue}
        if task.priority:
            options["priority"] = task.priority
        if task.delay is not None:
            options["countdown"] = task.delay
        if task.lifetime is not None:
            options["expires"] = task.lifetime
        options.update((_OPTIONS_OF_HEADERS[name], headers[name]) for name in _OPTIONS_OF_HEADERS if name in headers)
        options.update(headers.get("stamps") or {})
        callbacks, errbacks = self.callbacks(seq), self.errbacks(seq)
        if callbacks:
            options["link"] = callbacks
        if errbacks:
            options["link_error"] = errbacks
        immutable = kind == Kind.AFTER or bool(headers.get("immutable"))
        return _of(task.name, kwargs, None, args, options, immutable)

    def _arguments(self, task: Waiting) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = serialization.loads_args(task.body, task.content_type, self.app.accepted_content)
        return list(args), kwargs


def _of(
    task: str,
    kwargs: dict[str, Any],
    kind: str | None,
    args: list[Any] | None = None,
    options: dict[str, Any] | None = None,
    immutable: bool = False,
) -> dict[str, Any]:
    return {
        "task": task,
        "args": args or [],
        "kwargs": kwargs,
        "options": options or {},
        "subtask_type": kind,
        "immutable": immutable,
    }


def _leave_group(sig: dict[str, Any]) -> None:
    """Take its group from a member of a header: whoever sends the header gives it another one."""
    if sig["subtask_type"] == "chain":
        sig = sig["kwargs"]["tasks"][-1]
    sig["options"].pop("group_id", None)
    sig["options"].pop("group_index", None)


def _group(members: list[dict[str, Any]]) -> dict[str, Any]:
    return _of("celery.group", {"tasks": members}, "group")


def _canvas(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return steps[0] if len(steps) == 1 else _of("celery.chain", {"tasks": steps}, "chain")
