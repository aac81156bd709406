"""Engines beside the file: brokers that are reached through kombu, in Celery's own protocol, version 2.

`open_engine` is the door; it is called with a URL that names a broker, and nothing of this room is imported before.

A worker on a wire is a worker on a private file, beside which a courier stands (`wire.py`). What the broker delivers becomes a
row of that file, and stays unacknowledged; the end of the row is performed on the wire. So pools, limits, the order of what waits,
revoked ids, lists of tasks and remote control are those of the file, and a crash loses nothing but the private file: what was
not acknowledged is delivered again.

- `protocol.py` (pure): a message and what hangs on it <-> headers, properties and body of protocol 2.
- `unfold.py` (pure): a plan -> the messages that can start now, with what waits for them embedded, and the chords to count.
- `results.py`: what a place of results is asked for (`ResultStore`). `metas.py` (pure): a record <-> what Celery keeps of a task.
- `redis.py`, `rpc.py`, `sql.py`, `keyed.py`: such places, in Celery's form: Redis, messages, databases, memcached and folders.
- `family.py`: what URLs and settings of Redis say. `urgency.py` (pure): what the number of a priority means on a wire.
- `broker.py`: publishing, and connections, through kombu. `post.py`: remote control and events, likewise.
- `baton.py`: which of several beats sends. `carrying.py`: a broker as either end of `litetq migrate`.
- `performing.py`: how an outcome is performed, in one fixed order.
- `queues.py`: queues and exchanges as Celery declares them. `lines.py`: what a transport does with what is not acknowledged.
- `courier.py`: fetches for a worker, and acknowledges. `wire.py`: the engine, and a worker's seat.

The order of an outcome: what follows is published and confirmed, then the result is stored, then the part of a chord is counted, then
the message is acknowledged (of a failure, the result comes first: errbacks read it). A crash between two of these is a redelivery,
and a step that is done twice does no harm: ids are the same, results are overwritten, a part counts once.

What a wire cannot keep is refused in one sentence, before anything is sent; docs/engines.md lists it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from litetq.address import mask
from litetq.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Callable

    from litetq.adapters.broker import Broker
    from litetq.adapters.results import ResultStore
    from litetq.adapters.unfold import Program
    from litetq.adapters.wire import WireEngine

# Package -> the extra that brings it.
EXTRAS: Final = {
    "kombu": "redis",
    "redis": "redis",
    "sqlalchemy": "sqlalchemy",
    "pymemcache": "memcache",
    "celery": "celery",
}

# Scheme of a broker -> the extra that brings what it needs, and the packages beside kombu.
_BROKERS: Final[dict[str, tuple[str, ...]]] = {
    "redis": ("redis", "redis"),
    "rediss": ("redis", "redis"),
    "sentinel": ("redis", "redis"),
    "sqs": ("sqs", "boto3"),
    "filesystem": ("filesystem",),
    "kafka": ("kafka", "confluent_kafka"),
    "confluentkafka": ("kafka", "confluent_kafka"),
    "mongodb": ("mongodb", "pymongo"),
    "zookeeper": ("zookeeper", "kazoo"),
    "consul": ("consul", "consul"),
    "etcd": ("etcd", "etcd"),
    "azurestoragequeues": ("azurestoragequeues", "azure.storage.queue"),
    "azureservicebus": ("azureservicebus", "azure.servicebus"),
    "gcpubsub": ("gcpubsub", "google.cloud.pubsub_v1"),
    "pgmq": ("pgmq", "pgmq", "psycopg"),
    "pyro": ("pyro", "Pyro4"),
    "qpid": ("qpid", "qpid"),
    "slmq": ("slmq", "softlayer_messaging"),
    "sqla": ("filesystem,sqlalchemy", "sqlalchemy"),
    "sqlalchemy": ("filesystem,sqlalchemy", "sqlalchemy"),
}


def package(name: str, what: str = "what is at this address", extra: str | None = None) -> Any:
    """Return a package that an adapter needs.

    Raises ImproperlyConfigured where it is missing; it says which extra brings it to `what`.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = extra or EXTRAS[name.partition(".")[0]]
        raise ImproperlyConfigured(
            f"{what} needs the package {name!r}, which cannot be imported ({error}); install it with  "
            f'pip install "litetq[{extra}]"; or have it all in a file: '
            "CELERY_BROKER_URL=jobs.sqlite CELERY_RESULT_BACKEND=jobs.sqlite"
        ) from error


def open_engine(broker: str, results: Callable[[Broker], ResultStore], program: Program, **options: Any) -> WireEngine:
    """Return the engine for a broker of this URL and its results; nothing is connected yet.

    Raises ImproperlyConfigured where a package is missing.
    """
    what, scheme = f"the broker {mask(broker)}", broker.partition(":")[0].partition("+")[0].lower()
    extra, *others = _BROKERS.get(scheme, ("amqp",))
    for needed in ("kombu", *others):
        # A folder of this name in the working directory is a package, too, of nothing.
        if getattr(package(needed, what, extra), "__file__", None) is None:
            raise ImproperlyConfigured(f'{what} needs the package {needed!r}; pip install "litetq[{extra}]"')
    from litetq.adapters.wire import WireEngine

    return WireEngine(broker, results, program, **options)
