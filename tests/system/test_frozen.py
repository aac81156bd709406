"""A program that is one binary: its pool's children are the same binary started once more, as with PyInstaller.

The stand-in is a script that says of itself what PyInstaller's loader says: `sys.frozen`, and itself as `sys.executable`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

BINARY = """#!{python}
import os, sys
sys.frozen = True
sys.executable = os.path.abspath(__file__)
sys.path.insert(0, {root!r})

import litetq

app = litetq.LiteTQ("binary", broker="jobs.sqlite")

@app.task
def where(n):
    return n, os.getpid()

if __name__ == "__main__":
    litetq.freeze_support()
    print("started", flush=True)
    with app.run_embedded(concurrency=2, pool="processes"):
        value, pid = where.delay(3).get(timeout=30)
    print(value, pid != os.getpid())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no binary there")
def test_children_of_a_frozen_program_are_the_program_itself(tmp_path: Path, run_python: Any) -> None:
    binary = tmp_path / "binary"
    root = str(Path(__file__).resolve().parents[2])
    binary.write_text(BINARY.format(python=sys.executable, root=root), encoding="utf-8")
    binary.chmod(0o755)
    process = run_python(f"import os; os.execv({os.fspath(binary)!r}, [{os.fspath(binary)!r}])")
    out, err = process.communicate(timeout=60)
    assert (out.split("\n"), process.returncode) == (["started", "3 True", ""], 0), err
