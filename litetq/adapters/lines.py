"""Lines: the connection over which a worker receives, and what its transport does with messages that are not acknowledged.

kombu's transports are of two kinds. An AMQP broker pushes messages, as many as it is told that the worker may hold, and takes
back what is not acknowledged when the connection is lost. The others ("virtual" ones: Redis, SQS, a folder) are asked for messages,
and keep what is not acknowledged under a tag that any later connection may acknowledge: the worker goes on holding it.

`open` looks at the connection once and returns the line of its kind; nothing else asks which transport it is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import selectors
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from typing import Any, Final, TypeAlias
from uuid import uuid4

from litetq import adapters, clock
from litetq.adapters.broker import SILENCE_S, Broker, Pulse
from litetq.exceptions import OperationalError

logger = logging.getLogger("celery.worker.consumer")

DRAIN_S: Final = 0.5  # of one wait for messages: how long a stop may take to be seen
FRAME_S: Final = 0.05  # of one wait for the rest of what has begun to arrive
LOOK_S: Final = 0.003  # after the last message, between two looks into a Redis that tells of none; arbitrary
LONGEST_LOOK_S: Final = 0.05  # which these pauses grow to: 20 looks a second
LOOK_AFTER_S: Final = 1.0  # between two times that what the dead held is looked for
EXTEND_S: Final = 60.0  # at most, between two times that what is held is shown to be alive

Receive: TypeAlias = Callable[[str, Any], None]  # the name of a queue, and kombu's message from it


class Waker:
    """Wakes a thread that waits for messages, whatever it waits on."""

    def __init__(self) -> None:
        self._is_set = threading.Event()
        self.ear, self._mouth = socket.socketpair()
        self.ear.setblocking(False)
        self._mouth.setblocking(False)

    def set(self) -> None:
        if not self._is_set.is_set():
            self._is_set.set()
            try:
                self._mouth.send(b"\0")
            except OSError:  # full, or closed: whoever waits does not any more
                pass

    def clear(self) -> None:
        try:
            while self.ear.recv(64):
                pass
        except OSError:
            pass
        self._is_set.clear()  # after that: who sets it in between is seen by who looks afterwards

    def wait(self, timeout: float) -> None:
        """Wait until it is set, not longer than `timeout` seconds; afterwards it is not set."""
        self._is_set.wait(timeout)
        self.clear()

    def close(self) -> None:
        self.ear.close()
        self._mouth.close()


class Line:
    """A connection of a virtual transport. For one thread, but for `acknowledge`."""

    pushes = False  # messages come unasked, as many as `limit` says; without it, they are asked for one by one
    keeps_held = True  # what is held can be acknowledged over a later line
    tags_stay = False  # a message that comes again has the tag that it had, and what has another tag is another message

    def __init__(self, broker: Broker, connection: Any, receive: Receive, memory: dict[str, str]) -> None:
        self.broker = broker
        self._memory = memory
        self.connection = connection
        self.channel = connection.channel()
        self._receive = receive
        self._consumers: dict[str, Any] = {}

    def consume(self, queues: Mapping[str, Any]) -> None:
        """Have what comes from these queues received from now on, and from no others; they are declared.

        What was received from others stays.
        """
        for name in self._consumers.keys() - queues.keys():
            self._consumers.pop(name).cancel()
        for name, queue in queues.items():
            if name not in self._consumers:
                self.broker.declare_over(queue, self.connection, self.channel)
                self._consumers[name] = self._consumer(name, queue)
                self._consumers[name].consume()

    def _consumer(self, name: str, queue: Any) -> Any:
        def on_message(message: Any) -> None:
            self._receive(name, message)

        return self.connection.Consumer([queue], channel=self.channel, on_message=on_message, auto_declare=False)

    def limit(self, count: int) -> None:
        """Let not more than so many messages be unacknowledged; to be said before `consume`, and whenever it changes."""

    def drain(self, waker: Waker) -> bool:
        """Receive what comes, or wait for a moment; return False when nothing is there."""
        try:
            self.connection.drain_events(timeout=DRAIN_S)
        except TimeoutError:
            self.connection.heartbeat_check()
            return False
        return True

    def adopt(self, messages: Collection[Any]) -> None:
        """Let messages that came over an earlier line be acknowledged over this one."""
        for message in messages:
            message.channel = self.channel
            self.channel.qos.append(message, message.delivery_tag)

    def abandon(self) -> None:
        """Let nothing go back to its queue because this line is lost: who holds it acknowledges it over the next one."""
        self.channel.do_restore = False

    def acknowledge(self, message: Any) -> None:
        message.ack()

    def acknowledged_at_once(self, message: Any) -> bool:
        """Acknowledge in any thread, where that can be done; return whether it is."""
        return False

    def extend(self, messages: Collection[Any]) -> None:
        """Show the broker that what is held is alive."""

    def close(self) -> None:
        """Close the line; what is not acknowledged goes back to its queue, unless it was abandoned."""
        self.channel.close()


# Takes a message from the first of several lists that has one, and notes it as unacknowledged, as kombu does in two steps. What Redis
# cannot read it leaves there, and returns without a tag.
_TAKE: Final = """
for place = 4, #KEYS do
    local item = redis.call('LINDEX', KEYS[place], -1)
    if item then
        local can_be_read, tag, noted = pcall(function ()
            local properties = cjson.decode(item)['properties']
            local info = properties['delivery_info']
            local route = cjson.encode(info['exchange']) .. ',' .. cjson.encode(info['routing_key'])
            return properties['delivery_tag'], '[' .. item .. ',' .. route .. ']'
        end)
        if not can_be_read or type(tag) ~= 'string' then return {KEYS[place], '', item} end
        redis.call('ZADD', KEYS[1], ARGV[1], tag)
        redis.call('HSET', KEYS[2], tag, noted)
        redis.call('SET', KEYS[3], tag, 'EX', ARGV[2])
        redis.call('RPOP', KEYS[place])
        return {KEYS[place], tag, item}
    end
