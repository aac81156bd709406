"""Results as bytes under keys, as Celery keeps them: in memcached (`cache+memcached://`) and in the files of a folder (`file://`).

    celery-task-meta-<id>        the result
    celery-taskset-meta-<group>  a saved group; in memcached also the members of a chord that is under way
    chord-unlock-<group>         in memcached: how many of the members have ended

What a member of a chord gave is its result; the last one reads them all. In memcached a member's number is kept beside
(`litetq-part-<group>-<id>`), so that one that is delivered again does not count again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from litetq import adapters, clock, states
from litetq.adapters import family
from litetq.adapters.results import ASKED, COUNTED, Once, Part, PolledWatch, Settings
from litetq.address import mask
from litetq.exceptions import BackendStoreError, ImproperlyConfigured, OperationalError
from litetq.message import SAVED, Record, saved_group, saved_id

TASK_KEY: Final = "celery-task-meta-"
GROUP_KEY: Final = "celery-taskset-meta-"
CHORD_KEY: Final = "chord-unlock-"
PART_KEY: Final = "litetq-part-"
ANSWER_S: Final = 5.0  # Celery's, for memcached
MEMCACHED_PORT: Final = 11211
RELATIVE_S: Final = 30 * 24 * 3600  # memcached reads a longer lifetime as a point in time


class KeyedResults:
    """What both have: records under keys, with results that succeeded left alone."""

    keeps_parts = False
    is_shared = True
    reply_to = None
    shown: str

    def __init__(self, settings: Settings, *, may_compress: bool) -> None:
        self._settings = settings
        self._codec = settings.codec
        self._may_compress = may_compress
        self._prefix = family.prefix_of(settings.options)

    def _get(self, keys: Sequence[str]) -> dict[str, bytes]:
        raise NotImplementedError

    def _set(self, key: str, data: bytes, lifetime: int) -> None:
        raise NotImplementedError

    def _delete(self, key: str) -> bool:
        raise NotImplementedError

    def _key(self, id: str) -> str:
        group = saved_group(id)
        return f"{self._prefix}{TASK_KEY}{id}" if group is None else f"{self._prefix}{GROUP_KEY}{group}"

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        found = self._get([self._key(id) for id in ids]) if ids else {}
        return {
            id: self._codec.read(id, found[key], is_group=saved_group(id) is not None)
            for id in ids
            if (key := self._key(id)) in found
        }

    def write(self, record: Record, *, is_newest: bool = False) -> None:
        if not is_newest and record.state != SAVED:
            known = self.read_many([record.id]).get(record.id)
            if known is not None and known.state == states.SUCCESS:
                return
        data = self._codec.write(record, may_compress=self._may_compress)
        self._set(self._key(record.id), data, self._settings.lifetime(record))

    def forget(self, ids: Iterable[str]) -> int:
        return sum(self._delete(self._key(id)) for id in ids)

    def watch(self) -> PolledWatch:
        return PolledWatch()

    def cleanup(self) -> int:
        """Do nothing: the server forgets what has expired."""
        return 0


class MemcachedResults(KeyedResults):
    """Results in one memcached, or several; connects at the first use, once for each thread that asks at a time."""

    counting = COUNTED

    def __init__(self, url: str, settings: Settings) -> None:
        super().__init__(settings, may_compress=False)
        servers = url.partition("://")[2].rstrip("/").split(";")
        self._servers = [_address(server) for server in servers if server]
        self.shown = "memcached at " + ", ".join(server for server in servers if server)
        if not self._servers:
            raise ImproperlyConfigured(
                f"the result backend {mask(url)} names no server; write cache+memcached://127.0.0.1:11211/"
            )
        self._client = Once(self._connect)

    def _connect(self) -> Any:
        adapters.package("pymemcache")
        given = {
            k: v
            for k, v in (self._settings.more.get("cache_backend_options") or {}).items()
            if k not in ("behaviors", "binary")
        }
        options = {"connect_timeout": ANSWER_S, "timeout": ANSWER_S, **given, "default_noreply": False}
        if len(self._servers) == 1:
            return adapters.package("pymemcache.client.base").PooledClient(self._servers[0], **options)
        return adapters.package("pymemcache.client.hash").HashClient(
            self._servers, **{"dead_timeout": 1, "use_pooling": True, **options}
        )

    def _do(self, what: str, command: Any) -> Any:
        client, errors = self._client(), adapters.package("pymemcache.exceptions")
        try:
            return command(client)
        except (
            errors.MemcacheServerError,
            errors.MemcacheClientError,
        ) as error:  # what it says of a value, or of a key
            raise BackendStoreError(f"{what} failed: {self.shown} refuses it ({error})") from error
        except (errors.MemcacheError, OSError) as error:
            raise OperationalError(f"{what} failed: {self.shown} did not do it ({error}); is it running?") from error

    def _get(self, keys: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = self._do("Reading results", lambda client: client.get_many(list(keys)))
        return found

    def _set(self, key: str, data: bytes, lifetime: int) -> None:
        self._do("Storing a result", lambda client: client.set(key, data, _relative(lifetime)))

    def _delete(self, key: str) -> bool:
        return bool(self._do("Forgetting a result", lambda client: client.delete(key)))

    def close(self) -> None:
        client = self._client.drop()
        if client is not None:
            client.close()

    # -- chords

    def open_chord(self, group: str, members: Sequence[str]) -> None:
        """Save the members as a group, as Celery does, and begin to count."""
        lifetime = self._settings.chord_lifetime
        described = [[group, None], [[[id, None], None] for id in members]]
        kept = self._codec.write(Record(saved_id(group), SAVED, "DONE", json.dumps(described).encode()))
        self._set(self._key(saved_id(group)), kept, max(lifetime, self._settings.lifetime(_ANY)) if lifetime else 0)
        self._set(f"{self._prefix}{CHORD_KEY}{group}", b"0", lifetime)

    def add_members(self, group: str, count: int) -> None:
        raise ImproperlyConfigured(
            f"a task added to its chord, whose members {self.shown} cannot add to; use a redis:// URL as result_backend"
        )

    def count_part(self, group: str, part: Part, index: int | None, token: str) -> list[Part] | None:
        key, lifetime = f"{self._prefix}{PART_KEY}{group}-{part.id}", _relative(self._settings.chord_lifetime)
        saved = self.read_many([saved_id(group)]).get(saved_id(group))
        if saved is None or saved.result is None:
            return None  # its body is sent
        members = [id for (id, _), _ in json.loads(saved.result)[1]]

        def command(client: Any) -> int | None:
            known = client.get(key)
            if known is not None:
                return int(known)
            number = client.incr(f"{self._prefix}{CHORD_KEY}{group}", 1)
            if number is not None:
                client.set(key, str(number).encode(), lifetime)
            return None if number is None else int(number)

        number = self._do(f"Counting task {part.id} in the chord of group {group}", command)
        if number != len(members):
            return None
        found = self.read_many(members)
        missing = [id for id in members if id not in found or found[id].state not in states.READY_STATES]
        if missing:
            raise OperationalError(f"The chord of group {group} is complete, and {missing[0]} has no result yet")
        return [
            Part(id, found[id].state, self._codec.plain(found[id].result, found[id].content_type)) for id in members
        ]

    def close_chord(self, group: str, token: str) -> None:
        self._delete(self._key(saved_id(group)))
        self._delete(f"{self._prefix}{CHORD_KEY}{group}")


_ANY: Final = Record("", states.SUCCESS, "DONE")


def _address(server: str) -> Any:
    """Return an address as the client takes it; a path is a socket."""
    if server.startswith("/"):
        return server
    host, colon, port = server.rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else (server, MEMCACHED_PORT)


def _relative(lifetime: int) -> int:
    return lifetime if lifetime <= RELATIVE_S else int(clock.now()) + lifetime


class FolderResults(KeyedResults):
    """Results as files of one folder, which must be there. A file is complete or not there at all."""

    counting = ASKED

    def __init__(self, url: str, settings: Settings) -> None:
        super().__init__(settings, may_compress=True)
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise ImproperlyConfigured(
                f"the result backend {url} names the host {parts.netloc!r}; a folder of this machine has three slashes: "
                f"file:///{parts.netloc}{parts.path}"
            )
        path = parts.path
        if os.name == "nt" and path.startswith("/"):
            path = path[1:]
        if not path.strip("/"):
            raise ImproperlyConfigured(
                f"the result backend {url} names no folder; write file:///var/results, for example"
            )
        self._folder = Path(path)
        self.shown = f"the folder {path}"
        if not os.access(path, os.W_OK):
            found = "is not there" if not os.path.isdir(path) else "cannot be written by this user"
            raise ImproperlyConfigured(f"the result backend {url}: the folder {path} {found}; make it, or name another")

    def _failed(self, what: str, error: OSError) -> OperationalError:
        return OperationalError(f"{what} failed in {self.shown}: {error}")

    def _get(self, keys: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for key in keys:
            try:
                found[key] = (self._folder / key).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._failed("Reading a result", error) from error
        return {key: data for key, data in found.items() if data}

    def _set(self, key: str, data: bytes, lifetime: int) -> None:
        try:
            handle, draft = tempfile.mkstemp(prefix=".draft-", dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(draft, 0o644)
            os.replace(draft, self._folder / key)
        except OSError as error:
            raise self._failed("Storing a result", error) from error

    def _delete(self, key: str) -> bool:
        try:
            os.unlink(self._folder / key)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._failed("Forgetting a result", error) from error
        return True

    def cleanup(self) -> int:
        """Remove the files that are older than `result_expires`; return how many."""
        seconds = self._settings.expires
        if not seconds:
            return 0
        prefixes = tuple(f"{self._prefix}{prefix}" for prefix in (TASK_KEY, GROUP_KEY, CHORD_KEY))
        before, count = clock.now() - seconds, 0
        for entry in os.scandir(self._folder):
            try:
                if entry.name.startswith((*prefixes, ".draft-")) and entry.stat().st_mtime < before:
                    os.unlink(entry.path)
                    count += 1
            except FileNotFoundError:
                continue  # somebody else tidies up, too
        return count

    def close(self) -> None:
        """Do nothing: no file stays open."""
