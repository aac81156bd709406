"""Results in a backend of another package, such as `django-db`: a copy of what the file of tasks knows.

The settle of a task, as each state on the way, puts its id into the outbox of the file, in its own transaction; a worker's relay
writes what the file then has on record to the backend, after which the outbox forgets it. So a crash repeats a write, and never loses one. The file is
asked first; the backend answers for what the file no longer keeps. Chords, retries and waiting do not depend on the backend.

A backend is an object with methods of Celery's `celery.backends.base.Backend`; see `Backend` below for those that are called.
"""

from __future__ import annotations

import json
import logging
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from litetq import address, clock, foreign, serialization, states
from litetq.adapters import metas, results
from litetq.context import Context
from litetq.exceptions import BackendStoreError, ImproperlyConfigured, OperationalError
from litetq.message import SAVED, Delivery, Record, saved_group
from litetq.result import GroupResult, decode_record, result_from_tuple

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.engine import FileEngine, ResultWatch

logger = logging.getLogger("celery.worker")

GROUP: Final = "celery.result_backends"  # of entry points: where packages name their backends
PATIENCE_S: Final = 2.0  # with a backend that has taken nothing yet
TRIES: Final = 5  # of a result that its backend refuses while it takes others
_AWAY: Final = re.compile("Connect|Timeout|TimedOut|Unavailable|Operational|ServerSelection|NoHost|Throttl")
_CLASS: Final = re.compile(r"[A-Za-z_]\w+(?:\.\w+)*:[A-Za-z_]\w*")  # module:Class; C:x is a drive


class Backend(Protocol):
    """What is asked of a backend; `save_group` and `restore_group` only where groups are saved."""

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None
    ) -> Any: ...

    def get_task_meta(self, task_id: str) -> Mapping[str, Any]: ...

    def forget(self, task_id: str) -> None: ...

    def cleanup(self) -> None: ...


# -- which backend a setting means -----------------------------------------------------------------------------------


def place(text: str | os.PathLike[str]) -> address.Address:
    """Return the place that a `result_backend` names: as `address.parse`, or a backend of a package.

    A backend is given as `module:Class`, or by the name, or the URL scheme, that an installed package declares.
    """
    if not isinstance(text, str):
        return address.parse(text)
    if _CLASS.fullmatch(text):
        return address.Address("class", text=text)
    try:
        return address.parse(text)
    except ImproperlyConfigured:
        if _is_declared(scheme := text.partition("://")[0]):
            return address.Address(scheme, text=text)
        raise


def _declared() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def _is_declared(name: str) -> bool:
    return name in _declared()


def plugged_in(
    app: LiteTQ, where: address.Address, source: str, release: Callable[[], object] = lambda: None
) -> Plugged:
    """Return the backend of a package, or of Celery, as a place of results.

    `release` lets go of what the thread holds open after each use of it.

    Raises ImproperlyConfigured where there is no such backend, or it cannot be had.
    """
    return Plugged(app, backend_for(app, where, source), where, release)


def check_plugged_in(app: LiteTQ, where: address.Address, source: str) -> None:
    """Raise ImproperlyConfigured where an address means no backend that is installed; nothing is made."""
    if where.scheme == "class" or _is_declared(where.scheme):
        return
    foreign.class_of(where, source)


def backend_for(app: LiteTQ, where: address.Address, source: str) -> Backend:
    """Return a new backend; ImproperlyConfigured when its class cannot be had."""
    if where.scheme != "class" and not _is_declared(where.scheme):
        return cast(Backend, foreign.backend_of(app, where, source))
    try:
        cls = pkgutil.resolve_name(where.text) if where.scheme == "class" else _declared()[where.scheme].load()
    except (ImportError, AttributeError, KeyError) as error:
        raise ImproperlyConfigured(
            f"the result backend {address.mask(where.text)} cannot be loaded: {error}"
        ) from error
    celery = sys.modules.get("celery")
    if celery is not None and not isinstance(app, getattr(celery, "Celery", object)):
        raise ImproperlyConfigured(
            f"the result backend {address.mask(where.text)} is made for Celery, and in this program that is not litetq: call "
            "litetq.install_as_celery() before anything imports celery, or start it with  litetq exec -- ...  or  "
            "litetq --as-celery"
        )
    url = where.text if "://" in where.text else None
    return cast(Backend, cls(app=app, url=url))