end
return {}
"""

# The same for a message that the worker has read itself, if it still lies there; one without a tag is thrown away.
_TAKE_KNOWN: Final = """
if redis.call('LINDEX', KEYS[4], -1) ~= ARGV[3] then return 0 end
if ARGV[4] ~= '' then
    redis.call('ZADD', KEYS[1], ARGV[1], ARGV[4])
    redis.call('HSET', KEYS[2], ARGV[4], ARGV[5])
    redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[2])
end
redis.call('RPOP', KEYS[4])
return 1
"""


@cache
def _name_of(script: str) -> str:
    """Return under which name Redis keeps a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


class _Wire:
    """A connection of a Redis channel's kind, beside its pool: its answers come in order, each within the time of its sockets."""

    def __init__(self, channel: Any) -> None:
        pool = channel.pool
        # What belongs to other pools, and to version 3 of the protocol, is not for one that stands alone.
        options = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(_OF_POOL)}
        self._connection = pool.connection_class(**{**options, "protocol": 2, "health_check_interval": 0})
        self._connection.connect()

    @property
    def socket(self) -> Any:
        return self._connection._sock

    def ask(self, *commands: tuple[Any, ...]) -> Any:
        """Send commands in one go, and return the answer to the last one. Raises what Redis, or the connection, says."""
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [self._connection.read_response() for _ in commands][-1]

    def tell(self, *command: Any) -> None:
        self._connection.send_command(*command)

    def heard(self) -> list[Any]:
        """Return what has come unasked."""
        found = []
        while self._connection.can_read(0):
            found.append(self._connection.read_response())
        return found

    def close(self) -> None:
        self._connection.disconnect()


_OF_POOL: Final = ("maint_notifications", "orig_")


class _Bell:
    """Rings when something changes in lists that were found empty: Redis tells that to who has looked, whoever changes them.

    So a message is waited for without being taken, and nobody else notices. Raises one of redis' errors where the server does not
    know that (before version 6), or does not allow it.
    """

    def __init__(self, channel: Any, looks: _Wire) -> None:
        self._wire = _Wire(channel)
        self._asked_at = clock.monotonic()
        self._is_asked = False
        try:
            client = self._wire.ask(("CLIENT", "ID"))
            self._wire.ask(("SUBSCRIBE", "__redis__:invalidate"))
            looks.ask(("CLIENT", "TRACKING", "ON", "REDIRECT", client, "OPTIN"))
        except BaseException:
            self._wire.close()
            raise

    @property
    def socket(self) -> Any:
        return self._wire.socket

    def hear(self) -> None:
        """Read what it rang. Raises one of redis' errors when it is broken, OperationalError when it has been silent for too long."""
        if any(message[0] == b"pong" for message in self._wire.heard()):
            self._is_asked = False
        if clock.monotonic() - self._asked_at < SILENCE_S:
            return
        if self._is_asked:
            raise OperationalError("Redis does not answer over the connection on which it tells of new messages")
        self._asked_at, self._is_asked = clock.monotonic(), True
        self._wire.tell("PING")

    def close(self) -> None:
        self._wire.close()


