"""Workers under load: the long beside the short, restarts, and a great many tasks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from litetq.engine import FileEngine
from litetq.message import Message, Plan
from tests.conftest import RunPython
from tests.system import kill_tasks
from tests.waiting import eventually

pytestmark = pytest.mark.system


@pytest.fixture
def house(tmp_path: Path) -> Path:
    shutil.copy(kill_tasks.__file__, tmp_path / "kill_tasks.py")
    return tmp_path


@pytest.fixture
def engine(house: Path) -> Iterator[FileEngine]:
    engine = FileEngine(house / "jobs.sqlite")
    yield engine
    engine.close()


def send(engine: FileEngine, name: str, *numbers: int) -> list[str]:
    """Enqueue a call of the task for each number, in one transaction; return the ids."""
    messages = [Message(f"{name}-{n}", f"kill_tasks.{name}", b"[[%d],{}]" % n) for n in numbers]
    engine.send(Plan(tuple(messages)))
    return [message.id for message in messages]


def ended(engine: FileEngine, ids: list[str]) -> int:
    return sum(record.state == "SUCCESS" for record in engine.read_many(ids).values())


def ledger(house: Path) -> list[str]:
    path = house / "ledger"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def worker(run_python: RunPython, pool: str, *options: str) -> subprocess.Popen[str]:
    return run_python("-m", "litetq", "-A", "kill_tasks", "worker", "-P", pool, "-c", "2", *options)


@pytest.mark.row("8.-O fair")
@pytest.mark.parametrize("pool", ["processes", "threads"])
@pytest.mark.parametrize("before", [0, 50])
def test_of_a_mixed_load_no_short_task_waits_for_the_long_one(
    house: Path, engine: FileEngine, run_python: RunPython, pool: str, before: int
) -> None:
    """One task that lasts and 100 short ones on two places: all short ones end while the long one still runs."""
    short = send(engine, "early", *range(before))
    [long] = send(engine, "hold", 0)
    short += send(engine, "early", *range(before, 100))
    process = worker(run_python, pool)
    eventually(lambda: ended(engine, short) == 100, 30)
    eventually(lambda: "hold 0" in ledger(house))
    record = engine.read(long)
    assert record is not None and record.place == "CLAIMED"
    (house / "go").touch()
    eventually(lambda: ended(engine, [long]) == 1)
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="TERM")
@pytest.mark.parametrize(
    ("pool", "restarts"),
    [("threads", 3), *(pytest.param(pool, 10, marks=pytest.mark.slow) for pool in ("threads", "processes"))],
)
def test_restarts_under_load_lose_nothing_and_run_nothing_twice(
    house: Path, engine: FileEngine, run_python: RunPython, pool: str, restarts: int
) -> None:
    """Each worker is stopped by TERM in the middle of its work; what it had not begun spends no attempt."""
    ids: list[str] = []
    for n in range(restarts):
        ids += send(engine, "early", *range(n * 500, (n + 1) * 500))
        ids += send(engine, "late", *range(n * 50, (n + 1) * 50))
        ids += send(engine, "brief", *range(n * 10, (n + 1) * 10))
        before = len(ledger(house))
        process = worker(run_python, pool, "-l", "ERROR")
        # From the first task on, or deep in the work.
        eventually(lambda before=before, n=n: len(ledger(house)) > before + n * 20, 30)  # type: ignore[misc]
        process.terminate()
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0 and err == "worker: Warm shutdown (MainProcess)\n", err
        claimed = engine.database.read(lambda tx: tx.execute("SELECT count(*) FROM litetq_task WHERE state = 3").get)
        assert claimed == 0, "a warm stop leaves no claim behind"
    assert engine.store.has_unfinished(0.0), "the workers were stopped under load, not after it"
    last = worker(run_python, pool, "--drain", "-l", "ERROR")
    assert last.wait(60) == 0
    assert ended(engine, ids) == len(ids) == 560 * restarts
    assert set(Counter(ledger(house)).values()) == {1} and len(ledger(house)) == 560 * restarts
    attempts = engine.database.read(lambda tx: tx.execute("SELECT DISTINCT attempts FROM litetq_result").fetchall())
    assert attempts == [(1,)], "what had not begun spent no attempt"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_does_not_grow_however_many_tasks_and_children_it_has_seen(
    house: Path, engine: FileEngine, run_python: RunPython
) -> None:
    """A hundred thousand tasks, and a new child after each thousand; a million do not change the figures (by hand)."""
    process = worker(run_python, "processes", "--max-tasks-per-child", "1000")
    main = psutil.Process(process.pid)
    sizes, open_files = [], []
    for n in range(10):
        engine.send(Plan(tuple(Message(f"{n}-{i}", "kill_tasks.quick", b"[[],{}]") for i in range(10_000))))
        eventually(lambda n=n: finished(engine) == 10_000 * (n + 1), 120)  # type: ignore[misc]
        eventually(lambda: len(main.children()) == 2)
        sizes.append(main.memory_info().rss)
        open_files.append(main.num_fds() if sys.platform != "win32" else 0)
    process.terminate()
    assert process.wait(20) == 0
    assert sizes[-1] - sizes[1] < 5_000_000, f"after each 10,000 tasks: {sizes}"
    assert max(open_files[1:]) - min(open_files[1:]) <= 8, open_files
    states = engine.database.read(
        lambda tx: tx.execute("SELECT DISTINCT state, attempts FROM litetq_result").fetchall()
    )
    assert states == [("SUCCESS", 1)]


def finished(engine: FileEngine) -> int:
    return int(engine.database.read(lambda tx: tx.execute("SELECT count(*) FROM litetq_result").get))
