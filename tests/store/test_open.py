"""Files that cannot be used, or only just: each is refused in one clear sentence and left as it was."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from litetq import platforms
from litetq.database import SCHEMA, Database, migrations
from litetq.exceptions import (
    NewerSchema,
    NotADatabase,
    OldSQLite,
    OperationalError,
    RefusedFileSystem,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from tests.factories import Queue, assert_sound, chain, message, success

NOBODY = 65534


def refuse(path: Path, error: type[StoreError], *words: str) -> None:
    """Using this file raises `error`, whose text names the file and says these words."""
    for use in (lambda db: db.read(lambda tx: None), lambda db: db.write(lambda tx: None)):
        database = Database(path)
        with pytest.raises(error) as caught:
            use(database)  # type: ignore[no-untyped-call]
        assert isinstance(caught.value, OperationalError)
        text = str(caught.value)
        assert str(path) in text
        for word in words:
            assert word in text
        database.close()


def execute(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


# -- what is no queue file


@pytest.mark.parametrize(
    "data", [b"text\n", b"no database at all\n" * 500, b"SQLite format 3\x00" + b"\xff" * 4_000, b"\0" * 8_192]
)
def test_a_file_of_something_else_is_refused_and_left_alone(db: Path, data: bytes) -> None:
    db.write_bytes(data)
    with pytest.raises((NotADatabase, StoreCorrupt)) as caught:
        Database(db).write(lambda tx: None)
    assert str(db) in str(caught.value)
    assert db.read_bytes() == data


def test_an_empty_file_is_a_new_one(db: Path) -> None:
    db.touch()
    queue = Queue(db)
    queue.send("a")
    assert queue.run_all() == ["a"]
    queue.close()


def test_a_folder_is_refused_with_a_name_that_would_do(tmp_path: Path) -> None:
    refuse(tmp_path, StoreError, "it is a folder", str(tmp_path / "jobs.sqlite"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refuse(
        tmp_path / "no" / "where" / "jobs.sqlite", StoreError, f"the folder {tmp_path / 'no' / 'where'} does not exist"
    )


def test_a_file_of_a_newer_litetq_is_refused_and_left_alone(db: Path) -> None:
    Queue(db).close()
    execute(db, f"UPDATE litetq_meta SET value = '{SCHEMA + 1}' WHERE key = 'schema'")
    refuse(db, NewerSchema, f"schema {SCHEMA + 1}", "upgrade litetq")


@pytest.mark.parametrize("value", ["'many'", "''", "'0'", "'-1'", "'1.5'"])
def test_a_damaged_schema_version_is_refused(db: Path, value: str) -> None:
    Queue(db).close()
    execute(db, f"UPDATE litetq_meta SET value = {value} WHERE key = 'schema'")
    refuse(db, NotADatabase, "litetq_meta", "damaged")


def test_a_missing_schema_version_is_refused(db: Path) -> None:
    Queue(db).close()
    execute(db, "DELETE FROM litetq_meta")
    refuse(db, NotADatabase, "litetq_meta")


def test_a_file_that_was_cut_short_is_reported_as_damaged(db: Path) -> None:
    queue = Queue(db)
    queue.send(*(message(body=b"x" * 3_000) for _ in range(50)))
    queue.close()
    with open(db, "r+b") as file:
        file.truncate(db.stat().st_size // 2 // 4_096 * 4_096)
    with pytest.raises(StoreCorrupt, match="litetq doctor"):
        Queue(db).run_all()


def test_the_tables_of_an_application_stay_beside_ours(db: Path) -> None:
    execute(db, "CREATE TABLE customers (name); INSERT INTO customers VALUES ('Ada')")
    queue = Queue(db)
    queue.send("a")
    assert queue.run_all() == ["a"]
    assert queue.rows("SELECT name FROM customers") == [("Ada",)]
    queue.close()


def test_file_systems_whose_locks_lie_are_refused_unless_overridden(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "file_system_of", lambda path: "nfs")
    refuse(db, RefusedFileSystem, "nfs", "check_file_system=no")
    assert not db.exists()
    Database(db, check_file_system=False).write(lambda tx: None)


def test_a_sqlite_that_can_corrupt_the_file_is_refused(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    refuse(db, OldSQLite, "3.51.2", "upgrade")
    assert not db.exists()


# -- rights


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder of our own, seen by a user who may read it only. Root may write everywhere, so root becomes somebody else."""
    if sys.platform == "win32":
        pytest.skip("Windows has no modes of folders")
    folder = Path(tempfile.mkdtemp(prefix="litetq-rights-"))
    yield folder
    if os.geteuid() != os.getuid():
        os.seteuid(os.getuid())
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o700)
    shutil.rmtree(folder)


