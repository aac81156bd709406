"""Tasks that fork: the copy of the process is no second worker, and what it holds hides nobody's end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from litetq import LiteTQ, states
from litetq.exceptions import TimeLimitExceeded, WorkerLostError
from tests.conftest import RunPython

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork"),
]

PROGRAM = """
import multiprocessing
import os
import signal
import sys
import time

from litetq import LiteTQ

app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task
def exits():
    pid = os.fork()
    if not pid:
        sys.exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@app.task
def returns():
    pid = os.fork()
    return [pid and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.getpid() == WHO]

@app.task
def raises():
    pid = os.fork()
    if not pid:
        raise KeyError("only in the copy")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@app.task
def terminates():
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join()
    return process.exitcode

@app.task
def leaves_a_copy_and_dies():
    if not os.fork():
        time.sleep(60)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)

@app.task
def leaves_a_copy_and_hangs():
    if not os.fork():
        time.sleep(60)
        os._exit(0)
    time.sleep(60)

WHO = os.getpid()  # in a child, its own: it imports this
"""


def work(run_python: RunPython, pool: str, log: Path) -> str:
    worker = run_python(
        "-m", "litetq", "-A", "tasks", "worker", "-P", pool, "-c", "1", "--drain", "-q", "-l", "INFO", "-f", log,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,  # pipes would be held open by what lives on
    )  # fmt: skip
    code = worker.wait(timeout=45)
    said = log.read_text(encoding="utf-8")
    assert code == 0, said
    return said


@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_what_a_task_forks_off_ends_where_a_script_would(db: Path, run_python: RunPython, pool: str) -> None:
    (db.parent / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    with LiteTQ("reader", broker=db) as app:
        sent = [app.send_task(f"tasks.{name}") for name in ("exits", "returns", "raises", "terminates")]
        log = work(run_python, pool, db.parent / "log")
        assert [result.get(timeout=0) for result in sent] == [7, [0, True], 1, -15]
    assert log.count("succeeded in") == len(sent)
    assert "raised unexpected" not in log  # the copy's exception is no end of the task


def test_a_child_s_end_is_seen_though_what_it_forked_off_lives_on(db: Path, run_python: RunPython) -> None:
    (db.parent / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    with LiteTQ("reader", broker=db) as app:
        dies = app.send_task("tasks.leaves_a_copy_and_dies")
        hangs = app.send_task("tasks.leaves_a_copy_and_hangs", time_limit=0.5)
        work(run_python, "processes", db.parent / "log")
        assert type(dies.get(timeout=0, propagate=False)) is WorkerLostError
        assert type(hangs.get(timeout=0, propagate=False)) is TimeLimitExceeded
        assert dies.state == hangs.state == states.FAILURE
