"""A broker as either end of what `litetq migrate` carries (`carry.py`).

Messages are taken one after another and held, unacknowledged, over one connection: what is not acknowledged when it closes goes back
to its queue. What workers hold, also those tasks that wait there for their eta, is not seen here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from litetq.adapters.protocol import EMBED, Embed, unwrap
from litetq.adapters.wire import WireEngine
from litetq.carry import Choice, Load
from litetq.exceptions import LiteTQError, OperationalError
from litetq.message import Message, Plan

IN_CHORD: Final = "in chords whose parts are counted where the results are"
UNREADABLE: Final = "in messages that are no tasks of Celery's protocol 2"


class WireSource:
    """Queues of a broker whose tasks are carried away.

    Args:
        queues: their names there.
        expands: whether what waits for a task goes as tasks of their own, as a file has them; else embedded, as it came.
    """

    def __init__(self, engine: WireEngine, queues: Sequence[str], *, expands: bool) -> None:
        self._engine = engine
        self._queues = list(queues)
        self._expands = expands
        self._why: Counter[str] = Counter()
        self._connection = engine.broker.connection()
        self._kept: list[Any] = []  # that go back to their queues in the end
        try:
            engine.broker.open(self._connection)
        except engine.broker.errors(self._connection) as error:
            self._connection.release()
            raise OperationalError(
                f"the broker {engine.broker.shown} cannot be used ({error}); is it running?"
            ) from error
        self._channel = self._connection.channel()

    def take(self, count: int, choice: Choice) -> list[Load]:
        loads: list[Load] = []
        for queue in self._queues:
            while len(loads) < count:
                delivered = self._next(queue)
                if delivered is None:
                    break
                load = self._load(queue, delivered, choice)
                if load is None:
                    self._kept.append(delivered)
                else:
                    loads.append(load)
        return loads

    def _next(self, queue: str) -> Any:
        try:
            return self._engine.broker.queues[queue](self._channel).get(no_ack=False)
        except self._connection.channel_errors:  # there is no such queue; AMQP closes the channel for the question
            self._channel = self._connection.channel()
            return None
        except self._engine.broker.errors(self._connection) as error:
            raise OperationalError(f"the broker {self._engine.broker.shown} cannot be used ({error})") from error

    def _load(self, queue: str, delivered: Any, choice: Choice) -> Load | None:
        properties = delivered.properties or {}
        try:
            message, embed = unwrap(
                delivered.headers or {},
                delivered.body,
                delivered.content_type,
                queue=queue,
                priority=int(properties.get("priority") or 0),
                properties=properties,
                scale=self._engine.broker.scale,
            )
        except LiteTQError:
            self._why[UNREADABLE] += 1
            return None
        plan = Plan((message,))
        if not choice.takes(plan):
            return None
        if not self._expands:
            return Load(plan, delivered, embed)
        if embed.chord or any(_counts(step) for step in embed.chain or ()):
            self._why[IN_CHORD] += 1
            return None
        return Load(self._expanded(plan, embed), delivered)

    def _expanded(self, plan: Plan, embed: Embed) -> Plan:
        """Return a task, and what waits for it, as tasks of their own."""
        [message] = plan.messages
        message = _without_embed(message)
        if embed.is_empty:
            return plan._replace(messages=(message,))
        options = {"task_id": message.id, "queue": message.queue, "link": embed.callbacks, "link_error": embed.errbacks}
        first: dict[str, Any] = {
            "task": message.name,
            "args": [],
            "kwargs": {},
            "options": options,
            "subtask_type": None,
            "immutable": True,
        }
        steps = [first, *reversed(embed.chain or ())]
        whole = first if len(steps) == 1 else {
            "task": "celery.chain", "args": [], "kwargs": {"tasks": steps}, "options": {}, "subtask_type": "chain", "immutable": False,
        }  # fmt: skip
        found = self._engine.program.expand(whole, [], (message.root_id, message.parent_id))
        return found._replace(
            messages=tuple(message if one.id == message.id else one for one in found.messages), if_new=False
        )

    def done(self, load: Load) -> None:
        try:
            load.ticket.ack()
        except self._engine.broker.errors(self._connection) as error:
            raise OperationalError(
                f"the broker {self._engine.broker.shown} cannot be used ({error}); what was carried last is in both places"
            ) from error

    def give_back(self, loads: Sequence[Load]) -> None:
        self._kept += [load.ticket for load in loads]

    def stays(self) -> Mapping[str, int]:
        return self._why

    def waiting(self, choice: Choice) -> Mapping[str, int]:
        found = {}
        for queue in self._queues:
            try:
                found[queue] = int(
                    self._engine.broker.queues[queue](self._channel).queue_declare(passive=True).message_count
                )
            except self._connection.channel_errors:
                self._channel = self._connection.channel()
        return found

    def close(self) -> None:
        """Let all that is still held go back to its queue."""
        try:
            for delivered in self._kept:
                delivered.requeue()
            self._connection.release()
        except self._engine.broker.errors(self._connection) as error:
            raise OperationalError(f"the broker {self._engine.broker.shown} cannot be used ({error})") from error


def _counts(step: Mapping[str, Any]) -> bool:
    """Return whether a step of a chain gives its value to a chord that waits already."""
    return bool((step.get("options") or {}).get("chord"))


def _without_embed(message: Message) -> Message:
    headers = json.loads(message.headers) if message.headers else {}
    headers.pop(EMBED, None)
    return message._replace(headers=json.dumps(headers) if headers else None)


class WireTarget:
    """A broker that tasks are carried to. It does not know ids."""

    def __init__(self, engine: WireEngine) -> None:
        self._engine = engine

    def put(self, load: Load) -> None:
        if load.embed is None:
            self._engine.send(load.plan)
        else:
            [message] = load.plan.messages
            self._engine.performing.publish(_without_embed(message), load.embed)


def default_queues(engine: WireEngine) -> list[str]:
    """Return which queues are looked at where none are named: those that the app declares, or its default one."""
    return engine.broker.queues.names()
