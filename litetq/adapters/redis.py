"""Results in Redis, and chords counted there, under Celery's keys and in its form: workers of both agree.

    celery-task-meta-<id>           the result, JSON; published under the same name when it is written (what `get` waits for)
    celery-taskset-meta-<group>.s   size of a chord;  .t  members added since;  .j  parts by index;  .d  which were counted
    celery-taskset-meta-<group>.c   who sends the body: a token while it does so, "done" afterwards

A part counts once, however often its task is delivered. One worker at a time may send the body; if it dies meanwhile, its token
runs out, and the redelivery of the last member sends it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from litetq import adapters, states
from litetq.adapters import family
from litetq.adapters.broker import advice
from litetq.adapters.results import COUNTED, DEFAULTS, Part, Settings
from litetq.address import mask
from litetq.exceptions import OperationalError
from litetq.message import SAVED, Record, saved_group
from litetq.states import READY_STATES

TASK_KEY: Final = "celery-task-meta-"
GROUP_KEY: Final = "celery-taskset-meta-"
CONNECT_S: Final = 4.0  # Celery's broker_connection_timeout
ANSWER_S: Final = 30.0  # a server that says nothing for so long is taken for gone; arbitrary
_CLIENT: Final = {"socket_connect_timeout": CONNECT_S, "socket_timeout": ANSWER_S, "health_check_interval": 25}
CLAIM_S: Final = 10  # how long a chord's body may take to be sent; Celery's default
LONG_S: Final = (
    86_400  # that the parts of a chord are kept where results never expire: a chord that is never complete must end
)
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

# A result is published under its key. What begins as the description of a success does so because it is one: the state comes first.
_WRITE: Final = """
if ARGV[3] ~= '' and redis.call('GETRANGE', KEYS[1], 0, #ARGV[3] - 1) == ARGV[3] then return 0 end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1]) else redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
"""
_SUCCEEDED: Final = '{"status": "SUCCESS"'

_CLOSE_CHORD: Final = """
if redis.call('GET', KEYS[5]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('SET', KEYS[5], 'done', 'EX', ARGV[2])
return 1
"""


class RedisResults:
    """Results of one Redis database. Connects at the first use; may be used by any number of threads."""

    counting = COUNTED
    keeps_parts = True
    is_shared = True
    reply_to = None

    def __init__(self, url: str, settings: Settings = DEFAULTS) -> None:
        self._url = url
        self._settings = settings
        self._codec = settings.codec
        self._client = {**_CLIENT, **settings.more, "options": settings.options}
        self._prefix = family.prefix_of(settings.options)
        self.shown = mask(url).split("//")[-1].rpartition("@")[2]
        self._lock = threading.Lock()
        self._connected: Any = None
        self._watches = threading.local()

    @property
    def client(self) -> Any:
        with self._lock:
            if self._connected is None:
                self._connected = family.client(self._url, **self._client)
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
                f"{what} failed: Redis at {self.shown} did not do it ({error}){advice(error)}"
            ) from error

    def _key(self, id: str) -> str:
        group = saved_group(id)
        return f"{self._prefix}{TASK_KEY}{id}" if group is None else f"{self._prefix}{GROUP_KEY}{group}"

    def _group_key(self, group: str, name: str) -> str:
        return f"{self._prefix}{GROUP_KEY}{group}.{name}"

    def _chord_keys(self, group: str) -> list[str]:
        return [self._group_key(group, name) for name in "jtsdc"]

    # -- results

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return what is known of these tasks; a watch that is open in this thread then waits for those not ended."""
        if not ids:
            return {}
        watch = getattr(self._watches, "open", None)
        if watch is not None:
            watch.follow(ids)
        found = self._do("Reading results", lambda client: client.mget([self._key(id) for id in ids]))
        records = {
            id: self._codec.read(id, data, is_group=saved_group(id) is not None)
            for id, data in zip(ids, found, strict=True)
            if data is not None
        }
        if watch is not None:
            watch.unfollow([id for id, record in records.items() if record.state in READY_STATES])
        return records

    def write(self, record: Record, *, is_newest: bool = False) -> None:
        """Store a result and tell those who wait. What has succeeded stays so, unless the caller knows this to be newer."""
        data, key = self._codec.write(record, may_compress=True), self._key(record.id)
        keeps = "" if is_newest or record.state == SAVED else "1"

        def command(client: Any) -> None:
            if keeps and not self._codec.is_json:
                known = client.get(key)
                if known is not None and self._codec.read(record.id, known).state == states.SUCCESS:
                    return
            arguments = [data, self._settings.lifetime(record), _SUCCEEDED if keeps and self._codec.is_json else ""]
            client.register_script(_WRITE)(keys=[key], args=arguments)

        self._do(f"Storing the result of task {record.id}", command)

    def forget(self, ids: Iterable[str]) -> int:
        keys = [self._key(id) for id in ids]
        count: int = self._do("Forgetting results", lambda client: client.delete(*keys)) if keys else 0
        return count

    def cleanup(self) -> int:
        """Do nothing: Redis forgets what has expired."""
        return 0

    def watch(self) -> RedisWatch:
        watch = RedisWatch(self, getattr(self._watches, "open", None))
        self._watches.open = watch
        return watch

    # -- chords

    def open_chord(self, group: str, members: Sequence[str]) -> None:
        """Let the parts of a chord be counted: to be done before its first member is published."""

        def command(client: Any) -> None:
            pipe = client.pipeline()
            pipe.delete(self._group_key(group, "c"))
            pipe.set(self._group_key(group, "s"), len(members), ex=self._chord_expires())
            pipe.execute()

        self._do(f"Opening the chord of group {group}", command)

    def _chord_expires(self) -> int:
        return self._settings.chord_lifetime or LONG_S

    def add_members(self, group: str, count: int) -> None:
        self._do(
            f"Adding to the chord of group {group}", lambda client: client.incr(self._group_key(group, "t"), count)
        )

    def count_part(self, group: str, part: Part, index: int | None, token: str) -> list[Part] | None:
        """Count the part of a chord; return all parts, in order, where this one completes it and the caller is to send the body.

        The token names the caller: who asks again under it, since it could not send the body, is answered the same.

        Raises OperationalError while somebody else sends the body: it is to be asked again, since that one may have died.
        """
        encoded = self._codec.dump([1, *part], may_compress=True)
        keys = self._chord_keys(group)
        score = "+inf" if index is None else str(index)

        def command(client: Any) -> list[Part] | None:
            script = client.register_script(_COUNT_PART)
            _, whose = script(keys=keys, args=[part.id, encoded, score, self._chord_expires(), token, CLAIM_S])
            if whose == _OTHERS:
                raise OperationalError(f"The body of the chord of group {group} is being sent by another worker")
            if whose != _OURS:
                return None
            return [Part(*self._codec.load(data)[1:]) for data in client.zrange(keys[0], 0, -1)]

        parts: list[Part] | None = self._do(f"Counting task {part.id} in the chord of group {group}", command)
        return parts

    def close_chord(self, group: str, token: str) -> None:
        """Forget a chord whose body is sent; later parts of it are recognised as late."""
        self._do(
            f"Closing the chord of group {group}",
            lambda client: client.register_script(_CLOSE_CHORD)(keys=self._chord_keys(group), args=[token, DONE_S]),
        )


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
            self._pubsub.subscribe(*[self._results._key(id) for id in new])

        self._results._do("Waiting for results", command)

    def unfollow(self, ids: Sequence[str]) -> None:
        ended = [id for id in ids if id in self._followed]
        if ended and self._pubsub is not None:
            self._followed.difference_update(ended)
            self._results._do(
                "Waiting for results",
                lambda client: self._pubsub.unsubscribe(*[self._results._key(id) for id in ended]),
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
