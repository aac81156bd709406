"""The engine of a broker: a private file for what this process holds, and the wire that it comes from and its ends go to.

`WireEngine` sends, reads results and tells workers. A worker takes a `WireSeat`: what it claims are rows of the private file, which
a `Courier` fills with what the broker delivers, not more than the worker has places for (and what is due later, which waits there).
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from litetq import clock, states
from litetq.adapters.broker import Broker
from litetq.adapters.performing import Held, Performing
from litetq.adapters.post import Post
from litetq.adapters.protocol import EMBED, ERRBACK_OF, args_body, unwrap
from litetq.adapters.redis import RedisResults, RedisWatch, meta_of
from litetq.adapters.unfold import Program
from litetq.engine import EVENTS, FileEngine, Seat
from litetq.exceptions import ImproperlyConfigured, OperationalError, TaskRevokedError
from litetq.lanes import OwnPace
from litetq.mailbox import Event, sent
from litetq.message import JSON, Delivery, Disposition, Message, Outcome, Plan, Record, Role, Taken
from litetq.serialization import encode_exception
from litetq.timetable import Entry, Fired, Firing, Run
from litetq.wake import Waiter

logger = logging.getLogger("celery.worker.consumer")

DRAIN_S: Final = 0.5  # of one wait for messages: how long a stop may take to be seen
BACK_OFF_S: Final = (0.5, 1, 2, 4, 8, 16, 30)  # between tries to reach a broker that is gone
KEPT_S: Final = 60.0  # that the private file remembers what has ended: its results are elsewhere
EXTEND_S: Final = 60.0  # at most, between two times that what is held is shown to be alive


class WireEngine(FileEngine):
    """A broker and a result backend, seen from one process. Nothing is connected before the first use.

    Args:
        broker: URL, as kombu takes it.
        results: URL of a Redis database.
        program: what the app knows of workflows and tasks.
        transport_options: kombu's.
        prefetch: messages that a worker holds, for each task that it runs at a time.
        options: as for FileEngine, of the private file.
    """

    def __init__(
        self,
        broker: str,
        results: str,
        program: Program,
        *,
        transport_options: Mapping[str, Any] = {},
        prefetch: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(None, **{**options, "result_expires": KEPT_S, "failure_expires": KEPT_S})
        self.transport = broker.partition(":")[0]
        self.program = program
        self.prefetch = max(1, prefetch)
        self.broker = Broker(broker, transport_options)
        self.archive = RedisResults(
            results, result_expires=options.get("result_expires"), failure_expires=options.get("failure_expires")
        )
        self.performing = Performing(self.broker, self.archive, program)
        self.post_office = Post(self.broker)

    knows_workers = False  # a broker does not know who listens: they are asked

    @property
    def shown(self) -> str:
        return self.broker.shown

    @property
    def place(self) -> str:
        return self.broker.url

    def close(self) -> None:
        self.post_office.close()
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
        """Send the run of an entry, then note it in the private file: the schedule lives as long as this process."""
        return super().fire(entry, firing, self._sent_run(run))

    def release_waiting(self, entry: Entry, run: Run | None) -> Entry | None:
        return super().release_waiting(entry, self._sent_run(run))

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

    # -- Results

    def read(self, id: str) -> Record | None:
        return self.archive.read_many([id]).get(id)

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        return self.archive.read_many(list(ids))

    def finished(self, id: str) -> Record | None:
        record = self.read(id)
        return record if record is not None and record.state in states.READY_STATES else None

    def relatives(self, id: str) -> list[Record]:
        record = self.read(id)
        return [] if record is None else [record]

    def watch(self) -> RedisWatch:  # type: ignore[override]
        return self.archive.watch()

    def forget(self, ids: Iterable[str]) -> int:
        return self.archive.forget(ids)

    def cleanup(self) -> int:
        """Results in Redis expire by themselves."""
        return 0

    def store_record(self, record: Record, expires_at: float | None, *, claim: int | None = None) -> None:
        self.archive.write(
            record.id,
            meta_of(
                record.state,
                record.result,
                traceback=record.traceback,
                children=record.children,
                done_at=record.done_at or (clock.now() if record.state in states.READY_STATES else None),
            ),
        )

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
        if not started:
            known = self.finished(id)
            if known is not None and known.state == states.SUCCESS:
                return False
        self.archive.write(id, meta_of(state, data, traceback=traceback))
        return True

    def has_worker(self) -> bool:
        """A broker does not know who listens: somebody may."""
        return True

    # -- ControlBus

    def purge(self, queues: Sequence[str] | None = None) -> int:
        return self.broker.purge(queues or ())

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
        places = int(info.get("concurrency") or 1) * engine.prefetch
        self._courier = Courier(engine, name, queues or frozenset(), places)
        self._claimed: dict[int, Held] = {}
        self._courier.start()
        engine.post_office.listen(name, engine.hear)

    def serve(self, queues: frozenset[str], waiter: Any) -> None:
        super().serve(queues, waiter)
        self._courier.serve(queues)

    def take(self, free: int, outcomes: Sequence[Outcome] = (), events: Sequence[tuple[int, Event]] = ()) -> Taken:
        """Perform the outcomes on the wire, and claim up to `free` tasks of those that were delivered.

        Raises OperationalError when the wire cannot be used; then none of the outcomes counts as settled, and what was done
        of them is not done again.
        """
        local = []
        for outcome in outcomes:
            held = self._claimed.get(outcome.claim)
            if held is not None and not self._stays_here(held, outcome):
                self.engine.performing.perform(held, outcome)
                outcome = _dropped(outcome)
            local.append(outcome)
        taken = super().take(free, local, ())
        for outcome in local:
            held = self._claimed.pop(outcome.claim, None)
            if held is None:
                continue
            if outcome.disposition == Disposition.IGNORE:
                self._courier.done(held)
            else:
                self._courier.put_back(held)
        if events:
            self.engine.write_events([event for claim, event in events if claim not in taken.lost])
        deliveries = [self._begun_delivery(delivery) for delivery in taken.deliveries]
        return taken._replace(deliveries=deliveries)

    def _stays_here(self, held: Held, outcome: Outcome) -> bool:
        """Return whether a task that has not begun just goes back to the others that wait in this worker."""
        return outcome.disposition == Disposition.RELEASE

    def _begun_delivery(self, delivery: Delivery) -> Delivery:
        held = self._courier.claim(delivery.id)
        if held is None:
            return delivery
        self._claimed[delivery.claim] = held
        if not self.engine.program.acks_late(delivery.name):
            self._courier.acknowledge(held)
        if not held.embed.is_empty:
            delivery = delivery._replace(linked=1)
        failed = (held.headers.get("headers") or {}).get(ERRBACK_OF)
        if failed is not None:
            delivery = delivery._replace(role=Role.ERRBACK, input=(None, json.dumps({"id": failed}).encode()))
        return delivery

    def has_unfinished(self) -> bool:
        return super().has_unfinished() or not self._courier.is_idle()

    def leave(self) -> int:
        """Give back to the broker what was not begun, and be gone."""
        self.engine.post_office.stop_listening()
        self._courier.stop()
        return super().leave()


def _dropped(outcome: Outcome) -> Outcome:
    """Return the end that the private file records of a task whose end is on the wire."""
    return outcome._replace(
        disposition=Disposition.IGNORE, state=states.IGNORED, result=None, traceback=None, children=None,
        due_at=None, message=None, plan=None, linked=0, value=None, dead=None,
    )  # fmt: skip


class Courier:
    """A thread that fetches what the broker delivers, and acknowledges it; it outlives any loss of the connection.

    What it holds when it stops, or when the process dies, goes back to the queue. What was acknowledged before it began
    (tasks that acknowledge early) is published again at a stop, and lost in a crash: at most once, as with Celery.
    """

    def __init__(self, engine: WireEngine, name: str, queues: frozenset[str], places: int) -> None:
        self._engine = engine
        self._name = name
        self._queues = queues
        self._places = places
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Held]] = {}  # delivered and not claimed, by id of the task
        self._running: set[Held] = set()
        self._to_acknowledge: deque[Held] = deque()
        self._wake = threading.Event()
        self._is_stopping = False
        self._has_looked = False  # since the connection was made: whether the queues were found empty
        self._extended_at = clock.monotonic()
        self._channel: Any = None
        self._unrecorded: set[str] = set()  # tags of messages that Redis does not know to be held here
        self._thread = threading.Thread(target=self._run, name=f"litetq-courier-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Acknowledge what is done, give back the rest, and close the connection."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join()

    def serve(self, queues: frozenset[str]) -> None:
        self._queues = queues
        self._wake.set()

    # -- for the seat

    def claim(self, id: str) -> Held | None:
        with self._lock:
            held = self._waiting.get(id)
            if not held:
                return None
            one = held.pop(0)
            if not held:
                del self._waiting[id]
            self._running.add(one)
            return one

    def put_back(self, held: Held) -> None:
        with self._lock:
            self._running.discard(held)
            self._waiting.setdefault(held.message.id, []).insert(0, held)

    def acknowledge(self, held: Held) -> None:
        """Have a message acknowledged in a moment."""
        if not held.is_acked:
            held.is_acked = True
            self._to_acknowledge.append(held)
            self._wake.set()

    def done(self, held: Held) -> None:
        """Acknowledge a message whose task has ended, and make its place free."""
        with self._lock:
            self._running.discard(held)
        held.has_ended = True
        self.acknowledge(held)
        self._wake.set()

    def is_idle(self) -> bool:
        """Return whether nothing is held here, and the queues were found empty."""
        with self._lock:
            return self._has_looked and not self._waiting and not self._running

    def look_for_ended(self) -> None:
        """Perform the ends of those that never ran: they expired, or were revoked, while they waited here."""
        with self._lock:
            ids = list(self._waiting)
        if not ids:
            return
        found = self._engine.store.records.read_many(ids)
        for id in ids:
            record = found.get(id)
            if record is not None and (record.state != states.REVOKED or record.place != "DONE"):
                continue
            held = self.claim(id)
            if held is None:
                continue
            # No record: it ended so long ago that the private file has forgotten it, while the broker was away.
            result = encode_exception(TaskRevokedError("revoked")) if record is None else record.result
            outcome = Outcome(0, 0, id, Disposition.REVOKE, states.REVOKED, result)
            try:
                self._engine.performing.perform(held, outcome)
            except Exception:
                self.put_back(held)
                raise
            self._engine.store.records.forget([id])
            self.done(held)

    # -- the thread

    def _room(self) -> int:
        now = clock.now()
        with self._lock:
            waiting = [held for some in self._waiting.values() for held in some]
            return (
                self._places - len(self._running) - sum(held.due_at is None or held.due_at <= now for held in waiting)
            )

    def _run(self) -> None:
        tries = 0
        while not self._is_stopping:
            connection = self._engine.broker.connection()
            try:
                connection.ensure_connection(max_retries=1, timeout=5)
                if tries:
                    logger.info("worker %s: connected to %s again", self._name, self._engine.broker.shown)
                tries = 0
                self._consume(connection)
            except Exception as error:
                rest = BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)]
                tries += 1
                is_known = isinstance(error, (*self._engine.broker.errors(connection), OperationalError))
                logger.log(
                    logging.WARNING if is_known else logging.ERROR,
                    "worker %s: the connection to the broker %s is lost (%s); it is tried again in %s s",
                    self._name, self._engine.broker.shown, error, rest, exc_info=not is_known,
                )  # fmt: skip
                self._keep_what_is_held()
                self._pause(rest)
            finally:
                self._close(connection)

    def _pause(self, seconds: float) -> None:
        until = clock.monotonic() + seconds
        while not self._is_stopping and clock.monotonic() < until:
            self._wake.wait(max(0.0, until - clock.monotonic()))
            self._wake.clear()

    def _keep_what_is_held(self) -> None:
        """Let nothing go back to its queue because a connection is lost: this worker still has it, and acknowledges it later.

        Redis knows what is not acknowledged by a tag of the message, not by the connection.
        """
        self._has_looked = False
        if self._channel is not None:
            self._channel.do_restore = False
            self._channel = None

    def _adopt(self, channel: Any) -> None:
        """Let what came over an earlier connection be acknowledged over this one."""
        self._channel = channel
        with self._lock:
            waiting = [held for some in self._waiting.values() for held in some]
            for held in (*self._running, *waiting, *self._to_acknowledge):
                held.delivered.channel = channel
                held.is_adopted = True
                if held.delivered.delivery_tag in self._unrecorded and not held.is_acked:
                    channel.qos.append(held.delivered, held.delivered.delivery_tag)
                    self._unrecorded.discard(held.delivered.delivery_tag)

    def _guard(self, channel: Any) -> None:
        """Keep a message that was taken from its queue when Redis went away before it was noted as unacknowledged.

        kombu takes and notes in two steps, and would lose it. It is noted when the connection is back.
        """
        note = channel.qos.append

        def append(message: Any, tag: str) -> None:
            try:
                note(message, tag)
            except Exception as error:
                logger.debug("message %s is held, and is noted as such later: %s", tag, error)
                self._unrecorded.add(tag)

        channel.qos.append = append

    def _consume(self, connection: Any) -> None:
        channel = connection.channel()
        self._adopt(channel)
        self._guard(channel)
        served = self._queues
        kombu_consumer = connection.Consumer(
            [self._engine.broker.queue(name) for name in sorted(served)],
            channel=channel,
            on_message=self._receive,
            prefetch_count=0,
            auto_declare=True,
        )
        with kombu_consumer:
            while not self._is_stopping and served == self._queues:
                self._acknowledge_all()
                self._extend(channel)
                self.look_for_ended()
                if self._room() <= 0:
                    self._wake.wait(DRAIN_S)
                    self._wake.clear()
                    continue
                try:
                    connection.drain_events(timeout=DRAIN_S)
                except TimeoutError:
                    self._has_looked = True
                    connection.heartbeat_check()
        self._acknowledge_all()
        if self._is_stopping:
            self._send_back()
        else:
            channel.do_restore = False  # other queues from now on: what is held stays here
        channel.close()  # what is not acknowledged goes back to its queue

    def _acknowledge_all(self) -> None:
        while self._to_acknowledge:
            held = self._to_acknowledge[0]
            held.delivered.ack()
            self._to_acknowledge.popleft()

    def _send_back(self) -> None:
        """Publish what was acknowledged before it began, and never did; and what the connection does not give back itself."""
        with self._lock:
            left = [*self._running, *(held for some in self._waiting.values() for held in some)]
        for held in left:
            if not held.has_ended and (held.is_acked or held.is_adopted):
                self._engine.performing.publish(held.message, held.embed)
                if not held.is_acked:
                    held.delivered.ack()

    def _extend(self, channel: Any) -> None:
        """Show Redis that what is held is alive: after its visibility timeout another worker would get it, too."""
        if clock.monotonic() - self._extended_at < min(EXTEND_S, float(channel.visibility_timeout) / 4):
            return
        self._extended_at = clock.monotonic()
        with self._lock:
            held = [*self._running, *(one for some in self._waiting.values() for one in some)]
            tags = [one.delivered.delivery_tag for one in held if not one.is_acked]
        if tags:
            now = clock.now()
            channel.client.zadd(channel.unacked_index_key, dict.fromkeys(tags, now), xx=True)

    def _receive(self, delivered: Any) -> None:
        info = delivered.delivery_info or {}
        queue = self._queue_of(info)
        try:
            message, embed = unwrap(
                delivered.headers or {},
                delivered.body,
                delivered.content_type,
                queue=queue,
                priority=int((delivered.properties or {}).get("priority") or 0),
                properties=delivered.properties,
            )
        except Exception as error:
            # Nobody can run it, whoever gets it: it is taken off its queue, and the log has its beginning.
            logger.error("A message in queue %r was refused: %s\n%.500r", queue, error, delivered.body)
            delivered.reject()
            return
        held = Held(message, embed, delivered)
        with self._lock:
            self._waiting.setdefault(message.id, []).append(held)
        self._engine.keep(_as_row(message, held))

    def _queue_of(self, info: Mapping[str, Any]) -> str:
        """Return in which queue of those that are served a message is to wait here; brokers name its route, not its queue."""
        for name in (info.get("routing_key"), info.get("exchange")):
            if name in self._queues:
                return str(name)
        return min(self._queues)

    def _close(self, connection: Any) -> None:
        try:
            connection.release()
        except Exception as error:  # it is gone already, in one of many ways
            logger.debug("closing the connection to %s: %s", self._engine.broker.shown, error)


def _as_row(message: Message, held: Held) -> Message:
    """Return a message as the private file keeps it: an errback that reads the failure itself has no arguments for it."""
    if (held.headers.get("headers") or {}).get(ERRBACK_OF) is None or message.content_type is not None:
        return message
    args, kwargs = json.loads(message.body)
    return message._replace(body=args_body(args[3:], kwargs, JSON))
