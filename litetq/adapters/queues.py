"""Queues and exchanges as Celery declares them, so that both may declare the same ones; and which way a message takes.

A queue that is named nowhere is bound to a direct exchange of its name. What `task_queues` lists is declared as it says. A message
goes straight to its queue where that is bound to a direct exchange, and else through the exchange, which may serve several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from litetq import adapters
from litetq.exceptions import ImproperlyConfigured

QUORUM: Final = "quorum"
DIRECT_EXCHANGE: Final = "C.dq2"  # of the queues of single workers; Celery's
DIRECT_SUFFIX: Final = ".dq2"
# RabbitMQ's native delays, as kombu lays them out: a topic exchange and a queue for each bit of the seconds to wait.
DELAY_BITS: Final = 28
DELAY_EXCHANGE: Final = "celery_delayed_27"
DELIVERY_EXCHANGE: Final = "celery_delayed_delivery"
_KEY_MAX: Final = 255  # bytes of a routing key


class Settings(NamedTuple):
    """What the settings say about queues."""

    declared: Mapping[str, Any]  # task_queues: name -> an object of ours or of kombu's class Queue
    broadcasts: frozenset[str]
    default: str
    default_type: str = "classic"
    default_exchange: str | None = None
    default_exchange_type: str = "direct"
    default_routing_key: str | None = None
    missing_type: str = "classic"
    missing_exchange_type: str | None = None
    max_priority: int | None = None
    delay_type: str = QUORUM
    detects_quorum: bool = True


DEFAULTS: Final = Settings({}, frozenset(), "celery")


class Way(NamedTuple):
    """Which way a message takes."""

    exchange: str
    routing_key: str
    declare: Any  # what must be there: a queue, an exchange, or None
    is_copied: bool = False  # through an exchange that hands on to any number of queues, also to none


class Queues:
    """The queues of one program, in kombu's form."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kombu = adapters.package("kombu")
        self._known: dict[str, Any] = {}
        _check_type(settings.default_type, "task_default_queue_type")
        _check_type(settings.missing_type, "task_create_missing_queue_type")
        _check_type(settings.delay_type, "broker_native_delayed_delivery_queue_type")

    def __getitem__(self, name: str) -> Any:
        """Return the queue of this name."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._made(name)
        return found

    def bind(self, name: str, exchange: str, exchange_type: str | None, routing_key: str | None) -> None:
        """Let a queue that is declared nowhere be bound so, from its next declaration on (`add_consumer`)."""
        if name not in self._settings.declared:
            self._known[name] = self._kombu.Queue(
                name, self._kombu.Exchange(exchange, exchange_type or "direct"), routing_key or name
            )

    @property
    def has_quorum(self) -> bool:
        """Whether one of the declared queues is a quorum queue: RabbitMQ then keeps what is due later itself, as with Celery."""
        names = self._settings.declared or (self._settings.default,)
        return self._settings.detects_quorum and any(
            (self[name].queue_arguments or {}).get("x-queue-type") == QUORUM for name in names
        )

    @property
    def delay_type(self) -> str:
        return self._settings.delay_type

    def names(self) -> list[str]:
        """Return the names of the declared queues that hold tasks, or of the default one."""
        names = self._settings.declared or (self._settings.default,)
        return [name for name in names if name not in self._settings.broadcasts]

    def is_broadcast(self, name: str) -> bool:
        return name in self._settings.broadcasts

    def served(self, names: frozenset[str], worker: str) -> dict[str, Any]:
        """Return what a worker of these queues consumes, by the name under which it knows it.

        Of a broadcast, its own copies: their queue is bound to the exchange of the broadcast, and goes with the worker.
        """
        copies = {f"{name}.{worker}": name for name in self._settings.broadcasts}  # so named by `routing.copy_queue`
        found = {}
        for name in sorted(names - self._settings.broadcasts):
            if name in copies:
                of = self[copies[name]]
                # With its key, too: fanout exchanges of Redis look at it.
                found[name] = self._kombu.Queue(name, of.exchange, of.routing_key, auto_delete=True)
            else:
                found[name] = self[name]
        return found

    def way(self, name: str, exchange: str | None = None, routing_key: str | None = None) -> Way:
        """Return the way to a queue; a call may have named exchange and routing key itself."""
        queue = self[name]
        if name in self._settings.broadcasts:
            return Way(exchange or queue.exchange.name, routing_key or queue.routing_key or "", queue.exchange, True)
        own = queue.exchange
        if exchange and routing_key and (own is None or exchange != own.name):
            return Way(exchange, routing_key, queue, True)
        if own is None or own.type == "direct":
            if own is None or not exchange or not routing_key or routing_key == queue.routing_key:
                return Way("", name, queue)
            return Way(exchange, routing_key, queue, True)
        return Way(own.name, routing_key or queue.routing_key or name, queue, True)

    # -- delays that RabbitMQ keeps

    def delayed(self, way: Way, seconds: float) -> Way | None:
        """Return the way of a message that RabbitMQ is to keep so long, in whole seconds; None: its receiver waits for it."""
        whole = math.floor(seconds)
        if not 0 < whole < 1 << DELAY_BITS:
            return None
        key = ".".join(f"{whole:0{DELAY_BITS}b}") + f".{way.routing_key}"
        return way._replace(exchange=DELAY_EXCHANGE, routing_key=key) if len(key.encode()) <= _KEY_MAX else None

    def delivery_binding(self, queue: Any) -> tuple[str | None, str]:
        """Return by which exchange and pattern what has waited reaches a queue: None is straight into the queue.

        Celery's binding, where the exchange is of a kind that finds the queue by the end of the key; a direct exchange does not.
        """
        if queue.exchange is None or queue.exchange.type == "direct":
            return None, "*." * DELAY_BITS + str(queue.name)
        key = queue.routing_key or ""
        return queue.exchange.name, key if key.startswith("#") else f"#.{key}"

    # -- making them

    def _made(self, name: str) -> Any:
        settings = self._settings
        if name in settings.declared:
            queue = self._as_declared(name, settings.declared[name])
        elif name == settings.default and not settings.declared:
            queue = self._kombu.Queue(
                name, self._default_exchange(), self._default_key(), **_typed(settings.default_type)
            )
        elif name.endswith(DIRECT_SUFFIX):
            exchange = self._kombu.Exchange(DIRECT_EXCHANGE)
            queue = self._kombu.Queue(name, exchange, name.removesuffix(DIRECT_SUFFIX))
        else:
            exchange = self._kombu.Exchange(name, settings.missing_exchange_type or "direct")
            queue = self._kombu.Queue(name, exchange, name, **_typed(settings.missing_type))
        return self._with_priorities(queue)

    def _default_exchange(self) -> Any:
        settings = self._settings
        return self._kombu.Exchange(settings.default_exchange or settings.default, settings.default_exchange_type)

    def _default_key(self) -> str:
        return self._settings.default_routing_key or self._settings.default

    def _with_priorities(self, queue: Any) -> Any:
        most = self._settings.max_priority
        if most is not None and queue.max_priority is None:
            queue.queue_arguments = {"x-max-priority": most, **(queue.queue_arguments or {})}
        return queue

    def _as_declared(self, name: str, said: Any) -> Any:
        """Return a declared queue in kombu's form; what it leaves open is the default's, as in Celery."""
        if isinstance(said, self._kombu.Queue):
            queue = said.__copy__()
            if not queue.bindings and (queue.exchange is None or not queue.exchange.name):
                queue.exchange = self._default_exchange()
        elif name in self._settings.broadcasts:
            queue = self._kombu.Queue(name, self._kombu.Exchange(name, "fanout"), auto_delete=True)
        else:
            queue = self._kombu.Queue(name, self._exchange(said), said.routing_key, **self._options(said))
        queue.routing_key = queue.routing_key or self._default_key()
        return queue

    def _exchange(self, said: Any) -> Any:
        exchange = said.exchange
        if isinstance(exchange, self._kombu.Exchange):
            return exchange
        name = getattr(exchange, "name", exchange)
        if not name:
            return self._default_exchange()
        kind = getattr(exchange, "type", None) or getattr(said, "exchange_type", None) or "direct"
        durable = getattr(said, "exchange_durable", getattr(exchange, "durable", getattr(said, "durable", True)))
        return self._kombu.Exchange(
            name,
            kind,
            durable=durable is not False,
            auto_delete=bool(getattr(said, "exchange_auto_delete", getattr(exchange, "auto_delete", False))),
            arguments=getattr(said, "exchange_arguments", None),
        )

    def _options(self, said: Any) -> dict[str, Any]:
        taken = {attribute for attribute, _ in self._kombu.Queue.attrs} - {
            "name",
            "exchange",
            "routing_key",
            "bindings",
        }
        return {key: value for key, value in vars(said).items() if key in taken and value is not None}


def _typed(kind: str) -> dict[str, Any]:
    return {} if kind == "classic" else {"queue_arguments": {"x-queue-type": kind}}


def _check_type(kind: str, setting: str) -> None:
    if kind not in ("classic", QUORUM):
        raise ImproperlyConfigured(f"{setting} is {kind!r}; RabbitMQ's types of queues here are 'classic' and 'quorum'")
