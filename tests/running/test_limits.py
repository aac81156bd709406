"""Time limits with real workers: soft ones are raised in the task, hard ones end it on time, whoever may be stuck."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, signals
from litetq.exceptions import ImproperlyConfigured, SoftTimeLimitExceeded, TimeLimitExceeded
from litetq.pool import ABANDONED_MIN
from tests.conftest import RunPython
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    yield app
    app.close()


def spin(seconds: float = 20.0) -> None:
    """Run Python code until stopped."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.mark.row("8.soft time limit")
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_soft_limit_is_raised_in_the_task_which_may_catch_it(
    app: LiteTQ, pool: str, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="stubborn")
    def stubborn() -> str:
        try:
            spin()
        except SoftTimeLimitExceeded:
            return "cleaned"
        return "never"

    app.task(name="spin")(spin)
    with app.run_embedded(pool=pool, concurrency=1):
        caught = stubborn.apply_async(soft_time_limit=0.2)
        failed = app.send_task("spin", soft_time_limit=0.2)
        assert caught.get(timeout=10) == "cleaned"
        with pytest.raises(SoftTimeLimitExceeded):
            failed.get(timeout=10)
        assert "litetq/" not in str(failed.traceback).split("in spin")[0]  # it begins in the task
    assert f"Soft time limit (0.2s) exceeded for stubborn[{caught.id}]" in caplog.messages


def test_a_task_that_ends_in_time_hears_nothing_of_its_limit_nor_does_the_next_one(app: LiteTQ) -> None:
    @app.task(name="quick", soft_time_limit=0.03)
    def quick(n: int) -> int:
        return n

    @app.task(name="long")
    def long() -> str:
        spin(0.3)
        return "whole"

    with app.run_embedded(concurrency=1):
        for n in range(20):
            assert quick.delay(n).get(timeout=10) == n
        assert long.delay().get(timeout=10) == "whole"


def test_limits_that_ring_at_the_very_end_of_a_task_never_hit_what_comes_after(app: LiteTQ) -> None:
    """The end of the task and its alarm race, some hundred times: each ends in one of the two ways, and nothing breaks."""

    @app.task(name="edge", soft_time_limit=0.003)
    def edge(n: int) -> str:
        spin(n * 0.00002)
        return "in time"

    ids = [edge.delay(n).id for n in range(300)]
    with app.run_embedded(concurrency=1) as worker:
        assert worker.drain(60)
    states = [app.AsyncResult(id).state for id in ids]
    assert set(states) <= {"SUCCESS", "FAILURE"} and len(set(states)) == 2, set(states)
    assert all(isinstance(app.AsyncResult(id).result, (str, SoftTimeLimitExceeded)) for id in ids)


@pytest.mark.row("2.time_limit, soft_time_limit")
@pytest.mark.row("8.time limits: call, task, worker")
@pytest.mark.row("20.task_soft_time_limit")
def test_the_call_decides_then_the_task_then_the_setting(app: LiteTQ) -> None:
    app.conf.task_soft_time_limit = timedelta(seconds=0.1)

    @app.task(name="plain")
    def plain(seconds: float) -> str:
        spin(seconds)
        return "whole"

    @app.task(name="patient", soft_time_limit=30)
    def patient(seconds: float) -> str:
        spin(seconds)
        return "whole"

    with app.run_embedded(concurrency=1):
        with pytest.raises(SoftTimeLimitExceeded):
            plain.delay(20).get(timeout=10)
        assert patient.delay(0.3).get(timeout=10) == "whole"
        assert plain.apply_async((0.3,), soft_time_limit=20).get(timeout=10) == "whole"
        with pytest.raises(SoftTimeLimitExceeded):
            patient.apply_async((20,), soft_time_limit=timedelta(seconds=0.1)).get(timeout=10)  # type: ignore[arg-type]


@pytest.mark.row("2.hard limit: task_failure in the main process")
@pytest.mark.row("8.hard time limit")
def test_a_thread_at_its_hard_limit_loses_its_place_and_its_outcome(
    app: LiteTQ, caplog: pytest.LogCaptureFixture
) -> None:
    go, ended, failures = threading.Event(), threading.Event(), []

    @app.task(name="stuck", time_limit=0.2)
    def stuck() -> str:
        go.wait(30)
        ended.set()
        return "too late"

    app.task(name="note")(lambda n: n)
    successes: list[str] = []

    def note_success(sender: Any = None, **_: Any) -> None:
        successes.append(sender.name)

    def note_failure(sender: Any = None, exception: Any = None, **_: Any) -> None:
        failures.append((sender.name, repr(exception), threading.current_thread().name))

    signals.task_failure.connect(note_failure, weak=False)
    signals.task_success.connect(note_success, weak=False)
    try:
        with caplog.at_level("INFO"), app.run_embedded(concurrency=1) as worker:
            began = time.monotonic()
            result = stuck.delay()
            with pytest.raises(TimeLimitExceeded) as caught:
                result.get(timeout=10)
            assert time.monotonic() - began < 8
            assert caught.value.args == (0.2,)
            assert app.send_task("note", (1,)).get(timeout=10) == 1, "another thread has its place"
            assert worker.statistics().abandoned == 1
            go.set()
            eventually(lambda: worker.statistics().abandoned == 0)
            assert ended.is_set() and result.state == "FAILURE"
    finally:
        go.set()
        signals.task_failure.disconnect(note_failure)
        signals.task_success.disconnect(note_success)
    assert len(failures) == 1 and failures[0][0] == "stuck" and "litetq-worker" in failures[0][2]
    assert successes == ["note"] and f"stuck[{result.id}] succeeded" not in caplog.text
    assert f"Hard time limit (0.2s) exceeded for stuck[{result.id}]" in caplog.messages


