"""Result backends, as packages write them: a class of these, named by the setting `result_backend`, gets a copy of each end.

The file of tasks holds every result first (`litetq.projection`): waiting, workflows and chords do not ask a backend. So of the
methods that Celery calls, these are called here: `store_result`, `get_task_meta`, `forget`, `cleanup`, and those of groups.
"""

from __future__ import annotations

import time
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NoReturn

from litetq import serialization, states
from litetq.address import mask
from litetq.context import get_current_task as get_current_task
from litetq.exceptions import TimeoutError
from litetq.execution import ExceptionInfo
from litetq.parts import Marks
from litetq.result import ResultBase, result_from_tuple

__all__ = ["BaseBackend", "DisabledBackend", "KeyValueStoreBackend"]

pending_results_t = namedtuple("pending_results_t", ("concrete", "weak"))

E_NO_BACKEND = "No result backend is configured. Give the app a file, or leave result_backend out: results are then in the file of tasks."
_PICKLE = "application/x-python-serialize"
_TEXTS = (None, "application/json", "application/x-yaml")  # None is JSON, too


class Backend(Marks):
    """Keeps results by the id of the task. Subclasses define `_store_result`, `_get_task_meta_for` and `_forget`.

    Those that keep groups define `_save_group`, `_restore_group` and `_delete_group`, too.
    """

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES
    TimeoutError = TimeoutError
    supports_native_join = False
    supports_autoexpire = False
    supports_result_compression = False
    supports_failure_expires = False
    persistent = True
    subpolling_interval: float | None = None

    def __init__(
        self,
        app: Any,
        serializer: str | None = None,
        max_cached_results: int | None = None,
        accept: Any = None,
        expires: Any = None,
        expires_type: Any = None,
        url: str | None = None,
        **_: Any,
    ) -> None:
        self.app = app
        self.url = url
        self.serializer = serializer or app.conf.result_serializer
        self.content_type = serialization.content_type_of(self.serializer)
        self.content_encoding = "utf-8" if self.content_type in _TEXTS else "binary"
        self.accept = serialization.accept_set(accept or app.conf.result_accept_content or app.conf.accept_content)
        self.expires = self.prepare_expires(expires, expires_type)

    def as_uri(self, include_password: bool = False) -> str:
        """Return the address."""
        return (self.url or "") if include_password else mask(self.url or "")

    def prepare_expires(self, value: Any, type: Callable[[Any], Any] | None = None) -> Any:
        """Return for how many seconds results are kept; None: for ever."""
        value = self.app.conf.result_expires if value is None else value
        seconds = value.total_seconds() if isinstance(value, timedelta) else value
        return type(seconds) if type is not None and seconds is not None else seconds

    def prepare_persistent(self, enabled: bool | None = None) -> bool:
        """Return whether results outlive a restart of their server."""
        wanted = self.app.conf.result_persistent if enabled is None else enabled
        return self.persistent if wanted is None else bool(wanted)

    # -- values and bytes

    def _encode(self, data: Any) -> tuple[str, str, Any]:
        """Return content type, encoding ("utf-8" or "binary") and a value as the serializer writes it: text or bytes."""
        content_type, body = serialization.encode(data, self.serializer)
        if content_type in _TEXTS:
            return content_type or "application/json", "utf-8", body.decode()
        return content_type or "application/data", "binary", body

    def encode(self, data: Any) -> Any:
        """Return a value as the serializer writes it."""
        return self._encode(data)[2]

    def decode(self, payload: Any) -> Any:
        """Return the value that was written."""
        if payload is None:
            return None
        body = payload.encode() if isinstance(payload, str) else bytes(payload)
        return serialization.decode(body, self.content_type, self.accept)

    def decode_result(self, payload: Any) -> Any:
        """Return what was written of a task, an exception as such."""
        return self.meta_from_decoded(self.decode(payload))

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Return what is kept of a task, with the exception in place of its description."""
        if meta["status"] in self.EXCEPTION_STATES:
            meta["result"] = self.exception_to_python(meta["result"])
        return meta

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """Return an exception in a form that the serializer writes."""
        named = serializer or self.serializer
        if serialization.content_type_of(named) == _PICKLE:
            return serialization.decode_exception(serialization.encode_exception(exc), "application/json")
        content_type, body = serialization.encode_exception_typed(exc, named)
        return serialization.decode(body, content_type, serialization.accept_set([named]))

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """Return the exception that such a form stands for; its class is taken from modules that are imported already."""
        return serialization.restore_exception(exc) if exc else None

    def prepare_value(self, result: Any) -> Any:
        """Return a value in a form that the serializer writes."""
        is_result = isinstance(result, ResultBase) and serialization.content_type_of(self.serializer) != _PICKLE
        return result.as_tuple() if is_result else result

    def encode_result(self, result: Any, state: str) -> Any:
        """Return the value, or the exception, of a task in a form that the serializer writes."""
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return self.prepare_value(result)

    def _get_result_meta(
        self,
        result: Any,
        state: str,
        traceback: Any,
        request: Any,
        format_date: bool = True,
        encode: bool = False,
    ) -> dict[str, Any]:
        ended = self.app.now() if state in self.READY_STATES else None
        meta: dict[str, Any] = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": self.current_task_children(request),
            "date_done": ended.isoformat() if ended is not None and format_date else ended,
        }
        for key, name in (("group_id", "group"), ("parent_id", "parent_id")):
            if getattr(request, name, None):
                meta[key] = getattr(request, name)
        if request and self.app.conf.result_extended:
            more: dict[str, Any] = {
                key: getattr(request, name, None)
                for key, name in (
                    ("name", "task"),
                    ("args", "args"),
                    ("kwargs", "kwargs"),
                    ("worker", "hostname"),
                    ("retries", "retries"),
                )
            }
            more["queue"] = (getattr(request, "delivery_info", None) or {}).get("routing_key")
            if encode:
                more.update({key: _bytes(self.encode(more[key])) for key in ("args", "kwargs")})
            meta.update(more)
        return meta

    def current_task_children(self, request: Any = None) -> list[Any] | None:
        """Return the tasks that a task has called, as tuples."""
        request = request or getattr(get_current_task(), "request", None)
        return [child.as_tuple() for child in getattr(request, "children", ())] if request else None

    # -- what subclasses define

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say how a result is stored")

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} does not say how a result is read")

    def _forget(self, task_id: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how a result is forgotten")

    def _save_group(self, group_id: str, result: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say how a group is saved")

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        return None

    def _delete_group(self, group_id: str) -> None:
        """Nothing is kept of groups."""

    # -- results

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **options: Any
    ) -> Any:
        """Keep the state and result of a task, or its exception; return it in the form that was written."""
        encoded = self.encode_result(result, state)
        self._store_result(task_id, encoded, state, traceback, request=request, **options)
        return encoded

    def mark_as_started(self, task_id: str, **meta: Any) -> Any:
        """Keep that a task has begun."""
        return self.store_result(task_id, meta, states.STARTED)

    def fail_from_current_stack(self, task_id: str, exc: BaseException | None = None) -> ExceptionInfo:
        """Keep that a task has failed with the exception that is being handled."""
        import sys

        error = exc or sys.exc_info()[1] or RuntimeError("failed, with no exception at hand")
        info = ExceptionInfo(error)
        self.mark_as_failure(task_id, error, info.traceback)
        return info

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """Return what is kept of a task."""
        return self._get_task_meta_for(task_id)

    def reload_task_result(self, task_id: str) -> None:
        """Do nothing: each look reads."""

    def task_result_exists(self, task_id: str) -> bool:
        """Return whether anything is kept of a task."""
        return bool(self._get_task_meta_for(task_id)["status"] != states.PENDING)

    def is_cached(self, task_id: str) -> bool:
        """Return False: each look reads."""
        return False

    def get_state(self, task_id: str) -> str:
        """Return the state of a task."""
        return str(self.get_task_meta(task_id)["status"])

    get_status = get_state

    def get_result(self, task_id: str) -> Any:
        """Return the result of a task."""
        return self.get_task_meta(task_id).get("result")

    def get_traceback(self, task_id: str) -> Any:
        """Return the traceback of a task."""
        return self.get_task_meta(task_id).get("traceback")

    def get_children(self, task_id: str) -> Any:
        """Return the tasks that a task has called, as tuples."""
        return self.get_task_meta(task_id).get("children")

    def forget(self, task_id: str) -> None:
        """Remove what is kept of a task."""
        self._forget(task_id)

    def cleanup(self) -> None:
        """Remove what has expired."""

    def process_cleanup(self) -> None:
        """For subclasses; nobody calls it, since results are not written where tasks run."""

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Return whether writing may be tried again; not asked, since the relay always tries again."""
        return False

    # -- groups

    def save_group(self, group_id: str, result: Any) -> Any:
        """Keep which results a group has."""
        return self._save_group(group_id, result)

    def get_group_meta(self, group_id: str, cache: bool = True) -> dict[str, Any] | None:
        """Return what is kept of a group; None where that is nothing."""
        return self._restore_group(group_id)

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        """Return a group that was saved, or None."""
        meta = self.get_group_meta(group_id)
        return meta["result"] if meta else None

    def reload_group_result(self, group_id: str) -> None:
        """Do nothing: each look reads."""

    def delete_group(self, group_id: str) -> None:
        """Forget which results a group has."""
        self._delete_group(group_id)

    # -- chords, which are counted in the file of tasks

    def ensure_chords_allowed(self) -> None:
        """Do nothing: chords always are."""

    def apply_chord(self, header_result_args: Any, body: Any, **_: Any) -> None:
        """For subclasses; nobody calls it."""

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_: Any) -> None:
        """For subclasses; nobody calls it."""

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """For subclasses; nobody calls it."""

    def chord_error_from_stack(self, callback: Any, exc: BaseException | None = None) -> Any:
        """Keep that the body of a chord has failed."""
        return self.fail_from_current_stack(callback.id, exc)

    def on_task_call(self, producer: Any, task_id: str) -> dict[str, Any]:
        """For subclasses; nobody calls it."""
        return {}

    def __reduce__(self) -> Any:
        return _restored, (type(self), {"url": self.url, "serializer": self.serializer})


