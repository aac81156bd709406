"""Which queue a task goes to: from its name, the call's options and the settings `task_queues` and `task_routes`.

A router is made once for the settings as they are, and asked at each call that the plain rule (the default queue) does not
cover. Call options stand over the task's own attributes, these over routes, and routes over the default queue.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from litetq import clock
from litetq.exceptions import ImproperlyConfigured, QueueNotFound
from litetq.message import Plan

if TYPE_CHECKING:
    from litetq.conf import Settings
    from litetq.task import Task

Route: TypeAlias = "str | Mapping[str, Any] | None"  # the name of a queue, or options of the call
AskForRoute: TypeAlias = Callable[..., Route]

COPY_LIFETIME_S: Final = 3600.0  # of a broadcast's copy whose worker does not come for it; arbitrary
_PLACES: Final = ("queue", "exchange", "routing_key", "exchange_type")


class Queue:
    """A queue by name, as `task_queues` lists it. Objects of kombu's class of this name are taken as well.

    A file needs no exchanges: `exchange` and `routing_key` are kept, so that a call that names only those finds the queue
    which is bound so. What else kombu's class takes is accepted.

    Args:
        name: the queue.
        exchange: a name, or an object with `name` and `type` ("direct", "topic").
        routing_key: what the queue is bound by; with a topic exchange `*` stands for a word, `#` for any number of them.
        alias: a second name that calls and `-Q` may use.
        max_priority: larger priorities count as this one.
    """

    def __init__(
        self,
        name: str = "",
        exchange: Any = None,
        routing_key: str = "",
        *,
        alias: str | None = None,
        max_priority: int | None = None,
        **more: Any,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a queue needs a name, found {name!r}")
        self.name = name
        self.exchange = exchange
        self.routing_key = routing_key
        self.alias = alias
        self.max_priority = max_priority
        self.__dict__.update(more)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Queue) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(self.name)


class Broadcast(Queue):
    """A queue of which every worker that serves it gets a copy of each task, under one id.

    While no worker serves it, a task waits in it, and one worker gets it.
    """

    def __init__(self, name: str = "", queue: str | None = None, **more: Any) -> None:
        super().__init__(queue or name, **more)


def worker_direct(hostname: Any) -> Queue:
    """Return the queue that only the worker of this name serves, with the setting `worker_direct`."""
    return hostname if isinstance(hostname, Queue) else Queue(f"{hostname}.dq2")


def copy_queue(queue: str, hostname: str) -> str:
    """Return the queue in which a worker finds its copies of what is broadcast to `queue`."""
    return f"{queue}.{hostname}"


class Router:
    """The settings about queues and routes, in the form in which they are asked."""

    def __init__(self, conf: Settings) -> None:
        self._declared_as, self._routed_as = conf.task_queues, conf.task_routes
        self.default: str = conf.task_default_queue
        self.creates_missing = bool(conf.task_create_missing_queues)
        self.max_priority: int | None = conf.task_queue_max_priority
        self.queues = declared(conf.task_queues)
        self._routes = [_ask(route) for route in _listed(conf.task_routes)]
        self.broadcasts = frozenset(name for name, queue in self.queues.items() if is_broadcast(queue))
        # Nothing to ask: a call goes to its own queue, or to the default one.
        self.is_plain = not self._routes and not self.queues and self.creates_missing and self.max_priority is None

    def is_for(self, conf: Settings) -> bool:
        """Return whether the settings still are what this router was made for."""
        return (
            conf.task_routes is self._routed_as
            and conf.task_queues is self._declared_as
            and conf.task_default_queue == self.default
            and conf.task_create_missing_queues == self.creates_missing
            and conf.task_queue_max_priority == self.max_priority
        )

    # -- calls

    def options_for(
        self, name: str, task: Task[..., Any] | None, args: Any, kwargs: Any, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the options of a call with what its route adds; `queue` is the name of a queue.

        Raises QueueNotFound for a queue that is not declared, where `task_create_missing_queues` is off.
        """
        known = dict(options)
        for place in _PLACES[:3]:
            if known.get(place) is None and getattr(task, place, None) is not None:
                known[place] = getattr(task, place)
        route = self.route_of(known.get("route_name") or name, args, kwargs, known, task)
        for option, value in route.items():
            if known.get(option) is None and value is not None and not has_own(task, option):
                known[option] = value
        known.pop("exchange_type", None)
        known["queue"] = self._queue_for(known)
        return known

    def route(
        self, options: Mapping[str, Any], name: str, args: Any = (), kwargs: Any = None, task_type: Any = None
    ) -> dict[str, Any]:
        """Return the options of a call with its route, as `options_for`, but `queue` is the queue itself: Celery's verb."""
        known = self.options_for(name, task_type, args, kwargs, options)
        known["queue"] = self.queues.get(known["queue"]) or Queue(known["queue"])
        return known

    def route_of(
        self, name: str, args: Any = (), kwargs: Any = None, options: Any = None, task: Any = None
    ) -> Mapping[str, Any]:
        """Return the options that the first route which knows this task gives it; empty: none does."""
        for ask in self._routes:
            route = ask(name, args, kwargs or {}, options or {}, task=task)
            if not route:
                continue
            if isinstance(route, str):
                return {"queue": route}
            try:
                return dict(route)
            except (TypeError, ValueError):
                raise ImproperlyConfigured(
                    f"setting task_routes: the route of task {name!r} must be the name of a queue or a dictionary of "
                    f"options, found {route!r}"
                ) from None
        return {}

    def _queue_for(self, options: Mapping[str, Any]) -> str:
        queue = options.get("queue")
        if queue is None:
            queue = self._bound_queue(options) or self.default
        return self.name_of(queue)

    def _bound_queue(self, options: Mapping[str, Any]) -> str | None:
        """Return the declared queue that is bound by a call's exchange and routing key."""
        key, exchange = options.get("routing_key"), _name(options.get("exchange"))
        if key is None and not exchange:
            return None
        for name, queue in self.queues.items():
            bound = _name(getattr(queue, "exchange", None))
            if exchange and bound != exchange and (bound or key is None):
                continue
            if key is None or _key_fits(getattr(queue, "routing_key", None) or name, key):
                return name
        return None

    def name_of(self, queue: Any) -> str:
        """Return the name of a queue given as an object, by name or by alias; QueueNotFound when there must be no such."""
        name = getattr(queue, "name", queue)
        if not isinstance(name, str) or not name:
            raise TypeError(f"option 'queue' must be the name of a queue, found {queue!r}")
        name = self.known_as(name)
        if name in self.queues:
            return name
        if not self.creates_missing and (self.queues or name != self.default):
            raise QueueNotFound(
                f"Queue {name!r} missing from task_queues; list it there, or set task_create_missing_queues=True"
            )
        return name

    def known_as(self, name: str) -> str:
        """Return the name of the declared queue that has this alias; a name that is no alias stays as it is."""
        if name in self.queues:
            return name
        return next((known for known, queue in self.queues.items() if getattr(queue, "alias", None) == name), name)

    def clipped(self, priority: int, queue: str) -> int:
        """Return a priority, no larger than its queue knows."""
        most = _max_priority(self.queues.get(queue))
        most = self.max_priority if most is None else most
        return priority if most is None else min(priority, most)

    # -- workers

    def served_by(self, hostname: str, names: Iterable[str] | None, *, direct: bool = False) -> frozenset[str]:
        """Return the queues of a worker that is to serve `names`; None: those declared, else the default one.

        Raises ImproperlyConfigured for a name that is not declared, where `task_create_missing_queues` is off.
        """
        served = {self.default} if names is None and not self.queues else set()
        for name in self.queues if names is None else names:
            try:
                served.add(self.name_of(name))
            except QueueNotFound:
                raise ImproperlyConfigured(
                    f"queue {name!r} cannot be served: it is not in the setting task_queues "
                    f"({', '.join(sorted(self.queues) or [self.default])}); list it there, or set "
                    "task_create_missing_queues=True"
                ) from None
        served |= {copy_queue(name, hostname) for name in served & self.broadcasts}
        return frozenset(served | {worker_direct(hostname).name} if direct else served)

    def spread(self, plan: Plan, served: Callable[[], Iterable[tuple[str, Sequence[str]]]]) -> Plan:
        """Return a plan in which each message to a Broadcast has become a copy for each worker that serves it.

        `served` returns (name of a worker, its queues). Raises ValueError for a broadcast within a workflow.
        """
        if not any(message.queue in self.broadcasts for message in plan.messages):
            return plan
        if plan.links or plan.joins:
            raise ValueError("a task that is broadcast ends once a worker, so nothing can wait for it in a workflow")
        workers = list(served())
        until = clock.now() + COPY_LIFETIME_S
        messages = []
        for message in plan.messages:
            nodes = [node for node, queues in workers if message.queue in self.broadcasts and message.queue in queues]
            if not nodes:
                messages.append(message)
            expires_at = until if message.expires_at is None else min(until, message.expires_at)
            messages += [
                message._replace(queue=copy_queue(message.queue, node), expires_at=expires_at)
                for node in dict.fromkeys(nodes)
            ]
        return Plan(tuple(messages))


