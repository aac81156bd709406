"""A broker behind kombu: publishing from any thread, and connections for those who consume.

What is published is confirmed when `publish` returns: the broker has it, in a queue. A broker that cannot be reached costs a bounded
time, some seconds, and then raises OperationalError.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from uuid import uuid4

from litetq import adapters, clock
from litetq.adapters import queues, urgency
from litetq.adapters.protocol import Parcel
from litetq.address import mask
from litetq.exceptions import ImproperlyConfigured, OperationalError
from litetq.retry import RetryPolicy

logger = logging.getLogger("celery.worker.consumer")

CONNECT_S: Final = 4.0  # Celery's broker_connection_timeout
CONFIRM_S: Final = 10.0  # that a broker may take to say that it has a message; arbitrary
SILENCE_S: Final = 10.0  # after which a Redis that pushes is asked whether it is there; arbitrary
MUTEX_S: Final = 30  # who gives back what the dead held, and dies of it, holds up others for so long; kombu's 300
GOODBYE_S: Final = 1.0  # that the end of a TLS session may take; arbitrary
GIVE_UP_S: Final = 12.0  # after the last of which begins no other try
PERSISTENT: Final = 2  # delivery mode: the broker writes the message down
_REFUSED: Final = (403, 405, 406)  # AMQP: access refused, locked, precondition failed
_MISSING: Final = 404

# Of transports that are no AMQP: what kombu does when a command fails.
_RETRY: Final = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
_RETRYING: Final = RetryPolicy(3, 0, 0.2, 0.2)  # of one publish, within a second; Celery's task_publish_retry_policy
_AMQP: Final = ("amqp", "amqps", "pyamqp", "librabbitmq")
_REDIS: Final = ("redis", "rediss", "redis+socket", "sentinel")


class _Open:
    """A connection that something can be published over; one thread at a time."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.producer = connection.Producer(self.channel, auto_declare=False)
        self.declared: set[Any] = set()

    def close(self) -> None:
        try:
            self.connection.release()
        except Exception as error:  # it is gone already, in one of many ways
            logger.debug("closing a connection: %s", error)


