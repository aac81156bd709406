"""The write-ahead log is bounded while a worker lives (promise 8), and its commits do not wait for it."""

from __future__ import annotations

from pathlib import Path

import apsw

from litetq import LiteTQ
from litetq.database import CHECKPOINT_BYTES, Database
from litetq.message import Message, Plan, uuid
from tests.waiting import eventually


def fill(app: LiteTQ, count: int) -> None:
    app.engine.send(Plan(tuple(Message(uuid(), "note", b'[["' + b"x" * 2000 + b'"],{}]') for _ in range(count))))


def moved(database: Database) -> tuple[int, int]:
    """Return pages in the log, and pages of it that are in the file, without moving any."""
    connection = apsw.Connection(str(database.path))
    try:
        connection.cursor().execute("SELECT count(*) FROM litetq_meta").fetchall()  # before it, SQLite answers (-1, -1)
        found = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        assert found[0] > 0
        return found
    finally:
        connection.close()


def test_the_log_is_moved_while_a_worker_lives(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    app.task(name="note")(lambda text: None)
    with app.run_embedded(queues=["other"]):
        fill(app, 6000)  # 12 MB and more
        log = Path(f"{db}-wal")
        assert log.stat().st_size > CHECKPOINT_BYTES
        eventually(lambda: len(set(moved(app.engine.database))) == 1, 10)  # all that is in it is in the file, too
        size = log.stat().st_size
        for _ in range(5):
            fill(app, 1500)
            eventually(lambda: len(set(moved(app.engine.database))) == 1, 10)
        assert log.stat().st_size <= 2 * size, "each round starts at the beginning of the log again"
    app.close()


def test_a_stranger_who_reads_for_long_stops_no_writer(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    app.task(name="note")(lambda text: None)
    fill(app, 10)
    stranger = apsw.Connection(str(db))
    reading = stranger.cursor().execute("SELECT * FROM litetq_task")
    next(reading)
    with app.run_embedded() as worker:
        fill(app, 3000)
        assert worker.drain(30)
    stranger.close(True)
    assert app.engine.store.records.counts()["DONE"] == 3010
    app.close()
