"""The bell between real processes: who wakes, who does not, and what is left when somebody dies or the folder goes.

Everything that crosses processes runs twice: over Unix sockets, and over loopback UDP as on Windows (`portable`).
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import platforms, wake
from litetq.wake import ALL, CONTROL, RESULT, WORK, Bell, bell_for
from tests.conftest import missing
from tests.waiting import eventually

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_stop = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")

# Sleeps with several threads; says "asleep" when all are announced, then one line for each that wakes, and rings back.
SLEEPER = r"""
import sys, threading
from pathlib import Path
from litetq.wake import bell_for
folder, topics, mask, sleepers, timeout = Path(sys.argv[1]), *map(int, sys.argv[2:6])
bell = bell_for(folder)
waiters = [bell.waiter(topics, mask) for _ in range(sleepers)]
for waiter in waiters:
    waiter.announce()
print("deaf" if bell.is_deaf else "asleep", flush=True)
def sleep(waiter):
    sys.stdout.write("rung\n" if waiter.wait(timeout) else "late\n")  # in one piece, unlike print()
    sys.stdout.flush()
threads = [threading.Thread(target=sleep, args=(waiter,)) for waiter in waiters]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

RINGER = """
import sys
from pathlib import Path
from litetq.wake import bell_for
with bell_for(Path(sys.argv[1])) as bell:
    bell.ring(int(sys.argv[2]), int(sys.argv[3]))
"""