def test_abandoned_threads_are_bounded_and_work_goes_on_when_one_ends(
    app: LiteTQ, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()
    app.task(name="stuck", time_limit=0.1)(lambda: go.wait(30))
    app.task(name="note")(lambda n: n)
    try:
        with app.run_embedded(concurrency=1) as worker:
            for _ in range(ABANDONED_MIN):
                with pytest.raises(TimeLimitExceeded):
                    app.send_task("stuck").get(timeout=10)
            waiting = app.send_task("note", (1,))
            eventually(lambda: any("cannot be stopped" in message for message in caplog.messages))
            assert worker.statistics().abandoned == ABANDONED_MIN and waiting.state == "PENDING"
            go.set()
            assert waiting.get(timeout=10) == 1
    finally:
        go.set()


def test_a_worker_stops_warmly_beside_an_abandoned_thread(app: LiteTQ) -> None:
    go = threading.Event()
    app.task(name="stuck", time_limit=0.1)(lambda: go.wait(30))
    try:
        with app.run_embedded(concurrency=1) as worker:
            with pytest.raises(TimeLimitExceeded):
                app.send_task("stuck").get(timeout=10)
            assert worker.stop(5)
    finally:
        go.set()


@pytest.mark.parametrize("where", ["setting", "task"])
def test_solo_refuses_hard_limits_at_its_start(app: LiteTQ, where: str) -> None:
    app.task(name="note", time_limit=5 if where == "task" else None)(lambda n: n)
    if where == "setting":
        app.conf.task_time_limit = timedelta(seconds=5)
    with pytest.raises(
        ImproperlyConfigured, match=r"pool=solo cannot stop a task at a hard time limit, and .* has one"
    ):
        app.run_embedded(pool="solo")
    assert app.engine.store.roster.workers() == []


def test_solo_says_once_for_a_task_that_a_limit_of_a_call_is_not_kept(
    app: LiteTQ, caplog: pytest.LogCaptureFixture
) -> None:
    app.task(name="note")(lambda n: n)
    with app.run_embedded(pool="solo"):
        for n in range(3):
            assert app.send_task("note", (n,), time_limit=5).get(timeout=10) == n
    assert len([message for message in caplog.messages if "cannot be kept by pool solo" in message]) == 1


@pytest.mark.row("2.acks_on_timeout")
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_late_task_at_its_hard_limit_runs_again_if_it_is_not_acknowledged_on_timeout(
    app: LiteTQ, is_kept: bool
) -> None:
    runs: list[int] = []
    go = threading.Event()

    @app.task(name="late", acks_late=True, acks_on_timeout=is_kept, time_limit=0.1)
    def late() -> None:
        runs.append(1)
        if len(runs) == 1:
            go.wait(30)

    try:
        with app.run_embedded(concurrency=1):
            result = late.delay()
            if is_kept:
                with pytest.raises(TimeLimitExceeded):
                    result.get(timeout=10)
                assert len(runs) == 1
            else:
                assert result.get(timeout=10) is None
                assert len(runs) == 2
    finally:
        go.set()


PROGRAM = """
import os, sys, time
from pathlib import Path
from litetq import LiteTQ, signals
from litetq.exceptions import SoftTimeLimitExceeded

HERE = Path(__file__).parent
app = LiteTQ("tasks", broker=HERE / "jobs.sqlite", result_extended=True)

def spin():
    until = time.monotonic() + 20
    while time.monotonic() < until:
        pass

@app.task
def catch(how):
    try:
        {"spin": spin, "sleep": lambda: time.sleep(20), "return": lambda: None}[how]()
    except SoftTimeLimitExceeded:
        return "cleaned"

class Told(app.Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        (HERE / "failures").open("a").write(f"{os.getpid()} {exc!r} {args}\\n")

@app.task(base=Told, time_limit=0.4)
def stuck(n):
    while True:
        try:
            time.sleep(20)
        except SoftTimeLimitExceeded:
            pass

@app.task
def told(failed_id):
    (HERE / "errback").write_text(failed_id)

@app.task
def pid(*_):
    return os.getpid()

if __name__ == "__main__":
    from tests.running import test_limits
    with app.run_embedded(concurrency=1, pool="processes") as worker:
        getattr(test_limits, sys.argv[1])(app, sys.modules["__main__"], worker, HERE)
"""


def run_in_processes(tmp_path: Path, run_python: RunPython, scene: Any, env: dict[str, str] | None = None) -> str:
    (tmp_path / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    process = run_python(tmp_path / "tasks.py", scene.__name__, env=env)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return err


def scene_soft(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    child = tasks.pid.delay().get(timeout=10)
    ways = ["spin"] if os.environ.get("LITETQ_PORTABLE") else ["spin", "sleep"]
    for how in ways:
        began = time.monotonic()
        assert tasks.catch.apply_async((how,), soft_time_limit=0.3).get(timeout=10) == "cleaned"
        assert time.monotonic() - began < 5
    assert tasks.pid.delay().get(timeout=10) == child, "the child goes on"


@pytest.mark.row("8.soft time limit")
@pytest.mark.parametrize("portable", [False, True])
def test_a_soft_limit_in_a_child_wakes_it_also_from_a_sleep(
    tmp_path: Path, run_python: RunPython, portable: bool
) -> None:
    env = {"LITETQ_PORTABLE": "1"} if portable else {}
    assert "Traceback" not in run_in_processes(tmp_path, run_python, scene_soft, env)


def scene_hard(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    child = tasks.pid.delay().get(timeout=10)
    began = time.monotonic()
    result = tasks.stuck.apply_async((1,), link_error=tasks.told.s())
    behind = [tasks.pid.delay() for _ in range(5)]
    with pytest.raises(TimeLimitExceeded) as caught:
        result.get(timeout=10)
    assert 0.4 <= time.monotonic() - began < 5 and caught.value.args == (0.4,)
    pids = {one.get(timeout=10) for one in behind}
    assert len(pids) == 1 and child not in pids, "another child has its place"
    assert (here / "failures").read_text() == f"{os.getpid()} {TimeLimitExceeded(0.4)!r} [1]\n"
    eventually(lambda: (here / "errback").exists())
    assert (here / "errback").read_text() == result.id
    # A call's own limit goes before the task's, and quick tasks with one are never hit by it.
    longer = tasks.stuck.apply_async((2,), time_limit=0.8)
    began = time.monotonic()
    with pytest.raises(TimeLimitExceeded):
        longer.get(timeout=10)
    assert time.monotonic() - began > 0.75
    results = [tasks.pid.apply_async(time_limit=5, soft_time_limit=4) for _ in range(300)]
    assert len({one.get(timeout=20) for one in results}) == 1
    assert app.engine.store.records.attempts_of(results[0].id) == []


@pytest.mark.row("2.time_limit, soft_time_limit")
@pytest.mark.row("2.hard limit: on_failure and errbacks in the main process")
@pytest.mark.row("8.hard time limit")
def test_at_the_hard_limit_the_child_is_killed_and_replaced_and_the_worker_calls_the_handlers(
    tmp_path: Path, run_python: RunPython
) -> None:
    run_in_processes(tmp_path, run_python, scene_hard)


def scene_change(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    assert tasks.catch.delay("return").get(timeout=10) is None
    assert worker.set_time_limit("tasks.catch", hard=10, soft=0.3)
    assert tasks.catch.delay("spin").get(timeout=10) == "cleaned"
    assert not worker.set_time_limit("tasks.unknown", hard=1, soft=None)


@pytest.mark.row("8.time limits changed while it runs")
def test_limits_changed_while_the_worker_runs_hold_from_the_next_start(tmp_path: Path, run_python: RunPython) -> None:
    run_in_processes(tmp_path, run_python, scene_change)


@pytest.mark.row("8.time limits: call, task, worker")
def test_the_worker_command_takes_limits(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    from litetq.engine import FileEngine
    from litetq.message import Message, Plan

    engine = FileEngine(tmp_path / "jobs.sqlite")
    engine.send(Plan((Message("soft", "tasks.catch", json.dumps([["spin"], {}]).encode()),)))
    engine.send(Plan((Message("hard", "tasks.stuck", json.dumps([[1], {}]).encode()),)))
    process = run_python(
        *(
            "-m",
            "litetq",
            "-A",
            "tasks",
            "worker",
            "-c",
            "2",
            "--drain",
            "--soft-time-limit",
            "0.3",
            "--time-limit",
            "9",
        )
    )
    _, err = process.communicate(timeout=60)
    soft, hard = engine.read("soft"), engine.read("hard")
    engine.close()
    assert soft is not None and soft.result == b'"cleaned"', err
    assert hard is not None and hard.state == "FAILURE" and b"TimeLimitExceeded" in (hard.result or b"")
    assert "Soft time limit (0.3s) exceeded for tasks.catch[soft]" in err
    assert "Hard time limit (0.4s) exceeded for tasks.stuck[hard]" in err


def test_the_worker_command_takes_0_for_no_limit(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(
        "from litetq import LiteTQ\napp = LiteTQ('tasks', broker='jobs.sqlite', task_time_limit=5)\n", encoding="utf-8"
    )
    solo = ("-m", "litetq", "-A", "tasks", "worker", "-P", "solo", "--drain")  # solo keeps no hard limit, and says so
    refused = run_python(*solo)
    assert "task_time_limit=5" in refused.communicate(timeout=60)[1] and refused.returncode == 2
    taken = run_python(*solo, "--time-limit", "0", "--soft-time-limit", "0")
    assert taken.wait(60) == 0, taken.communicate()
