"""Acknowledgement: what becomes of tasks that failed, that died with their process, and that come a second time."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ
from litetq.exceptions import Reject, WorkerLostError
from litetq.message import Delivery, Disposition, Outcome
from tests.conftest import RunPython


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    yield app
    app.close()


def fail() -> None:
    raise ValueError("no")


# -- failures


@pytest.mark.row("2.acks_on_failure_or_timeout, acks_on_failure")
@pytest.mark.row("20.task_acks_on_failure_or_timeout")
@pytest.mark.parametrize(
    ("options", "dead"),
    [
        ({"acks_late": True}, False),
        ({"acks_late": True, "acks_on_failure_or_timeout": False}, True),
        ({"acks_late": False, "acks_on_failure_or_timeout": False}, False),
        ({"acks_late": True, "acks_on_failure": False}, True),
        ({"acks_late": True, "acks_on_failure": True, "acks_on_failure_or_timeout": False}, False),
        ({"acks_late": True, "acks_on_timeout": False}, False),
    ],
)
def test_a_failure_that_is_not_acknowledged_rests_as_a_dead_letter(
    app: LiteTQ, options: dict[str, Any], dead: bool
) -> None:
    task = app.task(name="fails", **options)(fail)
    with app.run_embedded(concurrency=1):
        result = task.delay()
        with pytest.raises(ValueError, match="no"):
            result.get(timeout=10)
    letters = app.engine.store.records.dead_letters()
    assert [letter.id for letter in letters] == ([result.id] if dead else [])
    assert all("not acknowledged" in str(letter.reason) and letter.body for letter in letters)


@pytest.mark.row("20.task_acks_late")
@pytest.mark.row("20.task_acks_on_failure")
@pytest.mark.parametrize(
    ("settings", "dead"),
    [
        ({"task_acks_on_failure_or_timeout": False}, True),
        ({"task_acks_on_failure": False}, True),
        ({"task_acks_on_failure": True, "task_acks_on_failure_or_timeout": False}, False),
    ],
)
def test_the_settings_say_it_for_all_tasks(app: LiteTQ, settings: dict[str, Any], dead: bool) -> None:
    app.conf.update(task_acks_late=True, **settings)
    task = app.task(name="fails")(fail)
    with app.run_embedded(concurrency=1):
        task.delay().get(timeout=10, propagate=False)
    assert bool(app.engine.store.records.dead_letters()) == dead


@pytest.mark.row("2.exceptions Ignore, Reject")
def test_a_rejected_task_fails_and_rests_as_a_dead_letter(app: LiteTQ) -> None:
    @app.task(name="rejects")
    def rejects() -> None:
        raise Reject("no good", requeue=False)

    with app.run_embedded(concurrency=1):
        assert rejects.delay().get(timeout=10, propagate=False) is not None
    (letter,) = app.engine.store.records.dead_letters()
    assert (letter.state, letter.reason) == ("FAILURE", "rejected")


@pytest.mark.row("8.worker log: raised expected, raised unexpected")
@pytest.mark.row("2.throws")
def test_an_expected_failure_is_a_failure_and_is_logged_without_its_traceback(
    app: LiteTQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    expected = app.task(name="expected", throws=(ValueError,))(fail)
    unexpected = app.task(name="unexpected")(fail)
    with app.run_embedded(concurrency=1):
        for task in (expected, unexpected):
            assert task.delay().get(timeout=10, propagate=False) is not None
    lines = {
        record.getMessage().split("[")[0]: record for record in caplog.records if " raised " in record.getMessage()
    }
    assert lines["Task expected"].levelno == logging.INFO
    assert "raised expected: ValueError('no')" in lines["Task expected"].getMessage()
    assert "Traceback" not in lines["Task expected"].getMessage()
    assert lines["Task unexpected"].levelno == logging.ERROR
    assert "Traceback" in lines["Task unexpected"].getMessage()


@pytest.mark.row("2.store_errors_even_if_ignored")
@pytest.mark.row("6.store_errors_even_if_ignored")
@pytest.mark.row("20.task_store_errors_even_if_ignored")
@pytest.mark.parametrize("stored", [True, False])
def test_a_failure_is_kept_although_results_are_ignored_whatever_the_setting_says(app: LiteTQ, stored: bool) -> None:
    app.conf.update(task_ignore_result=True, task_store_errors_even_if_ignored=stored)
    task = app.task(name="fails")(fail)
    with app.run_embedded(concurrency=1):
        with pytest.raises(ValueError, match="no"):
            app.AsyncResult(task.delay().id).get(timeout=10)


# -- what comes a second time


def redelivered(app: LiteTQ, name: str, *, recorded: str | None) -> str:
    """Put a task into the file whose first delivery was lost after its success (or what else) was put on record."""
    result = app.send_task(name)
    seat = app.engine.seat("dead@host")
    (delivery,) = seat.take(1).deliveries
    seat.take(0, [requeued(delivery)])
    seat.leave()
    if recorded is not None:
        from litetq.message import Record

        app.engine.store.records.store_record(Record(result.id, recorded, "DONE", b'"first"', done_at=1.0), None)
    return result.id


def requeued(delivery: Delivery) -> Outcome:
    return Outcome(delivery.claim, delivery.seq, delivery.id, Disposition.REQUEUE, "RETRY")


@pytest.mark.row("20.worker_deduplicate_successful_tasks")
@pytest.mark.row("8.deduplicate_successful_tasks")
@pytest.mark.parametrize(
    ("late", "setting", "recorded", "runs"),
    [
        (True, True, "SUCCESS", False),
        (True, False, "SUCCESS", True),
        (False, True, "SUCCESS", True),
        (True, True, "FAILURE", True),
        (True, True, None, True),
    ],
)
def test_a_redelivered_task_that_succeeded_already_is_not_run_again(
    app: LiteTQ, caplog: pytest.LogCaptureFixture, late: bool, setting: bool, recorded: str | None, runs: bool
) -> None:
    caplog.set_level(logging.INFO)
    app.conf.worker_deduplicate_successful_tasks = setting
    ran: list[str] = []
    app.task(name="once", acks_late=late)(lambda: ran.append("again") or "second")
    id = redelivered(app, "once", recorded=recorded)
    with app.run_embedded(concurrency=1):
        assert app.AsyncResult(id).get(timeout=10) == ("second" if runs else "first")
    assert bool(ran) == runs
    assert ("already completed successfully" in caplog.text) == (not runs)


@pytest.mark.row("3.task_id used again")
@pytest.mark.row("8.deduplicate_successful_tasks")
def test_a_task_that_is_sent_again_under_its_id_runs_again(app: LiteTQ) -> None:
    app.conf.worker_deduplicate_successful_tasks = True
    task = app.task(name="once", acks_late=True)(lambda value: value)
    with app.run_embedded(concurrency=1):
        for value in (1, 2):
            assert task.apply_async((value,), task_id="same").get(timeout=10) == value


@pytest.mark.row("2.acks_late")
@pytest.mark.row("2.request: delivery_info")
@pytest.mark.row("8.acks_late")
def test_a_task_knows_that_it_is_delivered_again(app: LiteTQ) -> None:
    app.task(name="asks", bind=True, acks_late=True)(lambda self: self.request.delivery_info["redelivered"])
    id = redelivered(app, "asks", recorded=None)
    with app.run_embedded(concurrency=1):
        assert app.AsyncResult(id).get(timeout=10) is True
        assert app.send_task("asks").get(timeout=10) is False


# -- processes that die

PROGRAM = """
import logging, os, signal, sys
from litetq import LiteTQ
app = LiteTQ("deaths", broker=sys.argv[1])

