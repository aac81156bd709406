"""How the end of a task is performed on a wire: in one fixed order, each step idempotent.

    success: what follows is published -> the result is stored -> the part of a chord is counted -> the message is acknowledged
    failure: the result is stored (errbacks read it) -> errbacks are published -> the part is counted -> acknowledged

The engine acknowledges; here is what comes before. A step that was done is not done again while this process lives; after a
crash the task is delivered again, and everything is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from litetq import clock, serialization, states
from litetq.adapters.broker import Broker
from litetq.adapters.protocol import ERRBACK_OF, NOTHING, Embed, wrap
from litetq.adapters.redis import Part, RedisResults, meta_of
from litetq.adapters.unfold import Program, Unfolded, unfold
from litetq.exceptions import ChordError, ImproperlyConfigured, OperationalError
from litetq.message import SELF, Disposition, Message, Outcome, Plan

_CANVASES: Final = ("celery.chain", "celery.group", "celery.chord", "celery.chunks")
_FINAL: Final = (Disposition.COMPLETE, Disposition.FAIL, Disposition.REVOKE)


class Held:
    """A task that the broker delivered, until its message is acknowledged; which steps of its end are done."""

    __slots__ = ("delivered", "due_at", "embed", "has_ended", "is_acked", "is_adopted", "message", "steps", "token")

    def __init__(self, message: Message, embed: Embed, delivered: Any) -> None:
        self.message = message
        self.embed = embed
        self.delivered = delivered  # kombu's message
        self.due_at = message.due_at
        self.is_acked = False
        self.is_adopted = False  # it came over a connection that is gone
        self.has_ended = False
        self.steps: set[str] = set()
        self.token = uuid4().hex  # who counts its part of a chord, and sends the body

    @property
    def headers(self) -> dict[str, Any]:
        return json.loads(self.message.headers) if self.message.headers else {}


class Performing:
    """Publishes plans, and performs the ends of tasks."""

    def __init__(self, broker: Broker, results: RedisResults, program: Program) -> None:
        self.broker = broker
        self.results = results
        self.program = program

    # -- sending

    def send(self, plan: Plan) -> None:
        """Publish what of a plan can start now, with the rest embedded; chords are counted from now on.

        Messages go one after another: where the broker fails in between, the first ones are sent, and OperationalError is raised.
        """
        if any(link.source < 0 for link in plan.links) or any(
            join.body is not None and join.body < 0 for join in plan.joins
        ):
            raise ImproperlyConfigured(
                "what a running task adds to its own callbacks, errbacks or chord cannot be told to a broker: "
                "it is embedded in the message already; use self.replace(), or litetq's file"
            )
        self._publish(unfold(plan, self.program.views))

    def _send_along(self, held: Held, plan: Plan) -> None:
        """Send what a task decided while it ran; what it added to its chord is counted there from now on."""
        added = [member for join in plan.joins if join.body == SELF for member in join.members]
        if not added:
            self.send(plan)
            return
        rest = plan._replace(joins=tuple(join for join in plan.joins if join.body != SELF))
        group = held.headers["group"]
        ids = {plan.messages[place].id for place in added}
        unfolded = unfold(rest, self.program.views)
        if not ids <= {message.id for message, _ in unfolded.parcels}:
            raise ImproperlyConfigured(
                f"task {held.message.name}[{held.message.id}] added a chain to its chord; over a broker, add single tasks"
            )
        self.results.add_members(group, len(ids))
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
        for group, size in unfolded.chords:
            self.results.open_chord(group, size)
        for message, embed in unfolded.parcels:
            self.publish(message, embed)

    def publish(self, message: Message, embed: Embed) -> None:
        self.broker.publish(wrap(message, self.program.headers(message), embed))

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
            if outcome.result is not None:
                self._once(held, "stored", lambda: self._store(held, outcome))
            self._once(held, "counted", lambda: self._count(held, outcome))
        elif disposition in (Disposition.FAIL, Disposition.REVOKE):
            self._once(held, "stored", lambda: self._store(held, outcome))
            self._once(held, "followed", lambda: self._tell_errbacks(held.embed.errbacks, held.message, outcome))
            self._once(held, "counted", lambda: self._count(held, outcome))
            self._once(held, "ended the chain", lambda: self._end_chain(held, outcome))

    def _once(self, held: Held, step: str, do: Any) -> None:
        if step not in held.steps:
            do()
            held.steps.add(step)

    def _store(self, held: Held, outcome: Outcome) -> None:
        self.results.write(
            outcome.id,
            meta_of(
                outcome.state,
                self._json(outcome),
                traceback=outcome.traceback,
                children=outcome.children,
                done_at=clock.now() if outcome.state in states.READY_STATES else None,
                group=held.headers.get("group"),
                parent_id=held.message.parent_id,
            ),
        )

    def _json(self, outcome: Outcome) -> bytes | None:
        data = outcome.result if outcome.result is not None else outcome.value
        if data is None or outcome.content_type is None:
            return data
        raise ImproperlyConfigured(
            f"the result of task {outcome.id} is written as {outcome.content_type}; results in Redis are JSON here: "
            'set result_serializer = "json" and no result_compression'
        )

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
        self._store(held, outcome)

    # -- what follows

    def _follow(self, held: Held, outcome: Outcome) -> None:
        embed = held.embed
        if not embed.callbacks and not embed.chain:
            return
        data = self._json(outcome)
        value = None if data is None else serialization.decode(data, None)
        ids = (held.message.root_id or held.message.id, held.message.id)
        for sig in embed.callbacks or ():
            self.send(self.program.expand(sig, [value], ids))
        if embed.chain:
            self._go_on(embed.chain, value, ids)

    def _go_on(self, chain: Sequence[dict[str, Any]], value: Any, ids: tuple[str | None, str | None]) -> None:
        """Publish the next step of a chain, which stands last, with the others embedded."""
        step, rest = chain[-1], list(chain[:-1])
        if step["task"] in _CANVASES:
            steps = [step, *reversed(rest)]
            whole = {"task": "celery.chain", "args": [], "kwargs": {"tasks": steps}, "options": {}, "subtask_type": "chain", "immutable": False}  # fmt: skip
            self.send(self.program.expand(whole, [value], ids))
            return
        # A plain step: the rest goes along as it came, so that a long chain is not read at each of its steps.
        self._call(step, [value], ids, Embed(chain=rest or step["options"].get("chain")))

    def _call(
        self, sig: dict[str, Any], args: Sequence[Any], ids: tuple[str | None, str | None], embed: Embed = NOTHING
    ) -> None:
        """Publish a plain signature with its options' chain and chord embedded."""
        unfolded = unfold(self.program.expand(sig, args, ids), self.program.views)
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
        unfolded = unfold(plan._replace(messages=(*before, last)), self.program.views)
        parcels = [
            (message, _joined(embed, held.embed) if message.id == last.id else embed)
            for message, embed in unfolded.parcels
        ]
        if not held.embed.is_empty and all(message.id != last.id for message, _ in parcels):
            parcels = [(message, _with_tail(embed, last.id, held)) for message, embed in parcels]
        self._publish(unfolded._replace(parcels=parcels))

    # -- failures

    def _tell_errbacks(self, errbacks: Sequence[dict[str, Any]] | None, failed: Message, outcome: Outcome) -> None:
        ids = (failed.root_id or failed.id, failed.id)
        for sig in errbacks or ():
            if not self.program.takes_failure(sig):
                self.send(self.program.expand(sig, [failed.id], ids))
                continue
            # It is told of the request, the exception and the traceback. A worker of ours reads them from the result; one of
            # Celery's is given what can be said in JSON.
            plan = self.program.expand(sig, [failed.id, _text(outcome), outcome.traceback], ids)
            self._publish(
                Unfolded(
                    [
                        (_told_of(message, failed.id), embed)
                        for message, embed in unfold(plan, self.program.views).parcels
                    ],
                    [],
                )
            )

    def _end_chain(self, held: Held, outcome: Outcome) -> None:
        """What came after a failed task fails with it, as in Celery; where it is the member of a chord, that is told."""
        for sig in held.embed.chain or ():
            options = sig.get("options") or {}
            id = options.get("task_id")
            if id is None:
                continue
            failed = outcome._replace(id=id, state=states.FAILURE, children=None)
            self.results.write(
                id,
                meta_of(states.FAILURE, self._json(failed), traceback=outcome.traceback, done_at=clock.now()),
            )
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
        member = held.message
        data = self._json(outcome)
        state = outcome.state if outcome.disposition == Disposition.COMPLETE else states.FAILURE
        part = Part(outcome.id, state, None if data is None else json.loads(data))
        parts = self.results.count_part(group, part, index, held.token)
        if parts is None:
            return
        failed = next((one for one in parts if one.state != states.SUCCESS), None)
        if failed is not None:
            error = serialization.restore_exception(failed.value)
            self._fail_body(held, body, f"Dependency {failed.id} raised {error!r}")
        else:
            try:
                self._send_body(body, parts, (member.root_id or member.id, member.id))
            except OperationalError:
                raise
            except Exception as error:  # wrong arguments, a task that refuses: the member has succeeded all the same
                self._fail_body(held, body, f"Callback error: {error!r}")
        self.results.close_chord(group, held.token)

    def _send_body(self, body: dict[str, Any], parts: Sequence[Part], ids: tuple[str | None, str | None]) -> None:
        values = serialization.decode(json.dumps([one.value for one in parts]).encode(), None)
        if body["task"] in _CANVASES:
            self.send(self.program.expand(body, [values], ids))
        else:
            self._call(body, [values], ids)

    def _fail_body(self, last: Held, body: dict[str, Any], cause: str) -> None:
        """The body of a chord that cannot be called ends as FAILURE(ChordError); its errbacks and what follows are told."""
        data = serialization.encode_exception(ChordError(cause))
        member = last.message
        options = body.get("options") or {}
        id = options.get("task_id") or uuid4().hex
        outcome = Outcome(0, 0, id, Disposition.FAIL, states.FAILURE, data)
        message = member._replace(id=id, name=body["task"], parent_id=member.id)
        held = Held(
            message._replace(
                headers=json.dumps({"group": options.get("group_id"), "group_index": options.get("group_index")})
            ),
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


def _text(outcome: Outcome) -> str:
    try:
        return repr(serialization.restore_exception(json.loads(outcome.result or b"null")))
    except Exception:
        return outcome.state
