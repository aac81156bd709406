"""Retries in a real worker: how often, after how long, with what, and what is said about it."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, clock
from litetq.exceptions import MaxRetriesExceededError, Retry
from tests.conftest import RunPython
from tests.waiting import eventually


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tasks", broker=db, set_as_current=False) as app:
        yield app


@pytest.mark.row("4.attempts")
@pytest.mark.row("2.max_retries, default_retry_delay")
@pytest.mark.parametrize(("options", "runs"), [({}, 4), ({"max_retries": 1}, 2), ({"max_retries": 0}, 1)])
def test_a_task_is_retried_so_many_times_and_runs_once_more(app: LiteTQ, options: dict[str, Any], runs: int) -> None:
    seen: list[int] = []

    @app.task(name="stubborn", bind=True, default_retry_delay=0, **options)
    def stubborn(self: Any, n: int, m: int = 0) -> None:
        seen.append(self.request.retries)
        raise self.retry()

    with app.run_embedded(concurrency=1):
        result = stubborn.delay(5, m=6)
        with pytest.raises(MaxRetriesExceededError) as caught:
            result.get(timeout=10)
    assert seen == list(range(runs))
    assert str(caught.value) == f"Can't retry stubborn[{result.id}] args:(5,) kwargs:{{'m': 6}}"


@pytest.mark.row("4.exhaustion")
@pytest.mark.parametrize(("given", "raised"), [(ValueError("given"), ValueError), (None, MaxRetriesExceededError)])
def test_when_retries_are_used_up_what_was_given_is_the_result(
    app: LiteTQ, given: ValueError | None, raised: type[Exception]
) -> None:
    @app.task(name="stubborn", bind=True, default_retry_delay=0, max_retries=1)
    def stubborn(self: Any) -> None:
        try:
            raise KeyError("live")
        except KeyError as error:
            raise self.retry(exc=given) from error

    with app.run_embedded(concurrency=1):
        result = stubborn.delay()
        with pytest.raises(raised, match="given" if given else "Can't retry"):
            result.get(timeout=10)
    assert "KeyError: 'live'" in str(result.traceback)


@pytest.mark.row("4.max_retries=None")
def test_none_means_for_ever_on_the_task_and_the_default_in_the_call(app: LiteTQ) -> None:
    seen: list[str] = []

    @app.task(name="for_ever", bind=True, default_retry_delay=0, max_retries=None)
    def for_ever(self: Any) -> int:
        if self.request.retries < 12:
            raise self.retry()
        return int(self.request.retries)

    @app.task(name="default", bind=True, default_retry_delay=0, max_retries=2)
    def default(self: Any) -> None:
        seen.append("run")
        raise self.retry(max_retries=None)

    with app.run_embedded(concurrency=1):
        assert for_ever.delay().get(timeout=10) == 12
        with pytest.raises(MaxRetriesExceededError):
            default.delay().get(timeout=10)
    assert len(seen) == 3


@pytest.mark.row("4.no backoff")
@pytest.mark.row("2.max_retries, default_retry_delay")
@pytest.mark.parametrize(
    ("options", "delay"),
    [
        ({}, 180),
        ({"default_retry_delay": 60}, 60),
        ({"autoretry_for": (ValueError,)}, 180),
        ({"autoretry_for": (ValueError,), "retry_kwargs": {"countdown": 7}}, 7),
        ({"autoretry_for": (ValueError,), "retry_backoff": 5, "retry_jitter": False}, 5),
        ({"autoretry_for": (ValueError,), "retry_backoff": 5000, "retry_jitter": False}, 600),
        ({"autoretry_for": (ValueError,), "retry_backoff": 9, "retry_backoff_max": 4, "retry_jitter": False}, 4),
    ],
)
def test_the_next_attempt_is_due_after_its_delay(app: LiteTQ, options: dict[str, Any], delay: float) -> None:
    @app.task(name="later", bind=True, **options)
    def later(self: Any) -> None:
        if options.get("autoretry_for"):
            raise ValueError("again")
        raise self.retry()

    with app.run_embedded(concurrency=1):
        result = later.delay()
        eventually(lambda: result.state == "RETRY")
    record = app.engine.read(result.id)
    assert record is not None and record.place == "SCHEDULED" and record.due_at is not None
    assert abs(record.due_at - clock.now() - delay) < 5


@pytest.mark.row("4.backoff formula")
def test_jitter_is_a_whole_number_of_seconds_up_to_the_backoff(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[tuple[int, int]] = []

    def upper(low: int, high: int) -> int:
        bounds.append((low, high))
        return high

    monkeypatch.setattr(random, "randint", upper)
    monkeypatch.setattr(random, "randrange", lambda stop: upper(0, stop - 1))

    @app.task(name="jittery", bind=True, autoretry_for=(ValueError,), retry_backoff=100)
    def jittery(self: Any) -> None:
        raise ValueError("again")

    with app.run_embedded(concurrency=1):
        results = [jittery.apply_async(retries=retries) for retries in range(3)]
        eventually(lambda: all(result.state == "RETRY" for result in results))
    assert sorted(bounds) == [(0, 100), (0, 200), (0, 400)]


@pytest.mark.row("4.self.retry: options are kept")
def test_what_the_call_said_holds_for_all_its_attempts(app: LiteTQ) -> None:
    @app.task(name="again", bind=True, default_retry_delay=0)
    def again(self: Any) -> Any:
        request = self.request
        if request.retries == 0:
            raise self.retry()
        return [
            *(request.headers, request.timelimit, request.shadow, request.reply_to, request.argsrepr, request.retries),
            *(request.delivery_info["routing_key"], request.delivery_info["priority"], request.ignore_result),
            *(request.root_id, request.parent_id, request.group, request.stamps, bool(request.expires)),
        ]

    with app.run_embedded(concurrency=1, queues=["slow"]):
        result = again.apply_async(
            queue="slow", priority=7, headers={"a": 1}, time_limit=50, soft_time_limit=40, shadow="dark", reply_to="me",
            argsrepr="***", root_id="r", parent_id="p", group_id="g", stamped_headers=["s"], s="stamp", expires=100,
            ignore_result=False,
        )  # fmt: skip
        assert result.get(timeout=10) == [
            *({"a": 1}, [50, 40], "dark", "me", "***", 1),
            *("slow", 7, False),
            *("r", "p", "g", {"s": "stamp"}, True),
        ]


@pytest.mark.row("4.throw=False")
def test_a_retry_that_is_not_raised_comes_all_the_same(app: LiteTQ) -> None:
    asked: list[Any] = []

    @app.task(name="quiet", bind=True)
    def quiet(self: Any) -> str:
        if self.request.retries:
            return "done"
        asked.append(self.retry(throw=False, countdown=0))
        return "not the result"

    with app.run_embedded(concurrency=1):
        assert quiet.delay().get(timeout=10) == "done"
    assert isinstance(asked[0], Retry)


@pytest.mark.row("4.log")
@pytest.mark.row("4.state")
@pytest.mark.row("8.worker log: retry, ignored, rejected, revoked")
def test_a_retry_is_on_record_with_its_cause_and_its_line_is_celerys(
    app: LiteTQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    @app.task(name="later", bind=True)
    def later(self: Any) -> None:
        raise self.retry(exc=ValueError("again"), countdown=60)

    with app.run_embedded(concurrency=1):
        result = later.delay()
        eventually(lambda: result.state == "RETRY")
    assert repr(result.result) == "ValueError('again')" and "in later" in str(result.traceback)
    assert f"Task later[{result.id}] retry: Retry in 60s: ValueError('again')" in caplog.messages
    assert f"Task later[{result.id}] received" in caplog.messages


PROGRAM = """
import os, sys
from pathlib import Path
from litetq import LiteTQ
from litetq.exceptions import WorkerLostError

