"""Rate limits: evenly spaced starts, counted in the file by all workers, and nobody else waits for them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ
from litetq.exceptions import ImproperlyConfigured
from litetq.lanes import OwnPace, interval_of
from tests.conftest import RunPython
from tests.factories import Queue, message
from tests.waiting import eventually


@pytest.fixture
def queue(db: Path) -> Iterator[Queue]:
    made = Queue(db)
    yield made
    made.database.close()


# -- what a limit means


@pytest.mark.parametrize(
    ("rate", "interval"),
    [
        ("10/s", 0.1),
        ("10/m", 6.0),
        ("10/h", 360.0),
        (4, 0.25),
        ("4", 0.25),
        (0.5, 2.0),
        (None, None),
        (0, None),
        ("0/s", None),
        ("", None),
    ],
)
def test_a_rate_is_a_number_of_tasks_a_second_a_minute_or_an_hour(rate: object, interval: float | None) -> None:
    assert interval_of(rate) == interval


@pytest.mark.parametrize("rate", ["10/d", "often", "-1/s", -1, "inf", float("nan"), True, ["1/s"]])
def test_what_is_no_rate_is_refused_in_a_sentence(rate: object) -> None:
    with pytest.raises(ValueError, match='a rate limit is like "10/s"'):
        interval_of(rate)


# -- the lanes of a file, at a time that stands still


def starts_within(queue: Queue, seconds: float, *, step: float = 0.01, free: int = 100, **take: object) -> list[float]:
    """Let `seconds` pass in steps; return when tasks started."""
    began, times = queue.now, []
    while queue.now < began + seconds:
        taken = queue.store.take(queue.worker, "w1@host", free, [], queue.now, **take)  # type: ignore[arg-type]
        times += [queue.now] * len(taken.deliveries)
        queue.now = round(queue.now + step, 6)
    return times


@pytest.mark.row("8.rate limits")
def test_limited_tasks_start_evenly_spaced(queue: Queue) -> None:
    queue.store.lanes.set_limits({"slow": 0.1}, queue.now)
    queue.send(*(message(name="slow") for _ in range(50)))
    times = starts_within(queue, 2.0)
    assert len(times) in (20, 21)
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert all(gap == pytest.approx(0.1, abs=0.011) for gap in gaps[1:])


def test_a_high_rate_does_not_fall_behind_a_worker_that_looks_seldom(queue: Queue) -> None:
    queue.store.lanes.set_limits({"quick": 0.001}, queue.now)
    queue.send(*(message(name="quick") for _ in range(3000)))
    assert len(starts_within(queue, 1.0, step=0.015)) == pytest.approx(1000, rel=0.03)


def test_after_a_pause_the_lost_starts_are_not_made_up_for(queue: Queue) -> None:
    queue.store.lanes.set_limits({"slow": 1.0}, queue.now)
    queue.send(*(message(name="slow") for _ in range(50)))
    starts_within(queue, 1.0)
    queue.now += 3600
    assert len(starts_within(queue, 5.0)) <= 6


def test_other_tasks_pass_by_limited_ones_also_those_of_higher_priority(queue: Queue) -> None:
    queue.store.lanes.set_limits({"slow": 60.0}, queue.now)
    queue.send(*(message(name="slow", priority=200) for _ in range(1000)))
    queue.send(*(message(f"free {n}") for n in range(5)))
    assert len(queue.claim(10)) == 6
    assert queue.claim(10) == []


def test_one_limit_holds_for_a_task_in_all_its_queues_together(queue: Queue) -> None:
    queue.store.lanes.set_limits({"slow": 0.1}, queue.now)
    queue.send(*(message(name="slow", queue=f"q{n % 3}") for n in range(60)))
    times = starts_within(queue, 2.0)
    assert len(times) in (20, 21)
    assert len(set(times)) == len(times)


def test_a_worker_is_told_when_the_lane_opens_if_something_waits_there_that_it_serves(queue: Queue) -> None:
    queue.store.lanes.set_limits({"slow": 10.0}, queue.now)
    queue.send(message(name="slow"), message(name="slow"), message(name="slow", queue="elsewhere"))
    taken = queue.take(5, queues=frozenset({"celery"}))
    assert len(taken.deliveries) == 1
    assert taken.next_due_at == queue.now + 10
    assert queue.store.probe(queue.now, frozenset({"celery"})) == (False, queue.now + 10)
    assert queue.store.probe(queue.now, frozenset({"third"})) == (False, None)


def test_what_waits_already_obeys_a_limit_that_comes_later(queue: Queue) -> None:
    queue.send(*(message(name="slow") for _ in range(10)), *(message(name="slow", due_at=queue.now + 5) for _ in "ab"))
    queue.store.lanes.set_limits({"slow": 60.0}, queue.now)
    assert len(queue.claim(20)) == 1
    queue.now += 10
    assert queue.claim(20) == []


def test_a_limit_that_is_taken_away_lets_all_go(queue: Queue) -> None:
    queue.store.lanes.set_limits({"slow": 60.0}, queue.now)
    queue.send(*(message(name="slow") for _ in range(10)))
    assert len(queue.claim(20)) == 1
    queue.store.lanes.set_limits({"slow": None}, queue.now)
    assert queue.store.lanes.limits() == {}
    queue.send(message(name="slow"))
    assert len(queue.claim(20)) == 10


def test_a_faster_limit_counts_at_once(queue: Queue) -> None:
    queue.store.lanes.set_limits({"slow": 3600.0}, queue.now)
    queue.send(*(message(name="slow") for _ in range(10)))
    queue.claim(1)
    queue.store.lanes.set_limits({"slow": 1.0}, queue.now)
    queue.now += 1.0
    assert len(queue.claim(10)) == 1


def test_a_retried_task_waits_for_its_turn_again(queue: Queue) -> None:
    from tests.factories import retry

    queue.store.lanes.set_limits({"slow": 60.0}, queue.now)
    queue.send(message(name="slow"))
    queue.settle(retry(queue.claim_one()))
    assert queue.claim(1) == []
    queue.now += 60
    assert queue.claim(1)


@pytest.mark.parametrize("pace", [None, OwnPace()])
def test_a_clock_that_is_put_back_closes_no_lane_for_longer_than_its_interval(
    queue: Queue, pace: OwnPace | None
) -> None:
    queue.store.lanes.set_limits({"slow": 10.0}, queue.now)
    queue.send(*(message(name="slow") for _ in range(10)))
    starts_within(queue, 25.0, step=1.0, pace=pace)
    queue.now -= 3600
    assert queue.store.probe(queue.now, pace=pace)[0]
    assert len(starts_within(queue, 25.0, step=1.0, pace=pace)) == 3


def test_workers_that_count_for_themselves_have_the_rate_each_or_none(queue: Queue) -> None:
    queue.store.lanes.set_limits({"slow": 0.1}, queue.now)
    queue.send(*(message(name="slow") for _ in range(100)))
    one, other = OwnPace(), OwnPace()
    before = queue.now
    assert len(starts_within(queue, 1.0, pace=one)) in (10, 11)
    queue.now = before
    assert len(starts_within(queue, 1.0, pace=other)) in (10, 11)
    assert len(queue.store.take(queue.worker, "w", 100, [], queue.now, pace=OwnPace(limited=False)).deliveries) >= 78


# -- real workers


@pytest.mark.row("8.rate limits")
def test_a_limit_of_a_task_holds_and_others_flow_meanwhile(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    starts: list[float] = []
    app.task(name="slow", rate_limit="10/s")(lambda: starts.append(time.monotonic()))
    app.task(name="free")(lambda: None)
    with app.run_embedded(concurrency=2), app.run_embedded(concurrency=2):
        for _ in range(12):
            app.tasks["slow"].delay()
        began = time.monotonic()
        for result in [app.tasks["free"].delay() for _ in range(50)]:
            result.get(timeout=10)
        assert len(starts) <= 2 + (time.monotonic() - began) / 0.1
        eventually(lambda: len(starts) == 12)
    assert starts[-1] - starts[0] >= 1.0
    app.close()


def test_a_limit_is_changed_and_lifted_while_workers_run(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    done: list[int] = []
    slow = app.task(name="slow", rate_limit="1/h")(done.append)
    with app.run_embedded():
        for n in range(5):
            slow.delay(n)
        eventually(lambda: done == [0])
        app.engine.set_rate_limit("slow", "20/s")
        eventually(lambda: len(done) >= 2)
        app.engine.set_rate_limit("slow", None)
        eventually(lambda: len(done) == 5)
    # What was said at run time stays, because the task itself still says the same.
    with app.run_embedded():
        assert app.engine.store.lanes.limits() == {}
    app.close()


@pytest.mark.row("2.rate_limit")
def test_a_task_that_says_another_limit_changes_the_file_at_the_next_start(db: Path) -> None:
    for rate, interval in (("1/s", 1.0), ("2/s", 0.5), (None, None)):
        app = LiteTQ("tasks", broker=db, set_as_current=False)
        app.task(name="slow", rate_limit=rate)(lambda: None)
        with app.run_embedded():
            assert app.engine.store.lanes.limits().get("slow") == interval
        app.close()


@pytest.mark.row("20.task_default_rate_limit")
def test_the_setting_gives_a_limit_to_tasks_that_have_none(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False, task_default_rate_limit="5/m")
    app.task(name="slow")(lambda: None)
    with app.run_embedded():
        assert app.engine.store.lanes.limits()["slow"] == 12.0
        assert "celery.chord" not in app.engine.store.lanes.limits()
    app.close()


@pytest.mark.row("20.worker_disable_rate_limits")
def test_a_worker_told_to_ignore_limits_ignores_them(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False, worker_disable_rate_limits=True)
    done: list[int] = []
    slow = app.task(name="slow", rate_limit="1/h")(done.append)
    with app.run_embedded():
        for n in range(5):
            slow.delay(n)
        eventually(lambda: len(done) == 5)
    app.close()


@pytest.mark.row("8.rate limits")
def test_by_option_each_worker_has_the_rate_for_itself(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False, litetq_rate_limit_scope="worker")
    done: list[int] = []
    slow = app.task(name="slow", rate_limit="1/h")(done.append)
    with app.run_embedded(concurrency=1), app.run_embedded(concurrency=1):
        for n in range(5):
            slow.delay(n)
        eventually(lambda: len(done) == 2)
        assert not app.engine.store.probe(time.time(), frozenset({"other"}))[0]
    assert len(done) == 2
    app.close()


def test_a_limit_that_is_none_keeps_a_worker_from_starting(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    app.task(name="slow", rate_limit="10/fortnight")(lambda: None)
    with pytest.raises(ImproperlyConfigured, match="task 'slow': a rate limit is like"):
        app.run_embedded()
    app.close()


def test_an_idle_worker_with_a_closed_lane_sleeps(db: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    slow = app.task(name="slow", rate_limit="1/h")(lambda: None)
    with app.run_embedded(concurrency=1):
        first = slow.delay()
        slow.delay()
        first.get(timeout=10)
        began = time.process_time()
        app.engine.store.records.counts()
        deadline = time.monotonic() + 1.0
        eventually(lambda: time.monotonic() > deadline, 5)
        assert time.process_time() - began < 0.5
    app.close()


PROGRAM = """
import sys, time
from litetq import LiteTQ
app = LiteTQ("rates", broker=sys.argv[1])