class RedisLine(Line):
    """Redis knows what is not acknowledged by a tag, and gives it back after the visibility timeout, which is extended here.

    Each message is taken and noted by one script, and is never anywhere else but in one of the two: neither worker nor Redis can
    lose it by dying. One whose answer did not arrive is looked up by the next line. Where there is none, the worker waits for the
    bell, or asks again after a moment where Redis has none.
    """

    tags_stay = True

    def __init__(self, broker: Broker, connection: Any, receive: Receive, memory: dict[str, str]) -> None:
        super().__init__(broker, connection, receive, memory)
        self._extended_at = self._looked_after_at = clock.monotonic()
        self._prefix = self.channel.global_keyprefix
        self._memory.setdefault("taker", f"{self._prefix}litetq-taken.{uuid4()}")
        self._has_looked_up = False
        self._was_empty = False  # the last look found nothing: the next one is told of changes
        self._pause = LOOK_S
        self._copies: _Copies | None = None
        self._selector = selectors.DefaultSelector()
        qos = self.channel.qos
        qos.append = partial(adapters.package("kombu.transport.virtual").QoS.append, qos)  # noted by who takes it
        self._wire = _Wire(self.channel)
        self._bell = self._hung()

    def _hung(self) -> _Bell | None:
        try:
            return _Bell(self.channel, self._wire)
        except adapters.package("redis").exceptions.ResponseError as error:
            logger.info("%s does not tell of new messages (%s): it is asked for them", self.broker.shown, error)
            return None

    def consume(self, queues: Mapping[str, Any]) -> None:
        copies = {name: queue for name, queue in queues.items() if _is_broadcast(queue)}
        super().consume({name: queue for name, queue in queues.items() if name not in copies})
        self._was_empty = False
        if copies and self._copies is None:
            self._copies = _Copies(self.broker, self._receive)
        if self._copies is not None:
            self._copies.consume(copies)

    def drain(self, waker: Waker) -> bool:
        if not self._has_looked_up:
            self._look_up()
        self._look_after()
        if self._copies is not None and self._copies.drain():
            return True
        if self._take():
            self._was_empty, self._pause = False, LOOK_S
            return True
        if self._was_empty:
            self._wait(waker)
        self._was_empty = True
        return False

    def _keys(self) -> list[str]:
        channel = self.channel
        return [
            self._prefix + channel.unacked_index_key,
            self._prefix + channel.unacked_key,
            self._memory["taker"],
        ]

    def _take(self) -> bool:
        channel = self.channel
        served = channel._queue_cycle.consume(len(channel.active_queues))
        lists = {
            self._prefix + channel._q_for_pri(name, step): name for step in channel.priority_steps for name in served
        }
        found = self._run(_TAKE, [*self._keys(), *lists], self._when())
        if not found:
            return False
        key, tag, item = found
        queue = lists[_text(key)]
        return self._deliver(queue, _text(tag), item) if tag else self._take_unread(queue, key, item)

    def _when(self) -> tuple[Any, ...]:
        return clock.now(), int(self.channel.visibility_timeout) + 1

    def _take_unread(self, queue: str, key: bytes, item: bytes) -> bool:
        """Take what Redis cannot read, such as half of a letter; what nobody can read is thrown away, and the log has its beginning."""
        try:
            message = json.loads(item)
            properties = message["properties"]
            tag, info = str(properties["delivery_tag"]), properties["delivery_info"]
            noted = json.dumps([message, info["exchange"], info["routing_key"]])
        except (ValueError, TypeError, KeyError) as error:
            logger.error(
                "A message in queue %r was refused, since it is not in kombu's form (%r)\n%.500r", queue, error, item
            )
            tag = noted = ""
        is_taken = self._run(_TAKE_KNOWN, [*self._keys(), key], (*self._when(), item, tag, noted))
        return self._deliver(queue, tag, item) if is_taken and tag else bool(is_taken)

    def _run(self, script: str, keys: Collection[Any], words: Collection[Any]) -> Any:
        """Run a script; after a look that found nothing, changes of what this one looks at ring the bell."""
        before = (("CLIENT", "CACHING", "YES"),) if self._was_empty and self._bell is not None else ()
        command = ("EVALSHA", _name_of(script), len(keys), *keys, *words)
        try:
            return self._wire.ask(*before, command)
        except adapters.package("redis").exceptions.NoScriptError:
            self._wire.ask(("SCRIPT", "LOAD", script))
            return self._wire.ask(*before, command)

    def _look_up(self) -> None:
        """Receive the message that was taken for this worker by a script whose answer did not come."""
        _, unacked, taker = self._keys()
        tag = _text(self._wire.ask(("GET", taker)) or b"")
        noted = self._wire.ask(("HGET", unacked, tag)) if tag and tag != self._memory.get("tag") else None
        self._has_looked_up = True
        if noted is not None:
            message, _, key = json.loads(noted)
            queue = key if key in self._consumers else next(iter(self._consumers))
            self._deliver(queue, tag, json.dumps(message))

    def _deliver(self, queue: str, tag: str, item: str | bytes) -> bool:
        self._memory["tag"] = tag
        self.channel._queue_cycle.rotate(queue)
        self.channel.connection._deliver(json.loads(item), queue)
        return True

    def _look_after(self) -> None:
        """Give back what the dead held for too long, and do what kombu does once in a while."""
        if clock.monotonic() - self._looked_after_at < LOOK_AFTER_S:
            return
        self._looked_after_at = clock.monotonic()
        channel = self.channel
        channel.qos.restore_visible(num=channel.unacked_restore_limit, interval=channel.unacked_restore_throttle)
        if hasattr(channel, "maybe_refresh_binding_expiry"):  # since kombu 5.7
            channel.maybe_refresh_binding_expiry()

    def _wait(self, waker: Waker) -> None:
        """Wait until the bell rings, something is broadcast, or `waker` is set, or for a moment."""
        ears: list[Any] = [waker.ear]
        if self._bell is not None:
            ears.append(self._bell.socket)
        if self._copies is not None:
            ears += self._copies.files()
        for ear in ears:
            self._selector.register(ear, selectors.EVENT_READ)
        try:
            self._selector.select(self._pause if self._bell is None else DRAIN_S)
        finally:
            for ear in ears:
                self._selector.unregister(ear)
        self._pause = min(self._pause * 2, LONGEST_LOOK_S)
        if self._bell is not None:
            self._bell.hear()

    def adopt(self, messages: Collection[Any]) -> None:
        for message in messages:
            message.channel = self.channel

    def acknowledged_at_once(self, message: Any) -> bool:
        # Otherwise it waited for the end of a look, and a worker that is killed meanwhile had begun a task that comes again.
        try:
            message.ack()
        except Exception as error:
            logger.debug("message %s is acknowledged later: %s", message.delivery_tag, error)
            return False
        return True

    def extend(self, messages: Collection[Any]) -> None:
        if clock.monotonic() - self._extended_at < min(EXTEND_S, float(self.channel.visibility_timeout) / 4):
            return
        self._extended_at = clock.monotonic()
        if messages:
            tags = dict.fromkeys((message.delivery_tag for message in messages), clock.now())
            with self.channel.conn_or_acquire() as client:
                client.zadd(self.channel.unacked_index_key, tags, xx=True)

    def abandon(self) -> None:
        super().abandon()
        if self._copies is not None:
            self._copies.abandon()
        self._let_go()

    def close(self) -> None:
        self._wire.ask(("DEL", self._memory["taker"]))
        if self._copies is not None:
            self._copies.close()
        self._let_go()
        super().close()

    def _let_go(self) -> None:
        self._wire.close()
        if self._bell is not None:
            self._bell.close()
        self._selector.close()


