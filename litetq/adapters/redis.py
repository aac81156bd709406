"""Results in Redis, and chords counted there, under Celery's keys and in its form: workers of both agree.

    celery-task-meta-<id>           the result, JSON; published under the same name when it is written (what `get` waits for)
    celery-taskset-meta-<group>.s   size of a chord;  .t  members added since;  .j  parts by index;  .d  which were counted
    celery-taskset-meta-<group>.c   who sends the body: a token while it does so, "done" afterwards

A part counts once, however often its task is delivered. One worker at a time may send the body; if it dies meanwhile, its token
runs out, and the redelivery of the last member sends it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from litetq import adapters, states
from litetq.exceptions import ImproperlyConfigured, OperationalError
from litetq.message import Record
from litetq.states import READY_STATES

TASK_KEY: Final = "celery-task-meta-"
GROUP_KEY: Final = "celery-taskset-meta-"
CONNECT_S: Final = 4.0  # Celery's broker_connection_timeout
ANSWER_S: Final = 30.0  # a server that says nothing for so long is taken for gone; arbitrary
CLAIM_S: Final = 10  # how long a chord's body may take to be sent; Celery's default
DONE_S: Final = 300  # how long late parts of a finished chord are recognised; Celery's

# One transaction: count a part if it is new, and if it is the last one, let one caller send the body.
_COUNT_PART: Final = """
if redis.call('GET', KEYS[5]) == 'done' then return {-1, 0} end
if redis.call('SADD', KEYS[4], ARGV[1] .. ':' .. ARGV[3]) == 1 then
    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2])
