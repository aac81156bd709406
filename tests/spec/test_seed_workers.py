"""Rows of the feature list on workers (L) and on what tasks see (T) that no other test shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from litetq import LiteTQ
from tests.conftest import RunPython
from tests.waiting import eventually

TASKS = """
import os, time
from pathlib import Path
from litetq import LiteTQ
app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task
def hold(n):
    Path(f"came-{n}").write_text(str(os.getpid()))
    while not Path("go").exists():
        time.sleep(0.005)
    return os.getpid()
"""


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tasks", broker=db, set_as_current=False) as app:
        yield app


@pytest.mark.system
def test_L2_L8_L9_L10_L31_tasks_run_in_so_many_children_and_never_in_the_worker_itself(
    tmp_path: Path, run_python: RunPython
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    app = LiteTQ("asks", broker=tmp_path / "jobs.sqlite", set_as_current=False)
    results = [app.send_task("tasks.hold", (n,)) for n in range(6)]
    worker = run_python("-m", "litetq", "--app", "tasks", "worker", "-c", "4", "-P", "prefork")
    came = lambda: sorted(path.read_text() for path in tmp_path.glob("came-*"))  # noqa: E731
    eventually(lambda: len(came()) == 4 and all(came()), 30)
    children = {str(child.pid) for child in psutil.Process(worker.pid).children(recursive=True)}
    assert set(came()) <= children and len(set(came())) == 4, "four at once, each in a child of its own"
    (tmp_path / "go").touch()
    pids = {result.get(timeout=30) for result in results}
    assert len(pids) == 4 and worker.pid not in pids
    app.close()


def test_T13_a_task_may_print_its_request(app: LiteTQ, capsys: pytest.CaptureFixture[str]) -> None:
    debug = app.task(name="debug_task", bind=True, ignore_result=True)(
        lambda self, x: print(f"Request: {self.request!r}")
    )
    with app.run_embedded(concurrency=1) as worker:
        id = debug.delay("a word").id
        assert worker.drain(10)
    said = capsys.readouterr().out
    assert re.match(r"Request: <Context: \{.*\}>$", said) and repr(id) in said and "'a word'" in said