def _restored(cls: type[Backend], options: dict[str, Any]) -> Backend:
    from litetq.app import current_or_default_app

    return cls(app=current_or_default_app(), **options)


class SyncBackendMixin:
    """Waiting for results by asking again and again."""

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> dict[str, Any]:
        """Return what is kept of a task once it has ended; TimeoutError after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            meta: dict[str, Any] = self.get_task_meta(task_id)  # type: ignore[attr-defined]
            if meta["status"] in states.READY_STATES:
                return meta
            if on_interval is not None:
                on_interval()
            if until is not None and time.monotonic() >= until:
                raise TimeoutError("The operation timed out.")
            time.sleep(interval)

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:
        """Return the result; there is nothing to be told of it."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Return the result."""
        return result

    @property
    def is_async(self) -> bool:
        return False


class BaseBackend(Backend, SyncBackendMixin):
    """The same, by the name that packages derive from."""


BaseDictBackend = BaseBackend


class BaseKeyValueStoreBackend(Backend):
    """Keeps results under keys. Subclasses define `get`, `set` and `delete`."""

    task_keyprefix = "celery-task-meta-"
    group_keyprefix = "celery-taskset-meta-"
    chord_keyprefix = "chord-unlock-"

    def get(self, key: Any) -> Any:
        """Return what is under a key, or None."""
        raise NotImplementedError(f"{type(self).__name__} must define get")

    def set(self, key: Any, value: Any) -> Any:
        """Keep something under a key."""
        raise NotImplementedError(f"{type(self).__name__} must define set")

    def delete(self, key: Any) -> Any:
        """Remove a key."""
        raise NotImplementedError(f"{type(self).__name__} must define delete")

    def mget(self, keys: Sequence[Any]) -> Any:
        """Return what is under several keys."""
        return [self.get(key) for key in keys]

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        return self.set(key, value)

    def get_key_for_task(self, task_id: str, key: str = "") -> bytes:
        """Return the key of a task."""
        return f"{self.task_keyprefix}{task_id}{key}".encode()

    def get_key_for_group(self, group_id: str, key: str = "") -> bytes:
        """Return the key of a group."""
        return f"{self.group_keyprefix}{group_id}{key}".encode()

    def get_key_for_chord(self, group_id: str, key: str = "") -> bytes:
        """Return the key of a chord."""
        return f"{self.chord_keyprefix}{group_id}{key}".encode()

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Any], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: Any = states.READY_STATES,
    ) -> Iterator[tuple[str, Any]]:
        """Yield (id, what is kept) of each task when it has ended; TimeoutError after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        waiting, rounds = set(task_ids), 0
        while waiting:
            for task_id in sorted(waiting):
                meta = self._get_task_meta_for(task_id)
                if meta["status"] in READY_STATES:
                    waiting.discard(task_id)
                    if on_message is not None:
                        on_message(meta)
                    yield task_id, meta
            rounds += 1
            if not waiting or rounds == max_iterations:
                return
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"Operation timed out ({timeout})")
            if on_interval is not None:
                on_interval()
            time.sleep(0.5 if interval is None else interval)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        meta = self._get_result_meta(result, state, traceback, request)
        self._set_with_state(self.get_key_for_task(task_id), self.encode({**meta, "task_id": task_id}), state)
        return result

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        found = self.get(self.get_key_for_task(task_id))
        return dict(self.decode_result(found)) if found else {"status": states.PENDING, "result": None}

    def _forget(self, task_id: str) -> None:
        self.delete(self.get_key_for_task(task_id))

    def _save_group(self, group_id: str, result: Any) -> Any:
        kept = self.encode({"result": result.as_tuple()})
        self._set_with_state(self.get_key_for_group(group_id), kept, states.SUCCESS)
        return result

    def _restore_group(self, group_id: str) -> dict[str, Any] | None:
        found = self.get(self.get_key_for_group(group_id))
        return {"result": result_from_tuple(self.decode(found)["result"], self.app)} if found else None

    def _delete_group(self, group_id: str) -> None:
        self.delete(self.get_key_for_group(group_id))


class KeyValueStoreBackend(BaseKeyValueStoreBackend, SyncBackendMixin):
    """The same, by the name that packages derive from."""


class DisabledBackend(BaseBackend):
    """Keeps nothing; asking it is an error. No app has it: the end of every task is on record."""

    def store_result(self, *args: Any, **kwargs: Any) -> Any:
        """Keep nothing."""

    def get_state(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise NotImplementedError: there is nothing to ask."""
        raise NotImplementedError(E_NO_BACKEND)

    get_status = get_result = get_traceback = get_task_meta = get_state


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