@app.task(name="late", acks_late=True)
def late():
    die()

@app.task(name="again", acks_late=True, reject_on_worker_lost=True)
def again():
    die()

@app.task(name="early")
def early():
    die()

def die():
    with open(sys.argv[1] + "-deaths", "a") as file:
        file.write("died\\n")
    os._exit(9)

if __name__ == "__main__":
    logging.basicConfig()
    with app.run_embedded(concurrency=1, pool="processes"):
        print("ready", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.row("2.reject_on_worker_lost")
@pytest.mark.row("8.child killed with acks_late")
@pytest.mark.row("8.reject_on_worker_lost loop")
@pytest.mark.parametrize(("name", "deaths"), [("early", 1), ("late", 1), ("again", 6)])
def test_a_task_that_kills_its_process_is_given_back_five_times_if_it_says_so(
    db: Path, tmp_path: Path, run_python: RunPython, app: LiteTQ, name: str, deaths: int
) -> None:
    (tmp_path / "deaths.py").write_text(PROGRAM)
    app.engine.store.records.counts()
    worker = run_python(tmp_path / "deaths.py", db, stdin=subprocess.PIPE)
    result = app.send_task(name)
    with pytest.raises(WorkerLostError):
        result.get(timeout=60)
    assert Path(f"{db}-deaths").read_text().count("died") == deaths
    assert bool(app.engine.store.records.dead_letters()) == (deaths > 1)
    _, said = worker.communicate("\n", timeout=30)
    assert said.count("It runs again.") == deaths - 1
    assert said.count("It rests as a dead letter.") == int(deaths > 1)


def test_a_dead_letter_outlives_the_worker_that_was_killed(
    db: Path, tmp_path: Path, run_python: RunPython, app: LiteTQ
) -> None:
    """Also when it is the whole worker that each delivery kills."""
    (tmp_path / "deaths.py").write_text(PROGRAM.replace('pool="processes"', 'pool="threads"'))
    result = app.send_task("late")
    for _ in range(6):
        assert run_python(tmp_path / "deaths.py", db, stdin=subprocess.PIPE).wait(timeout=30) == 9
    with app.run_embedded(concurrency=1):
        with pytest.raises(WorkerLostError):
            result.get(timeout=10)
    (letter,) = app.engine.store.records.dead_letters()
    assert "redelivered 5 times" in str(letter.reason)