class Sleepers:
    """Another process with announced sleepers. `woken` is how many of them were rung so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.first = process.stdout.readline() if process.stdout else ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line)

    @property
    def woken(self) -> int:
        return self.lines.count("rung\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture(params=["unix", pytest.param("portable", marks=[] if sys.platform == "win32" else pytest.mark.slow)])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "portable":
        monkeypatch.setenv("LITETQ_PORTABLE", "1")
        monkeypatch.setattr(platforms, "PORTABLE", True)
    elif platforms.PORTABLE:
        pytest.skip("portable mode is forced")
    return str(request.param)


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder with the sockets of this test; a short name, as a socket's path must be."""
    folder = Path(tempfile.mkdtemp(prefix="bell"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder / "litetq"
    shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite-run"


@pytest.fixture
def bell(kind: str, sockets: Path, folder: Path) -> Iterator[Bell]:
    with bell_for(folder) as bell:
        yield bell


@pytest.fixture
def sleepers(run_python: Any, folder: Path) -> Callable[..., Sleepers]:
    def start(topics: int = WORK, mask: int = ALL, number: int = 1, timeout: int = 60) -> Sleepers:
        found = Sleepers(run_python(SLEEPER, folder, *map(str, (topics, mask, number, timeout))))
        assert found.first == "asleep\n"
        return found

    return start


def total(*processes: Sleepers) -> int:
    return sum(process.woken for process in processes)


def settled_at(number: int, *processes: Sleepers) -> None:
    """The sleepers of all these processes wake up to this number and, as far as 0.2 s can show it, not beyond."""
    eventually(lambda: total(*processes) >= number)
    with pytest.raises(AssertionError):
        eventually(lambda: total(*processes) > number, within=0.2)


def test_a_ring_wakes_a_sleeper_in_another_process(bell: Bell, sleepers: Any) -> None:
    process = sleepers()
    bell.ring(WORK)
    eventually(lambda: process.woken == 1)


def test_ping_pong_between_two_processes(bell: Bell, folder: Path, run_python: Any, kind: str) -> None:
    partner = run_python(
        "import sys; from pathlib import Path; from litetq.wake import *\n"
        "with bell_for(Path(sys.argv[1])) as bell, bell.waiter(WORK) as waiter:\n"
        "    waiter.announce(); print('asleep', flush=True)\n"
        "    for _ in range(500):\n"
        "        assert waiter.wait(30); waiter.announce(); bell.ring(RESULT)\n",
        folder,
    )
    assert partner.stdout.readline() == "asleep\n"
    times = []
    with bell.waiter(RESULT) as waiter:
        for _ in range(500):
            start = time.perf_counter()
            waiter.announce()
            bell.ring(WORK)
            assert waiter.wait(30)
            times.append(time.perf_counter() - start)
    assert partner.wait(30) == 0
    times.sort()
    print(f"ping-pong by {kind}: p50 {times[250] * 1e6:.0f} us, p99 {times[495] * 1e6:.0f} us")


def test_a_ring_with_nobody_asleep_costs_nearly_nothing(bell: Bell) -> None:
    bell.ring(WORK)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(1000):
            bell.ring(WORK)
        best = min(best, (time.perf_counter() - start) / 1000)
    print(f"ring with nobody asleep: {best * 1e9:.0f} ns")
    assert best < 1e-6


def test_a_ring_wakes_only_sleepers_of_its_topic(bell: Bell, sleepers: Any) -> None:
    work, result, both = sleepers(WORK), sleepers(RESULT), sleepers(WORK | CONTROL)
    bell.ring(WORK)
    settled_at(2, work, result, both)
    assert (work.woken, result.woken, both.woken) == (1, 0, 1)
    bell.ring(RESULT)
    eventually(lambda: result.woken == 1)


def test_a_ring_wakes_only_sleepers_whose_mask_intersects(bell: Bell, sleepers: Any) -> None:
    low, high, every = sleepers(mask=0b0110), sleepers(mask=1 << 63), sleepers()
    bell.ring(WORK, mask=0b1000)
    settled_at(1, low, high, every)
    assert every.woken == 1
    bell.ring(WORK, mask=(1 << 63) | 0b1000)
    settled_at(2, low, high, every)
    assert high.woken == 1
    bell.ring(WORK, mask=0b0011)
    eventually(lambda: low.woken == 1)


def test_a_counted_ring_passes_over_processes_that_want_the_mask_for_another_topic(
    bell: Bell, folder: Path, sleepers: Any
) -> None:
    """One process with work of mask 1 and results of mask 2 is no sleeper for work of mask 2."""
    with bell.waiter(WORK, 1) as work, bell.waiter(RESULT, 2) as result:
        work.announce()
        result.announce()
        right = sleepers(WORK, 2)
        ringer = sleepers(CONTROL)
        bell.ring(WORK, 2, count=1)
        eventually(lambda: right.woken == 1)
        assert not work.wait(0) and not result.wait(0) and ringer.woken == 0


def test_a_count_bounds_how_many_wake(bell: Bell, sleepers: Any) -> None:
    one, three, two = sleepers(), sleepers(number=3), sleepers(number=2)
    for expected in (1, 2):
        bell.ring(WORK, count=1)
        settled_at(expected, one, three, two)
    bell.ring(WORK, count=3)
    settled_at(5, one, three, two)
    bell.ring(WORK, count=10**12)
    settled_at(6, one, three, two)


def test_as_many_wake_as_are_counted_also_when_they_lie_unevenly(bell: Bell, sleepers: Any) -> None:
    """A process hands on what it has no sleepers for."""
    one, many = sleepers(number=1), sleepers(number=8)
    bell.ring(WORK, count=8)
    settled_at(8, one, many)


def test_as_many_rings_wake_as_many_sleepers(bell: Bell, sleepers: Any) -> None:
    """Rings that come faster than the woken can leave the board go on to those still asleep."""
    processes = [sleepers(), sleepers(), sleepers(number=2)]
    for _ in range(4):
        bell.ring(WORK, count=1)
    eventually(lambda: total(*processes) == 4)


def test_sleepers_of_this_process_come_first(bell: Bell, sleepers: Any) -> None:
    other = sleepers()
    with bell.waiter(WORK) as first, bell.waiter(WORK) as second:
        first.announce()
        second.announce()
        bell.ring(WORK, count=1)
        assert first.wait(5) and not second.wait(0)
        second.announce()
        bell.ring(WORK, count=2)
        assert second.wait(5)
        eventually(lambda: other.woken == 1)


def test_a_ring_wakes_all_without_a_count(bell: Bell, sleepers: Any) -> None:
    processes = [sleepers(), sleepers(number=3)]
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        bell.ring(WORK)
        assert waiter.wait(5)
    eventually(lambda: total(*processes) == 4)


def test_a_waiter_that_woke_is_no_longer_announced(bell: Bell, sleepers: Any) -> None:
    other = sleepers()
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        assert waiter.wait(0.001) is False
        bell.ring(WORK, count=1)
        eventually(lambda: other.woken == 1)
        assert waiter.wait(0) is False


def test_a_cleared_or_closed_waiter_takes_no_ring(bell: Bell, sleepers: Any) -> None:
    other = sleepers(number=2)
    cleared, closed = bell.waiter(WORK), bell.waiter(WORK)
    cleared.announce()
    closed.announce()
    cleared.set()
    cleared.clear()
    closed.close()
    bell.ring(WORK, count=2)
    eventually(lambda: other.woken == 2)
    assert not cleared.wait(0)
    cleared.close()


def test_a_ring_between_announcing_and_sleeping_is_not_lost(bell: Bell) -> None:
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        bell.ring(WORK)
        assert waiter.wait(60) is True
        assert waiter.wait(0) is False


def test_announcing_forgets_an_old_ring(bell: Bell) -> None:
    with bell.waiter(WORK) as waiter:
        waiter.set()
        waiter.set()
        waiter.announce()
        assert waiter.wait(0) is False


def test_set_wakes_from_any_thread(bell: Bell) -> None:
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        threading.Timer(0.01, waiter.set).start()
        assert waiter.wait(60) is True


def test_a_wait_ends_at_its_deadline(bell: Bell) -> None:
    with bell.waiter(WORK) as waiter:
        for seconds in (-1, 0, 0.05):
            waiter.announce()
            start = time.monotonic()
            assert waiter.wait(seconds) is False
            assert seconds - 0.01 <= time.monotonic() - start < 5


@pytest.mark.parametrize(("topics", "mask"), [(0, ALL), (8, ALL), (WORK, 0), (WORK, ALL + 1), (WORK, -1)])
def test_a_waiter_for_nothing_is_refused(bell: Bell, topics: int, mask: int) -> None:
    with pytest.raises(ValueError, match="must"):
        bell.waiter(topics, mask)


def test_an_event_loop_sleeps_and_is_rung(bell: Bell, folder: Path, run_python: Any) -> None:
    async def run() -> list[bool]:
        waiters = [bell.waiter(RESULT, 1 << number) for number in range(3)]
        for waiter in waiters:
            waiter.announce()
        run_python(RINGER, folder, str(RESULT), "3")
        rung = await asyncio.gather(*(waiter.wait_async(60) for waiter in waiters[:2]), waiters[2].wait_async(0.01))
        waiters[0].set()
        rung.append(await waiters[0].wait_async(60))
        rung.append(await waiters[0].wait_async(0))
        sleeping = asyncio.ensure_future(waiters[1].wait_async(None))
        await asyncio.sleep(0)
        threading.Thread(target=waiters[1].set).start()
        rung.append(await sleeping)
        return rung

    assert asyncio.run(run()) == [True, True, False, True, False, True]


def test_a_cancelled_wait_takes_its_waiter_off_the_board(bell: Bell) -> None:
    async def run() -> bool:
        with bell.waiter(WORK) as cancelled, bell.waiter(WORK) as other:
            cancelled.announce()
            task = asyncio.ensure_future(cancelled.wait_async(60))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            other.announce()
            bell.ring(WORK, count=1)
            return await other.wait_async(60)

    assert asyncio.run(run())


def test_a_waiter_of_a_closed_loop_harms_nobody(bell: Bell) -> None:
    waiter = bell.waiter(WORK)
    waiter.announce()
    loop = asyncio.new_event_loop()
    sleeping = loop.create_task(waiter.wait_async(None))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    bell.ring(WORK)
    assert waiter.wait(0)
    sleeping._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_killed_sleeper_swallows_no_ring(bell: Bell, sleepers: Any) -> None:
    dead = [sleepers(), sleepers(), sleepers()]
    living = sleepers()
    for process in dead:
        process.kill()
    bell.ring(WORK, count=1)
    eventually(lambda: living.woken == 1)


def test_a_newcomer_takes_the_slot_of_the_dead(
    bell: Bell, sleepers: Any, run_python: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import litetq.wake as wake; wake.SLOTS = 1\n" + SLEEPER
    first = Sleepers(run_python(code, folder, str(WORK), "1", "1", "60"))
    assert first.first == "asleep\n"
    deaf = Sleepers(run_python(code, folder, str(WORK), "1", "1", "0"))
    assert deaf.first == "deaf\n"
    first.kill()
    next_one = Sleepers(run_python(code, folder, str(WORK), "2", "1", "60"))
    assert next_one.first == "asleep\n"
    bell.ring(WORK, 1)
    bell.ring(WORK, 2)
    eventually(lambda: next_one.woken == 1)


def test_without_a_slot_a_process_is_deaf_and_still_rings(
    bell: Bell, sleepers: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = sleepers()
    monkeypatch.setattr(wake, "SLOTS", 0)
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        assert bell.is_deaf and "slots are taken" in caplog.text
        bell.ring(WORK)
        assert waiter.wait(5)
    eventually(lambda: other.woken == 1)


def test_a_deaf_process_hears_again_when_it_can(bell: Bell, monkeypatch: pytest.MonkeyPatch, sleepers: Any) -> None:
    monkeypatch.setattr(wake, "SLOTS", 0)
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        assert bell.is_deaf
        monkeypatch.setattr(wake, "SLOTS", 256)
        eventually(lambda: waiter.announce() or not bell.is_deaf)


def test_without_a_folder_only_this_process_is_woken(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with bell_for(tmp_path / "missing" / "jobs.sqlite-run") as bell, bell.waiter(WORK) as waiter:
        bell.ring(WORK)
        waiter.announce()
        assert bell.is_deaf
        bell.ring(WORK)
        assert waiter.wait(5)
    assert "cannot wake this one" in caplog.text and len(caplog.records) == 1


def test_the_folder_may_be_deleted_under_way(
    bell: Bell, folder: Path, sleepers: Any, run_python: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "CHECK_INTERVAL", 0.0)
    old = sleepers(timeout=1)
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        shutil.rmtree(folder)
        bell.ring(WORK)  # the board is made anew; who sleeps on the old one serves its deadline
        assert waiter.wait(5)
        eventually(lambda: old.lines == ["late\n"])
        new = sleepers()
        bell.ring(WORK)
        eventually(lambda: new.woken == 1)
        waiter.announce()
        assert not bell.is_deaf
        assert run_python(RINGER, folder, str(WORK), str(ALL)).wait(30) == 0
        assert waiter.wait(5)


def test_a_sleeper_that_lost_board_and_socket_makes_new_ones(
    bell: Bell, folder: Path, sockets: Path, run_python: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "CHECK_INTERVAL", 0.0)
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        for lost in (folder, sockets):
            if lost.exists():
                shutil.rmtree(lost)
            waiter.announce()
            assert run_python(RINGER, folder, str(WORK), str(ALL)).wait(30) == 0
            assert waiter.wait(5), f"after the loss of {lost.name}"


def test_a_check_of_the_place_happens_once_a_second(bell: Bell, folder: Path) -> None:
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        shutil.rmtree(folder)
        eventually(lambda: waiter.announce() or (folder / "board").exists(), within=5)


@needs_stop
def test_a_ring_never_blocks_on_a_stopped_process(bell: Bell, sleepers: Any) -> None:
    """Its queue fills and stays full; nobody waits for it, and it wakes when it goes on."""
    stopped = sleepers(number=2)
    os.kill(stopped.process.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        for _ in range(3000):
            bell.ring(WORK)
        assert time.monotonic() - start < 10
        living = sleepers()
        for _ in range(2):  # the stopped one is tried first at one of them
            bell.ring(WORK, count=1)
        eventually(lambda: living.woken == 1)
    finally:
        os.kill(stopped.process.pid, signal.SIGCONT)
    eventually(lambda: stopped.woken == 2)


def test_two_processes_that_flood_each_other_never_block(kind: str, folder: Path, run_python: Any) -> None:
    flooder = """
import sys, threading
from pathlib import Path
from litetq.wake import *
bell = bell_for(Path(sys.argv[1]))
going = True
def sleep():
    waiter = bell.waiter(WORK)
    while going:
        waiter.announce()
        waiter.wait(0.05)
threads = [threading.Thread(target=sleep) for _ in range(2)]
for thread in threads: thread.start()
print("ready", flush=True)
sys.stdin.readline()
for turn in range(5000):
    bell.ring(WORK, ALL, None if turn % 2 else 3)
going = False
for thread in threads: thread.join()
bell.close()
print("done", flush=True)
"""
    both = [run_python(flooder, folder, stdin=subprocess.PIPE) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (out, err, process.returncode) == ("done\n", "", 0)


@needs_fork
def test_a_forked_child_has_its_own_bell_and_its_parent_keeps_its_own(
    kind: str, folder: Path, run_python: Any, sockets: Path
) -> None:
    code = """
import os, sys
from pathlib import Path
from litetq.wake import *
bell = bell_for(Path(sys.argv[1]))
waiter = bell.waiter(WORK, 1)
waiter.announce()
child = os.fork()
if not child:
    with bell.waiter(WORK, 2) as own:
        assert bell.is_deaf and not waiter.wait(0)
        own.announce()
        assert not bell.is_deaf
        bell.ring(WORK, 1)
        print("child", own.wait(60), flush=True)
    sys.exit()
print("parent", waiter.wait(60), flush=True)
waiter.announce()
print("announced", flush=True)
bell.ring(WORK, 2)
os.waitpid(child, 0)
print("again", waiter.wait(60), flush=True)
"""
    process = run_python("-W", "ignore:This process:DeprecationWarning", "-c", code, folder)
    seen = [process.stdout.readline() for _ in range(3)]
    assert sorted(seen) == ["announced\n", "child True\n", "parent True\n"]
    with bell_for(folder) as bell:
        bell.ring(WORK, 1)
        assert process.communicate(timeout=30) == ("again True\n", "")
    if kind == "unix":
        assert list(sockets.iterdir()) == []


def test_two_bells_of_one_process_are_apart(bell: Bell, tmp_path: Path) -> None:
    with bell_for(tmp_path / "other-run") as other, bell.waiter(WORK) as here, other.waiter(WORK) as there:
        here.announce()
        there.announce()
        other.ring(WORK)
        assert there.wait(5) and not here.wait(0)


def test_one_folder_has_one_bell_however_it_is_called(bell: Bell, folder: Path) -> None:
    bell.ring(WORK)
    (folder.parent / "link").symlink_to(folder)
    for name in (folder.parent / "." / folder.name, folder.parent / "link"):
        with bell_for(name) as same:
            assert same is bell


def test_the_last_user_ends_the_bell(kind: str, folder: Path, sockets: Path, sleepers: Any) -> None:
    others = set(threading.enumerate())  # bells of other files, which other tests left to their apps
    first, second = bell_for(folder), bell_for(folder)
    assert first is second
    waiter = first.waiter(WORK)
    waiter.announce()
    threads = [thread for thread in set(threading.enumerate()) - others if thread.name == "litetq-bell"]
    assert threads
    first.close()
    second.ring(WORK)
    assert waiter.wait(5)
    waiter.announce()
    second.close()
    assert waiter.wait(60), "closing wakes who sleeps"
    waiter.announce()
    second.ring(WORK)
    assert not waiter.wait(0) and second.is_deaf
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert not sockets.exists() or list(sockets.iterdir()) == []
    other = sleepers()  # no old announcement stands in the way
    with bell_for(folder) as third:
        third.ring(WORK, count=1)
        eventually(lambda: other.woken == 1)


def test_rings_that_a_closing_process_did_not_read_go_on_to_others(
    bell: Bell, folder: Path, tmp_path: Path, run_python: Any, sleepers: Any
) -> None:
    (tmp_path / "go").write_bytes(b"\0")
    leaving = """
import mmap, sys
from pathlib import Path
from litetq.wake import *
with open(sys.argv[2], "r+b") as file:
    go = mmap.mmap(file.fileno(), 1)
bell = bell_for(Path(sys.argv[1]))
waiter = bell.waiter(WORK)
waiter.announce()
sys.setswitchinterval(1000)
go[0] = 1
while go[0] == 1:  # keeps the interpreter: the listening thread can read nothing
    pass
waiter.clear()
bell.close()
"""
    process = run_python(leaving, folder, tmp_path / "go")
    eventually(lambda: (tmp_path / "go").read_bytes() == b"\1")
    for _ in range(3):
        bell.ring(WORK, count=1)
    others = sleepers(number=3)
    with open(tmp_path / "go", "r+b") as file:  # not "wb": what is mapped elsewhere must not be truncated
        file.write(b"\2")
    assert process.wait(30) == 0
    eventually(lambda: others.woken == 3)


def test_an_interpreter_ends_without_noise_and_removes_its_socket(
    kind: str, folder: Path, sockets: Path, run_python: Any
) -> None:
    code = "import sys; from pathlib import Path; from litetq.wake import *\n"
    code += "waiter = bell_for(Path(sys.argv[1])).waiter(WORK); waiter.announce(); print(waiter.wait(0))"
    process = run_python("-X", "dev", "-c", code, folder)
    assert process.communicate(timeout=30) == ("False\n", "")
    assert process.returncode == 0 and (not sockets.exists() or list(sockets.iterdir()) == [])


def test_sockets_of_the_dead_are_swept_and_those_of_the_living_stay(folder: Path, sockets: Path, sleepers: Any) -> None:
    if platforms.PORTABLE:
        pytest.skip("no socket files in portable mode")
    living, dead = sleepers(), sleepers()
    dead.kill()
    past = time.time() - 60
    for path in sockets.iterdir():
        os.utime(path, (past, past))
    with bell_for(folder) as bell, bell.waiter(RESULT) as waiter:
        waiter.announce()
        assert len(list(sockets.iterdir())) == 2
        bell.ring(WORK)
        eventually(lambda: living.woken == 1)


def test_board_and_socket_are_private(bell: Bell, folder: Path, sockets: Path) -> None:
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        if os.name == "posix":
            assert folder.stat().st_mode & 0o777 == 0o700
            assert (folder / "board").stat().st_mode & 0o777 == 0o600
            assert not sockets.exists() or sockets.stat().st_mode & 0o777 == 0o700


def test_who_only_rings_opens_no_socket_and_no_thread(bell: Bell, sockets: Path) -> None:
    before = threading.active_count()
    bell.ring(WORK)
    assert threading.active_count() == before
    assert not sockets.exists()


def test_a_process_that_rang_before_hears_from_its_first_announcement_on(bell: Bell) -> None:
    bell.ring(WORK)
    assert bell.is_deaf
    with bell.waiter(WORK) as waiter:
        waiter.announce()
        assert not bell.is_deaf


def test_a_thousand_waiters_come_and_go(bell: Bell) -> None:
    waiters = [bell.waiter(RESULT, 1 << (number % 64)) for number in range(1000)]
    for waiter in waiters:
        waiter.announce()
    bell.ring(RESULT, 1 << 5)
    assert [number % 64 for number, waiter in enumerate(waiters) if waiter.wait(0)] == [5] * 16
    bell.ring(RESULT)
    assert not any(waiter.wait(0) for waiter in waiters)
    del waiters, waiter
    gc.collect()


def test_under_gevent_the_bell_is_native_and_greenlets_sleep_side_by_side(
    kind: str, folder: Path, run_python: Any
) -> None:
    if importlib.util.find_spec("gevent") is None:
        missing("gevent is not installed")
    code = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from pathlib import Path
from litetq.wake import *
bell = bell_for(Path(sys.argv[1]))
def sleep(number):
    with bell.waiter(WORK, 1 << number) as waiter:
        waiter.announce()
        if not number:
            assert not waiter.wait(0.01)
            waiter.announce()
        return waiter.wait(30)
greenlets = [gevent.spawn(sleep, number) for number in range(3)]
gevent.sleep(0.05)
print("asleep", flush=True)
gevent.joinall(greenlets[:2])
print(greenlets[2].dead, flush=True)
bell.ring(WORK)
gevent.joinall(greenlets)
print([greenlet.value for greenlet in greenlets])
"""
    process = run_python(code, folder)
    assert process.stdout.readline() == "asleep\n"
    with bell_for(folder) as bell:
        bell.ring(WORK, 0b011)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("False\n[True, True, True]\n", "")
