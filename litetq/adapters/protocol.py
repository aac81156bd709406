"""Celery's message protocol, version 2, as pure functions: `wrap` makes what is published, `unwrap` reads what was delivered.

A task message is a JSON body `[args, kwargs, embed]`, and headers that say the rest. The embed holds what waits for the task, as
dicts of signatures: `callbacks`, `errbacks`, `chain` (the steps after it, the next one last) and `chord` (the body whose header it
belongs to). Nothing here knows a broker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

from litetq import serialization
from litetq.adapters.urgency import AS_GIVEN, Scale
from litetq.exceptions import DecodeError, EncodeError
from litetq.message import JSON, ROUTE, Message

EMBED: Final = "embed"  # the header of a delivery, and of nothing on the wire, that holds what hangs on its task
ERRBACK_OF: Final = (
    "litetq_errback_of"  # a header of ours on the wire: the id of the failed task that an errback is told of
)
SHOWN: Final = 1024  # characters of arguments that monitors are shown; Celery's argsrepr_maxsize

# Headers that a message of ours carries in its row, and that are the file's own matter.
_INTERNAL: Final = ("successors", "is_callback", "body_of", "tells_of", "immutable", EMBED, ROUTE)
# Headers in which brokers note what has become of a message: dead letters, deliveries that came back.
_OF_BROKERS: Final = re.compile(
    r"redelivered|x-(death|first-death-|last-death-|delivery-count|acquired-count|stream-).*"
)
# Headers of protocol 2 that have fields of their own in `Message`, or say nothing.
_IN_FIELDS: Final = frozenset(("lang", "task", "id", "eta", "expires", "retries", "root_id", "parent_id"))
_KEPT: Final = frozenset(
    "shadow timelimit argsrepr kwargsrepr origin ignore_result replaced_task_nesting stamped_headers stamps group group_index".split()
)
_DEFAULTS: Final[dict[str, Any]] = {
    "timelimit": [None, None],
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamps": {},
}


class Embed(NamedTuple):
    """What waits for a task, inside of its message."""

    callbacks: list[dict[str, Any]] | None = None
    errbacks: list[dict[str, Any]] | None = None
    chain: list[dict[str, Any]] | None = None
    chord: dict[str, Any] | None = None

    @property
    def is_empty(self) -> bool:
        return not any(self)


NOTHING: Final = Embed()


class Parcel(NamedTuple):
    """What is published: everything that kombu is told of one task."""

    queue: str
    priority: int
    body: bytes
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    correlation_id: str
    reply_to: str
    due_at: float | None = None  # UTC seconds
    route: tuple[str | None, str | None] = (None, None)  # exchange and routing key, where the call has named them


def wrap(message: Message, headers: Mapping[str, Any], embed: Embed = NOTHING, scale: Scale = AS_GIVEN) -> Parcel:
    """Return the parcel of a message.

    Args:
        headers: those of protocol 2, with the fields of the message already in them.
        embed: what waits for it.
        scale: how its wire writes priorities.

    Raises EncodeError for a body that is no JSON and whose serializer is not known here.
    """
    own = {name: value for name, value in headers.items() if name not in _INTERNAL}
    reply_to = own.pop("reply_to", None) or ""
    correlation_id = own.pop("correlation_id", None) or message.id
    body, content_type, encoding = _body(message, Embed(*scale.sigs_to_wire(tuple(embed))))
    if own.get("argsrepr") is None or own.get("kwargsrepr") is None:
        args, kwargs = _shown(message)
        own["argsrepr"] = own.get("argsrepr") or args
        own["kwargsrepr"] = own.get("kwargsrepr") or kwargs
    exchange, routing_key = headers.get(ROUTE) or (None, None)
    return Parcel(
        message.queue,
        scale.to_wire(message.priority),
        body,
        content_type,
        encoding,
        own,
        correlation_id,
        reply_to,
        message.due_at,
        (exchange, routing_key),
    )


def _body(message: Message, embed: Embed) -> tuple[bytes, str, str]:
    if message.content_type is None:
        # The body is "[args, kwargs]" in JSON already: what hangs on it is added as text, and nothing is decoded.
        return message.body[:-1] + b", " + json.dumps(embed._asdict()).encode() + b"]", JSON, "utf-8"
    if not serialization.is_known(message.content_type):
        raise EncodeError(
            f"Task {message.name}[{message.id}] is written as {message.content_type}, which Celery's protocol has no place for; "
            "send it without compression, as JSON or in another serializer that both sides know."
        )
    args, kwargs = serialization.loads_args(message.body, message.content_type, frozenset((message.content_type,)))
    name = message.content_type.rpartition("/")[2].removeprefix("x-").replace("python-serialize", "pickle")
    content_type, body = serialization.encode([args, kwargs, embed._asdict()], name)
    is_text = "pickle" not in name and "msgpack" not in name
    return body, content_type or JSON, "utf-8" if is_text else "binary"


def _shown(message: Message) -> tuple[str, str]:
    try:
        args, kwargs = serialization.loads_args(message.body, message.content_type)
    except Exception:  # not JSON: it is the receiver's right to read it
        return "", ""
    return repr(tuple(args))[:SHOWN], repr(kwargs)[:SHOWN]


def unwrap(
    headers: Mapping[str, Any],
    body: bytes | str,
    content_type: str,
    *,
    queue: str,
    priority: int = 0,
    properties: Mapping[str, Any] | None = None,
    scale: Scale = AS_GIVEN,
) -> tuple[Message, Embed]:
    """Return the message and what waits for it, of a parcel that was delivered.

    The message's headers (JSON) hold the embed, too: it travels to where the task runs, which shows it in the request.

    Raises DecodeError for what is no task message of version 2.
    """
    if "task" not in headers or "id" not in headers:
        raise DecodeError(
            f"A message in queue {queue!r} is no task message of Celery's protocol 2: its headers are {sorted(headers)}; "
            "set task_protocol = 2 where it was sent."
        )
    id = str(headers["id"])
    data = body.encode() if isinstance(body, str) else bytes(body)
    args, kwargs, embed = _parts(id, data, content_type)
    embed = Embed(*scale.sigs_from_wire(tuple(embed)))
    own = {
        name: value
        for name, value in headers.items()
        if name in _KEPT and value is not None and value != _DEFAULTS.get(name)
    }
    custom = {
        name: value
        for name, value in headers.items()
        if name not in _KEPT and name not in _IN_FIELDS and not _OF_BROKERS.fullmatch(name)
    }
    custom.pop("compression", None)
    if custom:
        own["headers"] = custom
    properties = properties or {}
    if properties.get("reply_to"):
        own["reply_to"] = properties["reply_to"]
    if not embed.is_empty:
        own[EMBED] = embed._asdict()
    return (
        Message(
            id,
            str(headers["task"]),
            args_body(args, kwargs, content_type),
            None if content_type == JSON else content_type,
            queue,
            scale.from_wire(priority),
            _seconds(headers.get("eta")),
            _seconds(headers.get("expires")),
            int(headers.get("retries") or 0),
            headers.get("root_id"),
            headers.get("parent_id"),
            json.dumps(own, default=str) if own else None,  # AMQP has times and bytes in headers, too
        ),
        embed,
    )


def _parts(id: str, body: bytes, content_type: str) -> tuple[Any, Any, Embed]:
    """Split a body. JSON is read as plain JSON: what a type marker stands for is the matter of the task's own decoding."""
    try:
        if content_type == JSON:
            args, kwargs, embed = json.loads(body)
        else:
            args, kwargs, embed = serialization.decode(body, content_type, frozenset((content_type,)))
    except Exception as error:
        raise DecodeError(f"The body of task {id} is not [args, kwargs, embed] in {content_type}: {error}") from error
    embed = embed or {}
    return args, kwargs, Embed(*(embed.get(name) or None for name in Embed._fields))


def args_body(args: Any, kwargs: Any, content_type: str) -> bytes:
    """Return the bytes of `[args, kwargs]` as a row of the file has them."""
    if content_type == JSON:
        return json.dumps([args, kwargs]).encode()
    name = content_type.rpartition("/")[2].removeprefix("x-").replace("python-serialize", "pickle")
    return serialization.encode([args, kwargs], name)[1]


def _seconds(moment: Any) -> float | None:
    """Return a moment of a header (ISO 8601; UTC where it names no zone) as UTC seconds."""
    if not moment:
        return None
    if isinstance(moment, (int, float)):
        return float(moment)
    found = datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    return (found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)).timestamp()
