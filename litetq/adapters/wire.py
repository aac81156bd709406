"""The engine of a broker: a private file for what this process holds, and the wire that it comes from and its ends go to.

`WireEngine` sends, reads results and tells workers. A worker takes a `WireSeat`: what it claims are rows of the private file, which
a `Courier` fills with what the broker delivers, not more than the worker has places for (and what is due later, which waits there).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from litetq import clock, states
from litetq.adapters import baton
from litetq.adapters.broker import Broker
from litetq.adapters.courier import Courier
from litetq.adapters.metas import Codec
from litetq.adapters.performing import Held, Performing
from litetq.adapters.post import USUAL, Naming, Post
from litetq.adapters.protocol import EMBED, ERRBACK_OF
from litetq.adapters.results import PatientWatch, ResultStore, StoreWatch
from litetq.adapters.unfold import Program
from litetq.engine import EVENTS, FileEngine, Seat
from litetq.exceptions import ImproperlyConfigured, NotOnRecord
from litetq.lanes import OwnPace
from litetq.mailbox import Event, sent
from litetq.message import Delivery, Disposition, Message, Outcome, Plan, Record, Role, Taken
from litetq.timetable import Entry, Fired, Firing, Run
from litetq.wake import Waiter

beat_logger = logging.getLogger("celery.beat")

KEPT_S: Final = 60.0  # that the private file remembers what has ended: its results are elsewhere


class WireEngine(FileEngine):
    """A broker and a result backend, seen from one process. Nothing is connected before the first use.

    Args:
        broker: URL, as kombu takes it.
        results: returns the place of results, given the broker.
        codec: how results are written.
        program: what the app knows of workflows and tasks.
        transport_options: kombu's.
        connecting: what kombu's Connection takes besides.
        broker_options: what `Broker` takes besides.
        naming: exchanges and queues of remote control and events.
        prefetch: messages that a worker holds, for each task that it runs at a time.
        options: as for FileEngine, of the private file.
    """

    def __init__(
        self,
        broker: str,
        results: Callable[[Broker], ResultStore],
        program: Program,
        *,
        codec: Codec,
        transport_options: Mapping[str, Any] = {},
        connecting: Mapping[str, Any] = {},
        broker_options: Mapping[str, Any] = {},
        naming: Naming = USUAL,
        prefetch: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(None, **{**options, "result_expires": KEPT_S, "failure_expires": KEPT_S})
        self.transport = broker.partition(":")[0]
        self.program = program
        self.prefetch = max(1, prefetch)
        self.broker = Broker(broker, transport_options, connecting, **broker_options)
        self.archive = results(self.broker)
        self.performing = Performing(self.broker, self.archive, program, codec)
        self._waiting = threading.local()  # the watch that is open in this thread
        self.post_office = Post(self.broker, naming)
        self._baton: baton.Baton | None = None  # of an app's beat, once there is one
        self._owner = ""  # that app
        self._is_leading: bool | None = None

    knows_workers = False  # a broker does not know who listens: they are asked

    @property
    def shown(self) -> str:
        return self.broker.shown

    @property
    def results_shown(self) -> str:
        return f"the results at {self.archive.shown}"

    @property
    def place(self) -> str:
        return self.broker.url

    def close(self) -> None:
        self.post_office.close()
        if self._baton is not None:
            self._baton.drop()
        self.broker.close()
        self.archive.close()
        super().close()

    # -- Sender

    def send(self, plan: Plan, *, durability: str | None = None) -> bool:
        """Publish the plan; when this returns, the broker has all of it.

        Raises OperationalError when the broker cannot be reached; of a plan of several messages the first may have been sent.
        """
        if plan.if_new:
            raise ImproperlyConfigured(
                "if_new asks whether a task is known, and a broker does not know its tasks; leave it out, or use litetq's file"
            )
        self.performing.send(plan)
        if self.sends_events:
            now = clock.now()
            self.write_events([sent(message, now) for message in plan.messages])
        return True

    def fire(self, entry: Entry, firing: Firing, run: Run | None) -> Fired | None:
        """Send the run of an entry, then note it in the private file, and for whoever leads after this beat (`baton.py`)."""
        if self._baton is not None and not self._baton.is_held():
            return None
        fired = super().fire(entry, firing, self._sent_run(run))
        self._note_schedule()
        return fired

    def lead(self, owner: str) -> bool:
        """Return whether this beat is the one that sends; where it begins to be, it goes on where the one before it was."""
        if self._baton is None:
            self._baton, self._owner = baton.open(self.broker, owner), owner
        grip = self._baton.hold()
        if grip.is_held is not self._is_leading:
            self._is_leading = grip.is_held
            beat_logger.info("beat: this one leads" if grip.is_held else "beat: another one leads, this one waits")
        if grip.note is not None:
            self.timetable.recall(owner, grip.note)
        return grip.is_held

    def _note_schedule(self) -> None:
        if self._baton is not None:
            self._baton.note(self.timetable.memory(self._owner))

    def release_waiting(self, entry: Entry, run: Run | None) -> Entry | None:
        released = super().release_waiting(entry, self._sent_run(run))
        self._note_schedule()
        return released

    def run_now(self, name: str, run: Run) -> Entry | None:
        return super().run_now(name, self._sent_run(run) or run)

    def _sent_run(self, run: Run | None) -> Run | None:
        for plan in () if run is None else run.plans:
            self.send(plan)
        return None if run is None else run._replace(plans=())

    def is_member(self, delivery: Delivery) -> bool:
        embed = json.loads(delivery.headers).get(EMBED) if delivery.headers else None
        return bool(embed and embed["chord"])

    def keep(self, message: Message) -> None:
        """Put what the broker delivered into the private file, and wake the worker."""
        super().send(Plan((message,)))

    def ends_of(self, ids: list[str]) -> dict[str, Record]:
        """Return what the private file has on record of these."""
        return self.store.records.read_many(ids)

    def forget_end(self, id: str) -> None:
        """Let a task be unknown to the private file: its end is on the wire. That it was revoked is remembered, by all that may come."""
        ended = self.store.records.read(id)
        self.store.records.forget([id])
        if ended is not None and ended.reason not in ("expired", "purged"):
            self.store.revoke([id], ended.reason or "revoked", clock.now())

    def drop_waiting(self, queue: str | None = None) -> None:
        super().purge(None if queue is None else [queue])

    # -- Results

    def read(self, id: str) -> Record | None:
        return self.read_many([id]).get(id)

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return what is on record. A thread that waits goes on waiting for some time while the place of results is away."""
        waiting: PatientWatch | None = getattr(self._waiting, "watch", None)
        if waiting is None:
            return self.archive.read_many(list(ids))
        return waiting.read(lambda: self.archive.read_many(list(ids)))

    def finished(self, id: str) -> Record | None:
        record = self.read(id) if self.archive.is_shared else None  # what others were told is not known here
        return record if record is not None and record.state in states.READY_STATES else None

    def relatives(self, id: str) -> list[Record]:
        record = self.read(id)
        return [] if record is None else [record]

    def run_again(self, ids: Sequence[str]) -> int:
        raise NotOnRecord(
            f"Task {ids[0]} cannot be run again from its record: the broker {self.shown} keeps no task that has ended. "
            "Send it anew, with its arguments."
        )

    def watch(self, ids: Sequence[str] | None = None) -> StoreWatch:  # type: ignore[override]
        return PatientWatch(self.archive.watch(), self._waiting)

    def forget(self, ids: Iterable[str]) -> int:
        return self.archive.forget(ids)

    def cleanup(self) -> int:
        """Remove what has expired, where the place of results does not do so by itself."""
        return self.archive.cleanup()

    def store_record(self, record: Record, expires_at: float | None, *, claim: int | None = None) -> None:
        is_end = record.state in states.READY_STATES
        self.archive.write(record._replace(done_at=record.done_at or (clock.now() if is_end else None)))

    def update_state(
        self,
        id: str,
        state: str,
        data: bytes | None,
        content_type: str | None,
        *,
        claim: int | None = None,
        started: bool = False,
        traceback: str | None = None,
    ) -> bool:
        """Store a state. What is on record as a success stays; no claim number guards it."""
        reply_to = self.program.reply_to(id)
        if not started and self.archive.is_shared:
            known = self.finished(id)
            if known is not None and known.state == states.SUCCESS:
                return False
        headers = None if reply_to is None else json.dumps({"reply_to": reply_to})
        self.archive.write(Record(id, state, "CLAIMED", data, content_type, traceback, headers=headers))
        return True

    def complete_chord(self, request: Any, body: Mapping[str, Any], members: Sequence[Any]) -> bool:
        """Send the body of a chord whose members have all ended; False while some have not. `request` is of the task that asks."""
        last = Message(request.id, request.task, b"", None, root_id=request.root_id, parent_id=request.parent_id)
        return self.performing.complete_chord(last, dict(body), members)

    def has_worker(self) -> bool:
        """A broker does not know who listens: somebody may."""
        return True

    # -- ControlBus

    def purge(self, queues: Sequence[str] | None = None) -> int:
        return self.broker.purge(queues if queues is not None else self.broker.queues.names())

    def bind(
        self, queue: str, exchange: Any = None, exchange_type: str | None = None, routing_key: str | None = None
    ) -> None:
        if exchange:
            self.broker.queues.bind(queue, getattr(exchange, "name", exchange), exchange_type, routing_key)

    def about_queue(self, name: str, worker: str) -> Mapping[str, Any] | None:
        served = self.broker.queues.served(frozenset((name,)), worker)
        return served[name].as_dict(recurse=True) if name in served else {}

    def post(self, ticket: str | None, command: str, lifetime: float) -> int:
        """Give a command to all workers; their answers come into the private file for as long as `lifetime`."""
        answered = None if ticket is None else lambda node, value: self._answered(ticket, node, value, lifetime)
        self.post_office.broadcast(json.loads(command), ticket, answered)
        return 0

    def _answered(self, ticket: str, node: str, value: Any, lifetime: float) -> None:
        super().reply(ticket, hash(node) >> 1, node, json.dumps(value), lifetime)

    def reply(self, ticket: str, worker: int, node: str, answer: str, lifetime: float) -> None:
        self.post_office.answer(ticket, node, json.loads(answer))

    def hear(self, ticket: str | None, command: Mapping[str, Any], lifetime: float) -> None:
        """Give a command that came over the wire to the worker of this process."""
        super().post(ticket, json.dumps(command), lifetime)

    def mail_waiter(self, what: int) -> Waiter:
        if what & EVENTS:
            self.post_office.hear_events(super().write_events)
        return super().mail_waiter(what)

    def write_events(self, events: Sequence[Event]) -> None:
        for event in events:
            self.post_office.tell_event(event)

    # -- a worker

    def seat(
        self,
        name: str,
        *,
        queues: frozenset[str] | None = None,
        info: Mapping[str, Any] | None = None,
        pace: OwnPace | None = None,
    ) -> WireSeat:
        return WireSeat(self, name, queues, dict(info or {}), pace)


