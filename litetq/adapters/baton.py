"""Which of several beats sends: the one that holds the baton, of which a broker has one for each app.

Whoever gets it is told what the one before had noted, which entry was sent last for which due time, and goes on from there. It is noted after
each sending, so that a kill between the two sends that due time once more, and nothing else twice.

    Redis       a hash, litetq-beat.<app>: who holds it, until when, and the note. Held for a few seconds, and longer while it is asked for
    RabbitMQ    a queue of that name with one message, the note, and room for one consumer: held as long as the connection lives
    others      have nothing of the kind: each beat sends, and begins anew when it starts
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final, NamedTuple, Protocol

from litetq import clock
from litetq.adapters.broker import PERSISTENT, Broker, drop
from litetq.exceptions import OperationalError
from litetq.message import JSON

logger = logging.getLogger("celery.beat")

LEASE_S: Final = 5.0  # in Redis, since the last look, of which there is one a second; arbitrary
LOOK_S: Final = 1.0  # that a round trip over RabbitMQ's connection is believed
FRAME_S: Final = 0.01
HEARTBEAT_S: Final = 4.0  # of RabbitMQ's connection: twice that after a machine is gone, somebody else leads
_NAME: Final = "litetq-beat."
_REFUSED: Final = (403, 405)  # AMQP: somebody else consumes exclusively

_HOLD: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local holder, ends = redis.call('HGET', KEYS[1], 'holder'), tonumber(redis.call('HGET', KEYS[1], 'until') or 0)
if holder and holder ~= ARGV[1] and ends > now then return {0, ''} end
local is_new = holder ~= ARGV[1] or ends <= now
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', now + ARGV[2])
if ARGV[3] ~= '' and not is_new then redis.call('HSET', KEYS[1], 'note', ARGV[3]) end
return {is_new and 2 or 1, redis.call('HGET', KEYS[1], 'note') or ''}
"""

_DROP: Final = """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('HSET', KEYS[1], 'until', 0) end
return 1
"""


class Grip(NamedTuple):
    """How a look for the baton ended."""

    is_held: bool
    is_new: bool = False  # it is held since this look
    note: str | None = None  # of the one before, where it is new


HELD: Final = Grip(True)
NOT_HELD: Final = Grip(False)


class Baton(Protocol):
    def hold(self) -> Grip:
        """Take it, or hold it for longer. Raises OperationalError when the broker cannot be asked."""

    def is_held(self) -> bool:
        """Return whether it is held at this moment, as far as is known; asks again after a while."""

    def note(self, text: str) -> None:
        """Write down what the next holder is to know. Raises OperationalError."""

    def drop(self) -> None:
        """Let somebody else have it, if it is held."""


class NoBaton:
    """Where nothing decides between beats: each sends."""

    def hold(self) -> Grip:
        return HELD

    def is_held(self) -> bool:
        return True

    def note(self, text: str) -> None: ...

    def drop(self) -> None: ...