class Broker:
    """One broker, seen from one process. Nothing is connected before the first use.

    Args:
        url: of several servers, separated by `;`, the first one that can be reached is used.
        options: `broker_transport_options`.
        connecting: what kombu's Connection takes besides: `ssl`, `failover_strategy`, ...
        heartbeat: seconds between signs of life over a connection that listens; None or 0: none.
        heartbeat_rate: how many of them are sent within this time.
        pool_limit: how many connections for publishing are kept open; None or 0: none, each publish makes its own.
        connect_timeout: seconds that a server may take to answer; None: as long as it takes.
        retrying: how a publish that failed is tried again; not after GIVE_UP_S, unless it names no end.
        about: what the settings say about queues.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        connecting: Mapping[str, Any] = {},
        *,
        heartbeat: float | None = None,
        heartbeat_rate: float = 2.0,
        pool_limit: int | None = 10,
        connect_timeout: float | None = CONNECT_S,
        retrying: RetryPolicy = _RETRYING,
        about: queues.Settings = queues.DEFAULTS,
    ) -> None:
        self._scheme = url.partition(":")[0].lower()
        self.url = url.replace("librabbitmq://", "amqp://")  # the same protocol; the C client is not needed
        self._connecting = connecting
        self._servers = url.count(";") + 1
        self.shown = mask(url)
        self._heartbeat = heartbeat or 0
        self.heartbeat_rate = heartbeat_rate
        self._pool_limit = pool_limit or 0
        self._connect_timeout = connect_timeout
        self._retrying = retrying
        self._options = {**self._own_options(), **options}
        self._make_folders()
        self._kombu = adapters.package("kombu")
        self.queues = queues.Queues(about)
        self._lock = threading.Lock()
        self._idle: dict[bool, list[_Open]] = {True: [], False: []}  # confirmed, and what nobody waits for
        self._left: list[_Open] = []  # those of the process that this one was forked from; they are closed there
        self._pid = os.getpid()
        self._warned: set[str] = set()
        self._knows_fanout: bool | None = None

    def _make_folders(self) -> None:
        """Have the folders there that stand in for a broker; kombu makes them only in part."""
        names = ("data_folder_in", "data_folder_out", "processed_folder", "control_folder")
        if self._scheme == "filesystem":
            if not all(self._options.get(name) for name in names[:2]):
                raise ImproperlyConfigured(
                    f"The broker {self.shown} is a folder, and nobody says which; set broker_transport_options = "
                    '{"data_folder_in": "/path", "data_folder_out": "/path", "control_folder": "/path/control"}, twice the same path'
                )
            for name in names:
                if self._options.get(name):
                    os.makedirs(self._options[name], exist_ok=True)

    def _own_options(self) -> dict[str, Any]:
        if self._scheme in _AMQP:
            return {}
        if self._scheme in _REDIS:
            # Look for what the dead held whenever nothing comes, not every tenth time.
            # An answer has its time also where messages are waited for: kombu reads when something has come, and not before.
            return {
                "socket_connect_timeout": CONNECT_S,
                "socket_timeout": CONFIRM_S,
                "socket_keepalive": True,
                "unacked_mutex_expire": MUTEX_S,
                "unacked_restore_throttle": 1,
                **_RETRY,
            }
        return dict(_RETRY)

    @property
    def scale(self) -> urgency.Scale:
        """How priorities are written in its messages."""
        return urgency.REDIS if self._scheme in _REDIS else urgency.AS_GIVEN

    def knows_fanout(self) -> bool:
        """Return whether a message can reach all who listen: without that, workers cannot be told anything, or tell it."""
        if self._knows_fanout is None:
            self._knows_fanout = "fanout" in (self.connection().transport.implements.exchange_type or ())
        return self._knows_fanout

    @property
    def is_amqp(self) -> bool:
        """Whether messages go to a broker that confirms, routes and pushes by itself."""
        return self._scheme in _AMQP

    def connection(self, *, is_listening: bool = False, is_confirmed: bool = False) -> Any:
        """Return a new connection, for one thread; it is not open yet. Who listens over it looks after it with a `Pulse`."""
        options = {"confirm_publish": True, **self._options} if is_confirmed and self.is_amqp else self._options
        try:
            return self._kombu.Connection(
                self.url,
                connect_timeout=self._connect_timeout,
                transport_options=dict(options),
                heartbeat=self._heartbeat if is_listening else 0,
                **self._connecting,
            )
        except TypeError as error:  # what stands behind the question mark is given to it, too
            raise ImproperlyConfigured(
                f"the URL of the broker {self.shown} has an option that kombu does not take ({error}); options of the transport belong "
                "into broker_transport_options"
            ) from error

    def open(self, connection: Any) -> None:
        """Connect, to the first server that can be reached; each is tried once, and the first one twice.

        Raises one of `errors` when there is none.
        """
        connection.ensure_connection(
            max_retries=self._servers,
            timeout=(self._connect_timeout + 1) * self._servers if self._connect_timeout else None,
        )
        if self.is_amqp:  # an answer that is waited for has its time; messages are waited for elsewhere
            connection.connection.sock.settimeout(CONFIRM_S)

    def errors(self, connection: Any) -> tuple[type[BaseException], ...]:
        """Return what a broker that is gone, or a connection that broke, raises."""
        return (
            *connection.connection_errors,
            *connection.recoverable_connection_errors,
            *connection.channel_errors,
            self._kombu.exceptions.OperationalError,
            OSError,
        )

    # -- declaring

    def declare(self, queue: Any) -> None:
        """Have a queue there; OperationalError as for `publish`."""
        self._with_producer(
            f"Declaring queue {queue.name!r}",
            lambda opened: self.declare_over(queue, opened.connection, opened.channel),
        )

    def declare_over(self, queue: Any, connection: Any, channel: Any) -> None:
        """Have a queue there, or an exchange, as it is described, over a connection that is open.

        What is there and differs, or may not be declared by this user, is used as it is; the log says so once.
        """
        if not self.is_amqp:
            queue(channel).declare()
            return
        with connection.channel() as own:  # the broker closes it where it refuses
            try:
                queue(own).declare()
            except connection.channel_errors as error:
                if getattr(error, "reply_code", None) not in _REFUSED:
                    raise
                self._warn_of_difference(queue, error)

    def _warn_of_difference(self, queue: Any, error: Any) -> None:
        if queue.name in self._warned:
            return
        self._warned.add(queue.name)
        logger.warning(
            "Queue %r of the broker %s is used as it is, and not as the settings say: %s. Describe it in task_queues as it was made, or "
            "delete it, so that it is made anew",
            queue.name, self.shown, getattr(error, "reply_text", error),
        )  # fmt: skip

    def _declare_delays(self, queue: Any, opened: _Open) -> None:
        """Have RabbitMQ's exchanges and queues for delays there, and what has waited lead to this queue."""
        native = adapters.package("kombu.transport.native_delayed_delivery")
        connection = opened.connection
        if queues.DELIVERY_EXCHANGE not in opened.declared:
            if not self._is_there(queues.DELIVERY_EXCHANGE, connection):  # which is made as the last of them
                native.declare_native_delayed_delivery_exchanges_and_queues(connection, self.queues.delay_type)
            opened.declared.add(queues.DELIVERY_EXCHANGE)
        exchange, key = self.queues.delivery_binding(queue)
        with connection.channel() as own:
            if exchange is None:
                queue(own).bind_to(queues.DELIVERY_EXCHANGE, routing_key=key)
            else:
                queue.exchange(own).bind_to(queues.DELIVERY_EXCHANGE, routing_key=key)
                queue(own).bind_to(exchange, routing_key=key)

    def _is_there(self, exchange: str, connection: Any) -> bool:
        with connection.channel() as own:
            try:
                own.exchange_declare(exchange, "topic", passive=True)
            except connection.channel_errors as error:
                if getattr(error, "reply_code", None) != _MISSING:
                    raise
                return False
            return True

    # -- publishing

    def publish(self, parcel: Parcel) -> None:
        """Have the broker keep a task; OperationalError when it does not within its time."""
        way = self.queues.way(parcel.queue, *parcel.route)
        properties = {"message_id": uuid4().hex}  # by which a copy is told from the message; see courier.py

        def use(opened: _Open) -> None:
            self._declare_for(way, parcel, opened)
            taken = self._delayed(way, parcel, opened) or way
            opened.producer.publish(
                parcel.body,
                exchange=taken.exchange,
                routing_key=taken.routing_key,
                content_type=parcel.content_type,
                content_encoding=parcel.content_encoding,
                headers=parcel.headers,
                correlation_id=parcel.correlation_id,
                reply_to=parcel.reply_to,
                priority=parcel.priority,
                delivery_mode=PERSISTENT,
                mandatory=not taken.is_copied,  # no queue takes it: that is an error, and it is declared anew
                timeout=CONFIRM_S,
                confirm_timeout=CONFIRM_S,
                **properties,
            )

        self._with_producer(
            f"Sending task {parcel.headers['task']}[{parcel.headers['id']}] to queue {parcel.queue!r}", use
        )

    def _declare_for(self, way: queues.Way, parcel: Parcel, opened: _Open) -> None:
        if way.declare is not None and parcel.queue not in opened.declared:
            self.declare_over(way.declare, opened.connection, opened.channel)
            opened.declared.add(parcel.queue)

    def _delayed(self, way: queues.Way, parcel: Parcel, opened: _Open) -> queues.Way | None:
        if (
            parcel.due_at is None
            or not self.is_amqp
            or not self.queues.has_quorum
            or self.queues.is_broadcast(parcel.queue)
        ):
            return None
        taken = self.queues.delayed(way, parcel.due_at - clock.now())
        if taken is not None and (parcel.queue, taken.exchange) not in opened.declared:
            self._declare_delays(way.declare, opened)
            opened.declared.add((parcel.queue, taken.exchange))
        return taken

    def tell(self, body: Any, exchange: Any, routing_key: str, **options: Any) -> None:
        """Publish what is no task, as JSON, and may be lost; OperationalError as for `publish`."""

        def use(opened: _Open) -> None:
            if exchange.name and exchange.name not in opened.declared:
                self.declare_over(exchange, opened.connection, opened.channel)
                opened.declared.add(exchange.name)
            opened.producer.publish(body, exchange=exchange.name, routing_key=routing_key, serializer="json", **options)

        self._with_producer(f"Sending to exchange {exchange.name!r}", use, is_confirmed=False)

    def reply(
        self, body: bytes, queue: str, correlation_id: str, content_type: str, *, is_text: bool, delivery_mode: int
    ) -> None:
        """Publish the result of a task to the queue of who asked for it; OperationalError as for `publish`.

        Where that queue is gone, nobody wants the result, and the broker drops it.
        """
        self._with_producer(
            f"Sending the result of task {correlation_id}",
            lambda opened: opened.producer.publish(
                body,
                exchange="",
                routing_key=queue,
                content_type=content_type,
                content_encoding="utf-8" if is_text else "binary",
                correlation_id=correlation_id,
                delivery_mode=delivery_mode,
                timeout=CONFIRM_S,
                confirm_timeout=CONFIRM_S,
            ),
        )

    def _with_producer(self, what: str, use: Callable[[_Open], Any], *, is_confirmed: bool = True) -> None:
        has_end = self._retrying.max_retries is not None
        until = clock.monotonic() + GIVE_UP_S if has_end else math.inf
        delays = self._retrying.delays()
        while True:
            connection = None
            opened = self._take(is_confirmed)
            is_new = opened is None
            try:
                if opened is None:
                    connection = self.connection(is_confirmed=is_confirmed)
                    self.open(connection)
                    opened = _Open(connection)
                connection = opened.connection
                use(opened)
            except BaseException as error:
                if connection is not None:
                    drop(connection)
                if connection is None or not isinstance(error, self.errors(connection)):
                    raise
                # One that was open may have been closed long ago: that is no try.
                delay = next(delays, None) if is_new else 0.0
                if delay is None or clock.monotonic() > until:
                    raise OperationalError(
                        f"{what} failed: the broker {self.shown} cannot be used ({said(error)}){advice(error)}"
                    ) from error
                time.sleep(delay)
            else:
                self._give_back(opened, is_confirmed)
                return

    def _take(self, is_confirmed: bool) -> _Open | None:
        with self._lock:
            self._leave_to_parent()
            idle = self._idle[is_confirmed]
            return idle.pop() if idle else None

    def _leave_to_parent(self) -> None:
        """After a fork: what is open belongs to the other process. To close it, or to lose it, would close it there, too."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            for idle in self._idle.values():
                self._left += idle
                idle.clear()

    def _give_back(self, opened: _Open, is_confirmed: bool) -> None:
        with self._lock:
            idle = self._idle[is_confirmed]
            if len(idle) < self._pool_limit:
                idle.append(opened)
                return
        opened.close()

    # -- the rest

    def purge(self, names: Collection[str]) -> int:
        """Remove what waits in these queues; return how many tasks."""
        connection = self.connection()
        try:
            with connection:
                self.open(connection)
                return sum(self._purge(name, connection) for name in names)
        except self.errors(connection) as error:
            raise OperationalError(f"Purging failed: the broker {self.shown} cannot be used ({said(error)})") from error

    def _purge(self, name: str, connection: Any) -> int:
        with connection.channel() as own:
            try:
                return int(self.queues[name](own).purge() or 0)
            except connection.channel_errors as error:
                if getattr(error, "reply_code", None) != _MISSING:
                    raise
                return 0  # where there is no queue, nothing waits

    def close(self) -> None:
        with self._lock:
            self._leave_to_parent()
            opened = [one for idle in self._idle.values() for one in idle]
            for idle in self._idle.values():
                idle.clear()
        for one in opened:
            one.close()


def drop(connection: Any) -> None:
    """Let go of a connection that broke, without taking leave: the other end may never answer."""
    try:
        sock = getattr(connection._connection, "sock", None)  # of AMQP; what is not connected has none
        if sock is None:
            connection.release()
        else:
            sock.settimeout(GOODBYE_S)
            connection.collect()
    except Exception as error:  # it is gone already, in one of many ways
        logger.debug("dropping a connection: %s", error)


class Pulse:
    """Whether the other end of a connection that listens is there: where nothing comes, a broken one looks like a quiet one.

    AMQP has heartbeats for that. A Redis is asked every SILENCE_S, over the connection itself where it pushes what it has
    (subscriptions), and else beside it.
    """

    def __init__(self, broker: Broker, connection: Any, channel: Any) -> None:
        self._broker = broker
        self._connection = connection
        self._channel = channel
        self._asked_at = clock.monotonic()

    def check(self) -> None:
        """Show a sign of life, and look for one; to be called every second or so, by the thread that listens.

        Raises OperationalError, or one of the broker's `errors`, when the other end has been silent for too long.
        """
        if self._connection.transport.driver_type != "redis":
            self._connection.heartbeat_check(self._broker.heartbeat_rate)
        elif clock.monotonic() - self._asked_at >= SILENCE_S:
            self._asked_at = clock.monotonic()
            self._ask_redis()

    def _ask_redis(self) -> None:
        with self._channel.conn_or_acquire() as client:
            client.ping()
        subscribed = self._channel.__dict__.get("subclient")  # made at the first subscription
        if subscribed is None or subscribed.connection is None:
            return
        if subscribed.health_check_response_counter:
            raise OperationalError(f"Redis at {self._broker.shown} does not answer over the connection that listens")
        subscribed.health_check_response_counter += 1  # its reader counts down, and hands nothing on
        subscribed.connection.send_command("PING", subscribed.HEALTH_CHECK_MESSAGE, check_health=False)


def advice(error: BaseException) -> str:
    """Return what to look at; a broker that has answered tells that itself."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    kinds = {kind.__name__ for one in (error, error.__cause__, cause) for kind in type(one).__mro__}
    if "AuthenticationError" in kinds:  # of Redis
        return "; give the right password in its URL"
    if "SSLError" in kinds:
        return "; does it speak TLS at this port?"
    if "gaierror" in kinds:
        return "; check the name of its host"
    if getattr(error, "reply_code", None) or "ResponseError" in kinds:  # of AMQP, and of Redis
        return ""
    return "; is it running?"


def said(error: BaseException) -> str:
    """Return what an error says, in one line; some of AMQP say nothing but their name, or where in the protocol they are."""
    text = " ".join(str(error).split()).removeprefix("(0, 0): ")
    return text or type(error).__name__