class Plugged:
    """A backend of a package as a place of results: records become values, and values records."""

    keeps_parts = False
    is_shared = True
    reply_to = None

    def __init__(
        self, app: LiteTQ, backend: Backend, where: address.Address, release: Callable[[], object] = lambda: None
    ) -> None:
        self._app = app
        self._release = release
        self.backend = backend
        self.shown = address.mask(where.text)
        # Celery's workers count in a backend that can, each in a way of its own.
        self.counting = results.NONE if getattr(backend, "implements_incr", False) else results.ASKED

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        try:
            found = {id: self._read(id) for id in ids}
        finally:
            self._release()
        return {id: record for id, record in found.items() if record is not None}

    def _read(self, id: str) -> Record | None:
        group = saved_group(id)
        if group is not None:
            return self._read_group(id, group)
        meta = self.backend.get_task_meta(id)
        state = meta.get("status", states.PENDING)
        if state == states.PENDING:
            return None
        value, conf = meta.get("result"), self._app.conf
        if isinstance(value, BaseException):
            content_type, data = serialization.encode_exception_typed(value, conf.result_serializer)
        else:
            content_type, data = serialization.encode(value, conf.result_serializer)
        return Record(
            id,
            state,
            "DONE" if state in states.READY_STATES else "CLAIMED",
            data,
            content_type,
            meta.get("traceback"),
            children=json.dumps(_as_tuples(meta.get("children"))),
            done_at=_seconds(meta.get("date_done")),
            name=meta.get("task_name") or meta.get("name"),
        )

    def _read_group(self, id: str, group_id: str) -> Record | None:
        restore = getattr(self.backend, "restore_group", None)
        found = None if restore is None else restore(group_id)
        if found is None:
            return None
        return Record(id, SAVED, "DONE", json.dumps(found.as_tuple()).encode())

    def write(self, record: Record, *, is_newest: bool = False) -> None:
        """Hand a record to the backend, which keeps it by its own rules."""
        if record.state == SAVED:
            save = getattr(self.backend, "save_group", None)
            if save is not None and record.result is not None:
                group = cast(GroupResult, result_from_tuple(json.loads(record.result), self._app))
                save(group.id, group)
            return
        value = decode_record(self._app, record)
        request = _request_of(self._app, record)
        try:
            self.backend.store_result(record.id, value, record.state, traceback=record.traceback, request=request)
        except Exception as error:
            kind = OperationalError if self._is_away(error) else BackendStoreError
            raise kind(f"Storing the result of task {record.id} at {self.shown} failed: {error!r}") from error
        finally:
            self._release()

    def _is_away(self, error: Exception) -> bool:
        """Return whether an error means that the server of a backend is away, rather than that it refuses a value."""
        asked = getattr(self.backend, "exception_safe_to_retry", None)
        if isinstance(error, OSError) or (asked is not None and asked(error)):
            return True
        return any(_AWAY.search(kind.__name__) for kind in type(error).__mro__)

    def forget(self, ids: Iterable[str]) -> int:
        count = 0
        for count, id in enumerate(ids, 1):  # noqa: B007 - the last one counts
            group = saved_group(id)
            if group is None:
                self.backend.forget(id)
            elif hasattr(self.backend, "delete_group"):
                self.backend.delete_group(group)
        return count

    def watch(self) -> results.PolledWatch:
        return results.PolledWatch()

    def cleanup(self) -> int:
        """Have the backend remove what has expired; how many that were it does not tell."""
        self.backend.cleanup()
        return 0

    def close(self) -> None:
        """Do nothing: backends close what they open."""


# -- the results of an app -------------------------------------------------------------------------------------------


