"""A broker behind kombu: publishing from any thread, and connections for those who consume.

What is published is confirmed when `publish` returns. A broker that cannot be reached costs a bounded time, some seconds, and then
raises OperationalError.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from litetq import adapters
from litetq.adapters.protocol import Parcel
from litetq.address import mask
from litetq.exceptions import OperationalError

CONNECT_S: Final = 4.0  # Celery's broker_connection_timeout
MUTEX_S: Final = 30  # who gives back what the dead held, and dies of it, holds up others for so long; kombu's 300
PERSISTENT: Final = 2  # delivery mode: the broker writes the message down

# Of one publish: tried again three times, within a second; Celery's task_publish_retry_policy.
_RETRY: Final = {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}


class Broker:
    """One broker, seen from one process. Nothing is connected before the first use."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url
        self.shown = mask(url)
        self._options = {
            "socket_connect_timeout": CONNECT_S,
            "socket_keepalive": True,
            "unacked_mutex_expire": MUTEX_S,
            "unacked_restore_throttle": 1,  # look for what the dead held whenever nothing comes, not every tenth time
            **_RETRY,
            **options,
        }
        self._kombu = adapters.package("kombu")
        self._pools = adapters.package("kombu.pools")
        self._lock = threading.Lock()
        self._producers: Any = None
        self._queues: dict[str, Any] = {}

    def connection(self) -> Any:
        """Return a new connection, for one thread; it is not open yet."""
        return self._kombu.Connection(self.url, connect_timeout=CONNECT_S, transport_options=self._options)

    @property
    def producers(self) -> Any:
        with self._lock:
            if self._producers is None:
                self._producers = self._pools.producers[self.connection()]
            return self._producers

    def queue(self, name: str) -> Any:
        """Return a queue as Celery declares it: durable, bound to a direct exchange of its name."""
        found = self._queues.get(name)
        if found is None:
            exchange = self._kombu.Exchange(name, "direct", durable=True)
            found = self._queues[name] = self._kombu.Queue(name, exchange, routing_key=name, durable=True)
        return found

    def errors(self, connection: Any) -> tuple[type[BaseException], ...]:
        """Return what a broker that is gone, or a connection that broke, raises."""
        return (
            *connection.connection_errors,
            *connection.channel_errors,
            self._kombu.exceptions.OperationalError,
            OSError,
        )

    def publish(self, parcel: Parcel) -> None:
        """Have the broker keep a task; OperationalError when it does not within its time."""
        self._with_producer(
            f"Sending task {parcel.headers['task']}[{parcel.headers['id']}] to queue {parcel.queue!r}",
            lambda producer: producer.publish(
                parcel.body,
                exchange="",
                routing_key=parcel.queue,
                declare=[self.queue(parcel.queue)],
                content_type=parcel.content_type,
                content_encoding=parcel.content_encoding,
                headers=parcel.headers,
                correlation_id=parcel.correlation_id,
                reply_to=parcel.reply_to,
                priority=parcel.priority,
                delivery_mode=PERSISTENT,
                retry=True,
                retry_policy=_RETRY,
            ),
        )

    def tell(self, body: Any, exchange: Any, routing_key: str, **options: Any) -> None:
        """Publish what is no task, as JSON; OperationalError as for `publish`."""
        self._with_producer(
            f"Sending to exchange {exchange.name!r}",
            lambda producer: producer.publish(
                body, exchange=exchange, routing_key=routing_key, declare=[exchange], serializer="json", **options
            ),
        )

    def _with_producer(self, what: str, use: Callable[[Any], Any]) -> None:
        producers = self.producers
        try:
            with producers.acquire(block=True, timeout=CONNECT_S) as producer:
                use(producer)
        except (*self.errors(producers.connections.connection), self._kombu.exceptions.LimitExceeded) as error:
            raise OperationalError(
                f"{what} failed: the broker {self.shown} cannot be used ({error}); is it running?"
            ) from error

    def purge(self, names: Any) -> int:
        """Remove what waits in these queues; return how many tasks."""
        connection = self.connection()
        try:
            with connection:
                channel = connection.default_channel
                return sum(int(self.queue(name)(channel).purge() or 0) for name in names)
        except self.errors(connection) as error:
            raise OperationalError(f"Purging failed: the broker {self.shown} cannot be used ({error})") from error

    def close(self) -> None:
        with self._lock:
            producers, self._producers = self._producers, None
        if producers is not None:
            producers.force_close_all()
