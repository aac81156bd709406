"""Run files: who lives and what began, also after kill -9, a fork, and the loss of the folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from litetq import platforms, presence
from litetq.presence import RING, Executor, begun, children_of, is_alive, sweep
from tests.waiting import eventually

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

EXECUTOR = """
import sys
from pathlib import Path
from litetq.presence import Executor
executor = Executor(Path(sys.argv[1]), sys.argv[2])
for claim in sys.argv[3:]:
    executor.begin(int(claim))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite-run"


@pytest.fixture
def elsewhere(run_python: Any, folder: Path) -> Any:
    """Start another process that is an executor and has begun these claims."""

    def start(name: str, *claims: int) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = run_python(EXECUTOR, folder, name, *map(str, claims), stdin=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    return start


def look_from_outside(run_python: Any, path: Path) -> str:
    """Return what another process says of a run file: "<is_alive> <begun>"."""
    code = "import sys; from pathlib import Path; from litetq.presence import begun, is_alive\n"
    code += "path = Path(sys.argv[1]); claims = begun(path); print(is_alive(path), claims and sorted(claims))"
    out, err = run_python(code, path).communicate(timeout=30)
    assert not err
    return str(out).strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(10)


def test_an_executor_in_another_process_lives_and_shows_what_it_began(elsewhere: Any, folder: Path) -> None:
    elsewhere("abc", 7, 9_000_000_000_000)
    assert is_alive(folder / "abc.run") is True
    assert begun(folder / "abc.run") == {7, 9_000_000_000_000}


def test_what_an_executor_began_survives_kill_9(elsewhere: Any, folder: Path) -> None:
    process = elsewhere("abc", 1, 2, 3)
    kill(process)
    assert is_alive(folder / "abc.run") is False
    assert begun(folder / "abc.run") == {1, 2, 3}


def test_looking_at_an_executor_takes_nothing_from_it(elsewhere: Any, folder: Path, run_python: Any) -> None:
    elsewhere("abc", 5)
    for _ in range(50):
        assert is_alive(folder / "abc.run") is True and begun(folder / "abc.run") == {5}
    assert look_from_outside(run_python, folder / "abc.run") == "True [5]"


def test_looking_at_its_own_files_costs_a_process_no_lock(folder: Path, run_python: Any) -> None:
    with_worker, other = Executor(folder, "abc"), Executor(folder, "def")
    with_worker.begin(5)
    other.begin(6)
    (folder.parent / "link").symlink_to(folder)
    for path in (folder / "abc.run", folder / ".." / folder.name / "abc.run", folder.parent / "link" / "abc.run"):
        assert is_alive(path) is True and begun(path) == {5}
    assert sweep(folder, set()) == []
    assert look_from_outside(run_python, folder / "abc.run") == "True [5]"
    other.close()
    assert look_from_outside(run_python, folder / "abc.run") == "True [5]"
    with_worker.close()


def test_a_closed_executor_leaves_no_file(folder: Path) -> None:
    executor = Executor(folder, "abc")
    executor.close()
    executor.close()
    assert is_alive(executor.path) is None and begun(executor.path) is None
    assert list(folder.iterdir()) == []


def test_a_closed_executor_may_leave_its_file_with_a_free_lock(folder: Path) -> None:
    executor = Executor(folder, "abc")
    executor.begin(3)
    executor.close(remove=False)
    assert is_alive(executor.path) is False and begun(executor.path) == {3}
    with pytest.raises(RuntimeError, match="abc is closed"):
        executor.begin(4)


def test_a_name_is_taken_once(folder: Path) -> None:
    executor = Executor(folder, "abc")
    with pytest.raises(FileExistsError):
        Executor(folder, "abc")
    executor.begin(1)
    assert begun(executor.path) == {1}
    executor.close()


def test_folder_and_file_are_private(folder: Path) -> None:
    executor = Executor(folder, "abc")
    if sys.platform != "win32":
        assert folder.stat().st_mode & 0o777 == 0o700 and executor.path.stat().st_mode & 0o777 == 0o600
    executor.close()


def test_a_claim_that_runs_while_a_whole_ring_of_others_begins_still_counts_as_begun(folder: Path) -> None:
    executor = Executor(folder, "abc")
    executor.begin(7)
    for claim in range(10, 10 + RING - 1):
        executor.begin(claim)
    assert 7 in begun(executor.path) and 8 not in begun(executor.path)  # type: ignore[operator]
    executor.begin(10 + RING)  # takes the place of 7
    assert 7 in begun(executor.path) and 10 + RING + 1 not in begun(executor.path)  # type: ignore[operator]
    executor.close()


def test_the_last_claims_of_a_full_ring_are_kept_from_all_threads(folder: Path) -> None:
    executor = Executor(folder, "abc")
    for old in range(1, 101):
        executor.begin(1_000_000 + old)
    per_thread = RING // 8

    def run(first: int) -> None:
        for claim in range(first, first + per_thread):
            executor.begin(claim)

    threads = [threading.Thread(target=run, args=(1 + number * per_thread,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begun(executor.path) == set(range(1, RING + 1))
    executor.close()


def test_a_claim_that_is_no_64_bit_number_is_refused(folder: Path) -> None:
    executor = Executor(folder, "abc")
    with pytest.raises(ValueError, match="claim 9223372036854775808 is not a 64-bit number"):
        executor.begin(2**63)
    executor.close()


def test_beginning_costs_well_below_a_microsecond(folder: Path) -> None:
    executor = Executor(folder, "abc")
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for claim in range(1000):
            executor.begin(claim)
        best = min(best, (time.perf_counter() - start) / 1000)
    executor.close()
    print(f"begin: {best * 1e9:.0f} ns")
    assert best < 1e-6


def test_what_cannot_be_read_cannot_be_known(elsewhere: Any, folder: Path) -> None:
    kill(elsewhere("abc", 1))
    whole = (folder / "abc.run").read_bytes()
    (folder / "half.run").write_bytes(whole[:200])
    (folder / "empty.run").write_bytes(b"")
    (folder / "other.run").write_bytes(b"x" * len(whole))
    (folder / "folder.run").mkdir()
    for name in ("half", "empty", "other", "folder", "missing"):
        assert begun(folder / f"{name}.run") is None
    for name in ("empty", "other", "folder", "missing"):
        assert is_alive(folder / f"{name}.run") is None
    assert begun(folder / "abc.run") == {1}


def test_after_a_reboot_nothing_is_known_to_have_begun_or_not(
    elsewhere: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(elsewhere("abc", 1))
    monkeypatch.setattr(platforms, "boot_id", lambda: "the next one")
    assert begun(folder / "abc.run") is None
    assert is_alive(folder / "abc.run") is False
    monkeypatch.setattr(platforms, "boot_id", lambda: "")
    assert begun(folder / "abc.run") is None


def test_children_of_a_worker_are_found_by_its_name(folder: Path) -> None:
    executors = [Executor(folder, name) for name in ("abc", "abc.2-f", "abc.1-e", "abcd.1-x", "a*c.1-z")]
    assert children_of(folder, "abc") == [folder / "abc.1-e.run", folder / "abc.2-f.run"]
    assert children_of(folder, "a*c") == [folder / "a*c.1-z.run"]
    assert children_of(folder / "missing", "abc") == []
    for executor in executors:
        executor.close()


def test_a_sweep_removes_the_dead_whom_nobody_needs(elsewhere: Any, folder: Path) -> None:
    elsewhere("living")
    kill(elsewhere("dead"))
    kill(elsewhere("known"))
    (folder / "unborn.run").write_bytes(b"")
    (folder / "old.run").write_bytes(b"")
    os.utime(folder / "old.run", (time.time() - 600, time.time() - 600))
    assert sweep(folder, {"known"}) == [folder / "dead.run", folder / "old.run"]
    assert sorted(path.name for path in folder.iterdir()) == ["known.run", "living.run", "unborn.run"]
    assert sweep(folder / "missing", set()) == []


def test_a_file_is_never_taken_for_dead_while_it_is_being_made(run_python: Any, folder: Path) -> None:
    """The header comes after the lock: a look that finds the lock free finds no header either."""
    maker = """
import sys
from pathlib import Path
from litetq.presence import Executor
print("ready", flush=True)
for number in range(300):
    Executor(Path(sys.argv[1]), f"e{number}")
print("done", flush=True)
sys.stdin.read()
"""
    process = run_python(maker, folder, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    swept: list[Path] = []
    eventually(lambda: swept.extend(sweep(folder, set())) or (folder / "e299.run").exists(), within=60)
    assert process.stdout.readline() == "done\n"
    assert swept == [] and len(list(folder.iterdir())) == 300
    assert all(is_alive(path) for path in folder.iterdir())


def test_an_executor_outlives_its_folder_and_heals_it(folder: Path, run_python: Any) -> None:
    executor = Executor(folder, "abc")
    executor.begin(1)
    shutil.rmtree(folder)
    executor.begin(2)
    assert is_alive(executor.path) is True and begun(executor.path) == {1, 2}
    assert look_from_outside(run_python, executor.path) == "None None"
    executor.heal()
    executor.begin(3)
    assert is_alive(executor.path) is True and begun(executor.path) is None
    assert look_from_outside(run_python, executor.path) == "True None"  # lives; what began before the loss is unknown
    inode = executor.path.stat().st_ino
    executor.heal()
    assert executor.path.stat().st_ino == inode
    executor.close()
    assert list(folder.iterdir()) == []


def test_without_a_folder_an_executor_works_unseen_and_heals_when_it_can(
    tmp_path: Path, run_python: Any, caplog: pytest.LogCaptureFixture
) -> None:
    missing = tmp_path / "missing"
    executor = Executor(missing / "jobs.sqlite-run", "abc")
    assert "cannot be written" in caplog.text
    executor.begin(1)
    assert is_alive(executor.path) is True and begun(executor.path) == {1}
    executor.heal()
    assert look_from_outside(run_python, executor.path) == "None None"
    missing.mkdir()
    executor.heal()
    executor.begin(2)
    assert look_from_outside(run_python, executor.path) == "True None"
    executor.close()
    Executor(missing / "no" / "folder", "def").close()


@needs_fork
def test_a_forked_child_is_no_executor_and_its_parent_stays_one(folder: Path, run_python: Any) -> None:
    code = """
import os, sys
from pathlib import Path
from litetq.presence import Executor, begun, is_alive
executor = Executor(Path(sys.argv[1]), "abc")
executor.begin(1)
child = os.fork()
if not child:
    try:
        executor.begin(2)
    except RuntimeError as error:
        print(error, flush=True)
    executor.heal()
    executor.close()
    print(is_alive(executor.path), sorted(begun(executor.path)), flush=True)
    own = Executor(Path(sys.argv[1]), "child")
    own.begin(3)
    print(is_alive(own.path), flush=True)
    own.close()
    os._exit(0)
os.waitpid(child, 0)
executor.begin(4)
print("ready", flush=True)
sys.stdin.read()
"""
    process = run_python(code, folder, stdin=subprocess.PIPE)
    assert [process.stdout.readline() for _ in range(4)] == [
        "executor abc is closed, or of the process that this one came from\n",
        "True [1]\n",
        "True\n",
        "ready\n",
    ]
    assert is_alive(folder / "abc.run") is True and begun(folder / "abc.run") == {1, 4}
    kill(process)
    assert is_alive(folder / "abc.run") is False


def test_a_process_that_looks_while_it_dies_leaves_no_lock(elsewhere: Any, folder: Path, run_python: Any) -> None:
    kill(elsewhere("abc", 1))
    watcher = run_python(
        "import sys; from pathlib import Path; from litetq.presence import is_alive\n"
        "print('ready', flush=True)\nwhile True: is_alive(Path(sys.argv[1]))",
        folder / "abc.run",
    )
    assert watcher.stdout.readline() == "ready\n"
    kill(watcher)
    assert is_alive(folder / "abc.run") is False


def test_a_look_never_falls_into_the_making_of_an_own_file(folder: Path, run_python: Any) -> None:
    """To open a file of this process's own and close it again would drop its lock for good."""
    executors: list[Executor] = []
    is_made = threading.Event()

    def make() -> None:
        executors.extend(Executor(folder, f"e{number}") for number in range(100))
        is_made.set()

    def look() -> None:
        number = 0
        while not is_made.is_set():
            number += is_alive(folder / f"e{number}.run") is True

    threads = [threading.Thread(target=run) for run in (make, look, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = "import sys; from pathlib import Path; from litetq.presence import is_alive\n"
    count += "print([path.name for path in Path(sys.argv[1]).iterdir() if not is_alive(path)])"
    assert run_python(count, folder).communicate(timeout=30)[0] == "[]\n"
    for executor in executors:
        executor.close()


def test_the_ring_is_as_long_as_it_says(folder: Path) -> None:
    executor = Executor(folder, "abc")
    for claim in range(1, RING + 3):
        executor.begin(claim)
    assert begun(executor.path) == set(range(3, RING + 3))
    assert presence.RING == 4096
    executor.close()
