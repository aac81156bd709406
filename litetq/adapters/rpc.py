"""Results as messages (`rpc://`): the end of a task is sent to a queue of the program that asked for it, as Celery does.

Each process that sends tasks has one such queue, named by a UUID, which each of its messages names in `reply_to`; results carry the
id of the task as `correlation_id`. Only this process can read them, and each is taken from the queue once: they are kept here, in
memory, the newest MOST of them. The queue is declared before the first message is sent, and goes away some time after the process.

Nobody else can read a result, so there is nothing that could count the parts of a chord: chords are refused.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final
from uuid import uuid4

from litetq import adapters, states
from litetq.adapters.broker import Broker, Pulse, drop
from litetq.adapters.results import NONE, Settings
from litetq.exceptions import ImproperlyConfigured, OperationalError
from litetq.message import Record, saved_group

logger = logging.getLogger("celery.result")

MOST: Final = 8192  # results kept in memory; Celery's bound of what nobody has asked for yet
CAUGHT_UP_S: Final = 5.0  # at most, that a first look waits for what lies in the queue already; arbitrary
DRAIN_S: Final = 0.5
AFTER_ERROR_S: Final = 1.0
PERSISTENT: Final = 2  # delivery modes
TRANSIENT: Final = 1


class RpcResults:
    """Results that are messages of a broker, seen from one process."""

    shown = "rpc://"
    counting = NONE
    keeps_parts = True
    is_shared = False

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self._broker = broker
        self._settings = settings
        self._codec = settings.codec
        self._mode = PERSISTENT if settings.more.get("result_persistent") else TRANSIENT
        self._changed = threading.Condition()
        self._arrivals = 0
        self._known: OrderedDict[str, Record] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._has_caught_up = threading.Event()
        self._is_closed = False
        self._pid = 0
        self._queue_name = ""
        self._is_declared = False

    @property
    def reply_to(self) -> str:
        """The name of this process's queue; it is declared once this was asked for.

        Raises OperationalError where the broker cannot be reached.
        """
        with self._changed:
            self._be_of_this_process()
            if not self._is_declared:
                self._broker.declare(self._queue())
                self._is_declared = True
            return self._queue_name

    def _be_of_this_process(self) -> None:
        """After a fork, have a queue of one's own: the parent's results are the parent's."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._queue_name = str(uuid4())
            self._is_declared = False
            self._known.clear()
            self._thread = None
            self._has_caught_up = threading.Event()

    def _queue(self) -> Any:
        """Return the queue with the arguments that Celery's has."""
        kombu = adapters.package("kombu")
        return kombu.Queue(
            self._queue_name,
            kombu.Exchange(None),
            self._queue_name,
            durable=True,
            auto_delete=True,
            expires=self._settings.expires,
        )

    # -- writing

    def write(self, record: Record, *, is_newest: bool = False) -> None:
        """Send a record to who asked for it; one that nobody asked for is kept nowhere.

        Raises ImproperlyConfigured for a group that is to be saved: there is no place for it.
        """
        if saved_group(record.id) is not None:
            raise ImproperlyConfigured(
                "a group cannot be saved where results are messages (rpc://); set result_backend to a redis:// or db+ URL"
            )
        headers = json.loads(record.headers) if record.headers else {}
        reply_to = headers.get("reply_to")
        if reply_to:
            self._broker.reply(
                self._codec.write(record),
                reply_to,
                headers.get("correlation_id") or record.id,
                self._codec.content_type,
                is_text=self._codec.is_text,
                delivery_mode=self._mode,
            )

    # -- reading

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return what has come of these tasks so far."""
        self.reply_to  # noqa: B018 - declared first: what is sent meanwhile waits there
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="litetq-replies", daemon=True)
                self._thread.start()
            caught_up = self._has_caught_up
        caught_up.wait(CAUGHT_UP_S)
        with self._changed:
            return {id: self._known[id] for id in ids if id in self._known}

    def forget(self, ids: Iterable[str]) -> int:
        with self._changed:
            return sum(self._known.pop(id, None) is not None for id in ids)

    def watch(self) -> RpcWatch:
        return RpcWatch(self)

    def cleanup(self) -> int:
        return 0

    def close(self) -> None:
        self._is_closed = True
        with self._changed:
            thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            thread.join(AFTER_ERROR_S + DRAIN_S)

    # -- the thread

    def _run(self) -> None:
        while not self._is_closed:
            connection = self._broker.connection(is_listening=True)
            try:
                self._broker.open(connection)
                self._consume(connection)
            except Exception as error:
                is_known = isinstance(error, (*self._broker.errors(connection), OperationalError))
                logger.log(
                    logging.WARNING if is_known else logging.ERROR,
                    "results of %s are not heard: %s; it is tried again", self._broker.shown, error, exc_info=not is_known,
                )  # fmt: skip
                drop(connection)
                time.sleep(AFTER_ERROR_S)
            finally:
                connection.release()

    def _consume(self, connection: Any) -> None:
        channel = connection.channel()
        pulse = Pulse(self._broker, connection, channel)
        bound = self._queue()(channel)
        left = [int(bound.queue_declare().message_count)]  # to come before what is known here is all there is

        def receive(message: Any) -> None:
            self._keep(message)
            left[0] -= 1
            if left[0] <= 0:
                self._has_caught_up.set()

        if left[0] <= 0:
            self._has_caught_up.set()
        with connection.Consumer([bound], channel=channel, on_message=receive, no_ack=True, auto_declare=False):
            while not self._is_closed:
                try:
                    connection.drain_events(timeout=DRAIN_S)
                except TimeoutError:
                    self._has_caught_up.set()
                pulse.check()

    def _keep(self, message: Any) -> None:
        try:
            body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
            codec = self._codec.of_type(message.content_type)
            id = (message.properties or {}).get("correlation_id") or codec.load(body)["task_id"]
            record = codec.read(id, body)
        except Exception as error:
            logger.error("A result that came from %s cannot be read: %s", self._broker.shown, error)
            return
        with self._changed:
            known = self._known.get(id)
            if known is None or known.state not in states.READY_STATES:
                self._known[id] = record
                self._known.move_to_end(id)
                if len(self._known) > MOST:
                    self._known.popitem(last=False)
            self._arrivals += 1
            self._changed.notify_all()


class RpcWatch:
    """A sleeper for results that come as messages."""

    def __init__(self, results: RpcResults) -> None:
        self._results = results
        self._seen = 0

    def announce(self) -> None:
        self._seen = self._results._arrivals

    def wait(self, timeout: float | None) -> bool:
        """Return True when something has come since `announce`, False when `timeout` seconds passed."""
        results = self._results
        with results._changed:
            return results._changed.wait_for(lambda: results._arrivals != self._seen, timeout)

    async def wait_async(self, timeout: float | None) -> bool:
        import asyncio

        return await asyncio.to_thread(self.wait, timeout)

    def __enter__(self) -> RpcWatch:
        return self

    def __exit__(self, *exc: object) -> None: ...
