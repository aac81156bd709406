"""`litetq worker -P gevent` and `-P eventlet`: real workers whose tasks are greenlets."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, platforms
from litetq.cli.greenlets import pool_of
from litetq.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, WorkerLostError
from litetq.result import AsyncResult
from tests.conftest import RunPython, missing
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = """
import os, pathlib, socket, sys, threading, time
from litetq import LiteTQ, current_task
from litetq.exceptions import SoftTimeLimitExceeded
patched_at_import = socket.socket.__module__
app = LiteTQ("tasks", broker=pathlib.Path(__file__).parent / "jobs.sqlite")
HERE = pathlib.Path(__file__).parent
running = most = 0

@app.task
def meet(n):
    "End when n of them run at once."
    global running, most
    running += 1
    most = max(most, running)
    while most < n:
        time.sleep(0.01)
    running -= 1
    return most

@app.task
def nap(seconds):
    time.sleep(seconds)
    return threading.get_ident()

@app.task
def world():
    return [patched_at_import, current_task.request.id]

@app.task
def hold(word="hold"):
    with open(HERE / "ledger", "a") as ledger:
        print(word, file=ledger)
    try:
        while not (HERE / "go").exists():
            time.sleep(0.01)
        return "held"
    finally:
        with open(HERE / "ledger", "a") as ledger:
            print(f"{word} left", file=ledger)

@app.task(acks_late=True)
def hold_late():
    return hold.run("late")

@app.task(soft_time_limit=0.3)
def careful():
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "cleaned"

@app.task
def parent():
    "Send from within a greenlet, and wait for nothing."
    return nap.delay(0).id

@app.task
def family(n):
    "Wait for other tasks, which in a greenlet is allowed."
    return sum(meet.delay(n).get(timeout=30) for _ in range(n))

@app.task
async def coroutine(n):
    import asyncio
    await asyncio.sleep(0.01)
    return [n, current_task.request.id]

@app.task
async def family_on_the_loop(n):
    "Wait for other tasks from the event loop, which is on a thread of its own."
    import asyncio
    return sum(await asyncio.gather(*[meet.delay(n) for _ in range(n)]))

@app.task
def chatter(n):
    for _ in range(n):
        nap.delay(0)
        time.sleep(0)

@app.task
async def chatter_on_the_loop(n):
    import asyncio
    for _ in range(n):
        nap.delay(0)
        await asyncio.sleep(0)