def become_nobody(folder: Path, mode: int) -> None:
    for path in folder.iterdir():
        path.chmod(mode & 0o666)
    folder.chmod(mode)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)


def test_a_folder_that_may_not_be_written_is_named(as_nobody: Path) -> None:
    become_nobody(as_nobody, 0o555)
    refuse(as_nobody / "jobs.sqlite", StoreReadOnly, f"make {as_nobody} writable")


def test_a_file_that_may_not_be_written_is_refused_at_the_first_write(as_nobody: Path) -> None:
    path = as_nobody / "jobs.sqlite"
    queue = Queue(path)
    queue.send("a")
    queue.close()
    become_nobody(as_nobody, 0o555)
    with pytest.raises(StoreReadOnly, match="let this user write the file"):
        Queue(path, worker=1).send("b")


def test_a_file_that_may_not_be_read_is_refused(as_nobody: Path) -> None:
    path = as_nobody / "jobs.sqlite"
    Queue(path).close()
    become_nobody(as_nobody, 0o111)
    with pytest.raises(StoreReadOnly):
        Queue(path, worker=1).send("b")


@pytest.mark.row("16.file permissions")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes of files")
def test_only_its_owner_may_read_the_file_and_what_lies_beside_it(db: Path) -> None:
    before = os.umask(0)
    try:
        queue = Queue(db)
        queue.send("a")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in db.parent.glob("jobs.sqlite*")}
        assert modes == dict.fromkeys(["jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"], 0o600)
        queue.close()
    finally:
        os.umask(before)


# -- names


NAMES = [
    "with space",
    "a#b",
    "a?b=c",
    "100%25",
    "队列",
    "ümläut",
    "quote'\"s",
    "semi;colon",
    "-dash",
    "file:uri?mode=memory",
    ":memory:",
]
if sys.platform == "win32":
    NAMES = [name for name in NAMES if not set(name) & set('?:"')]
