"""A type checker sees a task's signature through `delay`, and its value through `get`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).with_name("typing_examples.py")


@pytest.mark.slow
def test_the_typing_examples_hold_for_a_strict_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    root = EXAMPLES.parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, EXAMPLES],
        cwd=root, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    about_the_examples = [line for line in done.stdout.splitlines() if EXAMPLES.name in line]
    assert about_the_examples == [], done.stdout + done.stderr
    assert done.returncode in (0, 1), done.stderr
