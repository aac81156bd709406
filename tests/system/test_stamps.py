"""Running tasks are terminated by their stamps, with the child processes that run them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litetq import LiteTQ, chain, group
from tests.waiting import eventually

LONG = 30.0  # seconds
PROGRAM = """
import time
from pathlib import Path

from litetq import LiteTQ

app = LiteTQ("tasks", broker="jobs.sqlite")


@app.task
def stay(name):
    Path(f"{name}.began").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return name


@app.task
def after(*args):
    Path("after").touch()
"""
RunPython = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[LiteTQ]:
    (tmp_path / "tasks.py").write_text(PROGRAM)
    with LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", set_as_current=False) as app:
        yield app


@pytest.mark.row("9.control: revoke_by_stamped_headers")
def test_running_tasks_are_terminated_by_a_stamp_and_others_run_on(
    app: LiteTQ, tmp_path: Path, run_python: RunPython
) -> None:
    stay, after = (lambda name: app.signature("tasks.stay", (name,))), app.signature("tasks.after")
    doomed = chain(stay("doomed"), after)
    doomed.stamp(customer="a")
    spared = stay("spared")
    spared.stamp(customer="b")
    waiting = group(stay("waiting"), stay("too"))
    waiting.stamp(customer="a")
    run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "processes", "-c", "2", "-l", "ERROR")
    cut, left = doomed.apply_async(), spared.apply_async()
    eventually(lambda: (tmp_path / "doomed.began").exists() and (tmp_path / "spared.began").exists(), within=LONG)
    never = waiting.apply_async()
    app.control.revoke_by_stamped_headers({"customer": "a"}, terminate=True)
    cut.parent.get(timeout=LONG, propagate=False)
    assert [cut.parent.state, cut.state] == ["REVOKED", "REVOKED"]
    assert [result.state for result in never] == ["REVOKED", "REVOKED"]
    assert left.state == "PENDING"
    (tmp_path / "go").touch()
    assert left.get(timeout=LONG) == "spared"
    assert not (tmp_path / "after").exists() and not (tmp_path / "waiting.began").exists()
    # What has been terminated can be resumed; with that the revoke is over.
    assert cut.retry() == 2
    cut.get(timeout=LONG)
    assert cut.state == "SUCCESS" and (tmp_path / "after").exists()