class _Copies:
    """What is broadcast to a worker: Redis pushes it, over a connection of its own, which kombu reads."""

    def __init__(self, broker: Broker, receive: Receive) -> None:
        self._connection = broker.connection(is_listening=True)
        broker.open(self._connection)
        self._line = Line(broker, self._connection, receive, {})
        self._pulse = Pulse(broker, self._connection, self._line.channel)

    def consume(self, queues: Mapping[str, Any]) -> None:
        self._line.consume(queues)
        self.drain()  # within that, kombu subscribes

    def files(self) -> list[int]:
        """Return on which files something can come."""
        return list(self._connection.transport.cycle.fds)

    def drain(self) -> bool:
        """Receive what has come; return whether anything has."""
        self._pulse.check()
        try:
            self._connection.drain_events(timeout=0)
        except TimeoutError:
            return False
        return True

    def abandon(self) -> None:
        self._line.abandon()
        self._release()

    def close(self) -> None:
        self._line.close()
        self._release()

    def _release(self) -> None:
        try:
            self._connection.release()
        except Exception as error:  # it is gone already, in one of many ways
            logger.debug("closing the connection of what is broadcast: %s", error)


def _is_broadcast(queue: Any) -> bool:
    exchanges = (queue.exchange, *(binding.exchange for binding in queue.bindings or ()))
    return any(exchange is not None and exchange.type == "fanout" for exchange in exchanges)


