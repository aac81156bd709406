"""Three beats, killed at random over hundreds of firings: each due time is enqueued exactly once."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from litetq.engine import FileEngine
from litetq.timetable import FiringRow
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.parametrize("firings", [300, pytest.param(1000, marks=pytest.mark.slow)]),
]

PROGRAM = """
import sys, time
from litetq import LiteTQ, clock
from litetq.schedules import crontab

start, speed, catch_up = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
if speed != 1:
    clock.set_source(lambda: start + (time.time() - start) * speed)
app = LiteTQ("tasks", broker="jobs.sqlite", timezone="Europe/London")
entry = {"task": "tasks.work", "catch_up": catch_up}
app.conf.beat_schedule = {
    "second": {**entry, "schedule": 1.0},
    "seven": {**entry, "schedule": 7.0, "overlap": "allow"},
    "minute": {**entry, "schedule": crontab()},
    "line": {**entry, "schedule": "*/2 * * * *"},
} if speed != 1 else {f"e{n}": {**entry, "schedule": 0.05} for n in range(6)}
app.Beat(max_interval=0.005).start()
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FileEngine]:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    engine = FileEngine(tmp_path / "jobs.sqlite")
    yield engine
    engine.close()


def rows(engine: FileEngine, name: str) -> list[FiringRow]:
    return sorted(engine.timetable.firings(name, 1_000_000), key=lambda row: row.due_at)


def count(engine: FileEngine) -> int:
    found: int = engine.database.read(lambda tx: tx.execute("SELECT count(*) FROM litetq_firing").get)
    return found


def is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def killed_at_random(
    beats: list[subprocess.Popen[str]], start: Any, engine: FileEngine, wanted: int, rng: random.Random
) -> int:
    """Kill one beat after another, and start another one in its place, until so much was fired; return the kills."""
    kills, deadline = 0, time.monotonic() + 90
    while count(engine) < wanted:
        assert time.monotonic() < deadline, f"{count(engine)} firings after {kills} kills"
        pause = time.monotonic() + rng.uniform(0.02, 0.4)
        eventually(partial(is_past, pause))
        victim = rng.randrange(len(beats))
        beats[victim].kill()
        beats[victim].wait()
        beats[victim] = start()
        kills += 1
    return kills


def assert_each_once(engine: FileEngine, name: str, step: float) -> int:
    found = rows(engine, name)
    assert {row.outcome for row in found} == {"SENT"} and sum(row.missed for row in found) == 0
    gaps = {round(after.due_at - before.due_at, 4) for before, after in zip(found, found[1:], strict=False)}
    assert gaps == {step} or len(found) == 1, f"{name}: {sorted(gaps)}"
    return len(found)


def assert_tasks_are_those_of_the_firings(engine: FileEngine) -> None:
    def operation(tx: Any) -> tuple[list[Any], list[Any]]:
        return (
            tx.execute("SELECT task_id FROM litetq_firing ORDER BY 1").fetchall(),
            tx.execute("SELECT id FROM litetq_task ORDER BY 1").fetchall(),
        )

    fired, tasks = engine.database.read(operation)
    assert fired == tasks and len(set(tasks)) == len(tasks)


def test_three_beats_killed_at_random_on_a_fast_clock_with_catch_up_all(
    tmp_path: Path, engine: FileEngine, run_python: Any, firings: int
) -> None:
    """A hundred seconds a second; at times no beat is alive at all."""
    began = str(time.time())

    def start() -> subprocess.Popen[str]:
        return run_python(tmp_path / "program.py", began, "100", "all")  # type: ignore[no-any-return]

    beats = [start() for _ in range(3)]
    kills = killed_at_random(beats, start, engine, firings, random.Random(5))
    before = count(engine)
    eventually(lambda: count(engine) > before + 50, within=30)  # whoever is left goes on
    for beat in beats:
        beat.kill()
        beat.wait()
    total = sum(
        assert_each_once(engine, name, step)
        for name, step in (("second", 1), ("seven", 7), ("minute", 60), ("line", 120))
    )
    assert total == count(engine) >= firings and kills >= 2
    assert rows(engine, "minute")[0].due_at % 60 == 0 and rows(engine, "line")[0].due_at % 120 == 0
    assert_tasks_are_those_of_the_firings(engine)


def test_as_long_as_one_beat_lives_nothing_is_missed_with_the_defaults(
    tmp_path: Path, engine: FileEngine, run_python: Any, firings: int
) -> None:
    """At true speed, a hundred and twenty due times a second; one of three beats is never killed."""

    def start() -> subprocess.Popen[str]:
        return run_python(tmp_path / "program.py", "0", "1", "last")  # type: ignore[no-any-return]

    survivor, others = start(), [start(), start()]
    kills = killed_at_random(others, start, engine, firings, random.Random(7))
    for beat in (survivor, *others):
        beat.kill()
        beat.wait()
    assert sum(assert_each_once(engine, f"e{n}", 0.05) for n in range(6)) == count(engine) and kills >= 2
    assert_tasks_are_those_of_the_firings(engine)
