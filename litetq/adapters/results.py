"""What a place of results is asked for, whatever server keeps it: the protocol `ResultStore`, and which URL means which.

A store keeps records by id, in Celery's form, so that programs of both read the same. How chords come to their end depends on what a
store can do, and workers of both must agree on it; `counting` says which of three ways it is:

- COUNTED: each member of a chord counts its part in the store, and the last one sends the body (Redis, memcached);
- ASKED: a task of its own, `celery.chord_unlock`, looks again and again whether all have ended, and sends the body (databases, files);
- NONE: chords are refused when they are sent (`rpc://`, and where results are kept nowhere).

A store connects at its first use and may be used by any number of threads. One that is away raises OperationalError, in one sentence
that names it without its password; a worker keeps the outcome then, and tries again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from litetq import adapters, clock
from litetq.adapters.metas import Codec
from litetq.address import mask
from litetq.exceptions import ImproperlyConfigured, OperationalError
from litetq.message import Record

T = TypeVar("T")

logger = logging.getLogger("celery.result")

COUNTED: Final = "counted"
ASKED: Final = "asked"
NONE: Final = "none"

FIRST_LOOK_S: Final = 0.02  # between looks for results that nobody pushes; grows by half each time
LONGEST_LOOK_S: Final = 0.5  # Celery's polling interval
PATIENCE_S: Final = 30.0  # of who waits for a result, with a place that is away; about Celery's with Redis


class Part(NamedTuple):
    """What one member gave to its chord."""

    id: str
    state: str
    value: Any  # as `Codec.load` returns it


class Settings(NamedTuple):
    """What the settings of an app say about its results.

    `options` is `result_backend_transport_options`; `more` are settings of single stores, by their names in `app.conf`.
    """

    codec: Codec = Codec()
    expires: float | None = 86_400.0  # seconds; None: for ever
    failure_expires: float | None = None  # None: as `expires`
    chord_expires: float | None = None  # None: as `expires`
    options: Mapping[str, Any] = {}
    more: Mapping[str, Any] = {}

    def lifetime(self, record: Record) -> int:
        """Return how many seconds a record is kept, 0: for ever."""
        is_failure = record.state == "FAILURE" and self.failure_expires is not None
        seconds = self.failure_expires if is_failure else self.expires
        return max(1, int(seconds)) if seconds else 0

    @property
    def chord_lifetime(self) -> int:
        """How many seconds the parts of a chord are kept, 0: for ever."""
        seconds = self.expires if self.chord_expires is None else self.chord_expires
        return max(1, int(seconds)) if seconds else 0


DEFAULTS: Final = Settings()


class StoreWatch(Protocol):
    """One waiter for changes of results: announce, look, and only then wait."""

    def announce(self) -> None: ...

    def wait(self, timeout: float | None) -> bool:
        """Return True when something may have changed, False when `timeout` seconds passed."""

    async def wait_async(self, timeout: float | None) -> bool: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *exc: object) -> None: ...


class ResultStore(Protocol):
    """A place of results. A saved group is a record under `message.saved_id`, in the state SAVED."""

    shown: str  # the address without password
    counting: str  # COUNTED, ASKED or NONE
    keeps_parts: bool  # whether what members give to a chord is kept apart from their results
    is_shared: bool  # whether every process may read every result

    @property
    def reply_to(self) -> str | None:
        """The queue that results of what this process sends go to; None where results are no messages."""

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return what is known of these tasks."""

    def write(self, record: Record, *, is_newest: bool = False) -> None:
        """Keep a record, and tell those who wait. What has succeeded stays so, unless the caller knows this to be newer."""

    def forget(self, ids: Iterable[str]) -> int:
        """Remove results; return how many there were, as far as the store tells."""

    def watch(self) -> StoreWatch: ...

    def cleanup(self) -> int:
        """Remove what has expired, where that does not happen by itself; return how many results."""

    def close(self) -> None:
        """Let go of connections; the next use connects again."""


class ChordStore(ResultStore, Protocol):
    """A store whose `counting` is COUNTED."""

    def open_chord(self, group: str, members: Sequence[str]) -> None:
        """Let the parts of a chord be counted: to be done before its first member is published."""

    def add_members(self, group: str, count: int) -> None:
        """Count so many members more; ImproperlyConfigured where the store cannot."""

    def count_part(self, group: str, part: Part, index: int | None, token: str) -> list[Part] | None:
        """Count the part of a chord; return all parts, in order, where this one completes it and the caller is to send the body.

        The token names the caller: who asks again under it, since it could not send the body, is answered the same.

        Raises OperationalError where it is to be asked again: while somebody else sends the body, who may have died.
        """

    def close_chord(self, group: str, token: str) -> None:
        """Forget a chord whose body is sent; later parts of it are recognised as late."""


