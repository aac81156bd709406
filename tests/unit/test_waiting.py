"""The tools of the tests themselves: waiting for a fact, and the death of what a test started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunPython, runs
from tests.waiting import eventually

DETACHED = """
import subprocess, sys
sleeper = [sys.executable, "-c", "import time; time.sleep(599)"]
print(subprocess.Popen(sleeper, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)
"""

TEST_WITH_DETACHED = """
def test_that_starts_something_that_detaches_itself(run_python):
    out, _ = run_python({code!r}).communicate(timeout=30)
    open("pid", "w").write(out)
"""

TEST_THAT_LEAKS = """
import subprocess, sys

def test_that_forgets_a_process():
    out = subprocess.check_output([sys.executable, "-c", {code!r}], text=True)
    open("pid", "w").write(out)
"""


def test_eventually_returns_the_first_true_value() -> None:
    values = iter([0, "", "there"])
    assert eventually(lambda: next(values)) == "there"


def test_eventually_fails_with_the_last_value_seen() -> None:
    with pytest.raises(AssertionError, match=r"was still \[\] after 0.02 s"):
        eventually(list, within=0.02)


def run_a_test(run_python: RunPython, folder: Path, source: str) -> tuple[int, str, int]:
    """Run one test in a pytest of its own; return its exit code, its report, and the pid that it wrote down."""
    (folder / "test_it.py").write_text(source.format(code=DETACHED))
    process = run_python("-m", "pytest", "-q", "-p", "tests.conftest", "--rootdir", folder, "test_it.py")
    report, errors = process.communicate(timeout=60)
    return process.returncode, report + errors, int((folder / "pid").read_text())


def test_a_program_that_detached_itself_is_dead_after_the_test(run_python: RunPython, tmp_path: Path) -> None:
    code, report, pid = run_a_test(run_python, tmp_path, TEST_WITH_DETACHED)
    assert code == 0, report
    assert not runs(pid)


def test_a_process_left_behind_fails_the_run_and_is_killed(run_python: RunPython, tmp_path: Path) -> None:
    code, report, pid = run_a_test(run_python, tmp_path, TEST_THAT_LEAKS)
    assert code == 1, report
    assert f"the tests left processes behind: pid {pid}" in report
    assert "time.sleep(599)" in report
    assert not runs(pid)