# -- the settings' forms


def declared(queues: Any) -> dict[str, Any]:
    """Return the queues of the setting `task_queues` by name: a list of queues or names, or a dictionary of options."""
    if not queues:
        return {}
    if isinstance(queues, Mapping):
        return {name: _made(name, about) for name, about in queues.items()}
    return {getattr(queue, "name", queue): _made(getattr(queue, "name", queue), queue) for queue in queues}


def _made(name: str, about: Any) -> Any:
    if isinstance(about, Mapping):
        options = {str(key): value for key, value in about.items() if key != "name"}
        options["routing_key"] = options.pop("binding_key", None) or options.get("routing_key") or ""
        return Queue(name, **options)
    return about if hasattr(about, "name") else Queue(name)


def is_broadcast(queue: Any) -> bool:
    """Return whether every worker gets a copy of what is sent there: our Broadcast, or kombu's."""
    return isinstance(queue, Broadcast) or type(queue).__name__ == "Broadcast"


def _listed(routes: Any) -> Sequence[Any]:
    if not routes:
        return ()
    return routes if isinstance(routes, (list, tuple)) else (routes,)


def _ask(route: Any) -> AskForRoute:
    """Return a function that answers for one entry of `task_routes`."""
    if isinstance(route, (Mapping, list, tuple)):
        return Patterns(route)
    if isinstance(route, str):
        return _Named(route)
    asked = _function_of(route)
    if asked is None:
        raise ImproperlyConfigured(
            f"setting task_routes: an entry must be a dictionary, a list of pairs, a function or its path, found {route!r}"
        )
    return asked


