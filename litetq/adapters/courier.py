"""The courier: fetches what a broker delivers into a worker's private file, and acknowledges it in the end.

It outlives any loss of the connection. What is held then is, with a transport that keeps it (`lines.py`), held on. RabbitMQ takes all
back and delivers it anew, to anybody: what had not begun is forgotten here, what had begun is recognised when it comes again, and
is not run a second time by this worker.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict, deque
from typing import Any, Final, Protocol

from litetq import clock, states
from litetq.adapters import lines
from litetq.adapters.broker import Broker, drop, said
from litetq.adapters.performing import Held, Performing
from litetq.adapters.protocol import ERRBACK_OF, args_body, unwrap
from litetq.exceptions import OperationalError, TaskRevokedError
from litetq.message import JSON, Disposition, Message, Outcome, Record
from litetq.serialization import encode_exception

logger = logging.getLogger("celery.worker.consumer")

BACK_OFF_S: Final = (0.5, 1, 2, 4, 8, 16, 30)  # between tries to reach a broker that is gone
LOOK_AGAIN_S: Final = 1.0  # after an end could not be performed
REMEMBERED: Final = 10_000  # messages that have ended here, and would be recognised if they came again; arbitrary


class PrivateFile(Protocol):
    """What a courier wants of the file of its worker."""

    def keep(self, message: Message) -> None:
        """Put in what the broker delivered, and wake the worker."""

    def ends_of(self, ids: list[str]) -> dict[str, Record]: ...

    def forget_end(self, id: str) -> None: ...

    def drop_waiting(self, queue: str | None = None) -> None:
        """Take out all that has not begun, or what of it waits in one queue."""


class Courier:
    """A thread that receives for one worker.

    What it holds when it stops, or when the process dies, goes back to the queue. What was acknowledged before it began
    (tasks that acknowledge early) is published again at a stop, and lost in a crash: at most once, as with Celery.

    Args:
        name: of the worker.
        queues: that it serves.
        places: how many tasks the worker holds at a time; what is due later comes on top.
    """

    def __init__(
        self, broker: Broker, file: PrivateFile, performing: Performing, name: str, queues: frozenset[str], places: int
    ) -> None:
        self._broker = broker
        self._file = file
        self._performing = performing
        self._name = name
        self._queues = queues
        self._places = places
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Held]] = {}  # delivered and not claimed, by id of the task
        self._running: set[Held] = set()
        self._known: dict[str, Held] = {}  # both of them, by what tells one message from another
        self._ended: OrderedDict[str, None] = OrderedDict()  # the last ones of those that ended here
        self._to_acknowledge: deque[Held] = deque()
        self._to_give_back: deque[Held] = deque()
        self._waker = lines.Waker()
        self._is_stopping = False
        self._has_looked = False  # since the connection was made: whether the queues were found empty
        self._line: lines.Line | None = None
        self._memory: dict[str, str] = {}  # what one line leaves to the next one
        self._look_at = 0.0  # monotonic: not before is it looked for what has ended unrun
        self._thread = threading.Thread(target=self._run, name=f"litetq-courier-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Acknowledge what is done, give back the rest, and close the connection."""
        self._is_stopping = True
        self._waker.set()
        self._thread.join()
        self._waker.close()

    def serve(self, queues: frozenset[str]) -> None:
        self._queues = queues
        self._waker.set()

    # -- for the seat

    def claim(self, id: str) -> Held | None:
        """Return what was delivered for a task that begins; None when the broker has taken it back: it must not begin."""
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
        """Let a task that was claimed and has not begun wait again; what the broker has taken back meanwhile is not kept."""
        with self._lock:
            self._running.discard(held)
            if not held.is_acked and (held.is_lost or held.message.queue not in self._queues):
                self._forget(held)
                if not held.is_lost:
                    held.is_requeued = held.is_acked = True
                    self._to_give_back.append(held)
            else:
                self._waiting.setdefault(held.message.id, []).insert(0, held)

    def acknowledge(self, held: Held, *, at_once: bool = False) -> None:
        """Have a message acknowledged in a moment, or at once where any thread may do that: before its task begins."""
        with self._lock:
            if held.is_acked:
                return
            held.is_acked = True
            if held.is_lost:  # it comes again, and is known then
                return
            line = self._line
        if not (at_once and line is not None and line.acknowledged_at_once(held.delivered)):
            self._to_acknowledge.append(held)
            self._waker.set()

    def done(self, held: Held) -> None:
        """Acknowledge a message whose task has ended, and make its place free."""
        self._end(held)
        self.acknowledge(held)
        self._waker.set()

    def give_back(self, held: Held, *, requeue: bool) -> None:
        """Refuse a message: the broker delivers it again, or does with it what it does with refused ones (dead letters)."""
        self._end(held)
        with self._lock:
            self._ended.pop(held.key, None)  # it may well come again
            if not held.is_acked and not held.is_lost:
                held.is_requeued = requeue
                self._to_give_back.append(held)
            held.is_acked = True
        self._waker.set()

    def _end(self, held: Held) -> None:
        with self._lock:
            self._running.discard(held)
            self._forget(held)
            self._ended[held.key] = None
            while len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        held.has_ended = True

    def _forget(self, held: Held) -> None:
        if self._known.get(held.key) is held:
            del self._known[held.key]

    def is_idle(self) -> bool:
        """Return whether nothing is held here, and the queues were found empty."""
        with self._lock:
            return self._has_looked and not self._waiting and not self._running

    def _look_for_ended(self) -> None:
        """Perform the ends of those that never ran: they expired, or were revoked, while they waited here."""
        with self._lock:
            ids = list(self._waiting)
        if not ids or clock.monotonic() < self._look_at:
            return
        found = self._file.ends_of(ids)
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
                self._performing.perform(held, outcome)
            except OperationalError as error:
                self.put_back(held)
                self._look_at = clock.monotonic() + LOOK_AGAIN_S
                logger.warning("worker %s: the end of task %s waits: %s", self._name, id, error)
                return
            self._file.forget_end(id)
            self.done(held)

    # -- the thread

    def _held(self) -> list[Held]:
        with self._lock:
            return [*self._running, *(held for some in self._waiting.values() for held in some)]

    def _later(self) -> int:
        """Return how many of those that wait are not due yet."""
        now = clock.now()
        with self._lock:
            return sum(
                held.due_at is not None and held.due_at > now for some in self._waiting.values() for held in some
            )

    def _run(self) -> None:
        tries = 0
        while not self._is_stopping:
            connection = self._broker.connection(is_listening=True)
            try:
                self._broker.open(connection)
                if tries:
                    logger.warning("worker %s: connected to %s again", self._name, self._broker.shown)
                tries = 0
                self._receive_over(connection)
            except Exception as error:
                rest = BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)]
                tries += 1
                self._tell_lost(connection, error, rest)
                drop(connection)
                self._pause(rest)
            finally:
                self._close(connection)

    def _tell_lost(self, connection: Any, error: Exception, rest: float) -> None:
        is_known = isinstance(error, (*self._broker.errors(connection), OperationalError))
        logger.log(
            logging.WARNING if is_known else logging.ERROR,
            "worker %s: the connection to the broker %s is lost (%s); it is tried again in %s s",
            self._name, self._broker.shown, said(error), rest, exc_info=not is_known,
        )  # fmt: skip
        if lines.timed_out(error):
            logger.warning(
                "worker %s: a task was held for longer than RabbitMQ's consumer_timeout (half an hour by default): one that "
                "acknowledges late and runs so long, or one with an eta. RabbitMQ delivers it anew; raise consumer_timeout there, or give "
                "its queue the argument x-consumer-timeout",
                self._name,
            )

    def _pause(self, seconds: float) -> None:
        until = clock.monotonic() + seconds
        while not self._is_stopping and clock.monotonic() < until:
            self._waker.wait(max(0.0, until - clock.monotonic()))

    def _lose_line(self) -> None:
        """Hold on to what this worker has, over the next line; forget what the broker has taken back and has not begun."""
        self._has_looked = False
        line, self._line = self._line, None
        if line is None:
            return
        line.abandon()
        if line.keeps_held:
            return
        with self._lock:
            waiting = [held for some in self._waiting.values() for held in some]
            self._waiting = {}
            for held in (*waiting, *self._running, *self._to_acknowledge, *self._to_give_back):
                held.is_lost = True
            for held in waiting:
                if held.is_acked:
                    self._waiting.setdefault(held.message.id, []).append(held)
                else:
                    self._forget(held)
            self._to_acknowledge.clear()  # it comes again, and is known to have ended
            self._to_give_back.clear()
            left = [held for some in self._waiting.values() for held in some]
        self._file.drop_waiting()
        for held in left:  # acknowledged, given back by the pool, and nowhere but here
            self._file.keep(_as_row(held))

    def _receive_over(self, connection: Any) -> None:
        self._line = line = lines.open(self._broker, connection, self._receive, self._memory)
        try:
            self._adopt(line)
            served: frozenset[str] | None = None
            while not self._is_stopping:
                if served != self._queues:
                    served = self._follow(line, served or self._queues)
                self._turn(line)
            line.consume({})
            self._settle(line)
            self._send_back(line)
            line.close()
        except Exception:
            self._lose_line()
            raise

    def _adopt(self, line: lines.Line) -> None:
        """Let what came over an earlier line be acknowledged over this one."""
        held = [*self._held(), *self._to_acknowledge, *self._to_give_back]
        for one in held if line.keeps_held else ():
            one.is_adopted = True
        line.adopt([one.delivered for one in held])

    def _follow(self, line: lines.Line, before: frozenset[str]) -> frozenset[str]:
        """Receive from the queues that are served now; what waits here of others goes back to them."""
        now = self._queues
        line.limit(self._places + self._later())
        line.consume(self._broker.queues.served(now, self._name))
        for queue in before - now:
            with self._lock:
                for held in [one for some in self._waiting.values() for one in some if one.message.queue == queue]:
                    self._waiting[held.message.id].remove(held)
                    if not self._waiting[held.message.id]:
                        del self._waiting[held.message.id]
                    self._forget(held)
                    if not held.is_acked:
                        held.is_requeued = held.is_acked = True
                        self._to_give_back.append(held)
            self._file.drop_waiting(queue)
        return now

    def _turn(self, line: lines.Line) -> None:
        self._settle(line)
        line.extend([held.delivered for held in self._held() if not held.is_acked])
        self._look_for_ended()
        later = self._later()
        line.limit(self._places + later)
        with self._lock:
            held = len(self._running) + sum(map(len, self._waiting.values()))
        if not line.pushes and held - later >= self._places:
            self._waker.wait(lines.DRAIN_S)
            return
        self._waker.clear()
        if not self._to_acknowledge and not self._to_give_back and not line.drain(self._waker):
            self._has_looked = True

    def _settle(self, line: lines.Line) -> None:
        """Acknowledge and refuse what is to be."""
        while self._to_acknowledge:
            line.acknowledge(self._to_acknowledge[0].delivered)
            self._to_acknowledge.popleft()
        while self._to_give_back:
            held = self._to_give_back[0]
            held.delivered.reject(requeue=held.is_requeued)
            self._to_give_back.popleft()

    def _send_back(self, line: lines.Line) -> None:
        """Publish what was acknowledged before it began, and never did; and what the connection does not give back itself."""
        for held in self._held():
            if not held.has_ended and (held.is_acked or held.is_adopted):
                self._performing.publish(held.message, held.embed)
                if not held.is_acked:
                    line.acknowledge(held.delivered)

    def _receive(self, queue: str, delivered: Any) -> None:
        properties = delivered.properties or {}
        try:
            message, embed = unwrap(
                delivered.headers or {},
                delivered.body,
                delivered.content_type,
                queue=queue,
                priority=int(properties.get("priority") or 0),
                properties=properties,
                scale=self._broker.scale,
            )
        except Exception as error:
            # Nobody can run it, whoever gets it: it is taken off its queue, and the log has its beginning.
            logger.error("A message in queue %r was refused: %s\n%.500r", queue, error, delivered.body)
            delivered.reject()
            return
        held = Held(message, embed, delivered)
        if self._is_copy(held):
            return
        with self._lock:
            self._known[held.key] = held
            self._waiting.setdefault(message.id, []).append(held)
        self._file.keep(_as_row(held))

    def _is_copy(self, held: Held) -> bool:
        """Return whether a message is one that is held here, or has ended here; it is then dealt with."""
        with self._lock:
            before = self._known.get(held.key) if held.is_identified else None
            has_ended = held.is_identified and held.key in self._ended
            if not held.is_identified:
                self._ended.pop(held.key, None)  # sent once more, under the same id
        if before is None and not has_ended:
            return False
        is_same = before is not None and before.delivered.delivery_tag == held.delivered.delivery_tag
        if before is not None and (is_same or before.is_lost or self._line is None or not self._line.tags_stay):
            # The same one, which the broker had taken back: from now on it is this delivery that is acknowledged.
            before.delivered, before.is_lost = held.delivered, False
            if not before.is_acked:
                return True
        logger.info("Task %s[%s] was delivered again, and is not run again", held.message.name, held.message.id)
        held.delivered.ack()
        return True

    def _close(self, connection: Any) -> None:
        try:
            connection.release()
        except Exception as error:  # it is gone already, in one of many ways
            logger.debug("closing the connection to %s: %s", self._broker.shown, error)


def _as_row(held: Held) -> Message:
    """Return a message as the private file keeps it: an errback that reads the failure itself has no arguments for it."""
    message = held.message
    if (held.headers.get("headers") or {}).get(ERRBACK_OF) is None or message.content_type is not None:
        return message
    args, kwargs = json.loads(message.body)
    return message._replace(body=args_body(args[3:], kwargs, JSON))
