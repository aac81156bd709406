"""How the end of a task is performed on a wire: in one fixed order, each step idempotent.

    success: what follows is published -> the result is stored -> the part of a chord is counted -> the message is acknowledged
    failure: the result is stored (errbacks read it) -> errbacks are published -> the part is counted -> acknowledged

The engine acknowledges; here is what comes before. A step that was done is not done again while this process lives; after a
crash the task is delivered again, and everything is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast
from uuid import uuid4

from litetq import clock, serialization, states
from litetq.adapters.broker import Broker
from litetq.adapters.metas import Codec
from litetq.adapters.protocol import ERRBACK_OF, NOTHING, Embed, wrap
from litetq.adapters.results import ASKED, COUNTED, ChordStore, Part, ResultStore
from litetq.adapters.unfold import Chord, Program, Unfolded, unfold
from litetq.exceptions import BackendStoreError, ChordError, ImproperlyConfigured, OperationalError
from litetq.message import SELF, Disposition, Message, Outcome, Plan, Record

logger = logging.getLogger("celery.worker")

_CANVASES: Final = ("celery.chain", "celery.group", "celery.chord", "celery.chunks")
_FINAL: Final = (Disposition.COMPLETE, Disposition.FAIL, Disposition.REVOKE)
UNLOCK: Final = "celery.chord_unlock"  # the task that looks whether the members of a chord have ended
FIRST_ASKED_S: Final = 1  # after the chord is sent; Celery's


class Held:
    """A task that the broker delivered, until its message is acknowledged; which steps of its end are done."""

    __slots__ = (
        "delivered", "due_at", "embed", "has_ended", "is_acked", "is_adopted", "is_identified", "is_lost", "is_requeued", "key",
        "message", "steps", "token",
    )  # fmt: skip

    def __init__(self, message: Message, embed: Embed, delivered: Any) -> None:
        self.message = message
        self.embed = embed
        self.delivered = delivered  # kombu's message
        self.due_at = message.due_at
        self.is_acked = False
        self.is_adopted = False  # it came over a connection that is gone
        self.is_lost = False  # the broker has taken it back, and delivers it once more
        self.is_requeued = False  # it is refused, and to be delivered once more
        self.has_ended = False
        self.steps: set[str] = set()
        self.token = uuid4().hex  # who counts its part of a chord, and sends the body
        sent_as = delivered is not None and (delivered.properties or {}).get("message_id")
        # Tells this message from others; an exchange may put one into several queues, and each of these is run.
        self.key = f"{sent_as or f'{message.id}/{message.retries}'} in {message.queue}"
        # Without an id of its own, a message is known to be the same only where the broker says that it comes again.
        self.is_identified = bool(
            sent_as or (delivered is not None and (delivered.delivery_info or {}).get("redelivered"))
        )

    @property
    def headers(self) -> dict[str, Any]:
        return json.loads(self.message.headers) if self.message.headers else {}


class Performing:
    """Publishes plans, and performs the ends of tasks.

    Args:
        codec: how results are written.
    """

    def __init__(self, broker: Broker, results: ResultStore, program: Program, codec: Codec) -> None:
        self.broker = broker
        self.results = results
        self.program = program
        self.codec = codec
        self.node: str | None = None  # the worker that performs here

    @property
    def _counter(self) -> ChordStore | None:
        """Where the parts of chords are counted; None where they are not."""
        return cast(ChordStore, self.results) if self.results.counting == COUNTED else None

    # -- sending

    def send(self, plan: Plan, *, reply_to: str | None = None) -> None:
        """Publish what of a plan can start now, with the rest embedded; chords are counted from now on.

        Messages go one after another: where the broker fails in between, the first ones are sent, and OperationalError is raised.

        Args:
            reply_to: where results go, of a plan that goes on with what another program sent.
        """
        if any(link.source < 0 for link in plan.links) or any(
            join.body is not None and join.body < 0 for join in plan.joins
        ):
            raise ImproperlyConfigured(
                "what a running task adds to its own callbacks, errbacks or chord cannot be told to a broker: "
                "it is embedded in the message already; use self.replace(), or litetq's file"
            )
        self._publish(unfold(self._addressed(plan, reply_to), self.program.views))

    def _addressed(self, plan: Plan, reply_to: str | None = None) -> Plan:
        """Return the plan with messages that say where their results go, where results are messages."""
        place = reply_to or self.results.reply_to
        if place is None:
            return plan
        return plan._replace(messages=tuple(_replied_to(message, place) for message in plan.messages))

    def _send_along(self, held: Held, plan: Plan) -> None:
        """Send what a task decided while it ran; what it added to its chord is counted there from now on."""
        added = [member for join in plan.joins if join.body == SELF for member in join.members]
        if not added:
            self.send(plan)
            return
        rest = plan._replace(joins=tuple(join for join in plan.joins if join.body != SELF))
        group = held.headers["group"]
        ids = {plan.messages[place].id for place in added}
        unfolded = unfold(self._addressed(rest), self.program.views)
        if not ids <= {message.id for message, _ in unfolded.parcels}:
            raise ImproperlyConfigured(
                f"task {held.message.name}[{held.message.id}] added a chain to its chord; over a broker, add single tasks"
            )
        if self._counter is None:
            raise ImproperlyConfigured(
                f"task {held.message.name}[{held.message.id}] added to its chord, which results at {self.results.shown} cannot "
                "take in; use a redis:// URL as result_backend, or leave add_to_chord out"
            )
        self._counter.add_members(group, len(ids))
        self._publish(
            unfolded._replace(
                parcels=[
                    (_in_group(message, group), embed._replace(chord=held.embed.chord))
                    if message.id in ids
                    else (message, embed)
                    for message, embed in unfolded.parcels
                ]
            )
        )

    def _publish(self, unfolded: Unfolded) -> None:
        for chord in unfolded.chords:
            self._open_chord(chord)
        for message, embed in unfolded.parcels:
            self.publish(message, embed)

    def _open_chord(self, chord: Chord) -> None:
        if self._counter is not None:
            self._counter.open_chord(chord.group, chord.members)
        elif self.results.counting == ASKED:
            self._have_asked(chord)
        else:
            raise ImproperlyConfigured(
                f"a chord (also a group with a task after it) needs a result backend that can count its parts, and "
                f"{self.results.shown} cannot; set result_backend to a redis:// or db+ URL, for example"
            )

    def _have_asked(self, chord: Chord) -> None:
        """Send the task that looks whether the members have ended, and then sends the body. Celery's workers run it, too."""
        options: dict[str, Any] = {"countdown": FIRST_ASKED_S}
        queue = (chord.body.get("options") or {}).get("queue")
        if queue:
            options["queue"] = queue
        members = [[[id, None], None] for id in chord.members]
        sig = {"task": UNLOCK, "args": [chord.group, chord.body], "kwargs": {"result": members}, "options": options, "subtask_type": None, "immutable": False}  # fmt: skip
        self.send(self.program.expand(sig, [], (None, None)))

    def publish(self, message: Message, embed: Embed) -> None:
        self.broker.publish(wrap(message, self.program.headers(message), embed, self.broker.scale))

    # -- the end of a task

    def perform(self, held: Held, outcome: Outcome) -> None:
        """Do all that the end of an attempt asks for, but for acknowledging the message."""
        disposition = outcome.disposition
        if disposition == Disposition.RETRY:
            self._once(held, "sent again", lambda: self._send_again(held, outcome))
        elif disposition in (Disposition.REQUEUE, Disposition.RELEASE, Disposition.INTERRUPT):
            self._once(held, "sent again", lambda: self.publish(_plain(held.message), held.embed))
        elif disposition == Disposition.REPLACE:
            self._once(held, "replaced", lambda: self._replace(held, outcome))
        elif outcome.plan is not None and disposition in _FINAL:
            plan = outcome.plan
            self._once(held, "sent along", lambda: self._send_along(held, plan))
        if disposition == Disposition.COMPLETE:
            self._once(held, "followed", lambda: self._follow(held, outcome))
            if outcome.result is not None or self._is_asked_for(held):
                self._once(held, "stored", lambda: self._store(held, outcome))
            self._once(held, "counted", lambda: self._count(held, outcome))
        elif disposition in (Disposition.FAIL, Disposition.REVOKE):
            self._once(held, "stored", lambda: self._store(held, outcome))
            self._once(held, "followed", lambda: self._tell_errbacks(held, outcome))
            self._once(held, "counted", lambda: self._count(held, outcome))
            self._once(held, "ended the chain", lambda: self._end_chain(held, outcome))

    def _once(self, held: Held, step: str, do: Any) -> None:
        if step not in held.steps:
            do()
            held.steps.add(step)

    def _is_asked_for(self, held: Held) -> bool:
        """Return whether the chord of a member will read its result, whatever ignore_result says."""
        return held.embed.chord is not None and not self.results.keeps_parts

    def _store(self, held: Held, outcome: Outcome) -> None:
        record = self._record(held, outcome)
        if outcome.disposition == Disposition.COMPLETE:
            self.results.write(record)  # a value that is refused fails the task, which says why
        else:
            self._write_or_tell(record)

    def _write_or_tell(self, record: Record) -> None:
        """Put on record that a task has not succeeded; the log says so where even that is refused."""
        try:
            self.results.write(record)
        except BackendStoreError as error:
            logger.error("%s of task %s is on record nowhere: %s", record.state, record.id, error)

    def _record(self, held: Held, outcome: Outcome) -> Record:
        """Return the end of an attempt, or its state on the way, as it goes on record."""
        message = held.message
        is_end = outcome.state in states.READY_STATES
        return Record(
            outcome.id, outcome.state, "DONE" if is_end else "SCHEDULED",
            outcome.result if outcome.result is not None else outcome.value, outcome.content_type, outcome.traceback,
            outcome.children, clock.now() if is_end else None, message.name, message.queue, self.node, message.retries,
            message.parent_id, message.root_id, message.headers, message.body, message.content_type,
        )  # fmt: skip

    def _plain(self, outcome: Outcome) -> Any:
        """Return the value, or the description of the failure, as results have it."""
        data = outcome.result if outcome.result is not None else outcome.value
        return self.codec.plain(data, outcome.content_type)

    def _send_again(self, held: Held, outcome: Outcome) -> None:
        message = held.message if outcome.message is None else outcome.message
        again = _plain(message)._replace(
            id=held.message.id,
            name=held.message.name,
            retries=held.message.retries + 1,
            due_at=outcome.due_at,
            root_id=held.message.root_id,
            parent_id=held.message.parent_id,
        )
        self.publish(again, held.embed)
        if outcome.result is not None and not held.headers.get("ignore_result"):
            self._store(held, outcome)

    # -- what follows

    def _follow(self, held: Held, outcome: Outcome) -> None:
        embed = held.embed
        if not embed.callbacks and not embed.chain:
            return
        value = self.codec.value(self._plain(outcome))
        reply_to = held.headers.get("reply_to")
        for sig in embed.callbacks or ():
            self.send(self.program.expand(sig, [value], _ids(held.message)), reply_to=reply_to)
        if embed.chain:
            self._go_on(embed.chain, value, held)

    def _go_on(self, chain: Sequence[dict[str, Any]], value: Any, held: Held) -> None:
        """Publish the next step of a chain, which stands last, with the others embedded."""
        step, rest = chain[-1], list(chain[:-1])
        if step["task"] in _CANVASES:
            steps = [step, *reversed(rest)]
            whole = {"task": "celery.chain", "args": [], "kwargs": {"tasks": steps}, "options": {}, "subtask_type": "chain", "immutable": False}  # fmt: skip
            self.send(self.program.expand(whole, [value], _ids(held.message)), reply_to=held.headers.get("reply_to"))
            return
        # A plain step: the rest goes along as it came, so that a long chain is not read at each of its steps.
        self._call(step, [value], held, Embed(chain=rest or step["options"].get("chain")))

    def _call(self, sig: dict[str, Any], args: Sequence[Any], after: Held, embed: Embed = NOTHING) -> None:
        """Publish a plain signature, after another task, with its options' chain and chord embedded."""
        plan = self.program.expand(sig, args, _ids(after.message))
        unfolded = unfold(self._addressed(plan, after.headers.get("reply_to")), self.program.views)
        [(message, own), *others] = unfolded.parcels
        options = sig.get("options") or {}
        own = own._replace(
            chain=embed.chain or options.get("chain") or own.chain, chord=options.get("chord") or own.chord
        )
        self._publish(unfolded._replace(parcels=[(message, own), *others]))

    def _replace(self, held: Held, outcome: Outcome) -> None:
        """Publish what takes a task's place: its last message goes under the id of the task, with what waits for it."""
        plan = outcome.plan
        assert plan is not None
        *before, last = plan.messages
        old = held.headers
        headers = {**(json.loads(last.headers) if last.headers else {})}
        headers.update({name: old[name] for name in ("group", "group_index") if name in old})
        last = last._replace(
            id=held.message.id,
            root_id=held.message.root_id,
            parent_id=held.message.parent_id,
            headers=json.dumps(headers) if headers else None,
        )
        plan = self._addressed(plan._replace(messages=(*before, last)), old.get("reply_to"))
        unfolded = unfold(plan, self.program.views)
        parcels = [
            (message, _joined(embed, held.embed) if message.id == last.id else embed)
            for message, embed in unfolded.parcels
        ]
        if not held.embed.is_empty and all(message.id != last.id for message, _ in parcels):
            parcels = [(message, _with_tail(embed, last.id, held)) for message, embed in parcels]
        self._publish(unfolded._replace(parcels=parcels))

    # -- failures

    def _tell_errbacks(self, held: Held, outcome: Outcome) -> None:
        failed, ids = held.message, _ids(held.message)
        for sig in held.embed.errbacks or ():
            if not self.program.takes_failure(sig):
                self.send(self.program.expand(sig, [failed.id], ids), reply_to=held.headers.get("reply_to"))
                continue
            # It is told of the request, the exception and the traceback. A worker of ours reads them from the result, where
            # that can be read by all; others are given what can be said in JSON.
            plan = self.program.expand(sig, [failed.id, self._text(outcome), outcome.traceback], ids)
            parcels = unfold(self._addressed(plan, held.headers.get("reply_to")), self.program.views).parcels
            if self.results.is_shared:
                parcels = [(_told_of(message, failed.id), embed) for message, embed in parcels]
            self._publish(Unfolded(parcels, []))

    def _text(self, outcome: Outcome) -> str:
        try:
            return repr(serialization.restore_exception(self._plain(outcome)))
        except Exception:
            return outcome.state

    def _end_chain(self, held: Held, outcome: Outcome) -> None:
        """What came after a failed task fails with it, as in Celery; where it is the member of a chord, that is told."""
        for sig in held.embed.chain or ():
            options = sig.get("options") or {}
            id = options.get("task_id")
            if id is None:
                continue
            failed = outcome._replace(id=id, state=states.FAILURE, children=None)
            headers = {"reply_to": held.headers.get("reply_to"), "group": options.get("group_id")}
            self._write_or_tell(
                Record(
                    id, states.FAILURE, "DONE", failed.result, failed.content_type, outcome.traceback, done_at=clock.now(),
                    name=sig["task"], parent_id=held.message.id, headers=json.dumps(headers),
                )
            )  # fmt: skip
            if options.get("chord") and options.get("group_id"):
                self._count_part(held, options["group_id"], options.get("group_index"), options["chord"], failed)

    # -- chords

    def _count(self, held: Held, outcome: Outcome) -> None:
        headers = held.headers
        if held.embed.chord and headers.get("group"):
            self._count_part(held, headers["group"], headers.get("group_index"), held.embed.chord, outcome)

    def _count_part(self, held: Held, group: str, index: int | None, body: dict[str, Any], outcome: Outcome) -> None:
        """Count what a member gave; after the last one send the body, or end it where a member failed or it cannot be called.

        The token stays the same while this process tries, so that the body is sent by whoever was first to complete the chord.
        """
        if self._counter is None:
            return  # somebody else looks whether all have ended
        state = outcome.state if outcome.disposition == Disposition.COMPLETE else states.FAILURE
        part = Part(outcome.id, state, self._plain(outcome))
        parts = self._counter.count_part(group, part, index, held.token)
        if parts is not None:
            self._complete(held, body, parts, [one.value for one in parts])
            self._counter.close_chord(group, held.token)

    def complete_chord(self, last: Message, body: dict[str, Any], members: Sequence[Any]) -> bool:
        """Send the body of a chord whose members have all ended, or end it where one has failed; return False while they run.

        Args:
            last: the message of the task that asks; the body comes after it.
            members: as `AsyncResult.as_tuple` of each; a group among them gives one list.
        """
        ids = list(_ids_in(members))
        found = self.results.read_many(ids)
        if any(id not in found or found[id].state not in states.READY_STATES for id in ids):
            return False
        parts = {
            id: Part(id, record.state, self.codec.plain(record.result, record.content_type))
            for id, record in found.items()
        }
        self._complete(Held(last, NOTHING, None), body, [parts[id] for id in ids], _values_of(members, parts))
        return True

    def _complete(self, last: Held, body: dict[str, Any], parts: Sequence[Part], values: list[Any]) -> None:
        failed = next((one for one in parts if one.state != states.SUCCESS), None)
        if failed is not None:
            error = serialization.restore_exception(failed.value)
            self._fail_body(last, body, f"Dependency {failed.id} raised {error!r}")
            return
        try:
            self._send_body(body, self.codec.value(values), last)
        except OperationalError:
            raise
        except Exception as error:  # wrong arguments, a task that refuses: the member has succeeded all the same
            self._fail_body(last, body, f"Callback error: {error!r}")

    def _send_body(self, body: dict[str, Any], values: Any, last: Held) -> None:
        if body["task"] in _CANVASES:
            reply_to = last.headers.get("reply_to")
            self.send(self.program.expand(body, [values], _ids(last.message)), reply_to=reply_to)
        else:
            self._call(body, [values], last)

    def _fail_body(self, last: Held, body: dict[str, Any], cause: str) -> None:
        """The body of a chord that cannot be called ends as FAILURE(ChordError); its errbacks and what follows are told."""
        data = serialization.encode_exception(ChordError(cause))
        member = last.message
        options = body.get("options") or {}
        id = options.get("task_id") or uuid4().hex
        outcome = Outcome(0, 0, id, Disposition.FAIL, states.FAILURE, data)
        headers = {
            "group": options.get("group_id"),
            "group_index": options.get("group_index"),
            "reply_to": last.headers.get("reply_to"),
        }
        message = member._replace(
            id=id,
            name=body["task"],
            parent_id=member.id,
            headers=json.dumps(headers),
            body=json.dumps([body.get("args") or [], body.get("kwargs") or {}]).encode(),
            content_type=None,
        )
        held = Held(
            message,
            Embed(None, options.get("link_error"), options.get("chain"), options.get("chord")),
            None,
        )
        held.token = last.token
        self.perform(held, outcome)


