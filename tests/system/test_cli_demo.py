"""`litetq demo`: the main job on real input, also when it is interrupted or killed."""

from __future__ import annotations

import ast
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, RunPython
from tests.waiting import eventually

pytestmark = pytest.mark.system
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="kills and interrupts as POSIX does")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory of Python files: one of them broken, one of them large, some below a folder."""
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    for number in range(30):
        (root / "sub" / f"m{number:02}.py").write_text(f"def f{number}():\n    return {number}\n", encoding="utf-8")
    (root / "large.py").write_text("class A:\n    def f(self): ...\n" * 50, encoding="utf-8")
    (root / "broken.py").write_text("def (\n", encoding="utf-8")
    (root / "empty.py").write_text("", encoding="utf-8")
    (root / "notes.txt").write_text("no Python\n", encoding="utf-8")
    return root


def test_every_file_is_measured_and_the_report_tells(run_python: RunPython, tmp_path: Path, tree: Path) -> None:
    unlisted = {"PATH": os.defpath}  # as under `dev.py demo`: the command is not found by its name
    demo = run_python("-m", "litetq", "demo", tree, env=unlisted)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode == 0, out + err
    files = sorted(tree.rglob("*.py"))
    lines = sum(len(path.read_bytes().splitlines()) for path in files)
    assert f"{len(files)} tasks, one per file" in out
    assert f"{len(files)} files, {lines} lines, {30 + 50} functions, 50 classes" in out
    assert "1 could not be parsed" in out
    assert "large.py" in out and str(tmp_path / "litetq-demo.sqlite") in out
    whole = hashlib.sha256()
    for path in sorted(str(path.relative_to(tree)) for path in files):
        whole.update(hashlib.sha256((tree / path).read_bytes()).hexdigest().encode())
    assert f"hash of all: {whole.hexdigest()[:16]}" in out
    assert sorted(os.listdir(tmp_path)) == ["litetq-demo.sqlite", "tree"]
    hint = next(line for line in out.splitlines() if line.endswith(" tasks litetq-demo.sqlite"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **unlisted}
    listed = subprocess.run(hint, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "demo-summary" in listed.stdout, listed


def test_a_finished_demo_is_replaced_and_a_foreign_file_is_not(
    run_python: RunPython, tmp_path: Path, tree: Path
) -> None:
    for _ in range(2):
        demo = run_python("-m", "litetq", "-q", "demo", tree)
        out, err = demo.communicate(timeout=60)
        assert demo.returncode == 0, out + err
    path = tmp_path / "litetq-demo.sqlite"
    path.unlink()
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE mine AS SELECT 'kept' AS x")
    foreign.commit()
    foreign.close()
    demo = run_python("-m", "litetq", "demo", tree)
    _, err = demo.communicate(timeout=60)
    assert demo.returncode == 2 and "is no file of the demo" in err and "Traceback" not in err
    foreign = sqlite3.connect(path)
    assert foreign.execute("SELECT x FROM mine").fetchall() == [("kept",)]
    foreign.close()


def test_an_empty_directory_is_refused(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    demo = run_python("-m", "litetq", "demo", "nothing")
    _, err = demo.communicate(timeout=30)
    assert demo.returncode == 2 and "no Python file" in err
    assert os.listdir(tmp_path) == ["nothing"]


@posix_only
@pytest.mark.parametrize(
    "how", ["interrupted", *(pytest.param(how, marks=pytest.mark.slow) for how in ("killed", "all killed"))]
)
def test_what_was_cut_off_is_finished_by_resume(run_python: RunPython, tmp_path: Path, how: str) -> None:
    stdlib = Path(ast.__file__).parent
    demo = run_python("-m", "litetq", "demo", stdlib, start_new_session=True)
    path = tmp_path / "litetq-demo.sqlite"
    eventually(lambda: path.exists() and finished(path) > 20, within=60)
    workers = psutil.Process(demo.pid).children(recursive=True)
    if how == "interrupted":
        os.killpg(demo.pid, signal.SIGINT)
    elif how == "killed":
        demo.kill()
    else:
        os.killpg(demo.pid, signal.SIGKILL)
    out, err = demo.communicate(timeout=60)
    eventually(lambda: not any(alive(worker) for worker in workers), within=30)
    if how == "interrupted":
        assert demo.returncode == 130 and "litetq demo --resume" in out and "Traceback" not in err, out + err
    before = finished(path)
    assert before < count(path)
    again = run_python("-m", "litetq", "demo", stdlib)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 2 and "litetq demo --resume" in err
    resumed = run_python("-m", "litetq", "demo", "--resume")
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, out + err
    assert sorted(os.listdir(tmp_path)) == ["litetq-demo.sqlite"]
    assert finished(path) == count(path)
    begun_twice = query(path, "SELECT count(*) FROM litetq_result WHERE attempts > 1")
    assert begun_twice <= 2, "more files than the two under way were begun again"


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def count(path: Path) -> int:
    return query(path, "SELECT (SELECT count(*) FROM litetq_result) + (SELECT count(*) FROM litetq_task)")


def finished(path: Path) -> int:
    return query(path, "SELECT count(*) FROM litetq_result")


def query(path: Path, sql: str) -> int:
    """Look into the file from a process of its own kind: the test holds no other connection to it."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return int(connection.execute(sql).fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not made yet
    finally:
        connection.close()