else:
    NAMES += ["new\nline", "back\\slash", "tab\t"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_names_like_any_other(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = folder / name
    queue = Queue(path)
    queue.send("a")
    assert path.is_file()
    queue.close()
    again = Queue(path)
    assert again.run_all() == ["a"]
    again.close()
    assert [entry.name for entry in folder.iterdir()] == [name]


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory", "plain"])
def test_a_relative_name_is_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if sys.platform == "win32" and ":" in name:
        pytest.skip("Windows has no such names")
    monkeypatch.chdir(tmp_path)
    queue = Queue(Path(name))
    queue.send("a")
    queue.close()
    assert (tmp_path / name).is_file()
    again = Queue(Path(name))
    assert again.run_all() == ["a"]
    again.close()


# -- a full disk


class FullFile(apsw.VFSFile):
    disk: FullDisk

    def xWrite(self, data: Any, offset: int) -> None:
        if self.disk.left is not None:
            if self.disk.left <= 0:
                raise apsw.FullError("database or disk is full")
            self.disk.left -= 1
        super().xWrite(data, offset)


class FullDisk(apsw.VFS):
    """A disk with room for so many writes; None: as many as there are."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.base = apsw.vfs_names()[0]
        super().__init__("full", self.base, makedefault=True)

    def xOpen(self, name: Any, flags: Any) -> FullFile:
        file = FullFile(self.base, name, flags)
        file.disk = self
        return file


@pytest.fixture
def disk() -> Iterator[FullDisk]:
    disk = FullDisk()
    yield disk
    disk.unregister()


def test_a_disk_that_is_full_after_any_write_loses_nothing(disk: FullDisk, db: Path) -> None:
    queue = Queue(db)
    queue.send(chain("held", "after"))
    (held,) = queue.claim(1)
    refused = 0
    for room in range(40):
        disk.left = room
        before = queue.dump()
        try:
            queue.send(*(message(body=b"x" * 5_000) for _ in range(4)))
        except StoreFull:
            refused += 1
            assert queue.dump() == before
        disk.left = room // 4
        before = queue.dump()
        try:
            taken = queue.take(5, success(held))
        except StoreFull:
            refused += 1
            assert queue.dump() == before
        else:
            disk.left = None
            queue.settle(*map(success, taken.deliveries))
            queue.send(chain("held", "after"))
            held = next(delivery for delivery in queue.claim(100) if delivery.id == "held")
            break
    assert refused > 10
    disk.left = None
    assert queue.settle(success(held)) == []
    assert queue.state("held") == "SUCCESS"
    assert_sound(queue)
    queue.close()


def test_a_file_at_its_greatest_size_takes_nothing_more_and_gives_all_it_has(queue: Queue) -> None:
    queue.send("a", message("b", body=b"x" * 20_000))
    connection = queue.database._writer
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").get
    connection.execute(f"PRAGMA max_page_count = {pages + 30}").get  # noqa: B018
    with pytest.raises(StoreFull, match="free some space"):
        queue.send(message("large", body=b"x" * 1_000_000))
    assert queue.store.records.read("large") is None
    assert queue.run_all() == ["a", "b"]
    queue.send("c")
    connection.execute(f"PRAGMA max_page_count = {pages * 1_000}").get  # noqa: B018
    queue.send(message("large", body=b"x" * 1_000_000))
    assert queue.run_all() == ["c", "large"]


# -- how it is opened


def test_both_connections_are_set_up_as_promised(queue: Queue) -> None:
    queue.send("a")
    queue.count("task")
    for connection in (queue.database._writer, queue.database._reader):
        assert connection is not None
        found = {
            name: connection.execute(f"PRAGMA {name}").get
            for name in ("journal_mode", "synchronous", "mmap_size", "busy_timeout")
        }
        assert found == {"journal_mode": "wal", "synchronous": 1, "mmap_size": 0, "busy_timeout": 0}


def test_a_commit_that_asks_for_it_is_synced_and_the_next_one_is_not(queue: Queue) -> None:
    def synchronous(tx: Any) -> Any:
        return tx.execute("PRAGMA synchronous").get

    assert [queue.database.write(synchronous, full=full) for full in (False, True, False, True)] == [1, 2, 1, 2]
    queue.close()
    assert [queue.database.write(synchronous, full=full) for full in (True, False)] == [2, 1]
    careful = Database(queue.path, durability="full")
    assert careful.write(synchronous) == 2
    careful.close()


def test_nothing_is_opened_before_the_first_use(db: Path) -> None:
    Database(db).close()
    assert not db.exists()


def test_replaying_the_migrations_gives_the_schema_of_a_new_file(db: Path) -> None:
    numbers = [number for number, _ in migrations()]
    assert numbers == list(range(1, SCHEMA + 1))
    queue = Queue(db)
    replayed = apsw.Connection(":memory:")
    for _, script in migrations():
        replayed.execute(script)
    sql = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
    assert queue.rows(sql) == replayed.execute(sql).fetchall()
    queue.close()


def test_every_table_is_strict_and_ours_by_name(queue: Queue) -> None:
    tables = queue.rows(
        "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite%'"
    )
    assert [name for name, strict in tables if not strict or not name.startswith("litetq_")] == []
    assert len(tables) >= 12