class WireSeat(Seat):
    """A worker's place: at the private file, and through a courier at the broker."""

    engine: WireEngine

    def __init__(
        self,
        engine: WireEngine,
        name: str,
        queues: frozenset[str] | None,
        info: dict[str, Any],
        pace: OwnPace | None = None,
    ) -> None:
        super().__init__(engine, name, queues, info, pace)
        places = int(info.get("places") or info.get("concurrency") or 1) * engine.prefetch
        self._courier = Courier(engine.broker, engine, engine.performing, name, queues or frozenset(), places)
        self._claimed: dict[int, Held] = {}
        engine.performing.node = name
        self._courier.start()
        self._stop_listening = engine.post_office.listen(name, engine.hear)

    def serve(self, queues: frozenset[str], waiter: Any) -> None:
        super().serve(queues, waiter)
        self._courier.serve(queues)

    def take(self, free: int, outcomes: Sequence[Outcome] = (), events: Sequence[tuple[int, Event]] = ()) -> Taken:
        """Perform the outcomes on the wire, and claim up to `free` tasks of those that were delivered.

        Raises OperationalError when the wire cannot be used; then none of the outcomes counts as settled, and what was done
        of them is not done again.
        """
        local = []
        refused: dict[int, bool] = {}  # claim -> whether the broker is to deliver it again
        for outcome in outcomes:
            held = self._claimed.get(outcome.claim)
            if (
                held is not None and outcome.disposition != Disposition.RELEASE
            ):  # which goes back to those that wait here
                requeue = None if held.is_acked else _refusal(outcome)
                if requeue is not None:
                    refused[outcome.claim] = requeue
                if not requeue:
                    self.engine.performing.perform(held, outcome)
                outcome = _dropped(outcome)
            local.append(outcome)
        taken = super().take(free, local, ())
        for outcome in local:
            held = self._claimed.pop(outcome.claim, None)
            if held is None:
                continue
            if outcome.claim in refused:
                self._courier.give_back(held, requeue=refused[outcome.claim])
            elif outcome.disposition == Disposition.IGNORE:
                self._courier.done(held)
            else:
                self._courier.put_back(held)
        if events:
            self.engine.write_events([event for claim, event in events if claim not in taken.lost])
        begun = [(delivery, self._begun_delivery(delivery)) for delivery in taken.deliveries]
        gone = [_taken_back(delivery) for delivery, own in begun if own is None]
        if gone:
            super().take(0, gone)
        return taken._replace(deliveries=[own for _, own in begun if own is not None])

    def _begun_delivery(self, delivery: Delivery) -> Delivery | None:
        """Return a delivery as the pool gets it; None when the broker has taken the task back meanwhile."""
        held = self._courier.claim(delivery.id)
        if held is None:
            return None
        self._claimed[delivery.claim] = held
        if not self.engine.program.acks_late(delivery.name):
            self._courier.acknowledge(held, at_once=True)
        if not held.embed.is_empty:
            delivery = delivery._replace(linked=1)
        if (held.delivered.delivery_info or {}).get("redelivered"):
            delivery = delivery._replace(deliveries=max(1, delivery.deliveries))
        failed = (held.headers.get("headers") or {}).get(ERRBACK_OF)
        if failed is not None:
            delivery = delivery._replace(role=Role.ERRBACK, input=(None, json.dumps({"id": failed}).encode()))
        return delivery

    def has_unfinished(self) -> bool:
        return super().has_unfinished() or not self._courier.is_idle()

    def leave(self) -> int:
        """Give back to the broker what was not begun, and be gone."""
        self._stop_listening()
        self._courier.stop()
        return super().leave()


def _refusal(outcome: Outcome) -> bool | None:
    """Return whether the message of a begun task is to come again (True) or is refused for good; None: it is acknowledged."""
    if outcome.disposition in (Disposition.REQUEUE, Disposition.INTERRUPT):
        return True
    return False if outcome.disposition == Disposition.FAIL and outcome.dead is not None else None


def _taken_back(delivery: Delivery) -> Outcome:
    return Outcome(delivery.claim, delivery.seq, delivery.id, Disposition.IGNORE, states.IGNORED)


def _dropped(outcome: Outcome) -> Outcome:
    """Return the end that the private file records of a task whose end is on the wire."""
    return outcome._replace(
        disposition=Disposition.IGNORE, state=states.IGNORED, result=None, traceback=None, children=None,
        due_at=None, message=None, plan=None, linked=0, value=None, dead=None,
    )  # fmt: skip