class PolledWatch:
    """A waiter for results that nobody pushes: it looks again after a pause that grows from 20 ms to half a second."""

    def __init__(self) -> None:
        self._rest = FIRST_LOOK_S

    def announce(self) -> None: ...

    def _pause(self, timeout: float | None) -> float:
        pause, self._rest = self._rest, min(self._rest * 1.5, LONGEST_LOOK_S)
        return pause if timeout is None else max(0.0, min(pause, timeout))

    def wait(self, timeout: float | None) -> bool:
        pause = self._pause(timeout)
        time.sleep(pause)
        return timeout is None or pause < timeout

    async def wait_async(self, timeout: float | None) -> bool:
        import asyncio

        pause = self._pause(timeout)
        await asyncio.sleep(pause)
        return timeout is None or pause < timeout

    def __enter__(self) -> PolledWatch:
        return self

    def __exit__(self, *exc: object) -> None: ...


class PatientWatch:
    """The watch of a thread that waits: while the place of results is away, the thread goes on waiting, for half a minute.

    Args:
        watch: the place's own.
        open: where the thread finds its watch; the one that was there comes back at the end.
    """

    def __init__(self, watch: StoreWatch, open: threading.local) -> None:
        self._watch = watch
        self._open = open
        self._outer: PatientWatch | None = None
        self._away_since: float | None = None

    def read(self, look: Callable[[], dict[str, Record]]) -> dict[str, Record]:
        """Return what a look finds; nothing while the place is away.

        Raises OperationalError where it has been away for PATIENCE_S.
        """
        try:
            found = look()
        except OperationalError as error:
            now = clock.monotonic()
            if self._away_since is None:
                self._away_since = now
                logger.warning("%s; whoever waits goes on waiting for %d s", error, PATIENCE_S)
            if now - self._away_since > PATIENCE_S:
                raise
            time.sleep(FIRST_LOOK_S)
            return {}
        self._away_since = None
        return found

    def announce(self) -> None:
        self._watch.announce()

    def wait(self, timeout: float | None) -> bool:
        return self._watch.wait(timeout)

    async def wait_async(self, timeout: float | None) -> bool:
        return await self._watch.wait_async(timeout)

    def __enter__(self) -> PatientWatch:
        self._outer = getattr(self._open, "watch", None)
        self._open.watch = self
        self._watch.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.watch = self._outer
        self._watch.__exit__(*exc)


class Once:
    """Something that is made at its first use, by whichever thread comes first, and can be let go."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: Any = None

    def __call__(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def drop(self) -> Any:
        """Return what was made, if anything, and forget it."""
        with self._lock:
            made, self._made = self._made, None
            return made


class NoResults:
    """Results that are kept nowhere, as with Celery and no result backend: who asks for one is told so.

    Args:
        broker: the address of the broker, without password.
    """

    shown = "disabled://"
    counting = NONE
    keeps_parts = True
    is_shared = False
    reply_to = None

    def __init__(self, broker: str) -> None:
        self._broker = broker

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        """Raise ImproperlyConfigured: there is nothing to ask."""
        raise ImproperlyConfigured(
            f"no result backend is configured: with the broker {self._broker}, results are kept nowhere; set result_backend, "
            'for example to "rpc://" or to a redis:// URL'
        )

    def write(self, record: Record, *, is_newest: bool = False) -> None:
        """Keep nothing."""

    def forget(self, ids: Iterable[str]) -> int:
        return 0

    def watch(self) -> PolledWatch:
        return PolledWatch()

    def cleanup(self) -> int:
        return 0

    def close(self) -> None: ...


# -- which store a URL means -------------------------------------------------------------------------------------------


_REDIS: Final = ("redis", "rediss", "redis+socket", "sentinel")
_SQL: Final = ("db", "database", "sqla", "sqlalchemy")
_MEMCACHED: Final = ("cache+memcached", "cache+memcache", "cache+pymemcache", "cache+pylibmc")
FOLDER: Final = "filesystem"  # how `address` calls file://


def is_native(scheme: str) -> bool:
    """Return whether results at URLs of this scheme are kept without Celery."""
    return scheme in (*_REDIS, *_MEMCACHED, FOLDER) or scheme.partition("+")[0] in _SQL


def open_store(scheme: str, url: str, settings: Settings) -> ResultStore:
    """Return the store of a URL for which `is_native` is true; nothing is connected yet.

    Raises ImproperlyConfigured where a package is missing, or the URL says what cannot be.
    """
    what = f"the result backend {mask(url)}"
    if scheme in _REDIS:
        adapters.package("redis", what)
        from litetq.adapters.redis import RedisResults

        return RedisResults(url, settings)
    if scheme == FOLDER:
        from litetq.adapters.keyed import FolderResults

        return FolderResults(url, settings)
    if scheme in _MEMCACHED:
        adapters.package("pymemcache", what)
        from litetq.adapters.keyed import MemcachedResults

        return MemcachedResults(url, settings)
    adapters.package("sqlalchemy", what)
    from litetq.adapters.sql import SqlResults

    return SqlResults(url, settings)