@app.task
def spin(seconds):
    "Use the processor, and never wait."
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
"""


@pytest.fixture(params=["gevent", pytest.param("eventlet", marks=pytest.mark.slow)])
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(name) is None:
        missing(f"{name} is not installed")
    return name


@pytest.fixture
def app(tmp_path: Path) -> Iterator[LiteTQ]:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    app = LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", set_as_current=False)
    yield app
    app.close()


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(app: LiteTQ, library: str, run_python: RunPython) -> Start:
    """Start a worker with greenlets; it is ready when this returns."""

    def start(*words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        process = run_python("-W", "ignore", "-m", "litetq", "-A", "tasks", "worker", "-P", library, *words, env=env)
        eventually(lambda: app.control.ping(timeout=0.2) or process.poll() is not None, 30)
        assert process.poll() is None, process.communicate()
        return process

    return start


def ledger(app: LiteTQ) -> list[str]:
    path = Path(app.engine.path).parent / "ledger"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def send(app: LiteTQ, name: str, *args: Any, **options: Any) -> AsyncResult[Any]:
    return app.send_task(f"tasks.{name}", args, **options)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out + err


@pytest.mark.parametrize(
    ("line", "pool"),
    [
        ("-A tasks worker -P gevent", "gevent"),
        ("-A tasks worker -Pgevent -c 100", "gevent"),
        ("-A tasks worker -P=gevent", "gevent"),
        ("-A tasks worker --pool gevent", "gevent"),
        ("-A tasks worker --pool=eventlet -l INFO", "eventlet"),
        ("-P gevent -A tasks worker", "gevent"),
        ("-A tasks worker -EP gevent", "gevent"),
        ("-A tasks worker -BEPEventlet", "eventlet"),
        ("-A tasks worker -P gevent -P solo", "solo"),
        ("-A tasks worker -l INFO -c 4", None),
        ("-A Projects worker -nPgevent", None),
        ("-A tasks worker -P", None),
    ],
)
def test_a_line_is_known_to_ask_for_greenlets_before_it_is_read(line: str, pool: str | None) -> None:
    assert pool_of(line.split()) == pool


def test_the_letters_that_may_stand_before_P_are_the_flags_of_a_worker() -> None:
    from litetq.cli import worker
    from litetq.cli.commands import arity

    letters = {
        flag[1] for flag, takes_value in arity(worker.command.params).items() if len(flag) == 2 and not takes_value
    }
    assert all(pool_of([f"-{letter}P", "gevent"]) == "gevent" for letter in letters)


@pytest.mark.row("8.pools prefork, threads, solo")
def test_L13_L14_a_hundred_tasks_wait_at_once_in_one_worker_that_was_patched_before_the_app(
    app: LiteTQ, library: str, start: Start
) -> None:
    start("-c", "100")
    result = send(app, "world")
    assert result.get(timeout=30)[0].startswith(library)
    results = [send(app, "meet", 100) for _ in range(100)]
    assert [result.get(timeout=30) for result in results] == [100] * 100
    began = time.monotonic()
    assert len({result.get(timeout=30) for result in [send(app, "nap", 1) for _ in range(100)]}) == 100
    assert time.monotonic() - began < 20  # 100 s, one after the other


def test_the_worker_answers_and_settles_while_its_greenlets_wait(app: LiteTQ, start: Start) -> None:
    start("-c", "20")
    held = [send(app, "hold") for _ in range(10)]
    eventually(lambda: ledger(app).count("hold") == 10)
    inspect = app.control.inspect(timeout=10, limit=1)
    assert {task["id"] for tasks in inspect.active().values() for task in tasks} == {one.id for one in held}
    assert send(app, "nap", 0).get(timeout=10)
    child = app.AsyncResult(send(app, "parent").get(timeout=10))
    assert child.get(timeout=10)
    (Path(app.engine.path).parent / "go").touch()
    assert [one.get(timeout=10) for one in held] == ["held"] * 10


def test_async_tasks_run_on_the_event_loop_beside_the_greenlets(app: LiteTQ, start: Start) -> None:
    start("-c", "20")
    results = [send(app, "coroutine", n) for n in range(50)]
    assert [result.get(timeout=30) for result in results] == [[n, result.id] for n, result in enumerate(results)]


def test_greenlets_and_the_thread_of_the_event_loop_share_the_file(app: LiteTQ, start: Start) -> None:
    """Locks of eventlet let native threads wait for ever; the file's is one for both."""
    start("-c", "20")
    names = ["chatter", "chatter_on_the_loop"] * 4
    assert [result.get(timeout=60) for result in [send(app, name, 100) for name in names]] == [None] * len(names)


def test_a_task_may_wait_for_tasks(app: LiteTQ, start: Start) -> None:
    start("-c", "3")
    assert send(app, "family", 1).get(timeout=30) == 1
    assert send(app, "family_on_the_loop", 1).get(timeout=30) == 1


