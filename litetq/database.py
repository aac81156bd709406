"""One process's door to the file: open it right, one transaction at a time, clear errors, safe across fork.

Only this room and `checkup` import apsw. Every write is one IMMEDIATE transaction, begun in one place. Threads that come
while a commit is under way are committed together by the next one who gets the lock (group commit: the latency of a
single commit when idle, one commit for many when busy).

Only one SQLite library per process may touch the file: closing any other descriptor on it drops all POSIX locks of the
process, and another process may then commit in the middle of our transaction (measured; docs/architecture.md).
"""

from __future__ import annotations

import os
import random
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import apsw

from litetq import green, platforms
from litetq.exceptions import (
    NewerSchema,
    NotADatabase,
    OldSQLite,
    RefusedFileSystem,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from litetq.probes import reached

T = TypeVar("T")

SCHEMA: Final = 6  # the newest migration in litetq/sql
# Below it, two connections that write and checkpoint at the same instant can corrupt a WAL database.
# https://sqlite.org/wal.html#walresetbug
OLDEST_SQLITE: Final = (3, 51, 3)
REFUSED_FILE_SYSTEMS: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "drvfs", "afpfs", "webdav"})
OPEN_TIMEOUT_MS: Final = 10_000  # SQLite's own waiting, used only while opening (recovery of a WAL takes its own locks)
RETRY_S: Final = 0.001  # between two tries for the write lock; SQLite's own ladder of waits starves the oldest waiter
JOURNAL_LIMIT_BYTES: Final = 64 * 1024 * 1024  # arbitrary; the WAL is cut to this once a checkpoint has emptied it
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024  # of log; SQLite's own threshold (1,000 pages)
FALLBACK_CHECKPOINT_PAGES: Final = 10_000
WRITER_CACHE_KIB: Final = 16 * 1024  # arbitrary; holds the hot ends of the trees of a file with millions of rows


class Transaction(Protocol):
    """What an operation gets: the cursor of the one transaction under way. Rows are what SQLite holds, hence Any."""

    @property
    def connection(self) -> apsw.Connection: ...

    def execute(self, statements: str, bindings: Any = (), /) -> Any:
        """Run a statement; iterate over it, or take `fetchall()`, or `get` for a single value (None: no row)."""

    def executemany(self, statements: str, sequence: Any, /) -> Any: ...


class Ticket(Generic[T]):
    """One operation that waits for its transaction, and afterwards its answer or error."""

    __slots__ = ("answer", "deadline", "done", "error", "full", "operation")

    def __init__(self, operation: Callable[[Transaction], T], full: bool, deadline: float) -> None:
        self.operation = operation
        self.full = full
        self.deadline = deadline  # monotonic; until then its thread is willing to wait for the write lock
        self.answer: T | None = None
        self.error: BaseException | None = None
        self.done = False


def sqlite_version() -> str:
    """Return the version of the SQLite library that opens files here."""
    version: str = apsw.sqlite_lib_version()
    return version