def _function_of(router: Any) -> AskForRoute | None:
    if isinstance(router, type):
        router = router()
    if hasattr(router, "route_for_task"):
        return lambda name, args, kwargs, options, task=None: router.route_for_task(name, args, kwargs)
    return router if callable(router) else None


class _Named:
    """A router that is named by its path, and imported when it is first asked."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: AskForRoute | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Route:
        if self._found is None:
            import pkgutil

            try:
                found = pkgutil.resolve_name(self._path)
            except (ImportError, AttributeError, ValueError) as error:
                raise ImproperlyConfigured(
                    f"setting task_routes: {self._path!r} cannot be imported: {error}; name a function or a class, as "
                    "module.name"
                ) from error
            self._found = _ask(found) if not isinstance(found, str) else None
            if self._found is None:
                raise ImproperlyConfigured(f"setting task_routes: {self._path!r} is {found!r}, not a router")
        return self._found(*args, **kwargs)


class Patterns:
    """A dictionary of routes, or a list of pairs: exact names first, then patterns in their order.

    In a pattern `*` stands for one letter or more; it needs to fit the beginning of a name only, as in Celery. A compiled
    regular expression is a pattern, too.
    """

    def __init__(self, routes: Any) -> None:
        self._exact: dict[str, Route] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        for name, route in _pairs(routes):
            if isinstance(name, re.Pattern):
                self._patterns.append((name, route))
            elif "*" in name:
                self._patterns.append((_glob(name), route))
            else:
                self._exact[name] = route

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Route:
        if name in self._exact:
            return self._exact[name]
        return next((route for pattern, route in self._patterns if pattern.match(name)), None)


def _pairs(routes: Any) -> Iterator[tuple[Any, Route]]:
    if isinstance(routes, Mapping):
        yield from routes.items()
        return
    if len(routes) == 2 and isinstance(routes[0], (str, re.Pattern)):
        routes = [routes]  # a single pair
    for pair in routes:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], (str, re.Pattern))):
            raise ImproperlyConfigured(
                f"setting task_routes: a list within it has pairs of a name (or pattern) and a route, found {pair!r}"
            )
        yield pair[0], pair[1]


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(".+?".join(map(re.escape, pattern.split("*"))))


@lru_cache
def _topic(pattern: str) -> re.Pattern[str]:
    words = {"*": r"[^.]+", "#": r".*?"}
    return re.compile(
        r"\.".join(words.get(word, re.escape(word)) for word in pattern.split(".")).replace(r"\..*?", r"(\..*)?")
    )


def _key_fits(binding: str, key: str) -> bool:
    return binding == key or (("*" in binding or "#" in binding) and _topic(binding).fullmatch(key) is not None)


def _name(exchange: Any) -> str:
    return str(getattr(exchange, "name", exchange) or "")


def _max_priority(queue: Any) -> int | None:
    most = getattr(queue, "max_priority", None)
    return most if most is not None else (getattr(queue, "queue_arguments", None) or {}).get("x-max-priority")


def has_own(task: Task[..., Any] | None, attribute: str) -> bool:
    """Return whether a task says something itself about an option, rather than by a setting."""
    value = inspect.getattr_static(task, attribute, None) if task is not None else None
    return value is not None and not hasattr(type(value), "__get__")
