"""How a file is, in plain words; a copy of it while workers run; its spare space given back.

The findings of a checkup are for people: what was looked at, what was found, what to do. Nothing here is needed to run tasks.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from litetq import clock, platforms
from litetq.browse import Browse, Filter
from litetq.database import OLDEST_SQLITE, OPEN_TIMEOUT_MS, REFUSED_FILE_SYSTEMS, SCHEMA, migrations
from litetq.engine import FileEngine
from litetq.exceptions import StoreCorrupt, StoreError, StoreReadOnly
from litetq.roster import Worker

GOOD: Final = "good"
WARNING: Final = "warning"  # works, and something could be better
BAD: Final = "bad"  # tasks are lost, stand still or cannot be sent until something is done

SLOW_FILE_SYSTEMS: Final = frozenset({"virtiofs", "fuse.grpcfuse", "grpcfuse", "fuse.sshfs", "fuse.osxfs"})
LATE_S: Final = 10.0  # arbitrary: what is due is begun within about a second where anybody lives
LARGE_LOG_BYTES: Final = 64 * 1024 * 1024  # a log is cut to this once it has been moved (database.JOURNAL_LIMIT_BYTES)
SPARE_BYTES: Final = 16 * 1024 * 1024  # arbitrary: free space in the file that is worth a word
LOW_DISK_BYTES: Final = 256 * 1024 * 1024  # arbitrary
BACKUP_PAGES: Final = 2000  # copied between two looks for Ctrl-C: 8 MB, some tens of milliseconds


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: str  # GOOD, WARNING or BAD
    about: str  # a word or two
    text: str  # what was found
    advice: str = ""  # what to do; empty: nothing


class Opener(NamedTuple):
    """A process that has the file open."""

    pid: int
    name: str
    is_ours: bool  # it works through litetq's SQLite library


class Checkup:
    """Looks at one file; every method yields findings."""

    def __init__(self, engine: FileEngine) -> None:
        self.engine = engine
        self.path = Path(engine.path).absolute()
        self.browse = Browse(engine.database)

    def quick(self) -> Iterator[Finding]:
        """Yield all findings that cost less than a second."""
        looks = (
            self.versions, self.place, self.settings, self.log, self.openers, self.workers, self.tasks, self.schedule,
        )  # fmt: skip
        for look in looks:
            try:
                yield from look()
            except StoreCorrupt as error:
                yield Finding(BAD, look.__name__, f"cannot be looked at: {error.found}", "restore a backup")
            except StoreReadOnly as error:
                yield Finding(BAD, look.__name__, f"cannot be looked at: {error.found}", error.advice)
                return  # nor can the rest

    # -- the file

    def versions(self) -> Iterator[Finding]:
        found, oldest = apsw.sqlite_lib_version(), ".".join(map(str, OLDEST_SQLITE))
        text = f"SQLite {found} (apsw {apsw.apsw_version()}), Python {platform.python_version()}"
        if tuple(map(int, found.split("."))) < OLDEST_SQLITE:
            yield Finding(
                BAD, "SQLite", f"{text}: it can corrupt such files", f"upgrade apsw: SQLite {oldest} is needed"
            )
        else:
            yield Finding(GOOD, "SQLite", text)

    def place(self) -> Iterator[Finding]:
        kind = platforms.file_system_of(self.path.parent)
        if kind in REFUSED_FILE_SYSTEMS:
            advice = "put the file on a local disk; what happens on two machines at once may be lost here"
            yield Finding(BAD, "file system", f"{kind}, whose locks cannot be trusted", advice)
        elif kind in SLOW_FILE_SYSTEMS:
            yield Finding(
                WARNING, "file system", f"{kind}, shared with another system", "a local disk is safer and faster"
            )
        else:
            yield Finding(GOOD, "file system", kind or "unknown kind")
        free = shutil.disk_usage(self.path.parent).free
        if free < max(LOW_DISK_BYTES, self.path.stat().st_size // 10):
            yield Finding(
                BAD, "disk", f"{free // 1_048_576:,} MiB are free", "make room: with a full disk nothing can be sent"
            )
        yield from self._permissions()

    def _permissions(self) -> Iterator[Finding]:
        parts = [part for end in ("", "-wal", "-shm") if (part := Path(f"{self.path}{end}")).exists()]
        folders = [folder for folder in (self.path.parent, self.engine.run_folder) if folder.exists()]
        closed = [part for part in (*parts, *folders) if not os.access(part, os.R_OK | os.W_OK)]
        for part in closed:
            yield Finding(BAD, "permissions", f"this user may not write to {part}", f"chown or chmod {part}")
        if platforms.PORTABLE and sys.platform == "win32":
            return
        owners = {part.stat().st_uid for part in parts}
        if len(owners) > 1:
            advice = "give all of them to one user with chown; this happens when a command was run as root"
            yield Finding(
                BAD, "permissions", f"{', '.join(part.name for part in parts)} belong to different users", advice
            )
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & 0o022:
            advice = f"chmod go-w {self.path}: who writes to it decides what workers run"
            yield Finding(WARNING, "permissions", f"others may write to the file (mode {mode:o})", advice)
        elif mode & 0o044:
            yield Finding(
                WARNING, "permissions", f"others may read the file (mode {mode:o})", f"chmod go-r {self.path}"
            )
        elif not closed and len(owners) == 1:
            yield Finding(GOOD, "permissions", f"mode {mode:o}, nobody else may read or write it")

    def settings(self) -> Iterator[Finding]:
        journal, vacuum = self.engine.database.read(
            lambda tx: (tx.execute("PRAGMA journal_mode").get, tx.execute("PRAGMA auto_vacuum").get)
        )
        if journal != "wal":
            yield Finding(
                BAD, "journal", f"journal mode {journal}", "another program changed it; PRAGMA journal_mode = WAL"
            )
        drift = list(self.drift())
        for text in drift:
            yield Finding(
                BAD, "schema", text, "another program changed the tables; restore a backup, or use a new file"
            )
        if not drift:
            yield Finding(GOOD, "schema", f"version {SCHEMA}, all tables and indexes as they should be")
        facts = self.browse.file_facts(clock.now())
        if facts.free_bytes > SPARE_BYTES and facts.free_bytes * 3 > facts.bytes:
            text = f"{facts.free_bytes // 1_048_576:,} of {facts.bytes // 1_048_576:,} MiB are free space"
            how = "litetq vacuum" if vacuum == 2 else "litetq vacuum --full (the file was not made by litetq)"
            yield Finding(WARNING, "size", text, f"workers give it back bit by bit; at once: {how}")
        if facts.expired and not self._living():
            text = f"{'10,000 or more' if facts.expired >= 10_000 else facts.expired} expired results are still there"
            yield Finding(WARNING, "size", text, "a worker removes them, or litetq vacuum")

    def drift(self) -> Iterator[str]:
        """Yield how the tables differ from what the migrations make."""
        model = apsw.Connection(":memory:")
        try:
            for _, script in migrations():
                model.execute(script)
            wanted: dict[Any, Any] = {row[0]: row[1] for row in model.execute(_SCHEMA)}
        finally:
            model.close()
        found = dict(self.engine.database.read(lambda tx: tx.execute(_SCHEMA).fetchall()))
        for name in sorted(wanted.keys() - found.keys()):
            yield f"{name} is missing"
        for name in sorted(found.keys() - wanted.keys()):
            yield f"{name} is not litetq's"
        for name in sorted(found.keys() & wanted.keys()):
            if _plain(found[name]) != _plain(wanted[name]):
                yield f"{name} differs from what litetq made"

    def log(self) -> Iterator[Finding]:
        """Look whether the write-ahead log can be moved into the file; a reader with an old snapshot prevents it."""
        log, moved = self._move_log()
        if log > moved and _size(f"{self.path}-wal") > LARGE_LOG_BYTES // 16:
            time.sleep(0.3)  # litetq's own snapshots are shorter than this; so is the commit that may have come between
            log, moved = self._move_log()
        size = _size(f"{self.path}-wal")
        if log > moved and size > LARGE_LOG_BYTES // 16:
            text = f"{size // 1_048_576:,} MiB, held by a program that reads since long ago"
            yield Finding(WARNING, "log", text, "end its transaction: see who has the file open, below")
        else:
            yield Finding(GOOD, "log", f"{size / 1_048_576:.1f} MiB, nobody holds it up")

    def _move_log(self) -> tuple[int, int]:
        try:
            connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                rows: list[Any] = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                return int(rows[0][1]), int(rows[0][2])
            finally:
                connection.close()
        except apsw.Error:
            return 0, 0  # busy with another checkpoint, or read-only: the permissions say so

    def openers(self) -> Iterator[Finding]:
        found = openers_of(self.path)
        strangers = [opener for opener in found if not opener.is_ours]
        for opener in strangers:
            text = f"process {opener.pid} ({opener.name}) has the file open, not through litetq"
            yield Finding(
                WARNING, "other programs", text, "reading is fine; a transaction that stays open holds up the log"
            )
        if not strangers:
            text = (
                f"{len(found)} besides this one, all of litetq"
                if found
                else "none besides this one, of those that can be seen"
            )
            yield Finding(GOOD, "processes", text)

    # -- the tasks

    def workers(self) -> Iterator[Finding]:
        claims = self.browse.claims()
        workers = [(worker, self.engine.lives(worker)) for worker in self.engine.workers()]
        living = sum(lives is True for _, lives in workers)
        for worker, lives in workers:
            held = claims.pop(worker.id, [])
            if lives is None:
                what = f"whether {worker.name} (pid {worker.pid}) runs cannot be known"
                text = what + (f"; it holds {_tasks(len(held))}" if held else "")
                advice = "if this file is a copy, it runs elsewhere: the next worker that starts here takes care of it"
                yield Finding(WARNING, "workers", text, advice)
                continue
            if lives:
                if is_stopped(worker.pid, worker.started_at):
                    text = f"{worker.name} (pid {worker.pid}) stands still and holds {_tasks(len(held))}"
                    yield Finding(WARNING, "workers", text, f"somebody stopped it (SIGSTOP): kill -CONT {worker.pid}")
                continue
            what = f"{worker.name} (pid {worker.pid}) is gone" + (f" and holds {_tasks(len(held))}" if held else "")
            advice = "" if living else "the next worker that starts takes care of it"
            yield Finding(WARNING if held and not living else GOOD, "workers", what, advice)
        for number, held in sorted(claims.items()):
            text = f"a worker that nobody knows, number {number}, holds {_tasks(len(held))}"
            yield Finding(
                BAD, "workers", text, "the file was damaged or changed by hand; litetq revoke and litetq retry them"
            )
        if living:
            yield Finding(GOOD, "workers", f"{living} run")

    def _living(self) -> list[Worker]:
        return [worker for worker in self.engine.workers() if self.engine.may_live(worker)]

    def tasks(self) -> Iterator[Finding]:
        now = clock.now()
        living = self._living()
        queues = self.browse.queues()
        ready = sum(queue.ready for queue in queues)
        for queue in queues:
            if queue.paused:
                text = f"queue {queue.name} is paused, {_tasks(queue.ready, True)} in it"
                yield Finding(WARNING, "queues", text, f"litetq queue resume {self.path} {queue.name}")
            elif queue.ready and living and not any(_serves(worker, queue.name) for worker in living):
                text = f"no worker serves queue {queue.name}, {_tasks(queue.ready, True)} in it"
                yield Finding(BAD, "queues", text, f"start one:  litetq worker {self.path} -Q {queue.name}")
        if ready and not living:
            yield Finding(
                WARNING, "workers", f"none runs, and {_tasks(ready, True)}", f"start one:  litetq worker {self.path}"
            )
        due_at = self.browse.next_due()
        if due_at is not None and living and due_at < now - LATE_S:
            text = f"a task was due {now - due_at:.0f} s ago and is not even queued"
            yield Finding(
                WARNING, "scheduled", text, "the workers are very busy, or stopped (SIGSTOP); see litetq status"
            )
        yield from self._clock(now)
        if self.browse.tasks(Filter(states=("DEAD",)), 1):
            text = "there are dead letters: tasks that were given up"
            yield Finding(WARNING, "dead letters", text, f"see  litetq dead list {self.path}")
        waiting = self.engine.database.read(lambda tx: tx.execute("SELECT count(*) FROM litetq_outbox").get)
        if waiting > 1000 or (waiting and not living):
            text = f"{waiting:,} results wait to be copied to another result backend"
            yield Finding(WARNING, "results", text, "workers copy them; look into a worker's log for why they do not")

    def _clock(self, now: float) -> Iterator[Finding]:
        last = "SELECT enqueued_at FROM litetq_task ORDER BY seq DESC LIMIT 1"
        sent_at = self.engine.database.read(lambda tx: tx.execute(last).get)
        if sent_at is not None and sent_at > now + 60:
            text = f"the last task was sent {sent_at - now:.0f} s in the future"
            yield Finding(
                WARNING, "clock", text, "the clock of this machine was put back, or that of another one is wrong"
            )

    def schedule(self) -> Iterator[Finding]:
        now = clock.now()
        entries = self.engine.timetable.entries()
        late = [e for e in entries if not e.paused and e.next_at is not None and e.next_at < now - LATE_S]
        for entry in late[:3]:
            text = f"{entry.name} was due {now - entry.next_at:.0f} s ago"  # type: ignore[operator]
            yield Finding(WARNING, "schedule", text, f"no beat runs; start one:  litetq beat {self.path}")
        if entries and not late:
            yield Finding(
                GOOD, "schedule", f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}, none overdue"
            )

    # -- integrity

    def integrity(self, tick: Callable[[], bool], *, full: bool = False) -> Iterator[Finding]:
        """Read all of the file and look whether it is whole. Workers go on meanwhile; the log grows as long.

        Args:
            tick: called often; True ends the look with StoreError.
            full: compare the indexes with the tables, too: several times longer.
        """
        connection: apsw.Connection | None = None
        try:
            connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
            connection.set_busy_timeout(OPEN_TIMEOUT_MS)
            connection.set_progress_handler(tick, 1_000_000)
            name = "integrity_check" if full else "quick_check"
            found = [str(row[0]) for row in connection.execute(f"PRAGMA {name}(10)")]
            for text in found:
                if text != "ok":
                    yield Finding(
                        BAD, "integrity", text, "restore a backup; until then copy what can be read (litetq backup)"
                    )
            wrong = [(sql, text) for sql, text in _MUST_BE_NONE.items() if connection.execute(sql).get]
            for sql, text in wrong:
                number = connection.execute(sql).get
                yield Finding(BAD, "integrity", f"{number} {text}", "please report this; litetq revoke ends such tasks")
            if found == ["ok"] and not wrong:
                yield Finding(GOOD, "integrity", "the file is whole")
        except apsw.InterruptError as error:
            raise StoreError(f"cannot check {self.path}", "it was interrupted", "", str(self.path)) from error
        except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
            text = f"cannot be looked at: SQLite says {str(error)!r}"
            yield Finding(BAD, "integrity", text, StoreReadOnly.advice_else)
        except apsw.Error as error:
            yield Finding(BAD, "integrity", f"SQLite says {str(error)!r}", "restore a backup")
        finally:
            if connection is not None:
                connection.close()


# -- copy and space


def backup(source: Path, target: Path, progress: Callable[[int, int], None]) -> int:
    """Copy a file as it is at this moment, while others read and write it; return the bytes of the copy.

    The copy is written beside `target` and renamed when it is whole and on the disk: a crash leaves a file that ends in
    .part, and an older `target` as it was. `progress` gets the pages done and the pages of all.
    """
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        _copy(source, part, progress)
        fd = os.open(part, os.O_RDWR)  # no connection is open on it any more
        try:
            os.fsync(fd)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        os.replace(part, target)
        _sync_folder(target.parent)
        return size
    except apsw.Error as error:
        raise StoreError(f"cannot copy {source} to {target}", f"SQLite says {str(error)!r}", "", str(source)) from error
    except OSError as error:
        text = f"the system says {error.strerror or error!s}"
        raise StoreError(f"cannot write {target}", text, "name another place", str(target)) from error
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            Path(f"{part}{end}").unlink(missing_ok=True)


def _copy(source: Path, part: Path, progress: Callable[[int, int], None]) -> None:
    reading = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        reading.set_busy_timeout(OPEN_TIMEOUT_MS)
        # One snapshot for the whole copy: without it, each commit of a worker would make the copy begin again.
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchall()
        writing = apsw.Connection(str(part))
        try:
            with writing.backup("main", reading, "main") as copying:
                while not copying.done:
                    copying.step(BACKUP_PAGES)
                    progress(copying.page_count - copying.remaining, copying.page_count)
            writing.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file is all of it, without a log beside it
        finally:
            writing.close()
    finally:
        reading.close()


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # a folder cannot be opened there
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def vacuum(path: Path) -> None:
    """Write the file anew without gaps. Nobody can write to it meanwhile; a crash leaves it as it was."""
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(OPEN_TIMEOUT_MS)
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("VACUUM")
        finally:
            connection.close()
    except apsw.Error as error:
        what = "somebody else uses it" if isinstance(error, apsw.BusyError) else f"SQLite says {str(error)!r}"
        raise StoreError(f"cannot write {path} anew", what, "stop the workers and try again", str(path)) from error


def cut_log(path: Path) -> None:
    """Empty the write-ahead log and give its space back, where nobody reads it at this moment."""
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()
    except apsw.Error:
        pass  # somebody reads or writes: the workers' own checkpoints do it later


# -- others


def openers_of(path: Path) -> list[Opener]:
    """Return the other processes that have a file open, as far as this user may see them."""
    import psutil

    real = os.path.realpath(path)
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        if process.pid == os.getpid():
            continue
        try:
            if any(os.path.realpath(file.path) == real for file in process.open_files()):
                maps = process.memory_maps() if hasattr(process, "memory_maps") else []
                is_ours = not maps or any("apsw" in region.path for region in maps)
                found.append(Opener(process.pid, str(process.info["name"]), is_ours))
        except (psutil.Error, OSError):
            continue
    return found


def is_stopped(pid: int, started_at: float) -> bool:
    """Return whether the process of this pid that began before `started_at` is stopped by a signal; False if not known."""
    import psutil

    try:
        process = psutil.Process(pid)
        # One second: the clock of a process start is coarse. A younger process has got the pid of a dead one.
        return bool(process.create_time() < started_at + 1 and process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def _tasks(count: int, wait: bool = False) -> str:
    """Return a number of tasks as people say it, with the verb on request."""
    return f"{count:,} {'task' if count == 1 else 'tasks'}" + (f" wait{'s' if count == 1 else ''}" if wait else "")


def _serves(worker: Worker, queue: str) -> bool:
    return worker.queues is None or queue in json.loads(worker.queues)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _plain(sql: str) -> str:
    return "".join(line.partition("--")[0] for line in sql.splitlines(keepends=True)).replace(" ", "").replace("\n", "")


_SCHEMA: Final = "SELECT name, sql FROM sqlite_master WHERE substr(tbl_name, 1, 7) = 'litetq_' AND name NOT LIKE 'sqlite%' AND sql IS NOT NULL"
_MUST_BE_NONE: Final = {
    "SELECT count(*) FROM litetq_task AS t WHERE state = 2 AND join_id IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM litetq_any_link WHERE target = t.seq)": "tasks are BLOCKED and nothing will release them",
    "SELECT count(*) FROM litetq_link AS l WHERE NOT EXISTS (SELECT 1 FROM litetq_task WHERE seq = l.source) "
    "OR NOT EXISTS (SELECT 1 FROM litetq_task WHERE seq = l.target)": "links lead from or to a task that is gone",
    "SELECT count(*) FROM litetq_task AS t WHERE follower IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM litetq_task WHERE seq = t.follower AND follows = t.seq)": (
        "tasks lead to a follower that does not follow them"
    ),
    "SELECT count(*) FROM litetq_part AS p WHERE NOT EXISTS (SELECT 1 FROM litetq_join WHERE id = p.join_id)": (
        "values of chord members belong to a chord that is gone"
    ),
    "SELECT count(*) FROM litetq_task AS t WHERE state = 3 AND NOT EXISTS (SELECT 1 FROM litetq_worker WHERE id = t.worker)": (
        "tasks are held by workers that nobody knows"
    ),
    "SELECT count(*) FROM litetq_task AS t WHERE NOT EXISTS (SELECT 1 FROM litetq_lane WHERE id = t.lane)": (
        "tasks are in no queue"
    ),
}
