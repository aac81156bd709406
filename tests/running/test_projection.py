"""A result backend of another package: it gets a copy of every end, whatever happens to it or to the worker."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, upkeep
from litetq.exceptions import ImproperlyConfigured
from tests.conftest import RunPython
from tests.waiting import eventually


class Shelf:
    """A backend with the methods that are asked for, and no more: rows in memory."""

    rows: dict[str, Any] = {}
    refused: set[Any] = set()
    is_away = False

    def __init__(self, app: Any, url: str | None = None) -> None:
        self.url = url

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None
    ) -> None:
        if self.is_away:
            raise ConnectionError("nobody is at home")
        if result in self.refused:
            raise ValueError(f"{result} is not to my taste")
        self.rows[task_id] = (state, result, request.task, request.children)

    def get_task_meta(self, task_id: str) -> dict[str, Any]:
        state, result, *_ = self.rows.get(task_id, ("PENDING", None))
        return {"status": state, "result": result}

    def forget(self, task_id: str) -> None:
        self.rows.pop(task_id, None)

    def cleanup(self) -> None:
        self.rows.clear()


@pytest.fixture(autouse=True)
def shelf() -> Iterator[type[Shelf]]:
    yield Shelf
    Shelf.rows, Shelf.refused, Shelf.is_away = {}, set(), False


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tasks", broker=db, backend=f"{__name__}:Shelf") as app:
        yield app


def test_a_class_of_ones_own_gets_every_end_and_is_asked_for_what_the_file_forgot(
    app: LiteTQ, shelf: type[Shelf]
) -> None:
    add = app.task(name="add")(lambda x, y: x + y)
    fail = app.task(name="fail")(lambda: 1 // 0)
    sent, failed = add.delay(1, 2), fail.delay()
    assert isinstance(app.backend, Shelf) and sent.backend is app.backend
    with app.run_embedded(1, pool="solo") as worker:
        assert sent.get(timeout=30) == 3
        eventually(lambda: len(shelf.rows) == 2)
        worker.drain(30)
    assert shelf.rows[sent.id][:3] == ("SUCCESS", 3, "add")
    assert shelf.rows[failed.id][0] == "FAILURE" and isinstance(shelf.rows[failed.id][1], ZeroDivisionError)
    app.engine.forget([sent.id, failed.id])
    assert app.AsyncResult(sent.id).get(timeout=1) == 3
    with pytest.raises(ZeroDivisionError):
        app.AsyncResult(failed.id).get(timeout=1)
    app.AsyncResult(sent.id).forget()
    assert app.AsyncResult(sent.id).state == "PENDING" and sent.id not in shelf.rows


def test_results_wait_while_the_backend_is_away_and_waiting_for_them_does_not(
    app: LiteTQ, shelf: type[Shelf], caplog: pytest.LogCaptureFixture
) -> None:
    shelf.is_away = True
    add = app.task(name="add")(lambda x, y: x + y)
    sent = add.delay(1, 2)
    with app.run_embedded(1, pool="solo"):
        assert sent.get(timeout=30) == 3
    assert shelf.rows == {} and "results wait for the next worker: nobody is at home" in caplog.text
    shelf.is_away = False
    app.run_embedded(1, pool="solo").stop()
    assert shelf.rows[sent.id][1] == 3


def test_a_result_that_the_backend_refuses_for_itself_does_not_hold_up_the_others(
    app: LiteTQ, shelf: type[Shelf], caplog: pytest.LogCaptureFixture
) -> None:
    shelf.refused = {"garlic"}
    echo = app.task(name="echo")(lambda x: x)
    first, bad, last = (echo.delay(x) for x in ("bread", "garlic", "salt"))
    app.run_embedded(1, pool="solo").drain(30)
    records = app.engine.store.records
    relay = upkeep.relay(records, app.results)
    eventually(lambda: relay.do() and not records.outbox())
    assert set(shelf.rows) == {first.id, last.id} and bad.get(timeout=1) == "garlic"
    said = [entry.message for entry in caplog.records if entry.levelno == logging.ERROR]
    assert said == [
        f"the result of task {bad.id} stays in the file alone: the result backend refuses it: garlic is not to my taste"
    ]


def test_a_worker_that_is_killed_before_it_has_copied_an_end_leaves_that_to_the_next_one(
    db: Path, tmp_path: Path, run_python: RunPython
) -> None:
    (tmp_path / "program.py").write_text(
        "import json, os, signal, sys\nfrom litetq import LiteTQ\n"
        "class Notes:\n"
        "    def __init__(self, app, url=None): pass\n"
        "    def store_result(self, task_id, result, state, traceback=None, request=None):\n"
        "        if sys.argv[1] == 'die': os._exit(9)\n"
        "        open('notes', 'a').write(json.dumps([task_id, result]) + '\\n')\n"
        f"app = LiteTQ('tasks', broker={str(db)!r}, backend='program:Notes')\n"
        "@app.task(name='add')\ndef add(x, y): return x + y\n"
        "if __name__ == '__main__':\n"
        "    if sys.argv[1] == 'die': add.apply_async((1, 2), task_id='known')\n"
        "    app.run_embedded(1, pool='solo').drain(30)\n"
    )
    killed = run_python(tmp_path / "program.py", "die")
    assert killed.wait(timeout=60) == 9
    ended = run_python(tmp_path / "program.py", "live")
    out, err = ended.communicate(timeout=60)
    assert ended.returncode == 0, err
    assert [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()] == [["known", 3]]


def test_of_two_relays_the_last_one_leaves_the_newest(app: LiteTQ, shelf: type[Shelf]) -> None:
    app.task(name="add")(lambda x: x)
    app.send_task("add", (1,), task_id="twice")
    app.run_embedded(1, pool="solo").drain(30)
    old = app.engine.finished("twice")
    app.send_task("add", (2,), task_id="twice")
    app.run_embedded(1, pool="solo").drain(30)
    app.results.take_over([(1, "", old, None, None)])  # a relay that read it before the second end
    assert shelf.rows["twice"][1] == 2


def test_what_is_forgotten_while_it_is_copied_is_forgotten_there_too(
    app: LiteTQ, shelf: type[Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    app.send_task("nobody", task_id="one")
    app.run_embedded(1, pool="solo").drain(30)
    shelf.rows.clear()
    store = Shelf.store_result

    def store_late(self: Shelf, task_id: str, *args: Any, **more: Any) -> None:
        app.AsyncResult(task_id).forget()
        store(self, task_id, *args, **more)

    ended = app.engine.finished("one")
    monkeypatch.setattr(Shelf, "store_result", store_late)
    app.results.take_over([(1, "", ended, None, None)])
    assert shelf.rows == {}


def test_what_is_forgotten_while_it_is_copied_to_another_file_is_forgotten_there_too(tmp_path: Path) -> None:
    with LiteTQ("tasks", broker=tmp_path / "tasks.sqlite", backend=tmp_path / "results.sqlite") as app:
        app.send_task("nobody", task_id="one")
        app.run_embedded(1, pool="solo").drain(30)
        ended = app.engine.finished("one")
        assert app.AsyncResult("one").state == "FAILURE"
        app.AsyncResult("one").forget()
        app.results.take_over([(1, "", ended, None, 1)])  # a relay that read it before
        assert not app.AsyncResult("one").exists()


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("django-db", "is not installed; it comes with the package django-celery-results: pip install"),
        ("redis://localhost/1", r'the package .redis., .* pip install "litetq\[redis\]"'),
        ("db+postgresql://localhost/x", r'the package .sqlalchemy., .* pip install "litetq\[sqlalchemy\]"'),
        ("mongodb://localhost/1", "is one of Celery's own, and cannot be loaded"),
        ("django://", "there is no adapter for django://"),
        ("file:///no/such/folder", "the folder /no/such/folder is not there; make it"),
        ("nowhere_at_all:Backend", "the result backend nowhere_at_all:Backend cannot be loaded: No module named"),
    ],
)
def test_a_backend_that_is_not_there_is_said_in_a_sentence(db: Path, backend: str, said: str) -> None:
    app = LiteTQ("tasks", broker=db, backend=backend, set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match=said):
        _ = app.results


def test_a_folder_gets_a_copy_of_every_end_and_loses_what_is_too_old(db: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    with LiteTQ("tasks", broker=db, backend=f"file://{folder}", result_expires=60) as app:
        add = app.task(name="add")(lambda x, y: x + y)
        fail = app.task(name="fail")(lambda: 1 // 0)
        saved = app.GroupResult("g", [add.delay(1, 2)])
        saved.save()
        failed = fail.delay()
        with app.run_embedded(1, pool="solo") as worker:
            worker.drain(30)
        names = {f"celery-task-meta-{id}" for id in (saved.results[0].id, failed.id)} | {"celery-taskset-meta-g"}
        assert {path.name for path in folder.iterdir()} == names
        app.engine.forget([saved.results[0].id, failed.id, "group:g"])
        assert app.GroupResult.restore("g").get(timeout=1) == [3]
        with pytest.raises(ZeroDivisionError):
            failed.get(timeout=1)
        failed.forget()
        assert failed.state == "PENDING"
        assert len(list(folder.iterdir())) == 2
        for path in folder.iterdir():
            os.utime(path, (1, 1))
        tidying = upkeep.tidy(app.results.archive.cleanup, app.release)
        assert tidying.do() == upkeep.FIRST_TIDY_S and list(folder.iterdir())
        assert tidying.do() == upkeep.TIDY_S
        assert not list(folder.iterdir())
