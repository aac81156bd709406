"""`litetq exec` and `--as-celery`: a program written for Celery runs on a file without a change of it."""

from __future__ import annotations

import os
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, RunPython

PROGRAM = """
import sys
from celery import Celery

app = Celery("proj", broker="redis://nowhere:6379/0", backend="redis://nowhere:6379/1")


@app.task
def add(x, y):
    return x + y


if __name__ == "__main__":
    result = add.delay(2, 3)
    print(result.id if "send" in sys.argv else app.AsyncResult(sys.argv[1]).get(timeout=10))
"""


@pytest.fixture
def project(tmp_path: Path) -> dict[str, str]:
    """A project for Redis, and the environment that puts it on a file."""
    (tmp_path / "proj.py").write_text(PROGRAM, encoding="utf-8")
    file = str(tmp_path / "jobs.sqlite")
    return {"CELERY_BROKER_URL": file, "CELERY_RESULT_BACKEND": file}


def ran(run_python: RunPython, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run `litetq` and return its exit code and what it printed."""
    process = run_python("-m", "litetq", *words, env=env)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.strip(), err


@pytest.mark.system
def test_a_program_for_redis_sends_and_a_worker_runs_on_the_file_of_the_environment(
    run_python: RunPython, project: dict[str, str]
) -> None:
    code, id, err = ran(run_python, "exec", "--", sys.executable, "proj.py", "send", env=project)
    assert code == 0, err
    code, _, err = ran(run_python, "--as-celery", "-A", "proj", "worker", "-c", "1", "--drain", env=project)
    assert code == 0, err
    code, value, err = ran(run_python, "exec", "--", sys.executable, "proj.py", id, env=project)
    assert (code, value) == (0, "5"), err


@pytest.mark.system
def test_b_puts_the_program_on_a_file_too(run_python: RunPython, project: dict[str, str], tmp_path: Path) -> None:
    code, _, err = ran(run_python, "exec", "-b", "other.sqlite", sys.executable, "proj.py", "send")
    assert code == 0, err
    assert (tmp_path / "other.sqlite").exists()


@pytest.mark.system
def test_the_worker_can_be_asked_for_by_celerys_own_name(run_python: RunPython, project: dict[str, str]) -> None:
    words = ("exec", "--", sys.executable, "-m", "celery", "-A", "proj", "worker", "-c", "1", "--drain")
    ran(run_python, "exec", "--", sys.executable, "proj.py", "send", env=project)
    code, out, err = ran(run_python, *words, env=project)
    assert code == 0, err
    assert "proj.add" in out + err


def test_the_exit_code_is_the_programs(run_python: RunPython) -> None:
    assert ran(run_python, "exec", "--", sys.executable, "-c", "raise SystemExit(7)")[0] == 7


def test_options_behind_the_program_are_the_programs(run_python: RunPython) -> None:
    code, out, err = ran(
        run_python, "exec", sys.executable, "-c", "import sys; print(sys.argv[1:])", "-A", "x", "--help"
    )
    assert (code, out) == (0, "['-A', 'x', '--help']"), err


def test_a_sitecustomize_of_the_user_is_run_all_the_same(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("import builtins; builtins.own = 'was here'", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "own"), str(ROOT)])
    show = "import sys, celery; print(own, celery.Celery.__name__, sys.modules['sitecustomize'].__file__)"
    code, out, err = ran(run_python, "exec", "--", sys.executable, "-c", show, env={"PYTHONPATH": path})
    assert code == 0, err
    assert out.startswith("was here LiteTQ") and out.endswith(os.path.join("own", "sitecustomize.py"))


def test_programs_below_the_program_have_the_alias(run_python: RunPython) -> None:
    inner = "import celery; print(celery.Celery.__name__)"
    outer = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {inner!r}]))"
    code, out, err = ran(run_python, "exec", "--", sys.executable, "-c", outer)
    assert (code, out) == (0, "LiteTQ"), err


def test_a_python_without_litetq_is_told_of(run_python: RunPython, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=os.name == "posix")
    bare = tmp_path / "bare" / ("Scripts" if os.name == "nt" else "bin") / Path(sys.executable).name
    start = (
        "import os, subprocess, sys\n"
        "first = os.environ['PYTHONPATH'].split(os.pathsep)[0]\n"
        f"sys.exit(subprocess.call([{os.fspath(bare)!r}, '-c', 'print(1)'], env={{**os.environ, 'PYTHONPATH': first}}))"
    )
    code, out, err = ran(run_python, "exec", "--", sys.executable, "-c", start)
    assert (code, out) == (0, "1")
    assert "has no litetq, so celery is not aliased in it" in err


def test_no_program_and_an_unknown_one_end_with_a_sentence(run_python: RunPython) -> None:
    code, _, err = ran(run_python, "exec")
    assert code == 2 and "Which program?" in err and "Traceback" not in err
    code, _, err = ran(run_python, "exec", "--", "no-such-program")
    assert (code, err.strip()) == (127, "Error: there is no program 'no-such-program' on the path.")
    code, _, err = ran(run_python, "exec", "--", "celery", "-A", "proj", "worker", env={"PATH": ""})
    assert code == 127 and err.strip().endswith("write:  litetq --as-celery -A proj worker")


def test_a_program_without_the_alias_fails_as_ever(run_python: RunPython, project: dict[str, str]) -> None:
    code, _, err = ran(run_python, "-A", "proj", "worker", "--drain", env=project)
    assert code == 2
    assert "No module named 'celery'; code written for Celery is run with  litetq --as-celery" in err
