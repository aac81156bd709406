"""What asks a command to end: the signals by name, also those of Windows, which its branch meets here under another number."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from litetq import platforms
from litetq.cli import lifetime
from tests.conftest import RunPython
from tests.system.test_cli_worker import Output
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
WORKER = """
import signal, sys
signal.SIGBREAK = signal.SIGUSR2  # as if this system had a Ctrl-Break
from litetq.cli import main
sys.exit(main())
"""
TASKS = """
import time
from pathlib import Path
from litetq import LiteTQ
app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task
def hold():
    Path("began").touch()
    while not Path("go").exists():
        time.sleep(0.005)
"""


def test_ctrl_break_is_heard_where_there_is_one_and_posix_signals_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platforms, "PORTABLE", True)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR2, raising=False)
    before = {
        which: signal.getsignal(which) for which in (signal.SIGUSR2, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    }
    words: queue.SimpleQueue[str] = queue.SimpleQueue()
    with lifetime.handled(words):
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGINT)
        assert [lifetime.next_word(words, True), lifetime.next_word(words, True)] == ["SIGUSR2", "SIGINT"]
        for which in (signal.SIGHUP, signal.SIGQUIT):
            assert signal.getsignal(which) == before[which]
    assert {which: signal.getsignal(which) for which in before} == before


@pytest.mark.system
@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_the_first_ctrl_break_lets_what_runs_finish_and_the_second_does_not(
    tmp_path: Path, run_python: RunPython, pool: str
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    for times, code in ((1, 0), (2, 1)):
        run_python("import tasks; tasks.hold.delay()").wait(30)
        worker = Output(
            run_python(
                WORKER, *("-A", "tasks", "worker", "-c", "1", "-P", pool), env={"LITETQ_PORTABLE": "1"},
                stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        eventually((tmp_path / "began").exists, 20)
        worker.process.send_signal(signal.SIGUSR2)
        worker.wait_for("worker: Warm shutdown (MainProcess)")
        assert worker.process.poll() is None, "it waits for what runs"
        if times == 2:
            worker.process.send_signal(signal.SIGUSR2)
            worker.wait_for("worker: Cold shutdown (MainProcess)")
        else:
            (tmp_path / "go").touch()
        assert worker.end() == code
        for name in ("began", "go"):
            (tmp_path / name).unlink(missing_ok=True)
