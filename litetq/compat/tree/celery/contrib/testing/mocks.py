"""Messages made up for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from litetq.message import uuid

__all__ = ["TaskMessage", "TaskMessageFromSignature", "task_message_from_sig"]


def TaskMessage(
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    shadow: str | None = None,
    utc: Any = None,
    **options: Any,
) -> Any:
    """Return a message of protocol 2 for this call, as a consumer would get it."""
    id = id or uuid()
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain, "chord": None}
    body = json.dumps([list(args), dict(kwargs or {}), embed])
    headers = {
        "id": id, "task": name, "shadow": shadow, "utc": utc, "root_id": id, "parent_id": None, "retries": 0, "group": None,
        "eta": None, "expires": None, "timelimit": (None, None), **options,
    }  # fmt: skip
    return SimpleNamespace(
        headers=headers,
        properties={"correlation_id": id, "reply_to": None},
        delivery_info={"exchange": "", "routing_key": "celery"},
        body=body,
        payload=json.loads(body),
        decode=lambda: json.loads(body),
        content_type="application/json",
        content_encoding="utf-8",
    )


def TaskMessageFromSignature(sig: Any, utc: bool = True, TaskMessage: Any = TaskMessage) -> Any:
    """Return the message of a signature."""
    options = {name: sig.options[name] for name in ("group_id", "retries") if name in sig.options}
    return TaskMessage(sig.task, id=sig.options.get("task_id"), args=sig.args, kwargs=sig.kwargs, utc=utc, **options)


def task_message_from_sig(app: Any, sig: Any, utc: bool = True, TaskMessage: Any = TaskMessage) -> Any:
    """Return the message of a signature, and give that an id."""
    sig.freeze()
    return TaskMessageFromSignature(sig, utc, TaskMessage)
