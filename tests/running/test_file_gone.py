"""A worker whose file is taken away ends and says so, where it would wait for ever at a file that nobody else finds."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from litetq import LiteTQ
from litetq.exceptions import StoreError
from tests.waiting import eventually


@pytest.mark.skipif(sys.platform == "win32", reason="Windows moves no file that is open")
@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_worker_ends_when_its_file_was_moved_or_deleted(db: Path, caplog: pytest.LogCaptureFixture, how: str) -> None:
    began, go_on, done = threading.Event(), threading.Event(), threading.Event()
    with LiteTQ("tasks", broker=db) as app:

        @app.task
        def work() -> None:
            began.set()
            go_on.wait(30)
            done.set()

        worker = app.run_embedded(concurrency=1)
        work.delay()
        assert began.wait(10)
        if how == "replaced":
            (db.parent / "other").write_bytes(b"")
            os.replace(db.parent / "other", db)
        elif how == "moved":
            db.rename(db.parent / "moved.sqlite")
        else:
            db.unlink()
        eventually(lambda: isinstance(worker.failure, StoreError))
        assert worker.is_running  # what runs is waited for
        go_on.set()
        assert worker.join(10)
        assert done.is_set()
    assert f"cannot go on with {db}: the file was moved or deleted" in caplog.text
