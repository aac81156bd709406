"""`if_new=True`: a call whose id the file knows is not made again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, chain, signals
from tests.conftest import RunPython
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def add(app: LiteTQ) -> Any:
    return app.task(name="add")(lambda x, y: x + y)


def waiting(app: LiteTQ) -> int:
    return int(app.engine.database.read(lambda tx: tx.execute("SELECT count(*) FROM litetq_task").get))


def test_a_known_id_is_not_enqueued_again_whatever_became_of_its_task(app: LiteTQ, add: Any) -> None:
    fails = app.task(name="fails")(lambda: 1 / 0)
    first = add.apply_async((1, 2), task_id="a", if_new=True)
    again = add.apply_async((3, 4), task_id="a", if_new=True)
    fails.apply_async(task_id="b", if_new=True)
    assert first == again and waiting(app) == 2
    with app.run_embedded(pool="solo") as worker:
        assert worker.drain(10)
    assert add.apply_async((3, 4), task_id="a", if_new=True).get(timeout=0) == 3
    assert fails.apply_async(task_id="b", if_new=True).state == "FAILURE"
    assert waiting(app) == 0
    first.forget()
    add.apply_async((3, 4), task_id="a", if_new=True)
    assert waiting(app) == 1, "what was forgotten is new"


def test_without_it_one_id_may_be_sent_twice_as_in_celery(app: LiteTQ, add: Any) -> None:
    add.apply_async((1, 2), task_id="a")
    add.apply_async((1, 2), task_id="a")
    assert waiting(app) == 2


def test_it_works_by_name_and_for_a_signature(app: LiteTQ, add: Any) -> None:
    for _ in range(2):
        app.send_task("add", (1, 2), task_id="a", if_new=True)
        add.s(1, 2).set(task_id="b", if_new=True).delay()
    assert waiting(app) == 2


def test_what_was_not_sent_is_not_told_and_is_no_child(app: LiteTQ, add: Any) -> None:
    told = []

    def listen(headers: dict[str, Any], **_: Any) -> None:
        told.append(headers["id"])

    @app.task(name="parent")
    def parent() -> None:
        for _ in range(2):
            add.apply_async((1, 2), task_id="a", if_new=True)

    signals.after_task_publish.connect(listen, sender="add")
    with app.run_embedded() as worker:
        result = parent.delay()
        result.get(timeout=10)
        assert worker.drain(10)
    signals.after_task_publish.disconnect(listen, sender="add")
    assert told == ["a"]
    assert [child.id for child in result.children or ()] == ["a"]


def test_an_id_is_needed_and_a_workflow_is_no_place_for_it(app: LiteTQ, add: Any) -> None:
    with pytest.raises(ValueError, match="if_new=True needs a task_id"):
        add.apply_async((1, 2), if_new=True)
    with pytest.raises(ValueError, match="if_new is for a task by itself"):
        chain(add.s(1, 2).set(task_id="a", if_new=True), add.s(3)).apply_async()
    with pytest.raises(ValueError, match="if_new is for a task by itself"):
        add.apply_async((1, 2), task_id="a", if_new=True, link=add.s(1))
    assert waiting(app) == 0


def test_an_eager_call_runs_each_time(app: LiteTQ, add: Any) -> None:
    app.conf.task_always_eager = True
    assert [add.apply_async((n, 1), task_id="a", if_new=True).get() for n in (1, 2)] == [2, 3]


RACE = """
import os, sys
from litetq import LiteTQ
app = LiteTQ("tasks", broker="jobs.sqlite")
app.send_task("add", task_id="first", if_new=True)
open(f"ready-{sys.argv[1]}", "w").close()
while not os.path.exists("go"):
    pass
for n in range(300):
    app.send_task("add", (n, n), task_id=f"id-{n}", if_new=True)
"""


def test_of_several_programs_that_send_the_same_ids_one_enqueues_each(
    app: LiteTQ, add: Any, run_python: RunPython, tmp_path: Path
) -> None:
    senders = [run_python(RACE, str(number)) for number in range(3)]
    eventually(lambda: len(list(tmp_path.glob("ready-*"))) == 3, within=30)
    (tmp_path / "go").touch()
    for sender in senders:
        _, err = sender.communicate(timeout=60)
        assert sender.returncode == 0, err
    assert waiting(app) == 301