@pytest.mark.row("12.eventlet_pool_started")
def test_the_signals_of_the_pool_eventlet_are_sent(app: LiteTQ, library: str, start: Start) -> None:
    tasks = Path(app.engine.path).parent / "tasks.py"
    hear = """
from litetq import signals
def hear(signal, sender, **named):
    print("heard", signal.name, sender.name, *named.get("args", ()) and [named["args"][0].name], flush=True)
for name in ("started", "preshutdown", "postshutdown", "apply"):
    getattr(signals, f"eventlet_pool_{name}").connect(hear, weak=False)
"""
    tasks.write_text(TASKS + hear, encoding="utf-8")
    send(app, "nap", 0)
    worker = start("--quiet")
    app.control.shutdown()
    heard = [line[line.index("heard") :] for line in end(worker)[1].splitlines() if "heard" in line]
    wanted = ["started eventlet", "apply eventlet tasks.nap", "preshutdown eventlet", "postshutdown eventlet"]
    assert heard == ([f"heard eventlet_pool_{words}" for words in wanted] if library == "eventlet" else [])


def test_soft_limits_are_raised_where_a_greenlet_waits(app: LiteTQ, start: Start) -> None:
    worker = start()
    assert send(app, "careful").get(timeout=20) == "cleaned"
    with pytest.raises(SoftTimeLimitExceeded):
        send(app, "nap", 60, soft_time_limit=0.2).get(timeout=20)
    in_time = send(app, "nap", 0, soft_time_limit=5)
    assert in_time.get(timeout=20)
    app.control.shutdown()
    said = end(worker)[1]
    assert "Soft time limit (0.2s) exceeded for tasks.nap[" in said and in_time.id not in said


def test_a_hard_limit_kills_the_greenlet_and_lets_it_clean_up(app: LiteTQ, start: Start) -> None:
    start()
    with pytest.raises(TimeLimitExceeded):
        send(app, "hold", time_limit=0.3).get(timeout=20)
    eventually(lambda: ledger(app) == ["hold", "hold left"])
    assert send(app, "nap", 0).get(timeout=20)


def test_terminate_kills_the_greenlet_that_runs_the_task_and_no_other(app: LiteTQ, start: Start) -> None:
    start()
    doomed, other = send(app, "hold", "doomed"), send(app, "hold", "other")
    eventually(lambda: len(ledger(app)) == 2)
    app.control.revoke(doomed.id, terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        doomed.get(timeout=20)
    eventually(lambda: "doomed left" in ledger(app))
    (Path(app.engine.path).parent / "go").touch()
    assert other.get(timeout=20) == "held"


def test_the_pool_grows_and_shrinks_while_it_runs(app: LiteTQ, start: Start) -> None:
    start("-c", "1")
    first = send(app, "meet", 2)
    eventually(lambda: app.control.inspect(timeout=10, limit=1).active().popitem()[1])
    second = send(app, "meet", 2)
    app.control.pool_grow(1)
    assert (first.get(timeout=20), second.get(timeout=20)) == (2, 2)
    app.control.pool_shrink(1)
    size = lambda: app.control.inspect(timeout=10, limit=1).stats().popitem()[1]["pool"]["max-concurrency"]  # noqa: E731
    eventually(lambda: size() == 1)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_warm_stop_waits_for_what_runs(app: LiteTQ, start: Start) -> None:
    worker = start("-c", "2")
    running, waiting = send(app, "hold"), [send(app, "hold", "waits") for _ in range(5)]
    eventually(lambda: len(ledger(app)) == 2)
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: app.control.inspect(timeout=10, limit=1).stats())  # it answers while it stops
    (Path(app.engine.path).parent / "go").touch()
    code, said = end(worker)
    assert code == 0 and "Warm shutdown" in said and "Traceback" not in said
    assert running.get(timeout=5) == "held"
    assert sum(one.state == "SUCCESS" for one in waiting) == 1


@pytest.mark.skipif(sys.platform == "win32" or platforms.PORTABLE, reason="SIGQUIT is POSIX")
def test_a_cold_stop_kills_the_greenlets_and_what_acknowledges_late_runs_again(app: LiteTQ, start: Start) -> None:
    worker = start()
    early, late = send(app, "hold"), send(app, "hold_late")
    eventually(lambda: len(ledger(app)) == 2)
    worker.send_signal(signal.SIGQUIT)
    code, said = end(worker)
    assert code == 1 and "Cold shutdown" in said
    assert {"hold left", "late left"} <= set(ledger(app)), "their `finally` ran"
    with pytest.raises(WorkerLostError):
        early.get(timeout=5)
    (Path(app.engine.path).parent / "go").touch()
    start()
    assert late.get(timeout=20) == "held"