end
for place = 1, 4 do redis.call('EXPIRE', KEYS[place], ARGV[4]) end
local size = redis.call('GET', KEYS[3])
if not size then return {redis.call('ZCARD', KEYS[1]), 0} end
local total = tonumber(size) + tonumber(redis.call('GET', KEYS[2]) or 0)
local ready = redis.call('ZCARD', KEYS[1])
if ready ~= total then return {ready, 0} end
local sender = redis.call('GET', KEYS[5])
if sender and sender ~= ARGV[5] then return {ready, 2} end
redis.call('SET', KEYS[5], ARGV[5], 'EX', ARGV[6])
return {ready, 1}
"""

_OURS, _OTHERS = 1, 2  # who is to send the body of a chord that is complete

_CLOSE_CHORD: Final = """
if redis.call('GET', KEYS[5]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('SET', KEYS[5], 'done', 'EX', ARGV[2])
return 1
"""


class Part(NamedTuple):
    """What one member gave to its chord."""

    id: str
    state: str
    value: Any  # plain JSON


class RedisResults:
    """Results of one Redis database. Connects at the first use; may be used by any number of threads."""

    def __init__(
        self, url: str, *, result_expires: float | None = 86_400.0, failure_expires: float | None = None
    ) -> None:
        self._url, self._options = _client_options(url)
        self.shown = self._url.rpartition("@")[2].split("//")[-1]
        self._expires = result_expires
        self._failure_expires = result_expires if failure_expires is None else failure_expires
        self._lock = threading.Lock()
        self._connected: Any = None
        self._watches = threading.local()

    @property
    def client(self) -> Any:
        with self._lock:
            if self._connected is None:
                redis = adapters.package("redis")
                self._connected = redis.Redis.from_url(
                    self._url,
                    socket_connect_timeout=CONNECT_S,
                    socket_timeout=ANSWER_S,
                    socket_keepalive=True,
                    health_check_interval=25,
                    **self._options,
                )
            return self._connected

    def close(self) -> None:
        with self._lock:
            client, self._connected = self._connected, None
        if client is not None:
            client.close()

    def _do(self, what: str, command: Any) -> Any:
        """Return what a command answers; OperationalError in one sentence when the server cannot be reached."""
        errors = adapters.package("redis").exceptions.RedisError
        try:
            return command(self.client)
        except (errors, OSError) as error:
            raise OperationalError(
                f"{what} failed: Redis at {self.shown} did not do it ({error}); is it running?"
            ) from error

    # -- results

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return what is known of these tasks; a watch that is open in this thread then waits for those not ended."""
        if not ids:
            return {}
        watch = getattr(self._watches, "open", None)
        if watch is not None:
            watch.follow(ids)
        found = self._do("Reading results", lambda client: client.mget([TASK_KEY + id for id in ids]))
        records = {id: record_of(id, data) for id, data in zip(ids, found, strict=True) if data is not None}
        if watch is not None:
            watch.unfollow([id for id, record in records.items() if record.state in READY_STATES])
        return records

    def write(self, id: str, meta: dict[str, Any]) -> None:
        """Store a result and tell those who wait. What has succeeded stays so."""
        expires = self._failure_expires if meta["status"] == states.FAILURE else self._expires
        data, key = json.dumps({**meta, "task_id": id}), TASK_KEY + id

        def command(client: Any) -> None:
            pipe = client.pipeline()
            pipe.set(key, data, ex=max(1, int(expires)) if expires else None)
            pipe.publish(key, data)
            pipe.execute()

        self._do(f"Storing the result of task {id}", command)

    def forget(self, ids: Iterable[str]) -> int:
        keys = [TASK_KEY + id for id in ids]
        count: int = self._do("Forgetting results", lambda client: client.delete(*keys)) if keys else 0
        return count

    def watch(self) -> RedisWatch:
        watch = RedisWatch(self, getattr(self._watches, "open", None))
        self._watches.open = watch
        return watch

    # -- chords

    def open_chord(self, group: str, size: int) -> None:
        """Let the parts of a chord be counted: to be done before its first member is published."""

        def command(client: Any) -> None:
            pipe = client.pipeline()
            pipe.delete(GROUP_KEY + group + ".c")
            pipe.set(GROUP_KEY + group + ".s", size, ex=self._chord_expires())
            pipe.execute()

        self._do(f"Opening the chord of group {group}", command)

    def _chord_expires(self) -> int:
        return max(1, int(self._expires or 86_400))

    def add_members(self, group: str, count: int) -> None:
        self._do(f"Adding to the chord of group {group}", lambda client: client.incr(GROUP_KEY + group + ".t", count))

    def count_part(self, group: str, part: Part, index: int | None, token: str) -> list[Part] | None:
        """Count the part of a chord; return all parts, in order, where this one completes it and the caller is to send the body.

        The token names the caller: who asks again under it, since it could not send the body, is answered the same.

        Raises OperationalError while somebody else sends the body: it is to be asked again, since that one may have died.
        """
        encoded = json.dumps([1, part.id, part.state, part.value])
        keys = _chord_keys(group)
        score = "+inf" if index is None else str(index)

        def command(client: Any) -> list[Part] | None:
            script = client.register_script(_COUNT_PART)
            _, whose = script(keys=keys, args=[part.id, encoded, score, self._chord_expires(), token, CLAIM_S])
            if whose == _OTHERS:
                raise OperationalError(f"The body of the chord of group {group} is being sent by another worker")
            return [Part(*json.loads(data)[1:]) for data in client.zrange(keys[0], 0, -1)] if whose == _OURS else None

        parts: list[Part] | None = self._do(f"Counting task {part.id} in the chord of group {group}", command)
        return parts

    def close_chord(self, group: str, token: str) -> None:
        """Forget a chord whose body is sent; later parts of it are recognised as late."""
        self._do(
            f"Closing the chord of group {group}",
            lambda client: client.register_script(_CLOSE_CHORD)(keys=_chord_keys(group), args=[token, DONE_S]),
        )


def _chord_keys(group: str) -> list[str]:
    return [f"{GROUP_KEY}{group}.{name}" for name in "jtsdc"]


def _client_options(url: str) -> tuple[str, dict[str, Any]]:
    """Return a URL as the client of Redis takes it, and TLS options that Celery writes as Python's names."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        raise ImproperlyConfigured(
            f"results at {parts.scheme}:// have no adapter in this version; use redis:// or rediss://"
        )
    query = dict(parse_qsl(parts.query))
    requirement = query.get("ssl_cert_reqs")
    if requirement:
        query["ssl_cert_reqs"] = requirement.lower().removeprefix("cert_")
    return urlunsplit(parts._replace(query=urlencode(query))), {}


def record_of(id: str, data: bytes) -> Record:
    """Return a stored result as the program reads it."""
    meta = json.loads(data)
    state = meta["status"]
    done = meta.get("date_done")
    is_done = state in READY_STATES
    children = meta.get("children")
    return Record(
        id,
        state,
        "DONE" if is_done else "SCHEDULED" if state == states.RETRY else "CLAIMED",
        json.dumps(meta.get("result")).encode(),
        None,
        meta.get("traceback"),
        json.dumps(children) if children else None,
        _timestamp(done) if done else None,
        name=meta.get("name"),
        queue=meta.get("queue"),
        worker=meta.get("worker"),
        retries=meta.get("retries") or 0,
        parent_id=meta.get("parent_id"),
        headers=json.dumps({"group": meta["group_id"]}) if meta.get("group_id") else None,
    )


def meta_of(
    state: str,
    result: bytes | None,
    *,
    traceback: str | None = None,
    children: str | None = None,
    done_at: float | None = None,
    group: str | None = None,
    parent_id: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a result as Celery stores it; `result` is JSON."""
    meta = {
        "status": state,
        "result": None if result is None else json.loads(result),
        "traceback": traceback,
        "children": json.loads(children) if children else [],
        "date_done": datetime.fromtimestamp(done_at, timezone.utc).isoformat() if done_at is not None else None,
        **more,
    }
    if group is not None:
        meta["group_id"] = group
    if parent_id is not None:
        meta["parent_id"] = parent_id
    return meta


def _timestamp(moment: str) -> float:
    found = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    return (found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)).timestamp()