class Database:
    """The file of one process. Opened at the first use, closed before a fork and opened again after it."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: str = "normal",
        busy_timeout: float = 30.0,
        check_file_system: bool = True,
    ) -> None:
        self.path = Path(path).absolute()  # fixed now, and never one of SQLite's special names (":memory:")
        self.durability = durability
        self.busy_timeout = busy_timeout
        self.check_file_system = check_file_system
        # How often the writing connection was opened: what was read from the file before may be stale. And how often a
        # transaction was rolled back: what an operation has noted outside of the file may not hold.
        self.opened = self.undone = 0
        self._is_closing = False  # a wait for the write lock ends
        self._lock = green.lock()
        self._read_lock = green.lock()
        self._pending: deque[Ticket[Any]] = deque()
        self._writer: apsw.Connection | None = None
        self._cursor: apsw.Cursor | None = None
        self._reader: apsw.Connection | None = None
        self._checkpoint_lock = green.lock()
        self._checkpointer: apsw.Connection | None = None
        self._full_now = False
        self._moved = (0, 0)  # pages in the log, pages of it moved: as the last checkpoint left them
        _databases.add(self)

    def write(self, operation: Callable[[Transaction], T], *, full: bool = False) -> T:
        """Run `operation` inside a transaction and return its answer after the commit.

        Any thread may call it. The operation gets a cursor, must do nothing but SQL, and may be run a second time when a
        neighbour in the same transaction failed. A crash before this returns leaves all of it or nothing. Waits at most
        `busy_timeout` for the write lock.

        Args:
            operation: what to do inside of the transaction.
            full: sync this commit to the disk, whatever the durability of the file.
        Raises: the operation's own error, or one of OperationalError's family; then nothing of it is in the file.
        """
        ticket = Ticket(operation, full, time.monotonic() + self.busy_timeout)
        self._pending.append(ticket)
        with self._lock:
            if not ticket.done:
                self._commit_pending(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.answer  # type: ignore[return-value]

    def read(self, operation: Callable[[Transaction], T]) -> T:
        """Run `operation` on the reading connection; it sees everything committed before. No snapshot is kept after it."""
        with self._read_lock:
            if self._reader is None:
                self._reader = green.apart(self._open)
            deadline = time.monotonic() + self.busy_timeout
            while True:
                cursor = self._reader.cursor()
                try:
                    return operation(cursor)
                except apsw.BusyError as error:
                    # Readers never wait for writers; but another process may be recovering the log after a crash.
                    if time.monotonic() >= deadline or self._is_closing:
                        raise self._explain(error, "read") from error
                    green.pause(RETRY_S)
                except apsw.Error as error:
                    raise self._explain(error, "read") from error
                finally:
                    # One that was left in the middle (Ctrl-C) would hold its snapshot, and later reads would be old.
                    cursor.close(True)

    def close(self) -> None:
        """Close the connections; the next use opens them again. A thread that waits for the write lock gives up."""
        self._is_closing = True
        try:
            with self._lock, self._read_lock, self._checkpoint_lock:
                self._close_connections()
        finally:
            self._is_closing = False

    def _close_connections(self) -> None:
        for connection in (self._checkpointer, self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._checkpointer = self._reader = self._writer = self._cursor = None

    def checkpoint(self) -> bool:
        """Move what is in the write-ahead log into the file, if it is worth it; return whether it was.

        On a connection of its own: readers and writers go on meanwhile. Done by SQLite at a commit, as it is by default, it
        makes that commit wait for a sync of the file: 5 ms in the 99th percentile of a round trip (measured). A reader in
        another program that holds an old snapshot keeps the log from being emptied, not from being moved.
        """
        try:
            if os.stat(f"{self.path}-wal").st_size < CHECKPOINT_BYTES:
                return False
        except OSError:
            return False  # no log: nobody has the file open
        with self._checkpoint_lock:
            if self._checkpointer is None:
                self._checkpointer = green.apart(self._open)
            cursor = self._checkpointer.cursor()
            try:
                rows: list[Any] = green.apart(lambda: cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())
            except apsw.BusyError:
                return False  # another process does it just now
            except apsw.Error as error:
                raise self._explain(error, "write") from error
            before, self._moved = self._moved, rows[0][1:]
            return self._moved != before and self._moved[1] > 0

    # -- transactions

    def _commit_pending(self, mine: Ticket[Any]) -> None:
        """Commit what waits, `mine` included. Whoever calls this holds the lock; errors of `mine` alone are raised here."""
        tickets = []
        while self._pending:
            tickets.append(self._pending.popleft())
        if mine not in tickets:
            tickets.append(mine)  # the holder that had taken it over gave up, or was interrupted
        # An error here is of this caller alone: the others have deadlines of their own, and try for themselves.
        cursor = self._begin(any(ticket.full for ticket in tickets), mine.deadline)
        try:
            self._run(cursor, tickets)
        except BaseException as error:
            if mine.done or len(tickets) == 1:
                raise
            self._run_each(tickets)
            if not isinstance(error, (apsw.Error, StoreError)) and not any(ticket.error for ticket in tickets):
                raise  # no operation repeats it: a signal or a time limit, meant for this thread

    def _run_each(self, tickets: Sequence[Ticket[Any]]) -> None:
        """One bad row must not undo its neighbours: each ticket gets a transaction, and an error, of its own."""
        for ticket in tickets:
            try:
                self._run(self._begin(ticket.full, ticket.deadline), [ticket])
            except Exception as error:
                if ticket.done:
                    raise  # committed; the interrupt is meant for this thread, and whoever comes after goes on
                ticket.error = error
                ticket.done = True

    def _run(self, cursor: apsw.Cursor, tickets: Sequence[Ticket[Any]]) -> None:
        """Run the operations inside the open transaction and commit it, or nothing of it is in the file."""
        committing = False
        try:
            for ticket in tickets:
                ticket.answer = ticket.operation(cursor)
            reached("committing")
            committing = True
            if self._full_now:
                green.apart(lambda: cursor.execute("COMMIT"))  # it waits for the disk
            else:
                cursor.execute("COMMIT")
            for ticket in tickets:
                ticket.done = True
        except BaseException as error:
            if isinstance(error, apsw.Error):
                self._roll_back()
                raise self._explain(error, "write") from error
            if committing and self._writer is not None and not self._writer.in_transaction:
                # Interrupted just after the commit, which stands: nothing of it may run a second time.
                for ticket in tickets:
                    ticket.done = True
            self._roll_back()
            raise

    def _begin(self, full: bool, deadline: float) -> apsw.Cursor:
        """Open the file if need be, take the write lock, and return the cursor of the new transaction."""
        try:
            if self._cursor is None:
                self._writer = green.apart(self._open)
                self._cursor = self._writer.cursor()
                self._full_now = False
                self.opened += 1
            cursor = self._cursor
            if self._writer is not None and self._writer.in_transaction:
                self._roll_back()  # an interrupted holder has left it open
            full = full or self.durability == "full"
            if full is not self._full_now:
                cursor.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
                self._full_now = full
            self._take_lock(cursor, deadline)
            return cursor
        except apsw.Error as error:
            raise self._explain(error, "write") from error

    def _take_lock(self, cursor: apsw.Cursor, deadline: float) -> None:
        """Wait outside of SQLite: a constant pause with jitter is fair, SQLite's own ladder is not. Tries at least once."""
        while True:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                return
            except apsw.BusyError as error:
                if time.monotonic() >= deadline:
                    raise StoreBusy(
                        f"cannot write to {self.path}",
                        f"another process has held its write lock for {self.busy_timeout:g} s",
                        path=str(self.path),
                        waited=self.busy_timeout,
                    ) from error
                green.pause(RETRY_S * (0.5 + random.random()))
                if self._is_closing:
                    raise StoreBusy(
                        f"cannot write to {self.path}",
                        "this program closed the file while it waited for the write lock",
                        path=str(self.path),
                    ) from error

    def _roll_back(self) -> None:
        # Some errors (full disk, I/O) have rolled back already; the original error is the one to report.
        self.undone += 1
        if self._cursor is not None and self._writer is not None and self._writer.in_transaction:
            self._cursor.execute("ROLLBACK")

    # -- opening

    def _open(self) -> apsw.Connection:
        if tuple(map(int, sqlite_version().split("."))) < OLDEST_SQLITE:
            raise OldSQLite(
                f"cannot open {self.path}",
                f"the installed apsw brings SQLite {sqlite_version()}, which can corrupt such a file",
                path=str(self.path),
                version=sqlite_version(),
                needed=".".join(map(str, OLDEST_SQLITE)),
            )
        self._check_place()
        try:
            connection = apsw.Connection(str(self.path))
            try:
                self._configure(connection)
            except BaseException:
                connection.close()
                raise
        except apsw.Error as error:
            raise self._explain(error, "open") from error
        return connection

    def _check_place(self) -> None:
        """Refuse places where SQLite cannot keep its promises; create the file readable by its owner alone."""
        folder = self.path.parent
        if not folder.is_dir():
            raise StoreError(
                f"cannot open {self.path}",
                f"the folder {folder} does not exist",
                "create it or name another file",
                str(self.path),
            )
        if self.path.is_dir():
            raise StoreError(
                f"cannot open {self.path}",
                "it is a folder",
                f"name a file in it, such as {self.path / 'jobs.sqlite'}",
                str(self.path),
            )
        if self.check_file_system:
            kind = platforms.file_system_of(folder)
            if kind in REFUSED_FILE_SYSTEMS:
                raise RefusedFileSystem(
                    f"cannot open {self.path}",
                    f"it lies on a {kind} file system, whose locks SQLite cannot trust",
                    "put the file on a local disk (to override: ?check_file_system=no after the URL)",
                    path=str(self.path),
                    kind=kind,
                )
        try:
            # O_EXCL: a file that exists is not opened here; closing a descriptor on it would drop our locks.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise StoreReadOnly(
                f"cannot create {self.path}",
                f"the system says {error.strerror or error!s}",
                f"make {folder} writable or name a file elsewhere",
                path=str(self.path),
            ) from error

    def _configure(self, connection: apsw.Connection) -> None:
        # The order matters: the busy timeout first, because even reading journal_mode may meet a recovery under way.
        connection.set_busy_timeout(OPEN_TIMEOUT_MS)
        cursor = connection.cursor()
        if cursor.execute("PRAGMA journal_mode").get != "wal":
            # Must come before the first table; gives space back without rewriting the file. No effect on an existing one.
            cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
            if cursor.execute("PRAGMA journal_mode = WAL").get != "wal":
                raise RefusedFileSystem(
                    f"cannot open {self.path}",
                    "its file system does not support SQLite's WAL mode",
                    path=str(self.path),
                )
        # apsw's wheels default to FULL also in WAL mode. NORMAL survives the death of every process; power loss may undo
        # the last moments. https://sqlite.org/pragma.html#pragma_synchronous
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA fullfsync = ON")  # macOS: where a sync is asked for, it is a real one
        cursor.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}")
        cursor.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
        cursor.execute("PRAGMA temp_store = MEMORY")
        # Workers checkpoint beside the commits (`checkpoint`); this is for a file that has producers only.
        cursor.execute(f"PRAGMA wal_autocheckpoint = {FALLBACK_CHECKPOINT_PAGES}")
        # apsw's SQLite has STAT4, with which statements are planned anew for each bound value: a one-row claim takes 12 us
        # that way and 1.5 us with stable plans (measured). https://sqlite.org/queryplanner-ng.html#qpstab
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        self._migrate(connection, cursor)
        # From here on waiting is ours: see _begin.
        connection.set_busy_timeout(0)

    def _migrate(self, connection: apsw.Connection, cursor: apsw.Cursor) -> None:
        if self._schema_of(cursor) == SCHEMA:
            return
        cursor.execute("BEGIN IMMEDIATE")
        try:
            found = self._schema_of(cursor)  # another process may have been faster
            if found > SCHEMA:
                raise NewerSchema(
                    f"cannot open {self.path}",
                    f"it was written by a newer litetq (schema {found}, this one knows {SCHEMA})",
                    "upgrade litetq in this environment, or use another file",
                    path=str(self.path),
                    version=found,
                    supported=SCHEMA,
                )
            for number, script in migrations():
                if number > found:
                    cursor.execute(script)
            if found != SCHEMA:
                cursor.execute(
                    "INSERT INTO litetq_meta (key, value) VALUES ('schema', ?1) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (str(SCHEMA),),
                )
            cursor.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                cursor.execute("ROLLBACK")
            raise

    def _schema_of(self, cursor: apsw.Cursor) -> int:
        try:
            value = cursor.execute("SELECT value FROM litetq_meta WHERE key = 'schema'").get
        except apsw.SQLError:
            return 0  # no such table: a new file, or an application's own
        try:
            if int(value) < 1:
                raise ValueError(value)
            return int(value)
        except (TypeError, ValueError):
            raise NotADatabase(
                f"cannot open {self.path}",
                f"its table litetq_meta holds {value!r} for a schema version",
                "it was not written by litetq, or is damaged; name another file",
                path=str(self.path),
            ) from None

    # -- errors

    def _explain(self, error: apsw.Error, what: str) -> BaseException:
        """Turn an error of SQLite into ours: what was attempted, what was found, what to do."""
        attempted = f"cannot {what} {self.path}"
        for kinds, ours in _EXPLAINED:
            if isinstance(error, kinds):
                return ours(attempted, f"SQLite says {str(error)!r}", path=str(self.path))
        return error


