"""A task is revoked after a worker has claimed it and before it has begun: the moment in which nobody can say how it ends.

Its first attempt may still run, then it counts as begun before the revoke. Whatever gives it back instead, it never runs.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from litetq.engine import FileEngine
from litetq.message import Message, Plan
from tests.conftest import RunPython
from tests.waiting import eventually

pytestmark = pytest.mark.system
POOLS = ("solo", "threads", "processes", "asyncio", "gevent", pytest.param("eventlet", marks=pytest.mark.slow))
TASKS = """
import os, signal
from pathlib import Path
from litetq import LiteTQ, probes

HERE = Path(__file__).parent
app = LiteTQ("late_tasks", broker=HERE / "jobs.sqlite")

@app.task(bind=True, acks_late=True)
def work(self, fails):
    with open(HERE / "ledger", "a") as ledger:
        ledger.write(f"{self.request.id}\\n")
    if fails and not self.request.retries:
        raise self.retry(countdown=0)
    return "done"

def hook(moment):
    if moment == "claimed" and not (HERE / "revoked").exists():
        (HERE / "revoked").touch()
        app.engine.revoke(["it"])
        if os.environ.get("THEN") == "die":
            os.kill(os.getpid(), signal.SIGKILL)

probes.hook = hook
"""


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name in ("gevent", "eventlet") and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FileEngine]:
    (tmp_path / "late_tasks.py").write_text(TASKS, encoding="utf-8")
    engine = FileEngine(tmp_path / "jobs.sqlite")
    yield engine
    engine.close()


def drain(run_python: RunPython, pool: str, **env: str) -> subprocess.Popen[str]:
    worker = run_python("-m", "litetq", "-A", "late_tasks", "worker", "-P", pool, "-c", "1", "--drain", env=env)
    worker.communicate(timeout=60)
    return worker


def runs(tmp_path: Path) -> list[str]:
    path = tmp_path / "ledger"
    return path.read_text().split() if path.exists() else []


def state(engine: FileEngine) -> str:
    record = engine.read("it")
    assert record is not None
    return record.state


@pytest.mark.row("8.revoke")
@pytest.mark.parametrize(("fails", "end"), [("false", "SUCCESS"), ("true", "REVOKED")])
def test_its_first_attempt_may_run_and_there_is_no_second_one(
    tmp_path: Path, engine: FileEngine, run_python: RunPython, pool: str, fails: str, end: str
) -> None:
    engine.send(Plan((Message("it", "late_tasks.work", f"[[{fails}],{{}}]".encode()),)))
    worker = drain(run_python, pool)
    assert worker.returncode == 0 and (tmp_path / "revoked").exists()
    assert (state(engine), runs(tmp_path)) == (end, ["it"])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_it_never_runs_when_its_worker_dies_at_that_moment(
    tmp_path: Path, engine: FileEngine, run_python: RunPython, pool: str
) -> None:
    engine.send(Plan((Message("it", "late_tasks.work", b"[[false],{}]"),)))
    assert drain(run_python, pool, THEN="die").returncode == -signal.SIGKILL
    assert state(engine) == "PENDING"
    assert drain(run_python, pool).returncode == 0
    eventually(lambda: state(engine) == "REVOKED")
    assert runs(tmp_path) == []