def _plain(message: Message) -> Message:
    """Return a delivered message as it may be sent again."""
    return message._replace(due_at=None)


def _joined(embed: Embed, outer: Embed) -> Embed:
    """Return what waits for a task that takes the place of another: what waits for either."""
    chain = [*(outer.chain or ()), *(embed.chain or ())]
    return Embed(
        [*(embed.callbacks or ()), *(outer.callbacks or ())] or None,
        [*(embed.errbacks or ()), *(outer.errbacks or ())] or None,
        chain or None,
        outer.chord or embed.chord,
    )


def _with_tail(embed: Embed, id: str, held: Held) -> Embed:
    """Add what waits for a replaced task to the end of the chain, or to the body of the chord, that took its place."""
    chain = embed.chain
    last = chain[0] if chain else embed.chord
    if last is None or last["options"].get("task_id") != id:
        raise ImproperlyConfigured(
            f"task {held.message.name}[{id}] was replaced by a workflow whose end is neither a task, a chain of tasks nor a chord: "
            "over a broker, what waits for the task cannot be hung on it"
        )
    options = {**last["options"]}
    outer = held.embed
    options["link"] = [*(options.get("link") or ()), *(outer.callbacks or ())]
    options["link_error"] = [*(options.get("link_error") or ()), *(outer.errbacks or ())]
    old = held.headers
    if outer.chord:
        options.update(chord=outer.chord, group_id=old.get("group"), group_index=old.get("group_index"))
    if chain:
        return embed._replace(chain=[*(outer.chain or ()), {**last, "options": options}, *chain[1:]])
    options["chain"] = outer.chain
    return embed._replace(chord={**last, "options": options})