@app.task(name="slow", rate_limit="10/s")
def slow():
    with open(sys.argv[1] + "-starts", "a") as file:
        file.write(f"{time.time()}\\n")

@app.task(name="free")
def free():
    return 1

if __name__ == "__main__":
    with app.run_embedded(concurrency=2), app.run_embedded(concurrency=2):
        print("ready", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.row("8.rate limits")
@pytest.mark.slow
def test_ten_a_second_over_four_workers_in_two_processes_holds_within_five_percent(
    db: Path, tmp_path: Path, run_python: RunPython
) -> None:
    import subprocess

    (tmp_path / "rates.py").write_text(PROGRAM)
    app = LiteTQ("rates", broker=db, set_as_current=False)
    workers = [run_python(tmp_path / "rates.py", db, stdin=subprocess.PIPE) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    for _ in range(150):
        app.send_task("slow")
    began = time.monotonic()
    free = 0
    while time.monotonic() - began < 11:
        assert app.send_task("free").get(timeout=5) == 1
        free += 1
    for worker in workers:
        worker.communicate("\n", timeout=30)
    times = [float(line) for line in Path(f"{db}-starts").read_text().split()]
    within = [at for at in times if times[0] + 0.5 <= at < times[0] + 10.5]
    assert 95 <= len(within) <= 105, len(within)
    assert free > 500
    app.close()


def test_no_more_of_a_task_run_at_once_than_it_says_whatever_queue_they_came_by(queue: Queue) -> None:
    queue.send(message("waits already", name="few", queue="b"))
    queue.store.lanes.set_max_running({"few": 2})
    queue.send(*(message(name="few", queue="ab"[n % 2]) for n in range(6)), message("free"))
    first = queue.claim(10)
    assert sorted(delivery.name for delivery in first) == ["few", "few", "tasks.work"]
    assert not queue.store.probe(queue.now)[0]
    from tests.factories import success

    few = [delivery for delivery in first if delivery.name == "few"]
    assert len(queue.take(10, success(few[0])).deliveries) == 1
    queue.store.lanes.set_max_running({"few": None})
    assert len(queue.claim(10)) == 4


def test_a_task_says_how_many_of_it_run_at_once_in_all_workers(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    running, most = [0], [0]
    lock = threading.Lock()

    @app.task(name="few", max_running=2)
    def few() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1

    free = app.task(name="free")(lambda: None)
    results = [few.delay() for _ in range(20)]
    with app.run_embedded(concurrency=4), app.run_embedded(concurrency=4):
        free.delay().get(timeout=10)
        for result in results:
            result.get(timeout=10)
    assert most == [2]
    few.max_running = 0
    with pytest.raises(ImproperlyConfigured, match="task 'few': max_running must be"):
        app.run_embedded()
    app.close()


def test_a_drain_waits_for_limited_tasks(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    done: list[int] = []
    slow = app.task(name="slow", rate_limit="20/s")(done.append)
    for n in range(6):
        slow.delay(n)
    with app.run_embedded(concurrency=4) as worker:
        assert worker.drain(10)
    assert done == [0, 1, 2, 3, 4, 5]
    app.close()


def test_a_task_sent_again_by_retry_to_another_queue_keeps_its_limit(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    starts: list[float] = []

    @app.task(name="slow", rate_limit="4/s", bind=True)
    def slow(self: Any) -> None:
        starts.append(time.monotonic())
        if self.request.retries == 0:
            raise self.retry(countdown=0, queue="other")

    with app.run_embedded(queues=["celery", "other"], concurrency=2):
        slow.delay().get(timeout=10)
    assert starts[1] - starts[0] > 0.2
    app.close()


def test_two_workers_reach_a_rate_together_and_do_not_pass_it(db: Path) -> None:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    starts: list[float] = []
    slow = app.task(name="slow", rate_limit="500/s")(lambda: starts.append(time.monotonic()))
    for _ in range(500):
        slow.delay()
    with app.run_embedded(concurrency=2), app.run_embedded(concurrency=2):
        eventually(lambda: len(starts) == 500, 20)
    assert 0.9 < starts[-1] - starts[0] < 5  # 1 s; one start for each look of a worker would take minutes
    app.close()