class SqsLine(Line):
    """SQS gives a message to somebody else after its visibility timeout, which is extended here for what is held."""

    def __init__(self, broker: Broker, connection: Any, receive: Receive, memory: dict[str, str]) -> None:
        super().__init__(broker, connection, receive, memory)
        self._extended_at = clock.monotonic()

    def extend(self, messages: Collection[Any]) -> None:
        timeout = float(self.channel.visibility_timeout)
        if clock.monotonic() - self._extended_at < min(EXTEND_S, timeout / 4):
            return
        self._extended_at = clock.monotonic()
        for message in messages:
            info = message.delivery_info
            handle = (info.get("sqs_message") or {}).get("ReceiptHandle")
            if handle is not None:
                self.channel.sqs(info.get("routing_key")).change_message_visibility(
                    QueueUrl=info["sqs_queue"], ReceiptHandle=handle, VisibilityTimeout=int(timeout)
                )


class AmqpLine(Line):
    """AMQP: RabbitMQ pushes, within a limit, and takes back what is not acknowledged as soon as the connection is lost.

    The limit is told for the channel where the broker knows that, and else for each queue: it then holds for consumers that
    begin after it, so that these begin anew when it grows.
    """

    pushes = True
    keeps_held = False
    tags_stay = True

    def __init__(self, broker: Broker, connection: Any, receive: Receive, memory: dict[str, str]) -> None:
        super().__init__(broker, connection, receive, memory)
        transport = connection.transport
        self._is_shared = not broker.queues.has_quorum and not transport.qos_semantics_matches_spec(
            connection.connection
        )
        self._limit = 0
        self._selector = selectors.DefaultSelector()
        self._sock: Any = None

    def limit(self, count: int) -> None:
        if self._is_shared or not self._limit:
            if count != self._limit:
                self._limit = count
                self.channel.basic_qos(0, count, self._is_shared)
        elif count > self._limit:
            # Twice as many as needed: beginning anew costs a round trip for each queue.
            self._limit = count * 2
            self.channel.basic_qos(0, self._limit, False)
            for consumer in self._consumers.values():
                consumer.cancel()
                consumer.consume()

    def drain(self, waker: Waker) -> bool:
        if not self._has_data():
            self._wait(waker)
        received = False
        while self._has_data():
            try:
                self.connection.drain_events(timeout=FRAME_S)
            except TimeoutError:  # a heartbeat, or the beginning of something long
                break
            received = True
        self.connection.heartbeat_check(self.broker.heartbeat_rate)
        return received

    def _has_data(self) -> bool:
        sock = self.connection.connection.sock
        if getattr(sock, "pending", int)():  # TLS has more in its own buffer
            return True
        if sock is not self._sock:
            self._watch(sock)
        return any(key.fileobj is sock for key, _ in self._selector.select(0))

    def _watch(self, sock: Any) -> None:
        if self._sock is not None:
            self._selector.unregister(self._sock)
        self._selector.register(sock, selectors.EVENT_READ)
        self._sock = sock

    def _wait(self, waker: Waker) -> None:
        self._selector.register(waker.ear, selectors.EVENT_READ)
        try:
            self._selector.select(DRAIN_S)
        finally:
            self._selector.unregister(waker.ear)

    def adopt(self, messages: Collection[Any]) -> None:
        """Nothing is adopted: it comes again."""

    def abandon(self) -> None:
        """RabbitMQ has taken all back already."""

    def close(self) -> None:
        self._selector.close()
        super().close()


_BY_DRIVER: Final[dict[str, type[Line]]] = {"amqp": AmqpLine, "redis": RedisLine, "sqs": SqsLine}


def open(broker: Broker, connection: Any, receive: Receive, memory: dict[str, str]) -> Line:
    """Return a line over a connection that is open.

    Args:
        receive: gets each message, and the name of its queue.
        memory: what one line of a worker leaves to the next one.
    """
    kind = _BY_DRIVER.get(connection.transport.driver_type, Line)
    if not connection.transport_options.get("ack_emulation", True):  # as the user wishes: taken is gone
        kind = Line
    return kind(broker, connection, receive, memory)


def _text(data: str | bytes) -> str:
    return data.decode() if isinstance(data, bytes) else data


def timed_out(error: BaseException) -> bool:
    """Return whether RabbitMQ has closed the channel because a message was not acknowledged for too long."""
    return "delivery acknowledgement" in str(error) and "timed out" in str(error)
