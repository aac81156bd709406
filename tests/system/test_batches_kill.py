"""Calls that run together, when their worker is killed: those that wait for others, and those that run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ
from tests.conftest import RunPython
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.slow]
LONG = 60.0

TASKS = """
import time
from pathlib import Path

from litetq import LiteTQ, Task

app = LiteTQ("tasks", broker="jobs.sqlite")


class Together(Task):
    def Strategy(self, task, app, consumer):
        waiting = []

        def handler(message, body, ack, reject, callbacks):
            waiting.append(message)
            if len(waiting) == 3:
                consumer.pool.apply_async(insert, (waiting.copy(),))
                waiting.clear()

        return handler


def insert(messages):
    with open("runs", "a") as runs:
        print(sorted(message.payload[0][0] for message in messages), file=runs)
    while Path("hold").exists():
        time.sleep(0.01)
    for message in messages:
        app.backend.mark_as_done(message.headers["id"], message.payload[0][0])


@app.task(base=Together, acks_late=True)
def late(number): ...
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[LiteTQ]:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    app = LiteTQ("client", broker=tmp_path / "jobs.sqlite")
    yield app
    app.close()


@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_what_waits_for_others_goes_back_at_a_kill_and_what_is_acknowledged_late_runs_again(
    app: LiteTQ, run_python: RunPython, tmp_path: Path, pool: str
) -> None:
    def start() -> Any:
        return run_python("-m", "litetq", "-A", "tasks", "worker", "-P", pool, "-c", "2", "-n", f"w{len(started)}@here")

    def are_held_by_a_new_worker() -> bool:
        found = [app.engine.read(result.id) for result in results]
        return all(each is not None and each.worker == f"w{len(started) - 1}@here" for each in found)

    def noted() -> str:
        runs = tmp_path / "runs"
        return runs.read_text() if runs.exists() else ""

    started: list[Any] = []
    results = [app.send_task("tasks.late", (number,)) for number in (1, 2)]
    started.append(start())
    eventually(are_held_by_a_new_worker, within=LONG)
    started[-1].kill()
    started.append(start())
    eventually(are_held_by_a_new_worker, within=LONG)
    (tmp_path / "hold").touch()
    results.append(app.send_task("tasks.late", (3,)))
    eventually(lambda: noted() == "[1, 2, 3]\n", within=LONG)
    started[-1].kill()
    (tmp_path / "hold").unlink()
    started.append(start())
    assert [result.get(timeout=LONG) for result in results] == [1, 2, 3]
    assert noted() == "[1, 2, 3]\n" * 2
    started[-1].terminate()
    assert started[-1].wait(LONG) == 0