_EXPLAINED: Final[tuple[tuple[Any, type[StoreError]], ...]] = (
    ((apsw.BusyError, apsw.LockedError), StoreBusy),
    ((apsw.FullError,), StoreFull),
    ((apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError, apsw.AuthError), StoreReadOnly),
    ((apsw.NotADBError,), NotADatabase),
    ((apsw.CorruptError,), StoreCorrupt),
    ((apsw.IOError, apsw.SQLError, apsw.SchemaChangeError), StoreError),
)


def peek(path: str | os.PathLike[str], sql: str) -> Any:
    """Return one value from a file that may be another program's: it is opened for reading, and nothing is changed.

    None when the file has no such table or row. Raises one of OperationalError's family when it cannot be read.
    """
    database = Database(path)
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(OPEN_TIMEOUT_MS)
            return connection.cursor().execute(sql).get
        except apsw.SQLError:
            return None
        finally:
            connection.close()
    except apsw.Error as error:
        raise database._explain(error, "read") from error


def migrations() -> list[tuple[int, str]]:
    """Return (number, script) of every migration, in order. They are package data, so one-file programs have them too."""
    found = []
    for entry in resources.files("litetq").joinpath("sql").iterdir():
        if entry.name.endswith(".sql"):
            found.append((int(entry.name.split("_")[0]), entry.read_text(encoding="utf-8")))
    return sorted(found)


# A connection that is open during fork makes the child believe it holds the parent's locks, and its commits are lost
# silently (measured). So a process forks only while it has none open; both sides open again at their next use.
_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_held: list[Database] = []


def _before_fork() -> None:
    for database in list(_databases):
        database._lock.acquire()
        database._read_lock.acquire()
        database._checkpoint_lock.acquire()
        _held.append(database)
        database._close_connections()


def _after_fork_in_parent() -> None:
    while _held:
        database = _held.pop()
        database._checkpoint_lock.release()
        database._read_lock.release()
        database._lock.release()


def _after_fork_in_child() -> None:
    while _held:
        database = _held.pop()
        database._lock = green.lock()
        database._read_lock = green.lock()
        database._checkpoint_lock = green.lock()
        database._pending.clear()  # their owners are threads of the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
