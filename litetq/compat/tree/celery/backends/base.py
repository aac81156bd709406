"""Result backends. The file of tasks is the result backend; `app.backend` is its engine.

A class of these is what packages derive their own backends from, and compare with. One of another kind than the file is used
as `result_backend` only where this version has an adapter for it.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NoReturn

from litetq import states
from litetq.context import get_current_task as get_current_task
from litetq.serialization import accept_set, decode, encode

__all__ = ["BaseBackend", "DisabledBackend", "KeyValueStoreBackend"]

pending_results_t = namedtuple("pending_results_t", ("concrete", "weak"))

E_NO_BACKEND = "No result backend is configured. Give the app a file, or leave result_backend out: results are then in the file of tasks."


class Backend:
    """Keeps results by the id of the task. Subclasses define `_store_result`, `_get_task_meta_for` and `_forget`."""

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES
    supports_native_join = False
    supports_autoexpire = False
    persistent = True

    def __init__(
        self,
        app: Any,
        serializer: str | None = None,
        accept: Any = None,
        expires: Any = None,
        url: str | None = None,
        **_: Any,
    ) -> None:
        self.app = app
        self.url = url
        self.serializer = serializer or app.conf.result_serializer
        self.accept = accept_set(accept or app.conf.result_accept_content or app.conf.accept_content)
        self.expires = app.conf.result_expires if expires is None else expires

    def as_uri(self, include_password: bool = False) -> str:
        """Return the address."""
        from litetq.address import mask

        return (self.url or "") if include_password else mask(self.url or "")

    def encode(self, data: Any) -> bytes:
        """Return a value as the serializer writes it."""
        return encode(data, self.serializer)[1]

    def decode(self, payload: bytes) -> Any:
        """Return the value that was written."""
        from litetq.serialization import content_type_of

        return decode(payload, content_type_of(self.serializer), self.accept)

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say how a result is stored")

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} does not say how a result is read")

    def _forget(self, task_id: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how a result is forgotten")

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **options: Any
    ) -> Any:
        """Keep the state and result of a task; return the result."""
        self._store_result(task_id, result, state, traceback, request=request, **options)
        return result

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, Any]:
        """Return what is kept of a task."""
        return self._get_task_meta_for(task_id)

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

    def forget(self, task_id: str) -> None:
        """Remove what is kept of a task."""
        self._forget(task_id)

    def cleanup(self) -> None:
        """Remove what has expired."""

    def process_cleanup(self) -> None:
        """Called after each task."""


class SyncBackendMixin:
    """Waiting for results by asking again and again."""


class BaseBackend(Backend, SyncBackendMixin):
    """The same, by the name that packages derive from."""


BaseDictBackend = BaseBackend


class BaseKeyValueStoreBackend(Backend):
    """Keeps results under keys. Subclasses define `get`, `set` and `delete`."""

    task_keyprefix = "celery-task-meta-"
    group_keyprefix = "celery-taskset-meta-"

    def get(self, key: str) -> Any:
        """Return the bytes under a key, or None."""
        raise NotImplementedError(f"{type(self).__name__} must define get")

    def set(self, key: str, value: bytes) -> Any:
        """Keep bytes under a key."""
        raise NotImplementedError(f"{type(self).__name__} must define set")

    def delete(self, key: str) -> Any:
        """Remove a key."""
        raise NotImplementedError(f"{type(self).__name__} must define delete")

    def mget(self, keys: Any) -> list[Any]:
        """Return the bytes under several keys."""
        return [self.get(key) for key in keys]

    def get_key_for_task(self, task_id: str, key: str = "") -> str:
        """Return the key of a task."""
        return f"{self.task_keyprefix}{task_id}{key}"

    def get_key_for_group(self, group_id: str, key: str = "") -> str:
        """Return the key of a group."""
        return f"{self.group_keyprefix}{group_id}{key}"

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        kept = {"status": state, "result": result, "traceback": traceback, "children": [], "task_id": task_id}
        self.set(self.get_key_for_task(task_id), self.encode(kept))
        return result

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        found = self.get(self.get_key_for_task(task_id))
        return dict(self.decode(found)) if found else {"status": states.PENDING, "result": None}

    def _forget(self, task_id: str) -> None:
        self.delete(self.get_key_for_task(task_id))


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