class Projection:
    """The results of an app that has such a place of results beside the file of its tasks.

    Args:
        app: the app.
        archive: the place.
        engine: the file of the tasks.
        release: lets go of what the thread holds open after it has written there.
    """

    def __init__(
        self,
        app: LiteTQ,
        archive: results.ResultStore,
        engine: FileEngine,
        release: Callable[[], object] = lambda: None,
    ) -> None:
        self._app = app
        self.archive = archive
        self._engine = engine
        self._release = release
        self._refused: dict[str, int] = {}  # id -> how often the place did not take its result
        self.store = engine.store

    # -- reading

    def read(self, id: str) -> Record | None:
        return self.read_many([id]).get(id)

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        known = self._engine.read_many(ids)
        missing = [id for id in ids if id not in known]
        return {**known, **self.archive.read_many(missing)} if missing else known

    def finished(self, id: str) -> Record | None:
        return self._engine.finished(id)

    def watch(self, ids: Sequence[str] | None = None) -> ResultWatch:
        return self._engine.watch(ids)

    # -- writing

    def store_record(self, record: Record, expires_at: float | None) -> None:
        """Write a result by id, here and there: that of an eager task, or a saved group."""
        self._engine.store_record(record, expires_at)
        self._write(record)

    def forget(self, ids: Iterable[str]) -> int:
        ids = list(ids)
        count = self._engine.forget(ids)  # first here: a relay that has just read them looks afterwards
        self.archive.forget(ids)
        return count

    def cleanup(self) -> int:
        """Remove what has expired, here and there; return how many results of the file that were."""
        self.archive.cleanup()
        return self._engine.cleanup()

    def close(self) -> None:
        """Close the other place; the file of the tasks is closed by who opened it."""
        self.archive.close()

    # -- the relay

    def take_over(self, ended: Sequence[tuple[int, str, Record | None, float | None, int | None]]) -> int:
        """Write what the outbox holds to the backend; return up to which number of the outbox that is done.

        One that the backend refuses again and again, while it takes others, is left out, and an error logged. Raises what the
        backend raised when it takes none.
        """
        there = [(n, record) for n, _, record, _, _ in ended if record is not None]
        refusals: list[tuple[int, str, Exception]] = []
        began = clock.monotonic()
        try:
            for tried, (n, record) in enumerate(there, 1):
                try:
                    self._write_newest(record)
                    self._refused.pop(record.id, None)
                except Exception as raised:
                    error = _own_error(raised)
                    refusals.append((n, record.id, error))
                    if len(refusals) == tried and clock.monotonic() - began > PATIENCE_S:
                        raise error from None  # each of the others would take as long
        finally:
            self._release()
        if refusals and len(refusals) == len(there):
            raise refusals[0][2]  # the backend may be away
        kept = [n for n, id, error in refusals if not self._gives_up(id, error)]
        return kept[0] - 1 if kept else ended[-1][0]

    def _gives_up(self, id: str, error: Exception) -> bool:
        """Count a refusal; return whether it was the last one."""
        self._refused[id] = self._refused.get(id, 0) + 1
        if self._refused[id] < TRIES:
            return False
        del self._refused[id]
        logger.error("the result of task %s stays in the file alone: the result backend refuses it: %s", id, error)
        return True

    def _write_newest(self, record: Record) -> None:
        """Write a record, and again what has meanwhile taken its place: of several relays the last one leaves the newest."""
        while True:
            self._write(record)
            newest = self._engine.finished(record.id)
            if newest is None and record.place == "DONE" and self._engine.read(record.id) is None:
                self.archive.forget([record.id])  # somebody has forgotten it meanwhile
            if newest is None or newest == record:
                return
            record = newest

    def _write(self, record: Record) -> None:
        if record.state not in (states.IGNORED, states.PENDING) and not self._is_unwanted(record):
            self.archive.write(record, is_newest=True)

    def _is_unwanted(self, record: Record) -> bool:
        if record.state == states.SUCCESS:
            return record.result is None  # a value of None is encoded, too
        if record.place != "DONE" or record.state == SAVED:
            return False
        request = _request_of(self._app, record)
        task: Any = self._app.tasks.get(record.name or "")
        ignores = getattr(task, "ignore_result", False) if request.ignore_result is None else request.ignore_result
        return bool(ignores) and not self._app.conf.task_store_errors_even_if_ignored


def _own_error(error: Exception) -> Exception:
    """Return what a backend of a package raised itself."""
    cause = error.__cause__
    if isinstance(error, (OperationalError, BackendStoreError)) and isinstance(cause, Exception):
        return cause
    return error


def _request_of(app: LiteTQ, record: Record) -> Context:
    """Return the request of an attempt as backends look at it."""
    delivery = Delivery(
        claim=0, seq=0, id=record.id, name=record.name or "", body=record.body or b"", content_type=record.body_type,
        queue=record.queue or "", priority=0, retries=record.retries, attempts=1, deliveries=0, eta=None, expires_at=None,
        root_id=record.root_id, parent_id=record.parent_id, headers=record.headers, role=0, linked=0,
    )  # fmt: skip
    request = Context(delivery, record.worker)
    request.children = [result_from_tuple(child, app) for child in json.loads(record.children or "[]")]
    if record.body is not None and app.conf.result_extended:
        try:
            request.args, request.kwargs = serialization.loads_args(
                record.body, record.body_type, serialization.accept_set(app.conf.accept_content)
            )[:2]
        except Exception:
            return request  # that they cannot be read is no reason to keep the result back
        if request.argsrepr is None:
            request.argsrepr, request.kwargsrepr = repr(tuple(request.args)), repr(request.kwargs)
    return request


def _seconds(moment: Any) -> float | None:
    """Return a point in time of a backend (a datetime, or its ISO form) as UTC seconds."""
    return None if moment is None else metas.seconds_of(moment)


def _as_tuples(children: Any) -> list[Any]:
    return [child.as_tuple() if hasattr(child, "as_tuple") else child for child in children or ()]