@pytest.mark.skipif(sys.platform == "win32" or platforms.PORTABLE, reason="SIGQUIT is POSIX")
def test_a_soft_stop_gives_the_greenlets_their_time_and_back_what_acknowledges_late(app: LiteTQ, start: Start) -> None:
    tasks = Path(app.engine.path).parent / "tasks.py"
    tasks.write_text(TASKS + "\napp.conf.worker_soft_shutdown_timeout = 0.5\n", encoding="utf-8")
    worker = start()
    late = send(app, "hold_late")
    eventually(lambda: len(ledger(app)) == 1)
    worker.send_signal(signal.SIGQUIT)
    assert "Soft shutdown" in end(worker)[1]
    (Path(app.engine.path).parent / "go").touch()
    start()
    assert late.get(timeout=20) == "held"


def test_a_greenlet_that_never_waits_holds_up_its_worker_which_then_goes_on(app: LiteTQ, start: Start) -> None:
    """It is no pool for such work; but nothing is lost by it."""
    worker = start("-c", "10")
    slow = send(app, "spin", 3)
    quick = send(app, "nap", 0)
    assert quick.get(timeout=30) and slow.get(timeout=30) is None
    assert worker.poll() is None


def test_a_killed_worker_leaves_what_promise_5_says(app: LiteTQ, start: Start) -> None:
    worker = start()
    early = [send(app, "hold") for _ in range(20)]
    late = send(app, "hold_late")
    eventually(lambda: len(ledger(app)) == 21)
    worker.kill()
    worker.wait(30)
    (Path(app.engine.path).parent / "go").touch()
    start()
    for result in early:
        with pytest.raises(WorkerLostError):
            result.get(timeout=20)
    assert late.get(timeout=20) == "held"
    assert ledger(app).count("hold") == 20 and ledger(app).count("late") == 2


def test_beat_and_events_run_beside_the_greenlets(app: LiteTQ, start: Start) -> None:
    tasks = Path(app.engine.path).parent / "tasks.py"
    schedule = {"often": {"task": "tasks.hold", "schedule": 0.2, "args": ["beat"]}}
    tasks.write_text(TASKS + f"\napp.conf.beat_schedule = {json.dumps(schedule)}\n", encoding="utf-8")
    (Path(app.engine.path).parent / "go").touch()
    start("-B", "-E")
    eventually(lambda: ledger(app).count("beat left") >= 2, 20)


def test_a_worker_with_greenlets_hears_the_end_of_its_input_while_they_run(
    app: LiteTQ, library: str, run_python: RunPython
) -> None:
    worker = run_python(
        "-W", "ignore", "-m", "litetq", "-A", "tasks", "worker", "-P", library, "--until-eof", stdin=subprocess.PIPE
    )
    assert worker.stdin is not None
    held = send(app, "hold")
    eventually(lambda: ledger(app) == ["hold"], 30)
    worker.stdin.close()
    worker.stdin = None
    (Path(app.engine.path).parent / "go").touch()
    assert end(worker)[0] == 0
    assert held.get(timeout=5) == "held"


def test_waiting_uses_up_no_descriptors(app: LiteTQ, start: Start) -> None:
    """A wait under eventlet has no descriptor of its own, and one under gevent gives it back."""
    worker = start("-c", "50")
    for _ in range(3):
        assert all(result.get(timeout=30) for result in [send(app, "nap", 0) for _ in range(100)])
    if sys.platform == "linux":
        assert len(os.listdir(f"/proc/{worker.pid}/fd")) < 60