def _in_group(message: Message, group: str) -> Message:
    """Return the message as a member of a group that comes after those that are numbered."""
    headers = json.loads(message.headers) if message.headers else {}
    headers.pop("group_index", None)
    return message._replace(headers=json.dumps({**headers, "group": group}))


def _told_of(message: Message, failed_id: str) -> Message:
    headers = json.loads(message.headers) if message.headers else {}
    headers["headers"] = {**(headers.get("headers") or {}), ERRBACK_OF: failed_id}
    return message._replace(headers=json.dumps(headers))


def _replied_to(message: Message, place: str) -> Message:
    headers = json.loads(message.headers) if message.headers else {}
    if headers.get("reply_to"):
        return message
    return message._replace(headers=json.dumps({**headers, "reply_to": place}))


def _ids(message: Message) -> tuple[str | None, str | None]:
    """Return the ids of root and parent of what comes after a task."""
    return message.root_id or message.id, message.id


def _ids_in(members: Sequence[Any]) -> Iterator[str]:
    for (id, _), inner in members:
        if inner is None:
            yield id
        else:
            yield from _ids_in(inner)


def _values_of(members: Sequence[Any], parts: Mapping[str, Part]) -> list[Any]:
    return [parts[id].value if inner is None else _values_of(inner, parts) for (id, _), inner in members]