class _Connected:
    """A connection of its own, made when it is needed, and anew after an error."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._connection: Any = None
        self._channel: Any = None

    def channel(self, heartbeat: float = 0) -> Any:
        if self._channel is None:
            if self._connection is None:
                self._connection = self._broker.connection(is_confirmed=True)
                self._connection.heartbeat = heartbeat
                self._broker.open(self._connection)
            self._channel = self._connection.channel()
        return self._channel

    def receive(self) -> None:
        """Receive what has come. Raises one of `errors` when the connection is gone."""
        self._connection.heartbeat_check()
        try:
            while True:
                self._connection.drain_events(timeout=FRAME_S)
        except TimeoutError:
            return

    def close_channel(self) -> None:
        """Forget a channel that the broker has closed; the next one is over the same connection."""
        self._channel = None

    def lose(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            try:
                connection.release()
            except Exception as error:  # it is gone already
                logger.debug("beat: closing a connection: %s", error)

    def failed(self, error: BaseException) -> OperationalError:
        if self._connection is not None:
            drop(self._connection)
        self.lose()
        return OperationalError(
            f"the broker {self._broker.shown} cannot be asked which beat leads ({error}); is it running?"
        )

    def errors(self) -> tuple[type[BaseException], ...]:
        return self._broker.errors(self._connection or self._broker.connection())


class RedisBaton:
    """A hash in Redis; time is that of the server."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._at = _Connected(broker)
        self._key = _NAME + name
        self._token = secrets.token_hex(8)
        self._held_since: float | None = None  # monotonic: when it was last asked for with success

    def _ask(self, script: str, *args: Any) -> Any:
        try:
            client = self._at.channel().client
            return client.register_script(script)(keys=[self._key], args=[self._token, *args])
        except self._at.errors() as error:
            raise self._at.failed(error) from error

    def hold(self) -> Grip:
        return self._hold("")

    def _hold(self, note: str) -> Grip:
        asked_at = clock.monotonic()
        state, before = self._ask(_HOLD, int(LEASE_S * 1000), note)
        self._held_since = asked_at if state else None
        if not state:
            return NOT_HELD
        return (
            Grip(True, True, (before.decode() if isinstance(before, bytes) else before) or None) if state == 2 else HELD
        )

    def is_held(self) -> bool:
        if self._held_since is None:
            return False
        if clock.monotonic() - self._held_since < LEASE_S / 4:
            return True
        grip = self._hold("")
        if grip.is_new:  # it had run out: somebody else may have had it meanwhile
            self.drop()
            return False
        return grip.is_held

    def note(self, text: str) -> None:
        self._hold(text)

    def drop(self) -> None:
        if self._held_since is not None:
            self._held_since = None
            try:
                self._ask(_DROP)
            except OperationalError as error:
                logger.debug("beat: %s", error)
        self._at.lose()


class AmqpBaton:
    """A queue of RabbitMQ with one message, consumed exclusively and held unacknowledged: a lost connection gives both back."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._at = _Connected(broker)
        self._broker = broker
        self._name = _NAME + name
        self._held: Any = None  # the message with the newest note
        self._is_held = False
        self._looked_at = 0.0  # monotonic

    def hold(self) -> Grip:
        try:
            if self._is_held:
                self._look()
                return HELD
            return self._take()
        except self._at.errors() as error:
            self._let_go()
            if getattr(error, "reply_code", None) in _REFUSED:
                self._at.close_channel()
                return NOT_HELD
            raise self._at.failed(error) from error

    def _take(self) -> Grip:
        channel = self._at.channel(HEARTBEAT_S)
        # The newest message stays, if a crash has left two.
        channel.queue_declare(self._name, durable=True, auto_delete=False, arguments={"x-max-length": 1})
        channel.basic_consume(self._name, exclusive=True, callback=self._receive)
        self._is_held = True
        self._look()
        body = None if self._held is None else self._held.body
        return Grip(True, True, (body.decode() if isinstance(body, bytes) else body) or None)

    def _receive(self, message: Any) -> None:
        held, self._held = self._held, message
        if held is not None:
            held.channel.basic_ack(held.delivery_tag)

    def _look(self) -> None:
        """Receive what has come; a round trip shows that the connection lives."""
        self._at.channel().queue_declare(self._name, passive=True)
        self._at.receive()
        self._looked_at = clock.monotonic()

    def is_held(self) -> bool:
        if self._is_held and clock.monotonic() - self._looked_at < LOOK_S:
            return True
        return self._is_held and self.hold().is_held

    def note(self, text: str) -> None:
        try:
            channel = self._at.channel()
            message = channel.prepare_message(
                text.encode(), content_type=JSON, content_encoding="utf-8", properties={"delivery_mode": PERSISTENT}
            )
            channel.basic_publish(message, exchange="", routing_key=self._name)
            self._at.receive()
        except self._at.errors() as error:
            self._let_go()
            raise self._at.failed(error) from error

    def _let_go(self) -> None:
        self._held, self._is_held = None, False

    def drop(self) -> None:
        self._let_go()
        self._at.lose()


def open(broker: Broker, name: str) -> Baton:
    """Return the baton of an app at a broker; nothing is asked yet."""
    if broker.is_amqp:
        return AmqpBaton(broker, name)
    return RedisBaton(broker, name) if broker.scale.is_turned else NoBaton()