HERE = Path(__file__).parent
app = LiteTQ("deaths", broker=HERE / "jobs.sqlite", task_retry_on_worker_lost=True)

@app.task(bind=True, default_retry_delay=0, max_retries=1)
def dies(self, until):
    with open(HERE / "ledger", "a") as file:
        file.write(f"{self.request.retries}\\n")
    if self.request.retries < until:
        os._exit(3)
    return "alive"

@app.task(acks_late=True)
def again():
    with open(HERE / "again", "a") as file:
        file.write("ran\\n")
    if len((HERE / "again").read_text().splitlines()) < 2:
        os._exit(3)

if __name__ == "__main__":
    if sys.argv[1] == "reject":
        app.conf.update(task_retry_on_worker_lost=False, task_reject_on_worker_lost=True)
    with app.run_embedded(concurrency=1, pool="processes"):
        if sys.argv[1] == "retry":
            print(dies.delay(1).get(timeout=30))
            print(repr(dies.delay(9).get(timeout=30, propagate=False)))
        else:
            print(again.delay().get(timeout=30))
"""


@pytest.mark.row("4.task_retry_on_worker_lost")
@pytest.mark.row("20.task_retry_on_worker_lost")
def test_by_setting_a_task_whose_child_died_is_retried_as_often_as_it_may(
    tmp_path: Path, run_python: RunPython
) -> None:
    (tmp_path / "deaths.py").write_text(PROGRAM)
    process = run_python(tmp_path / "deaths.py", "retry")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    alive, lost = out.splitlines()
    assert alive == "alive" and re.match(r"WorkerLostError\('Worker exited prematurely: exitcode 3", lost)
    assert (tmp_path / "ledger").read_text().split() == ["0", "1"] * 2


@pytest.mark.row("20.task_reject_on_worker_lost")
def test_by_setting_a_late_task_whose_child_died_is_delivered_again(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "deaths.py").write_text(PROGRAM)
    process = run_python(tmp_path / "deaths.py", "reject")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip()) == (0, "None"), err
    assert (tmp_path / "again").read_text().split() == ["ran"] * 2
