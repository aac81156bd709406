"""Remote control and events over the wire, as Celery does them: kombu's pidbox, and the exchange `celeryev`.

A command is broadcast to the exchange `celery.pidbox`; each worker reads a queue of its own there, and answers to the queue that
the command names. So `celery inspect` finds workers of ours, and `litetq inspect` those of Celery.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from uuid import uuid4

from litetq import adapters, clock
from litetq.adapters.broker import Broker, Pulse, drop, said
from litetq.exceptions import ImproperlyConfigured, OperationalError
from litetq.mailbox import Event

logger = logging.getLogger("celery.worker.consumer")

ANSWERS_S: Final = 10.0  # how long answers to one command are waited for; arbitrary, longer than anybody asks
AFTER_ERROR_S: Final = 1.0
LISTENS_WITHIN_S: Final = 5.0  # a worker does not wait longer until it hears commands; arbitrary
FIRST_LOOK_S: Final = 0.01
DRAIN_S: Final = 0.5  # of one wait for messages: how long a stop may take to be seen
Hear = Callable[[str | None, Mapping[str, Any], float], None]


class Naming(NamedTuple):
    """What the settings say about exchanges and queues of commands and events; times are seconds."""

    control: str = "celery"  # control_exchange
    control_ttl: float | None = 300.0
    control_expires: float | None = 10.0
    control_exclusive: bool = True
    control_durable: bool = False
    events: str = "celeryev"  # event_exchange
    event_prefix: str = "celeryev"
    event_ttl: float | None = 5.0
    event_expires: float | None = 60.0
    event_exclusive: bool = True
    event_durable: bool = False


USUAL: Final = Naming()


class Post:
    """Commands, answers and events of one process."""

    def __init__(self, broker: Broker, naming: Naming = USUAL) -> None:
        self._broker = broker
        self._naming = naming
        self._reply_to: dict[str, Mapping[str, str]] = {}  # ticket -> where its answer goes
        self._ends: list[Callable[[], None]] = []  # of those that listen
        self._exchange: Any = None
        self._event_thread: threading.Thread | None = None
        self._is_closed = False

    def _mailbox(self, connection: Any) -> Any:
        naming = self._naming
        return adapters.package("kombu.pidbox").Mailbox(
            naming.control,
            type="fanout",
            connection=connection,
            accept=["json"],
            serializer="json",
            queue_ttl=naming.control_ttl,
            queue_expires=naming.control_expires,
            queue_exclusive=naming.control_exclusive,
            queue_durable=naming.control_durable,
            reply_queue_ttl=naming.control_ttl,
            reply_queue_expires=naming.control_expires,
        )

    # -- asking

    def broadcast(
        self, command: Mapping[str, Any], ticket: str | None, answered: Callable[[str, Any], None] | None = None
    ) -> None:
        """Tell all workers. With a ticket, a thread gathers the answers and hands each to `answered`.

        Raises OperationalError when the broker cannot be reached, ImproperlyConfigured when it cannot tell all workers.
        """
        if not self._broker.knows_fanout():
            raise ImproperlyConfigured(
                f"Workers cannot be told to {command['method']}: the broker {self._broker.shown} hands each message to one "
                "receiver; remote control and events need a broker that reaches all, as redis:// and amqp:// do"
            )
        connection = self._broker.connection()
        try:
            self._broker.open(connection)
            channel = connection.channel()
            mailbox = self._mailbox(connection)
            message: dict[str, Any] = {
                "method": command["method"],
                "arguments": command.get("arguments") or {},
                "destination": command.get("destination"),
                "pattern": command.get("pattern"),
                "matcher": command.get("matcher"),
            }
            queue = None
            if ticket is not None:
                queue, reply_to = self._reply_queue(mailbox.reply_exchange, channel)
                message.update(ticket=ticket, reply_to=reply_to)
            mailbox.exchange(channel).declare()
            connection.Producer(channel, auto_declare=False).publish(
                message, exchange=mailbox.exchange.name, headers={"clock": 0, "expires": None}, serializer="json"
            )
        except self._broker.errors(connection) as error:
            drop(connection)
            raise OperationalError(
                f"Telling workers to {command['method']} failed: the broker {self._broker.shown} cannot be used ({said(error)})"
            ) from error
        if queue is None or answered is None:
            connection.release()
            return
        threading.Thread(
            target=self._gather, args=(connection, channel, queue, ticket, answered), name="litetq-answers", daemon=True
        ).start()

    def _reply_queue(self, exchange: Any, channel: Any) -> tuple[Any, dict[str, str]]:
        """Declare the queue to which the answers to one command go; return it, and how the command names it.

        One for each: kombu's own name for it is made of the address of an object, and a command soon after another one may get
        the same; who still gathers answers to the other one would throw away what comes.
        """
        key = str(uuid4())
        queue = adapters.package("kombu").Queue(
            f"{key}.{exchange.name}",
            exchange,
            routing_key=key,
            durable=False,
            auto_delete=True,
            expires=self._naming.control_expires,
            message_ttl=self._naming.control_ttl,
        )(channel)
        queue.declare()
        return queue, {"exchange": exchange.name, "routing_key": key}

    def _gather(
        self, connection: Any, channel: Any, queue: Any, ticket: str, answered: Callable[[str, Any], None]
    ) -> None:
        def receive(body: Any, message: Any) -> None:
            message.ack()
            if message.headers.get("ticket", ticket) == ticket:
                for node, value in body.items():
                    answered(node, value)

        until = time.monotonic() + ANSWERS_S
        try:
            with connection.Consumer([queue], channel=channel, callbacks=[receive], accept=["json"]):
                while time.monotonic() < until:
                    try:
                        connection.drain_events(timeout=min(1.0, max(0.01, until - time.monotonic())))
                    except TimeoutError:
                        continue
            queue.delete()
        except Exception as error:
            logger.debug("gathering answers ended: %s", error)
            drop(connection)
        finally:
            connection.release()

    # -- being asked

    def listen(self, node: str, hear: Hear) -> Callable[[], None]:
        """Hear commands from now on, under a worker's name, in a thread of its own; return what ends that.

        What is told after this returns is heard, unless the broker is away at first, which is waited for a moment only.
        """
        is_over, has_tried = threading.Event(), threading.Event()
        thread = threading.Thread(
            target=self._run, args=(node, hear, is_over, has_tried), name=f"litetq-pidbox-{node}", daemon=True
        )

        def end() -> None:
            is_over.set()
            thread.join()

        self._ends.append(end)
        thread.start()
        has_tried.wait(LISTENS_WITHIN_S)
        return end

    def close(self) -> None:
        self._is_closed = True
        for end in self._ends:
            end()
        if self._event_thread is not None:
            self._event_thread.join()

    def _run(self, node: str, hear: Hear, is_over: threading.Event, has_tried: threading.Event) -> None:
        while not is_over.is_set():
            connection = self._broker.connection(is_listening=True)
            try:
                self._broker.open(connection)
                self._serve(connection, node, hear, is_over, has_tried)
            except Exception as error:
                # The courier says that the broker is gone; once is enough.
                logger.debug("worker %s: remote control is not heard: %s", node, error)
                drop(connection)
                has_tried.set()
                is_over.wait(AFTER_ERROR_S)
            finally:
                connection.release()

    def _serve(
        self, connection: Any, node: str, hear: Hear, is_over: threading.Event, has_tried: threading.Event
    ) -> None:
        def receive(body: Any, message: Any) -> None:
            ticket = body.get("ticket") if body.get("reply_to") else None
            if ticket is not None:
                self._reply_to[ticket] = body["reply_to"]
            wanted = ("method", "arguments", "destination", "pattern", "matcher")
            hear(ticket, {name: body[name] for name in wanted if body.get(name) is not None}, ANSWERS_S)

        channel = connection.channel()
        pulse = Pulse(self._broker, connection, channel)
        mailbox = self._mailbox(connection)
        queue = mailbox.get_queue(node)(channel)
        with connection.Consumer([queue], channel=channel, callbacks=[receive], accept=["json"], no_ack=True):
            while not is_over.is_set():
                try:
                    # kombu subscribes to Redis within the first look.
                    connection.drain_events(timeout=DRAIN_S if has_tried.is_set() else FIRST_LOOK_S)
                except TimeoutError:
                    has_tried.set()
                pulse.check()
        queue.delete()

    def answer(self, ticket: str, node: str, value: Any) -> None:
        """Answer a command that was heard."""
        reply_to = self._reply_to.pop(ticket, None)
        if reply_to is None:
            return
        exchange = adapters.package("kombu").Exchange(
            reply_to["exchange"], "direct", durable=False, delivery_mode="transient"
        )
        self._broker.tell({node: value}, exchange, reply_to["routing_key"], headers={"ticket": ticket, "clock": 0})

    # -- events

    def _event_exchange(self) -> Any:
        if self._exchange is None:
            # Celery's own choice: patterns of a topic are slow in Redis, and Google's has none.
            kind = "fanout" if self._broker.connection().transport.driver_type in ("redis", "gcpubsub") else "topic"
            self._exchange = adapters.package("kombu").Exchange(self._naming.events, kind, durable=True)
        return self._exchange

    def _event_queue(self) -> Any:
        naming = self._naming
        return adapters.package("kombu").Queue(
            f"{naming.event_prefix}.{uuid4()}",
            self._event_exchange(),
            routing_key="#",
            auto_delete=not naming.event_durable,
            durable=naming.event_durable,
            exclusive=naming.event_exclusive,
            message_ttl=naming.event_ttl,
            expires=naming.event_expires,
        )

    def hear_events(self, receive: Callable[[list[Event]], object]) -> None:
        """Hand what workers tell to `receive` from now on, in a thread that lives as long as this process, or until `close`."""
        if self._event_thread is None and self._broker.knows_fanout():
            heard = threading.Event()
            self._event_thread = threading.Thread(
                target=self._hear_events, args=(receive, heard), name="litetq-events", daemon=True
            )
            self._event_thread.start()
            heard.wait(5)

    def _hear_events(self, receive: Callable[[list[Event]], object], heard: threading.Event) -> None:
        def read(body: Any, _: Any) -> None:
            receive([_event_of(one) for one in (body if isinstance(body, list) else [body])])

        while not self._is_closed:
            connection = self._broker.connection(is_listening=True)
            try:
                self._broker.open(connection)
                channel = connection.channel()
                pulse = Pulse(self._broker, connection, channel)
                queue = self._event_queue()(channel)
                with connection.Consumer([queue], channel=channel, callbacks=[read], accept=["json"], no_ack=True):
                    heard.set()
                    while not self._is_closed:
                        _drain(connection)
                        pulse.check()
                queue.delete()
            except Exception as error:
                logger.warning("events of %s are not heard: %s; it is tried again", self._broker.shown, said(error))
                drop(connection)
                time.sleep(AFTER_ERROR_S)
            finally:
                connection.release()

    def tell_event(self, event: Event) -> None:
        """Publish an event for those who listen now; one that cannot be sent is dropped, and the log says so."""
        if not self._broker.knows_fanout():
            return
        exchange = self._event_exchange()
        offset = -time.timezone // 3600
        body = {
            **json.loads(event.body),
            "type": event.type,
            "hostname": event.hostname,
            "pid": event.pid,
            "timestamp": event.at,
            "utcoffset": -offset,
            "clock": int(clock.monotonic() * 1000),
        }
        try:
            self._broker.tell(
                body,
                exchange,
                event.type.replace("-", "."),
                headers={"hostname": event.hostname},
                delivery_mode=1,
            )
        except OperationalError as error:
            logger.debug("event %s was not sent: %s", event.type, error)


def _drain(connection: Any) -> None:
    """Receive what comes within a moment."""
    try:
        connection.drain_events(timeout=DRAIN_S)
    except TimeoutError:
        pass


def _event_of(body: Mapping[str, Any]) -> Event:
    """Return an event as it came over the wire in the form of the file."""
    fields = {
        name: value for name, value in body.items() if name not in ("type", "hostname", "pid", "timestamp", "clock")
    }
    return Event(
        float(body.get("timestamp") or clock.now()), str(body["type"]), str(body.get("hostname") or "?"),
        int(body.get("pid") or 0), json.dumps(fields),
    )  # fmt: skip
