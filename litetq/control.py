"""Remote control: orders and questions to the workers of a file.

    app.control.ping() -> a row and a ring -> each worker's `Desk` thread (`panel.py`) -> its answer, a row and a ring -> the caller

Who is signed on is known from the file: a caller waits no longer than until all of them have answered. What `inspect` lists of
tasks lies in the file too, and is read there where no worker answers.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from litetq import calling, context
from litetq.engine import DEAF_S, REPLIES
from litetq.exceptions import DuplicateNodenameWarning
from litetq.message import uuid
from litetq.panel import MATCHERS, TERM, Facts, control_command, inspect_command, is_meant, plain, stamps_of

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.engine import FileEngine
    from litetq.roster import Worker as WorkerRow

__all__ = ("Control", "Inspect", "control_command", "inspect_command")

ANSWER_S: Final = 1.0  # answers are waited for, as in Celery
LOOK_AGAIN_S: Final = 0.1  # a caller looks so often whether those who have not answered are still there


class Control:
    """Orders and questions to the workers of a file (`app.control`)."""

    def __init__(self, app: LiteTQ) -> None:
        self.app = app

    @property
    def inspect(self) -> Callable[..., Inspect]:
        """`inspect(destination=None, timeout=1.0, ...)` returns an `Inspect`."""
        app = self.app
        return lambda *args, **options: Inspect(*args, **{"app": app, **options})

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = ANSWER_S,
        limit: int | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> list[dict[str, Any]] | None:
        """Give a command to all workers, or those named; with `reply` return their answers: `[{node: answer}]`.

        The command is in the file when this returns. Those who are signed on get it, also those who are busy; it is too
        late for them after the setting `control_queue_ttl`.

        Args:
            destination: names of nodes, as a list; one that is not signed on is waited for, too.
            timeout: seconds to wait for answers; not longer than until all who are signed on have answered. None: only that. A broker
                does not know who is: there, all of the time is waited, one second for None, unless all in `destination` answer.
            limit: answers to wait for.
            callback: called with each answer as it comes.
            pattern, matcher: names of nodes as a "glob" or "pcre" pattern; both or none.
            connection, channel: accepted and unused; there is one file.
            extra_kwargs: further arguments of the command.
        """
        _check_address(destination, pattern, matcher)
        body = {"method": command, "arguments": {**(arguments or {}), **extra_kwargs}, "destination": destination}
        if pattern and matcher:
            body.update(pattern=pattern, matcher=matcher)
        lifetime = calling.seconds(self.app.conf.control_queue_ttl, "control_queue_ttl")
        text = json.dumps(body, default=plain)
        engine = self.app.engine
        if not reply:
            engine.post(None, text, lifetime)
            return None
        ticket = uuid()
        asked = _Asked(engine, ticket, lambda node: is_meant(node, destination, pattern, matcher), destination or ())
        with engine.mail_waiter(REPLIES) as waiter:
            waiter.announce()
            engine.post(ticket, text, lifetime)
            return asked.collect(waiter, timeout, limit, callback)

    # -- tasks

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: Any = TERM,
        **options: Any,
    ) -> list[dict[str, Any]] | None:
        """Order not to run these tasks: what has not begun ends as REVOKED, ids not seen yet are remembered.

        That is done when this returns, also where no worker lives, whatever `destination` says. What runs goes on; with
        `terminate` the worker that runs it ends it. `options` as for `broadcast`.
        """
        if not isinstance(task_id, Iterable):
            raise TypeError(f"revoke needs the id of a task, or several, found {task_id!r}")
        ids = [task_id] if isinstance(task_id, str) else [str(id) for id in task_id]
        _check_address(destination, options.get("pattern"), options.get("matcher"))
        engine = self.app.engine
        engine.revoke(ids, "revoked")
        if engine.knows_workers and not terminate and not options.get("reply"):
            return None
        arguments = {"task_id": ids, "terminate": terminate, "signal": _signal_name(signal)}
        return self.broadcast("revoke", arguments, destination, **options)

    def revoke_by_stamped_headers(
        self,
        headers: Any,
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: Any = TERM,
        **options: Any,
    ) -> list[dict[str, Any]] | None:
        """Revoke the tasks that carry any of these stamps (`{name: stamp or stamps}`), now or within three hours.

        As `revoke`: done when this returns, also where no worker lives.
        """
        _check_address(destination, options.get("pattern"), options.get("matcher"))
        stamps = stamps_of(headers)
        engine = self.app.engine
        engine.revoke_stamped(stamps)
        if engine.knows_workers and not terminate and not options.get("reply"):
            return None
        given = dict(headers) if isinstance(headers, Mapping) else stamps
        arguments = {"headers": given, "terminate": terminate, "signal": _signal_name(signal)}
        return self.broadcast("revoke_by_stamped_headers", arguments, destination, **options)

    def terminate(
        self, task_id: str | Iterable[str], destination: Sequence[str] | None = None, signal: Any = TERM, **options: Any
    ) -> list[dict[str, Any]] | None:
        """Revoke these tasks and end those that run."""
        return self.revoke(task_id, destination, True, signal, **options)

    def purge(self, queues: Sequence[str] | str | None = None) -> int:
        """Remove all waiting tasks (of these queues); return how many. What runs goes on."""
        if isinstance(queues, str):
            queues = [name.strip() for name in queues.split(",")]
        if queues is not None and not isinstance(queues, Iterable):
            raise TypeError(f"queues must be a list of names, found {queues!r}")
        names = None if queues is None else sorted({calling.queue_name(queue) for queue in queues})
        purged: int = self.app.engine.purge(names)
        return purged

    discard_all = purge

    def rate_limit(self, task_name: str, rate_limit: Any, destination: Any = None, **options: Any) -> Any:
        """Set the rate limit of a task: "10/s", "10/m", "10/h", a number per second, 0 or None for none.

        It is in the file when this returns, also where no worker lives, and holds for all workers. Raises ValueError for
        what is no rate, unless a reply says so.
        """
        engine = self.app.engine
        if engine.knows_workers and not options.get("reply"):
            engine.set_rate_limit(task_name, rate_limit)
            return None
        return self.broadcast("rate_limit", {"task_name": task_name, "rate_limit": rate_limit}, destination, **options)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Any = None,
        **options: Any,
    ) -> Any:
        """Set the time limits of a task, in seconds, for what is started from now on."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **options)

    # -- workers

    def ping(self, destination: Any = None, timeout: float | None = ANSWER_S, **options: Any) -> Any:
        """Return `[{node: {"ok": "pong"}}]` of those who live."""
        return self.broadcast("ping", {}, destination, reply=True, timeout=timeout, **options)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Any = None,
        **broadcast: Any,
    ) -> Any:
        """Let workers serve a further queue. Exchange and routing key have no meaning for a file."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", arguments, destination, **broadcast)

    def cancel_consumer(self, queue: str, destination: Any = None, **options: Any) -> Any:
        """Let workers no longer serve a queue; what they have claimed of it they run."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **options)

    def enable_events(self, destination: Any = None, **options: Any) -> Any:
        """Let workers send events, as with -E."""
        return self.broadcast("enable_events", {}, destination, **options)

    def disable_events(self, destination: Any = None, **options: Any) -> Any:
        """Let workers send no more events."""
        return self.broadcast("disable_events", {}, destination, **options)

    def heartbeat(self, destination: Any = None, **options: Any) -> Any:
        """Let workers send the event worker-heartbeat now, also those that send no other events."""
        return self.broadcast("heartbeat", {}, destination, **options)

    def pool_grow(self, n: int = 1, destination: Any = None, **options: Any) -> Any:
        """Let pools have n more processes or threads."""
        return self.broadcast("pool_grow", {"n": n}, destination, **options)

    def pool_shrink(self, n: int = 1, destination: Any = None, **options: Any) -> Any:
        """Let pools have n fewer processes or threads."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **options)

    def pool_restart(
        self, modules: Any = None, reload: bool = False, reloader: Any = None, destination: Any = None, **options: Any
    ) -> Any:
        """Let pools start anew; needs the setting `worker_pool_restarts`."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", arguments, destination, **options)

    def autoscale(self, max: int, min: int, destination: Any = None, **options: Any) -> Any:
        """Set between which sizes pools scale themselves."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **options)

    def shutdown(self, destination: Any = None, **options: Any) -> Any:
        """Stop workers: what runs may finish. No worker answers this."""
        return self.broadcast("shutdown", {}, destination, **options)


def _check_address(destination: Any, pattern: Any, matcher: Any) -> None:
    if destination is not None and not isinstance(destination, (list, tuple)):
        raise ValueError(f"destination must be a list/tuple not {type(destination)}")
    if pattern is not None and matcher is not None:
        if not isinstance(pattern, str) or not isinstance(matcher, str):
            raise ValueError(f"pattern and matcher must be strings not {type(pattern)}, {type(matcher)}")
        if matcher not in MATCHERS:
            raise ValueError(f"matcher={matcher!r}: there is no such matcher; choose one of {', '.join(MATCHERS)}")
        if matcher == "pcre":
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"pattern={pattern!r} is no regular expression: {error}") from error


def _signal_name(signal: Any) -> Any:
    return getattr(signal, "name", signal)


class _Asked:
    """Those who were asked, and what they have answered so far."""

    def __init__(self, engine: FileEngine, ticket: str, is_asked: Callable[[str], bool], named: Sequence[str]) -> None:
        self._engine = engine
        self._ticket = ticket
        self._is_asked = is_asked
        self._named = frozenset(named)
        self._answered: set[int] = set()
        self._after = 0
        self._found: list[dict[str, Any]] = []

    def collect(
        self, waiter: Any, timeout: float | None, limit: int | None, callback: Callable[[dict[str, Any]], Any] | None
    ) -> list[dict[str, Any]]:
        if timeout is None and not self._engine.knows_workers and not self._named:
            timeout = ANSWER_S
        deadline = None if timeout is None else time.monotonic() + timeout
        was_asked = False
        while True:
            for reply in self._engine.mailbox.replies(self._ticket, self._after):
                self._after = reply.n
                self._answered.add(reply.worker)
                self._found.append({reply.node: reply.value})
                if callback is not None:
                    callback(self._found[-1])
                if limit and len(self._found) >= limit:
                    return self._found
            missing = self._missing()
            was_asked = was_asked or bool(missing or self._found)
            # Where nobody is signed on, one who just starts may not be so yet: the full time, as in Celery.
            if not missing and (was_asked or deadline is None):
                return self._found
            rest = LOOK_AGAIN_S if deadline is None else min(LOOK_AGAIN_S, deadline - time.monotonic())
            if rest <= 0:
                return self._found
            waiter.wait(min(rest, DEAF_S) if self._engine.bell.is_deaf else rest)
            waiter.announce()

    def _missing(self) -> bool:
        """Return whether anybody may still answer: signed on, alive and listening, or named and not known here."""
        workers = self._engine.workers()
        known = {row.name for row in workers}.union(*self._found)
        if self._named - known:
            return True  # a beat, or a worker that is just starting
        if not self._engine.knows_workers:
            return not self._named  # nobody knows who else listens to a broker, and may answer
        return any(
            row.id not in self._answered
            and self._is_asked(row.name)
            and json.loads(row.info or "{}").get("control", True)
            and self._engine.may_live(row)
            for row in workers
        )


class Inspect:
    """Questions to the workers of a file. Each method returns `{node: answer}`, or None when nobody answered.

    `active`, `reserved` and `scheduled` are answered from the file for nodes that do not answer.

    Args:
        destination: names of nodes; with one name instead of a list, methods return its answer alone.
        timeout, callback, limit, pattern, matcher: as for `Control.broadcast`.
    """

    def __init__(
        self,
        destination: str | Sequence[str] | None = None,
        timeout: float | None = ANSWER_S,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        connection: Any = None,
        app: LiteTQ | None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self._app = app
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher or ("glob" if pattern else None)

    @property
    def app(self) -> LiteTQ:
        app = self._app or context.get_current_app()
        if app is None:
            raise RuntimeError("inspect belongs to no app: use app.control.inspect(...)")
        return app

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        replies = self.app.control.broadcast(
            command,
            arguments,
            self._nodes(),
            reply=True,
            timeout=self.timeout,
            limit=self.limit,
            callback=self.callback,
            pattern=self.pattern,
            matcher=self.matcher,
        )
        return _by_node(replies or [])

    def _nodes(self) -> Sequence[str] | None:
        return [self.destination] if isinstance(self.destination, str) else self.destination

    def _result(self, found: dict[str, Any]) -> Any:
        if isinstance(self.destination, str):
            return found.get(self.destination)
        return found or None

    def _request(self, command: str, **arguments: Any) -> Any:
        return self._result(self._ask(command, **arguments))

    def _with_file(self, command: str, list_of: Callable[[Facts, WorkerRow], list[Any]], **arguments: Any) -> Any:
        """Ask, and add what the file knows of those that did not answer."""
        engine = self.app.engine
        meant = [row for row in engine.workers() if is_meant(row.name, self._nodes(), self.pattern, self.matcher)]
        are_there = not engine.knows_workers or any(engine.may_live(row) for row in meant)
        found = self._ask(command, **arguments) if are_there else {}
        facts = Facts(self.app, engine)
        for row in meant:
            if row.name not in found:
                listed = list_of(facts, row)
                if listed:
                    found[row.name] = listed
        return found

    # -- from the file where need be

    def active(self, safe: bool | None = None) -> Any:
        """Return the tasks that run."""
        return self._result(self._with_file("active", lambda facts, row: facts.active(row, bool(safe)), safe=safe))

    def reserved(self, safe: bool | None = None) -> Any:
        """Return the tasks that a worker has claimed and not begun."""
        return self._result(self._with_file("reserved", lambda facts, row: facts.reserved(row)))

    def scheduled(self, safe: bool | None = None) -> Any:
        """Return the tasks due later: `{node: [{"eta", "priority", "request"}]}`.

        Those of queues that nobody serves are listed under `file@<name of the file>`.
        """
        found = self._with_file("scheduled", lambda facts, row: facts.scheduled(row))
        name = f"file@{self.app.engine.path.name}"
        if is_meant(name, self._nodes(), self.pattern, self.matcher):
            unserved = Facts(self.app, self.app.engine).scheduled(None)
            if unserved:
                found[name] = unserved
        return self._result(found)

    # -- from workers

    def report(self) -> Any:
        """Return the bug report of each worker."""
        return self._request("report")

    def conf(self, with_defaults: bool = False) -> Any:
        """Return the settings of each worker, secrets hidden."""
        return self._request("conf", with_defaults=with_defaults)

    def query_task(self, *ids: Any) -> Any:
        """Return `{node: {id: [state, info]}}` of tasks that a worker holds or lists as scheduled."""
        wanted = ids[0] if len(ids) == 1 and isinstance(ids[0], (list, tuple)) else ids
        return self._request("query_task", ids=list(wanted))

    def clock(self) -> Any:
        """Return a number that grows with the life of the file."""
        return self._request("clock")

    def ping(self, destination: str | Sequence[str] | None = None) -> Any:
        """Return `{node: {"ok": "pong"}}` of those who live."""
        if destination:
            self.destination = destination
        return self._request("ping")

    def stats(self) -> Any:
        """Return what each worker is and has done."""
        return self._request("stats")

    def revoked(self) -> Any:
        """Return the ids that were revoked lately."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Return the names of the tasks that each worker knows, with these of their attributes."""
        return self._request("registered", taskinfoitems=list(taskinfoitems))

    registered_tasks = registered

    def active_queues(self) -> Any:
        """Return the queues that each worker serves."""
        return self._request("active_queues")

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        return self._request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Return how much memory each worker has; needs psutil there."""
        return self._request("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """Return the last samples that `memsample` took."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:
        """Let each worker draw who holds objects of a type; needs objgraph there."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)


def _by_node(replies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return answers by node; warns of two nodes of one name."""
    found: dict[str, Any] = {}
    twice = set()
    for reply in replies:
        twice |= found.keys() & reply.keys()
        found.update(reply)
    if twice:
        names = ", ".join(sorted(twice))
        warnings.warn(
            f"Received multiple replies from node {'name' if len(twice) == 1 else 'names'}: {names}.\n"
            "Please make sure you give each node a unique nodename using\nthe worker's `-n` option.",
            DuplicateNodenameWarning,
            stacklevel=4,
        )
    return found
