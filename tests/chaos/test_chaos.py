"""Half a minute of murder: workers, children and producers are killed at random under load; then the books are checked.

`LITETQ_CHAOS_S` sets how long (seconds). The seed is printed; `LITETQ_CHAOS_SEED` plays the same choices again, though the
moments they fall on are the machine's.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from litetq.engine import FileEngine
from litetq.serialization import decode_exception
from tests.waiting import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).parents[1] / "system" / "kill_tasks.py"
PRODUCE = """
import itertools, sys, kill_tasks
for n in itertools.count():
    for kind in ("early", "late"):
        id = f"{kind}-{sys.argv[1]}.{n}"
        getattr(kill_tasks, kind).apply_async((f"{sys.argv[1]}.{n}",), task_id=id)
        print(id, flush=True)
"""


def settled(engine: FileEngine) -> bool:
    counts = engine.store.records.counts()
    return not any(counts[place] for place in ("QUEUED", "SCHEDULED", "BLOCKED", "CLAIMED"))


def test_nothing_is_lost_and_nothing_settled_twice_under_random_kills(tmp_path: Path, run_python: Any) -> None:
    seconds = float(os.environ.get("LITETQ_CHAOS_S", "30"))
    seed = int(os.environ.get("LITETQ_CHAOS_SEED", random.randrange(10**9)))
    print(f"LITETQ_CHAOS_SEED={seed}")
    dice = random.Random(seed)
    shutil.copy(PROGRAM, tmp_path / "kill_tasks.py")
    engine = FileEngine(tmp_path / "jobs.sqlite")
    returned = tmp_path / "returned"
    workers: list[subprocess.Popen[str]] = []
    producers: list[subprocess.Popen[str]] = []
    born = 0

    def start_worker() -> None:
        pool = dice.choice(["solo", "threads", "processes"])
        workers.append(
            run_python(
                "-m", "litetq", "-A", "kill_tasks", "worker", "-P", pool, "-c", "2", "-l", "ERROR", "-n", f"{len(workers)}@here",
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip

    def start_producer() -> None:
        nonlocal born
        born += 1
        with open(f"{returned}-{born}", "w", encoding="ascii") as file:
            producers.append(run_python(PRODUCE, str(born), stdout=file, stderr=subprocess.DEVNULL))

    until = time.monotonic() + seconds
    kills: Counter[str] = Counter()
    while time.monotonic() < until:
        alive = [process for process in workers if process.poll() is None]
        for _ in range(3 - len(alive)):
            start_worker()
        for _ in range(2 - sum(process.poll() is None for process in producers)):
            start_producer()
        wait_until = time.monotonic() + dice.uniform(0.05, 1.0)
        eventually(lambda at=wait_until: time.monotonic() > at)  # type: ignore[misc]
        victim = dice.choice(["worker", "child", "producer", "together", "term"])
        chosen = dice.choice(workers)
        kills[victim] += 1
        try:
            if victim == "producer":
                dice.choice(producers).kill()
            elif victim == "term":
                chosen.send_signal(signal.SIGTERM)
            elif victim == "worker":
                chosen.kill()
            else:
                family = psutil.Process(chosen.pid).children(recursive=True)
                for process in family if victim == "together" else dice.sample(family, min(1, len(family))):
                    process.kill()
                if victim == "together":
                    chosen.kill()
        except psutil.NoSuchProcess:
            pass  # it was faster
    for process in producers:
        process.kill()
        process.wait()
    for process in workers:
        if process.poll() is None:
            process.kill()
        process.wait()
    drain = run_python("-m", "litetq", "-A", "kill_tasks", "worker", "-P", "threads", "--drain", "-l", "ERROR")
    _, err = drain.communicate(timeout=200)
    assert drain.returncode == 0, err
    assert settled(engine)

    runs = Counter((tmp_path / "ledger").read_text().split("\n")[:-1])
    sent = [line for path in tmp_path.glob("returned-*") for line in path.read_text().split("\n")[:-1]]
    records = engine.read_many(sent)
    assert records.keys() == set(sent), "delay() returned, and the task is not on record"
    everything = engine.database.read(
        lambda tx: tx.execute("SELECT id, state, result, attempts FROM litetq_result").fetchall()
    )
    ends: Counter[str] = Counter()
    for id, state, result, _ in everything:
        kind, _, n = id.partition("-")
        times = runs[f"{kind} {n}"]
        ends[f"{kind} {state}"] += 1
        if state == "FAILURE":
            assert type(decode_exception(result, None)).__name__ == "WorkerLostError", (id, result)
        if kind == "early":
            assert times <= 1, f"{id} was acknowledged early and ran {times} times"
            assert state == "FAILURE" or times == 1, (id, state, times)
        else:
            assert times >= 1 or state == "FAILURE", (id, state, times)
    assert sum(runs.values()) > 0
    assert engine.database.read(lambda tx: tx.execute("PRAGMA integrity_check").get) == "ok"
    print(
        f"{len(everything)} tasks, {dict(ends)}, {sum(runs.values()) - len(runs)} runs more than tasks, kills {dict(kills)}"
    )
    engine.close()
