"""How a worker runs the messages of a task: `default`, or what the task has as its `Strategy`.

Messages of protocol 1 reach no strategy, since none is in a file; the two functions turn what is given to them into the parts of
protocol 2 all the same: body, headers, whether the body is decoded, whether times are UTC.
"""

from __future__ import annotations

from typing import Any

from litetq.exceptions import InvalidTaskError
from litetq.strategies import default, logger

__all__ = ["default", "hybrid_to_proto2", "logger", "proto1_to_proto2"]


def hybrid_to_proto2(message: Any, body: Any) -> tuple[Any, dict[str, Any], bool, bool]:
    """Return the parts of a message whose body is one of protocol 1 and whose headers are those of protocol 2."""
    told = {name: body.get(name) for name in ("id", "task", "root_id", "parent_id", "expires", "eta")}
    return _args_of(body), {**_times(body), **told, **(message.headers or {})}, True, bool(body.get("utc", True))


def proto1_to_proto2(message: Any, body: Any) -> tuple[Any, dict[str, Any], bool, bool]:
    """Return the parts of a message of protocol 1. Raises InvalidTaskError for one without arguments."""
    if "args" not in body or "kwargs" not in body:
        raise InvalidTaskError("Message does not have args/kwargs")
    headers = {**body, **_times(body), "root_id": body.get("id"), "parent_id": None, "group": body.get("taskset")}
    return _args_of(body), headers, True, bool(body.get("utc", True))


def _args_of(body: Any) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    hanging = {name: body.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
    return list(body.get("args") or ()), dict(body.get("kwargs") or {}), hanging


def _times(body: Any) -> dict[str, Any]:
    return {"retries": body.get("retries") or 0, "timelimit": body.get("timelimit") or (None, None)}
