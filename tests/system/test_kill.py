"""Promises 1, 4 and 5 under `kill -9`: nothing lost, nothing settled twice, begun and not begun told apart to the letter."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from litetq.engine import FileEngine
from litetq.message import Message, Plan, Record
from litetq.serialization import decode_exception
from tests.conftest import missing
from tests.waiting import eventually

PROGRAM = Path(__file__).parent / "kill_tasks.py"
GREEN = [pytest.param("gevent", marks=pytest.mark.slow), pytest.param("eventlet", marks=pytest.mark.slow)]
COUNT = 40  # of each kind


@pytest.fixture
def house(tmp_path: Path) -> Path:
    shutil.copy(PROGRAM, tmp_path / "kill_tasks.py")
    return tmp_path


@pytest.fixture
def engine(house: Path) -> Iterator[FileEngine]:
    engine = FileEngine(house / "jobs.sqlite")
    yield engine
    engine.close()


def fill(engine: FileEngine, count: int = COUNT) -> list[str]:
    messages = [
        Message(f"{kind}-{n}", f"kill_tasks.{kind}", b"[[%d],{}]" % n)
        for n in range(count)
        for kind in ("early", "late")
    ]
    engine.send(Plan(tuple(messages)))
    return [message.id for message in messages]


def ledger(house: Path) -> Counter[str]:
    path = house / "ledger"
    return Counter(path.read_text().split("\n")[:-1] if path.exists() else [])


def worker(run_python: Any, *args: str, kill_at: str | None = None, pool: str = "processes") -> subprocess.Popen[str]:
    if pool in ("gevent", "eventlet") and importlib.util.find_spec(pool) is None:
        missing(f"{pool} is not installed")
    env = {"KILL_AT": kill_at} if kill_at else {}
    return run_python(
        "-m", "litetq", "-A", "kill_tasks", "worker", "-P", pool, "-c", "2", "-l", "WARNING", *args, env=env
    )


def drain(run_python: Any, pool: str = "processes") -> str:
    """Run what there is; return what the worker has logged."""
    process = worker(run_python, "--drain", pool=pool)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return str(err)


def judge(house: Path, engine: FileEngine, ids: list[str]) -> Counter[str]:
    """Every task has ended; what the ledger says fits how it ended (promise 5). Returns how many ended how."""
    runs = ledger(house)
    records = engine.read_many(ids)
    assert records.keys() == set(ids), "a task was lost"
    ends: Counter[str] = Counter()
    for id in ids:
        record = records[id]
        kind, _, n = id.partition("-")
        times = runs[f"{kind} {n}"]
        assert record.place == "DONE", f"{id} has not ended: {record}"
        ends[f"{kind} {record.state}"] += 1
        if kind == "early":
            assert times <= 1, f"{id} was acknowledged early and ran {times} times"
            assert record.state == "SUCCESS" or lost(record), record
            assert record.state == "FAILURE" or times == 1, f"{id} succeeded and ran {times} times"
        else:
            assert times >= 1 and record.state == "SUCCESS", (id, times, record)
    return ends


def lost(record: Record) -> bool:
    assert record.result is not None
    return record.state == "FAILURE" and type(decode_exception(record.result, None)).__name__ == "WorkerLostError"


@pytest.mark.parametrize("pool", ["solo", "threads", "processes", *GREEN])
@pytest.mark.parametrize("moment", ["claimed:1", "committing:3", "settled:2"])
def test_a_worker_killed_between_claim_and_settle_loses_nothing(
    house: Path, engine: FileEngine, run_python: Any, pool: str, moment: str
) -> None:
    ids = fill(engine)
    first = worker(run_python, "--drain", kill_at=moment, pool=pool)
    first.wait(30)
    assert first.returncode == -signal.SIGKILL
    drain(run_python, pool)
    ends = judge(house, engine, ids)
    if moment == "claimed:1" and pool == "solo":
        # Killed before any of the second claim began: its attempts are unspent and all of it ran.
        assert ends["early FAILURE"] == 0


@pytest.mark.row("2.acks_late")
@pytest.mark.row("8.acks early")
@pytest.mark.row("8.acks_late")
@pytest.mark.parametrize("pool", ["solo", "threads", *GREEN])
@pytest.mark.parametrize("moment", ["begun:5", "ended:5"])
def test_a_worker_killed_in_a_task_fails_it_or_runs_it_again(
    house: Path, engine: FileEngine, run_python: Any, pool: str, moment: str
) -> None:
    ids = fill(engine)
    first = worker(run_python, kill_at=moment, pool=pool)
    first.wait(30)
    assert first.returncode == -signal.SIGKILL
    assert "is gone: " in drain(run_python, pool), "a worker says at its start whose work it has settled"
    judge(house, engine, ids)


@pytest.mark.parametrize("moment", ["child.begun:5", "child.ended:5"])
def test_a_killed_child_is_replaced_and_only_what_it_had_begun_is_lost(
    house: Path, engine: FileEngine, run_python: Any, moment: str
) -> None:
    ids = fill(engine)
    process = worker(run_python, "--drain", kill_at=moment)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    runs, records = ledger(house), engine.read_many(ids)
    failed = [id for id in ids if records[id].state != "SUCCESS"]
    # One child died in one task. Celery's rule: also with acks_late a task whose child is lost has failed.
    assert failed and all(lost(records[id]) for id in failed)
    for id in ids:
        kind, _, n = id.partition("-")
        assert runs[f"{kind} {n}"] <= 1 and (id in failed or runs[f"{kind} {n}"] == 1), id
    assert "SIGKILL" in str(decode_exception(records[failed[0]].result or b"", None))


def test_worker_and_children_killed_together(house: Path, engine: FileEngine, run_python: Any) -> None:
    engine.send(
        Plan(
            (
                Message("hold-1", "kill_tasks.hold", b"[[1],{}]"),
                Message("hold_late-1", "kill_tasks.hold_late", b"[[1],{}]"),
            )
        )
    )
    ids = fill(engine)
    first = worker(run_python)
    eventually(lambda: ledger(house)["hold 1"] and ledger(house)["hold_late 1"], 30)
    family = psutil.Process(first.pid).children(recursive=True)
    for process in [*family, psutil.Process(first.pid)]:
        process.kill()
    first.wait(10)
    (house / "go").touch()
    drain(run_python)
    judge(house, engine, ids)
    held, held_late = engine.read("hold-1"), engine.read("hold_late-1")
    assert held is not None and lost(held)
    assert held_late is not None and held_late.state == "SUCCESS" and ledger(house)["hold_late 1"] == 2


def test_children_die_with_their_worker(house: Path, engine: FileEngine, run_python: Any) -> None:
    engine.send(Plan((Message("hold-1", "kill_tasks.hold", b"[[1],{}]"),)))
    first = worker(run_python)
    eventually(lambda: ledger(house)["hold 1"], 30)
    family = psutil.Process(first.pid).children(recursive=True)
    assert len(family) == 2
    first.kill()
    eventually(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family), 5)


def test_a_dead_workers_work_comes_back_at_once(house: Path, engine: FileEngine, run_python: Any) -> None:
    engine.send(Plan((Message("hold_late-1", "kill_tasks.hold_late", b"[[1],{}]"),)))
    first = worker(run_python, "-n", "first@here")
    eventually(lambda: ledger(house)["hold_late 1"], 30)
    second = worker(run_python, "-n", "second@here")
    eventually(lambda: len(engine.store.roster.workers()) == 2, 30)
    first.kill()
    first.wait(10)
    # The second one runs it again: at least once, as acks_late says.
    eventually(lambda: ledger(house)["hold_late 1"] == 2, 5)
    (house / "go").touch()
    eventually(lambda: (record := engine.read("hold_late-1")) and record.state == "SUCCESS", 10)
    second.terminate()
    assert second.wait(20) == 0


def test_work_claimed_by_a_dead_worker_and_not_begun_spends_no_attempt(
    house: Path, engine: FileEngine, run_python: Any
) -> None:
    ids = fill(engine, 4)
    first = worker(run_python, kill_at="claimed", pool="threads")
    first.wait(30)
    assert engine.store.records.counts()["CLAIMED"] > 0
    drain(run_python, "solo")
    ends = judge(house, engine, ids)
    assert ends == {"early SUCCESS": 4, "late SUCCESS": 4}
    attempts = engine.database.read(lambda tx: tx.execute("SELECT DISTINCT attempts FROM litetq_result").fetchall())
    assert attempts == [(1,)]


@pytest.mark.parametrize("moment", ["committing", "sent"])
def test_a_producer_killed_while_it_sends_has_sent_whole_tasks_or_none(
    house: Path, engine: FileEngine, run_python: Any, moment: str
) -> None:
    code = "import kill_tasks as k\nfor n in range(100): k.early.apply_async((n,), task_id=f'early-{n}'); print(n, flush=True)"
    process = run_python(code, env={"KILL_AT": f"{moment}:50"})
    out, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    returned = [f"early-{n}" for n in out.split()]
    known = engine.read_many([f"early-{n}" for n in range(100)])
    assert set(returned) <= known.keys(), "delay() returned and the task is not in the file"
    assert len(known) - len(returned) <= 1
    drain(run_python, "solo")
    judge(house, engine, list(known))


def test_a_late_worker_loses(house: Path, engine: FileEngine, run_python: Any) -> None:
    """A worker whose claims were taken from it cannot settle them: what the file says stands."""
    engine.send(Plan((Message("hold-1", "kill_tasks.hold", b"[[1],{}]"),)))
    process = worker(run_python, pool="threads")
    eventually(lambda: ledger(house)["hold 1"], 30)
    engine.store.roster.rescue(engine.store.roster.workers()[0].id, None, 0.0)
    record = engine.read("hold-1")
    assert record is not None and lost(record)
    (house / "go").touch()
    engine.send(Plan((Message("early-1", "kill_tasks.early", b"[[1],{}]"),)))
    eventually(lambda: (record := engine.read("early-1")) and record.state == "SUCCESS", 15)
    record = engine.read("hold-1")
    assert record is not None and lost(record)
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "came too late" in err


@pytest.mark.row("8.a child has a connection of its own")
def test_a_program_that_forks_after_using_the_queue_loses_nothing(
    house: Path, engine: FileEngine, run_python: Any
) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this platform")
    code = """
import os, kill_tasks as k
with k.app.run_embedded(concurrency=2) as worker:
    k.early.apply_async((0,), task_id="early-0").get(timeout=10)
    pids = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            for n in range(10):
                k.early.apply_async((n,), task_id=f"early-{child + 1}{n}")
            os._exit(0)
        pids.append(pid)
        for n in range(10):
            k.early.apply_async((n,), task_id=f"early-{child + 1}9{n}")
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    assert worker.drain(20)
"""
    process = run_python(code)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    counts = engine.store.records.counts()
    assert counts["DONE"] == 1 + 4 * 10 + 4 * 10 and counts["QUEUED"] == 0
    assert sum(ledger(house).values()) == 81
