"""What a pool's child has of the program, and what becomes of tasks that it cannot run."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from litetq import LiteTQ, execution, states
from tests.conftest import RunPython
from tests.waiting import eventually

pytestmark = pytest.mark.system

APP = """
from litetq import LiteTQ

app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task
def kind(value):
    return type(value).__name__
"""

MORE = """
import ast
from litetq import serialization
from tasks import app, kind

def read(data):
    return ast.literal_eval(data.decode())

serialization.register("literal", repr, read, "application/x-python-literal")
app.conf.update(task_serializer="literal", accept_content=["json", "literal"])
"""


def run(run_python: RunPython, what: str | Path, *arguments: str) -> str:
    process = run_python(what, *arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, output + errors
    return output + errors


def test_the_module_that_names_the_app_is_imported_there_too(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(APP, encoding="utf-8")
    (tmp_path / "more.py").write_text(MORE, encoding="utf-8")
    run(run_python, "import more; more.kind.apply_async(({1, 2},), task_id='t')")
    run(run_python, "-m", "litetq", "-A", "more", "worker", "-c", "1", "--drain", "--quiet")
    with LiteTQ("reader", broker=tmp_path / "jobs.sqlite") as app:
        assert app.AsyncResult("t").get(timeout=0) == "set"


def test_a_module_of_the_program_may_have_a_name_of_the_standard_library(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(APP, encoding="utf-8")
    run(run_python, "import tasks; tasks.kind.apply_async((1,), task_id='t')")
    for name in ("queue", "secrets", "types"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported instead')", encoding="utf-8")
    words = ["-A", "tasks", "worker", "-P", "processes", "-c", "1", "--drain", "--quiet"]
    # As the script `litetq` does: the working directory comes first on the path only when the app is looked for.
    run(run_python, f"import sys; del sys.path[0]; from litetq import cli; sys.exit(cli.main({words!r}))")
    with LiteTQ("reader", broker=tmp_path / "jobs.sqlite") as app:
        assert app.AsyncResult("t").get(timeout=0) == "int"


def test_what_the_worker_has_warned_of_is_not_said_again_by_each_child(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(
        APP + "import warnings\nwarnings.warn('own words')\napp.conf.update(unheard_of=1)\n", encoding="utf-8"
    )
    run(run_python, "import tasks; tasks.kind.delay(1)")
    said = run(run_python, "-m", "litetq", "-A", "tasks", "worker", "-P", "processes", "-c", "2", "--drain", "--quiet")
    assert said.count("Unknown setting unheard_of") == 1
    assert said.count("UserWarning: own words") == 3


def test_an_app_that_a_factory_has_made_is_found_where_it_is_a_global(tmp_path: Path, run_python: RunPython) -> None:
    """As in Flask's documentation: the function that makes the app stands in one module, what it has made in another."""
    (tmp_path / "factory.py").write_text(
        """
from litetq import LiteTQ

def create():
    return {"celery": LiteTQ("factory", broker="jobs.sqlite")}
""",
        encoding="utf-8",
    )
    (tmp_path / "make_celery.py").write_text(
        """
import os
from factory import create

celery_app = create()["celery"]

@celery_app.task(name="pid")
def pid():
    return os.getpid()

if __name__ == "__main__":
    with celery_app.run_embedded(pool="processes", concurrency=1):
        print("elsewhere:", pid.delay().get(timeout=30) != os.getpid())
""",
        encoding="utf-8",
    )
    run(run_python, "import make_celery; make_celery.pid.apply_async(task_id='t')")
    run(run_python, "-m", "litetq", "-A", "make_celery", "worker", "-P", "processes", "-c", "1", "--drain", "--quiet")
    with LiteTQ("reader", broker=tmp_path / "jobs.sqlite") as app:
        assert isinstance(app.AsyncResult("t").get(timeout=0), int)
    assert "elsewhere: True" in run(run_python, tmp_path / "make_celery.py")


def test_a_setting_that_a_child_cannot_follow_fails_the_task_and_not_the_child(
    tmp_path: Path, run_python: RunPython
) -> None:
    """Its processes would die of it one after the other, and the task would never end."""
    (tmp_path / "tasks.py").write_text(APP, encoding="utf-8")
    (tmp_path / "program.py").write_text(
        """
import tasks
from litetq import serialization

if __name__ == "__main__":
    serialization.register("own", repr, repr, "application/x-own")
    tasks.app.conf.accept_content = ["json", "own"]  # known in this process alone
    result = tasks.kind.delay(1)
    worker = tasks.app.run_embedded(pool="processes", concurrency=1)
    print(worker.drain(timeout=30), result.state, result.result)
    worker.stop(0, "cold")
""",
        encoding="utf-8",
    )
    output = run(run_python, tmp_path / "program.py")
    assert "True FAILURE No encoder/decoder installed for own" in output


@pytest.mark.parametrize("pool", ["solo", "threads", "asyncio"])
def test_a_tool_that_cannot_wrap_a_task_fails_it(db: Path, monkeypatch: pytest.MonkeyPatch, pool: str) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no tracing today")

    monkeypatch.setattr(execution, "build_tracer", broken)
    with LiteTQ("tests", broker=db) as app:

        @app.task
        def here() -> int:
            return os.getpid() + threading.get_ident()

        @app.task
        async def there() -> int:
            return 1

        results = [here.delay(), there.delay()]
        with app.run_embedded(pool=pool, concurrency=1) as worker:
            assert worker.drain(timeout=20)
        assert [result.state for result in results] == [states.FAILURE] * 2
        assert "no tracing today" in str(results[1].result)


def test_a_child_that_cannot_import_the_program_any_more_is_told_by_its_own_exit_code(
    db: Path, run_python: RunPython
) -> None:
    """Not by the signal of the worker that makes sure of its end, which would look like too little memory."""
    (db.parent / "tasks.py").write_text(
        APP
        + """
@app.task
def spoil():
    import os
    with open(__file__, "a") as file:
        file.write("raise ImportError('spoilt')")
    os._exit(3)
""",
        encoding="utf-8",
    )
    log = db.parent / "log"
    worker = run_python("-m", "litetq", "-A", "tasks", "worker", "-c", "1", "-q", "-f", log)
    with LiteTQ("sender", broker=db) as app:
        app.send_task("tasks.spoil")
        eventually(lambda: "ended before it was ready" in (log.read_text(encoding="utf-8") if log.exists() else ""), 30)
    assert "ended before it was ready (Worker exited prematurely: exitcode 1.)" in log.read_text(encoding="utf-8")
    worker.terminate()
    assert worker.wait(30) == 0
