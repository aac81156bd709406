"""Results as Celery keeps them: the description of a task's state, in bytes of a serializer, and back to a record.

What keeps results as bytes under a key, or in columns of a table, shares this. JSON is the common case, and is never decoded
further than plain JSON here: what a type marker stands for is the matter of whoever reads the value.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any, Final

from litetq import serialization
from litetq.message import SAVED, Record
from litetq.states import EXCEPTION_STATES, READY_STATES, RETRY

# Celery's own: a serialized result never begins with a null, so that what is compressed can be told from what is not.
_COMPRESSED: Final = b"\x00celery-compressed\x00"
# How kombu names what compresses, by its name here.
_KOMBU_TYPES: Final = {
    "zlib": "application/x-gzip",
    "bz2": "application/x-bz2",
    "lzma": "application/x-lzma",
    "brotli": "application/x-brotli",
    "zstd": "application/zstd",
}

_KOMBUS: Final = frozenset(
    "ContentDisallowed DecodeError EncodeError KombuError SerializationError SerializerNotInstalled".split()
)
_OURS_ALONE: Final = frozenset(
    "LiteTQError NewerSchema NotADatabase NotOnRecord OldSQLite ProgramError RefusedFileSystem StoreBusy StoreCorrupt StoreError "
    "StoreFull StoreReadOnly TaskEnded".split()
)


class Codec:
    """How the results of one app are written, and which it reads.

    Args:
        serializer: `result_serializer`.
        accept: content types that may be decoded; None: the serializer's own, and JSON only if that is it.
        compression: `result_compression`.
        is_extended: `result_extended`: name, arguments, worker, retries and queue are kept, too.
    """

    def __init__(
        self,
        serializer: str = "json",
        accept: frozenset[str] | None = None,
        compression: str | None = None,
        is_extended: bool = False,
    ) -> None:
        self.serializer = serializer
        self.content_type = serialization.content_type_of(serializer) or serialization.JSON
        self.accept = accept if accept is not None else frozenset((self.content_type,))
        self.compression = compression
        self.is_extended = is_extended
        self.is_json = self.content_type == serialization.JSON
        self.is_text = self.is_json or self.content_type == "application/x-yaml"

    def of_type(self, content_type: str) -> Codec:
        """Return the codec that reads what was written under another content type."""
        return self if content_type == self.content_type else Codec(content_type, self.accept)

    # -- values

    def dump(self, value: Any, *, may_compress: bool = False) -> bytes:
        """Return the bytes of a value whose parts have passed `plain`."""
        # As kombu writes JSON, spaces included: `"status": "SUCCESS"` is looked for in Redis.
        data = json.dumps(value).encode() if self.is_json else serialization.encode(value, self.serializer)[1]
        if not may_compress or not self.compression:
            return data
        name, packed = serialization.pack(data, self.compression)
        return b"".join((_COMPRESSED, _KOMBU_TYPES.get(name, name).encode(), b"\x00", packed))

    def load(self, data: bytes | str) -> Any:
        """Return the value of such bytes, as plain JSON where they are JSON.

        Raises ContentDisallowed or DecodeError.
        """
        data = data.encode() if isinstance(data, str) else bytes(data)
        if data.startswith(_COMPRESSED):
            method, _, packed = data[len(_COMPRESSED) :].partition(b"\x00")
            data = serialization.unpack(packed, method.decode())
        if not self.is_json or serialization.JSON not in self.accept:
            return serialization.decode(data, self.content_type, self.accept)
        try:
            return json.loads(data)
        except ValueError:
            return serialization.decode(data, None, self.accept)  # says what is wrong with it

    def plain(self, data: bytes | None, content_type: str | None) -> Any:
        """Return an encoded value as `dump` takes it. The bytes come from a worker of this app."""
        if data is None:
            return None
        if content_type is None and self.is_json:
            return json.loads(data)
        plain_type = (content_type or serialization.JSON).partition(";")[0]
        value = serialization.decode(data, content_type, frozenset((plain_type,)))
        return json.loads(serialization.encode(value)[1]) if self.is_json else value

    def value(self, plain: Any) -> Any:
        """Return what a loaded value stands for."""
        return serialization.decode(json.dumps(plain).encode(), None) if self.is_json else plain

    def encoded(self, plain: Any) -> tuple[str | None, bytes]:
        """Return a loaded value as a record has it: content type (None for JSON) and bytes."""
        if self.is_json:
            return None, json.dumps(plain).encode()
        return serialization.encode(plain, self.serializer)

    # -- records

    def meta(self, record: Record) -> dict[str, Any]:
        """Return what Celery's backends keep of a task."""
        own = json.loads(record.headers) if record.headers else {}
        meta: dict[str, Any] = {
            "status": record.state,
            "result": _as_celerys(self.plain(record.result, record.content_type), record.state),
            "traceback": record.traceback,
            "children": json.loads(record.children) if record.children else [],
            "date_done": None if record.done_at is None else _moment(record.done_at).isoformat(),
        }
        if own.get("group"):
            meta["group_id"] = own["group"]
        if record.parent_id is not None:
            meta["parent_id"] = record.parent_id
        if self.is_extended and record.name is not None:
            args, kwargs = self._arguments(record)
            meta.update(
                name=record.name,
                args=args,
                kwargs=kwargs,
                worker=record.worker,
                retries=record.retries,
                queue=record.queue,
            )
            stamped = own.get("stamped_headers")
            if stamped:
                stamps = own.get("stamps") or {}
                meta.update({"stamped_headers": stamped, **{name: stamps[name] for name in stamped if name in stamps}})
        return meta

    def _arguments(self, record: Record) -> tuple[Any, Any]:
        if record.body is None:
            return None, None
        try:
            if record.body_type is None and self.is_json:
                args, kwargs = json.loads(record.body)
            else:
                args, kwargs = serialization.loads_args(record.body, record.body_type, self.accept)
        except Exception:  # that they cannot be read here is no reason to lose the result
            return None, None
        return args, kwargs

    def write(self, record: Record, *, may_compress: bool = False) -> bytes:
        """Return what is kept of a task, or of a saved group."""
        if record.state == SAVED:
            return self.dump({"result": json.loads(record.result or b"null")}, may_compress=may_compress)
        return self.dump({**self.meta(record), "task_id": record.id}, may_compress=may_compress)

    def read(self, id: str, data: bytes | str, *, is_group: bool = False) -> Record:
        """Return the record of what was kept."""
        meta = self.load(data)
        if is_group:
            return Record(id, SAVED, "DONE", json.dumps(meta["result"]).encode())
        return self.record(id, meta)

    def record(self, id: str, meta: dict[str, Any]) -> Record:
        """Return the record of a description whose `result` was loaded."""
        state = meta["status"]
        done = meta.get("date_done")
        children = meta.get("children")
        content_type, data = self.encoded(meta.get("result"))
        own = {"group": meta["group_id"]} if meta.get("group_id") else {}
        if meta.get("stamped_headers"):
            stamped = list(meta["stamped_headers"])
            own.update(stamped_headers=stamped, stamps={name: meta[name] for name in stamped if name in meta})
        args, kwargs = meta.get("args"), meta.get("kwargs")
        body_type, body = (None, None) if args is None and kwargs is None else self.encoded([args or [], kwargs or {}])
        return Record(
            id,
            state,
            "DONE" if state in READY_STATES else "SCHEDULED" if state == RETRY else "CLAIMED",
            data,
            content_type,
            meta.get("traceback"),
            json.dumps(children) if children else None,
            seconds_of(done) if done else None,
            name=meta.get("name"),
            queue=meta.get("queue"),
            worker=meta.get("worker"),
            retries=meta.get("retries") or 0,
            parent_id=meta.get("parent_id"),
            headers=json.dumps(own) if own else None,
            body=body,
            body_type=body_type,
        )


def _as_celerys(plain: Any, state: str) -> Any:
    """Return the description of an error of ours as Celery's of the same name, so that its clients raise the class they know."""
    if state not in EXCEPTION_STATES or not isinstance(plain, dict) or plain.get("exc_module") != "litetq.exceptions":
        return plain
    name = plain["exc_type"]
    if name in _OURS_ALONE:
        return plain
    return {**plain, "exc_module": "kombu.exceptions" if name in _KOMBUS else "celery.exceptions"}


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)


def seconds_of(moment: Any) -> float:
    """Return a point in time (a datetime, or its ISO form; UTC where it names no zone) as UTC seconds."""
    found = moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    return (found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)).timestamp()
