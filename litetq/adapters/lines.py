"""Lines: the connection over which a worker receives, and what its transport does with messages that are not acknowledged.

kombu's transports are of two kinds. An AMQP broker pushes messages, as many as it is told that the worker may hold, and takes
back what is not acknowledged when the connection is lost. The others ("virtual" ones: Redis, SQS, a folder) are asked for messages,
and keep what is not acknowledged under a tag that any later connection may acknowledge: the worker goes on holding it.

`open` looks at the connection once and returns the line of its kind; nothing else asks which transport it is.
"""

from __future__ import annotations

import json
import logging
import selectors
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeAlias
from uuid import uuid4

from litetq import adapters, clock
from litetq.adapters.broker import Broker

logger = logging.getLogger("celery.worker.consumer")

DRAIN_S: Final = 0.5  # of one wait for messages: how long a stop may take to be seen
FRAME_S: Final = 0.05  # of one wait for the rest of what has begun to arrive
BUSY_S: Final = 0.1  # after a message, that the next one is looked for rather than waited for; arbitrary
LOOK_S: Final = 0.003  # between two such looks
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

    def salvage(self) -> None:
        """Receive what was taken from its queue for this line before it was lost."""

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


# Takes a message from the first of several lists that has one, and notes it as unacknowledged, as kombu does in two steps.
_TAKE: Final = """
for place = 4, #KEYS do
    local item = redis.call('LINDEX', KEYS[place], -1)
    if item then
        local can_be_read, message = pcall(cjson.decode, item)
        if not can_be_read then return {'?'} end
        local tag, info = message['properties']['delivery_tag'], message['properties']['delivery_info']
        local route = cjson.encode(info['exchange']) .. ',' .. cjson.encode(info['routing_key'])
        redis.call('ZADD', KEYS[1], ARGV[1], tag)
        redis.call('HSET', KEYS[2], tag, '[' .. item .. ',' .. route .. ']')
        redis.call('SET', KEYS[3], tag, 'EX', ARGV[2])
        redis.call('RPOP', KEYS[place])
        return {KEYS[place], tag, item}
    end
end
return {}
"""


class RedisLine(Line):
    """Redis knows what is not acknowledged by a tag, and gives it back after the visibility timeout, which is extended here.

    While messages come, each is taken and noted by one script, so that a Redis that goes away in between loses none; one whose
    answer did not arrive is looked up by the next line. A worker that has been idle for a moment waits as kombu does, with BRPOP:
    what is answered to that just as Redis goes down is lost, as with Celery.
    """

    tags_stay = True

    def __init__(self, broker: Broker, connection: Any, receive: Receive, memory: dict[str, str]) -> None:
        super().__init__(broker, connection, receive, memory)
        self._extended_at = self._took_at = clock.monotonic()
        self._memory.setdefault("taker", f"litetq-taken.{uuid4()}")
        self._has_looked = False
        # Keys with a prefix, and clusters, are kombu's matter alone.
        self._is_taking = not self.channel.global_keyprefix
        self._guard()

    def drain(self, waker: Waker) -> bool:
        if not self._is_taking or self.channel._in_poll:
            return super().drain(waker)
        if not self._has_looked:
            self._look_up()
        if self._take():
            self._took_at = clock.monotonic()
            return True
        if clock.monotonic() - self._took_at < BUSY_S:
            waker.wait(LOOK_S)
            return False
        return super().drain(waker)

    def _take(self) -> bool:
        channel = self.channel
        served = channel._queue_cycle.consume(len(channel.active_queues))
        lists = {channel._q_for_pri(name, step): name for step in channel.priority_steps for name in served}
        keys = [channel.unacked_index_key, channel.unacked_key, self._memory["taker"], *lists]
        with channel.conn_or_acquire() as client:
            try:
                found = client.register_script(_TAKE)(keys, [clock.now(), int(channel.visibility_timeout) + 1])
            except adapters.package("redis").exceptions.ResponseError as error:
                logger.debug("messages are taken one step after another: %s", error)
                self._is_taking = False
                return False
        if len(found) < 3:
            self._is_taking = not found  # what is there is no message of kombu's
            return False
        key, tag, item = found
        self._deliver(lists[_text(key)], _text(tag), item)
        return True

    def _look_up(self) -> None:
        """Receive the message that was taken for this worker by a script whose answer did not come."""
        with self.channel.conn_or_acquire() as client:
            tag = _text(client.get(self._memory["taker"]) or b"")
            noted = client.hget(self.channel.unacked_key, tag) if tag and tag != self._memory.get("tag") else None
        self._has_looked = True
        if noted is not None:
            message, _, key = json.loads(noted)
            queue = key if key in self._consumers else next(iter(self._consumers))
            self._deliver(queue, tag, json.dumps(message))

    def _deliver(self, queue: str, tag: str, item: str | bytes) -> None:
        self._memory["tag"] = tag
        self.channel._queue_cycle.rotate(queue)
        self.channel.connection._deliver(json.loads(item), queue)

    def _guard(self) -> None:
        """Keep a message that was taken from its queue when Redis went away before it was noted as unacknowledged.

        kombu takes and notes in two steps, and would lose it. It is noted when the connection is back.
        """
        qos = self.channel.qos
        note = qos.append
        remember = adapters.package("kombu.transport.virtual").QoS.append

        def append(message: Any, tag: str) -> None:
            if tag == self._memory.get("tag"):  # noted by who took it
                remember(qos, message, tag)
                return
            try:
                note(message, tag)
            except Exception as error:
                logger.debug("message %s is held, and is noted as such later: %s", tag, error)
                message.is_unrecorded = True

        qos.append = append

    def adopt(self, messages: Collection[Any]) -> None:
        for message in messages:
            message.channel = self.channel
            if getattr(message, "is_unrecorded", False) and not message.acknowledged:
                message.is_unrecorded = False
                self.channel.qos.append(message, message.delivery_tag)

    def acknowledged_at_once(self, message: Any) -> bool:
        # Otherwise it waited for the end of a blocking read, and a worker that is killed meanwhile had begun a task that comes again.
        try:
            message.ack()
        except Exception as error:
            logger.debug("message %s is acknowledged later: %s", message.delivery_tag, error)
            return False
        return True

    def salvage(self) -> None:
        """kombu asks for the next message ahead: while nothing is read here, since all places are taken, one can lie in the
        socket, and nowhere else. Another connection of the same channel may then be the first to see that the server is gone.
        """
        try:
            if self.channel._in_poll and self.channel.client.connection.can_read(0):
                self.channel._brpop_read()
        except Exception as error:
            logger.debug("nothing more came over the lost connection: %s", error)

    def extend(self, messages: Collection[Any]) -> None:
        if clock.monotonic() - self._extended_at < min(EXTEND_S, float(self.channel.visibility_timeout) / 4):
            return
        self._extended_at = clock.monotonic()
        if messages:
            tags = dict.fromkeys((message.delivery_tag for message in messages), clock.now())
            # Not over `channel.client`: there the next message is being waited for, and would be taken for the answer.
            with self.channel.conn_or_acquire() as client:
                client.zadd(self.channel.unacked_index_key, tags, xx=True)


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
    return _BY_DRIVER.get(connection.transport.driver_type, Line)(broker, connection, receive, memory)


def _text(data: str | bytes) -> str:
    return data.decode() if isinstance(data, bytes) else data


def timed_out(error: BaseException) -> bool:
    """Return whether RabbitMQ has closed the channel because a message was not acknowledged for too long."""
    return "delivery acknowledgement" in str(error) and "timed out" in str(error)