class RedisWatch:
    """A sleeper for results: Redis pushes the ends of those tasks that were looked for, in this thread, since it was opened."""

    def __init__(self, results: RedisResults, outer: RedisWatch | None) -> None:
        self._results = results
        self._outer = outer
        self._followed: set[str] = set()
        self._pubsub: Any = None

    def announce(self) -> None: ...

    def follow(self, ids: Sequence[str]) -> None:
        """Have the ends of these tasks pushed. Subscribed is before read: no end falls between the two."""
        new = [id for id in ids if id not in self._followed]
        if not new:
            return
        self._followed.update(new)

        def command(client: Any) -> None:
            if self._pubsub is None:
                self._pubsub = client.pubsub(ignore_subscribe_messages=False)
            self._pubsub.subscribe(*[TASK_KEY + id for id in new])

        self._results._do("Waiting for results", command)

    def unfollow(self, ids: Sequence[str]) -> None:
        ended = [id for id in ids if id in self._followed]
        if ended and self._pubsub is not None:
            self._followed.difference_update(ended)
            self._results._do(
                "Waiting for results", lambda client: self._pubsub.unsubscribe(*[TASK_KEY + id for id in ended])
            )

    def wait(self, timeout: float | None) -> bool:
        """Return True when something may have changed, False when `timeout` seconds passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            rest = 1.0 if deadline is None else deadline - time.monotonic()
            if rest <= 0:
                return False
            if self._pubsub is None or not self._followed:
                time.sleep(min(rest, 0.05))
                return True
            try:
                message = self._pubsub.get_message(timeout=rest)
            except (adapters.package("redis").exceptions.RedisError, OSError):
                self._drop()  # the next look subscribes anew, or says what is wrong
                time.sleep(min(rest, 0.2))
                return True
            if message is not None and message["type"] == "message":
                return True
            if message is None and deadline is None:
                return True

    async def wait_async(self, timeout: float | None) -> bool:
        import asyncio

        return await asyncio.to_thread(self.wait, timeout)

    def _drop(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        self._followed.clear()
        if pubsub is not None:
            pubsub.close()

    def __enter__(self) -> RedisWatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self._results._watches.open = self._outer
        self._drop()
