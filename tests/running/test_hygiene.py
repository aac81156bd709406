"""Children that are replaced, pools that grow and shrink, running tasks that are terminated, and the ways to stop."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from litetq import LiteTQ
from litetq.engine import FileEngine
from litetq.exceptions import ImproperlyConfigured, TaskRevokedError, WorkerLostError
from litetq.message import Message, Plan
from litetq.platforms import PORTABLE
from tests.conftest import RunPython
from tests.waiting import eventually

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from litetq import LiteTQ, signals
from litetq.exceptions import SoftTimeLimitExceeded

HERE = Path(__file__).parent
app = LiteTQ("tasks", broker=HERE / "jobs.sqlite")

def note(text):
    ledger = os.open(HERE / "ledger", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(ledger, f"{text}\\n".encode())
    os.close(ledger)

@app.task
def pid(*_):
    return os.getpid()

@app.task
def grow(kib):
    grow.kept = b"x" * (kib * 1024)
    return os.getpid()

@app.task(bind=True)
def hold(self, n=0):
    note(f"began {n}")
    while not (HERE / "go").exists():
        time.sleep(0.005)
    return n

@app.task(acks_late=True, bind=True)
def hold_late(self, n=0):
    note(f"late {n}")
    if self.request.delivery_info["redelivered"]:
        note("again")
    while not (HERE / "go").exists():
        time.sleep(0.005)
    return n

@app.task(bind=True, retry_on_worker_lost=True, default_retry_delay=0, max_retries=2)
def fragile(self, survives):
    note(f"fragile {self.request.retries}")
    if self.request.retries < survives:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"

@app.task
def ignore_term():
    came = []
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    note("ignores")
    while not came:
        time.sleep(0.005)
    return "survived"

@app.task
def die():
    os._exit(3)

@app.task
def clean_up():
    note("began cleaning")
    try:
        while True:
            time.sleep(0.005)
    except SoftTimeLimitExceeded:
        return "cleaned"

if __name__ == "__main__":
    from tests.running import test_hygiene
    app.conf.update(eval(sys.argv[2]))
    with app.run_embedded(pool="processes", **eval(sys.argv[3])) as worker:
        getattr(test_hygiene, sys.argv[1])(app, sys.modules["__main__"], worker, HERE)
"""


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    app = LiteTQ("tasks", broker=db, set_as_current=False)
    yield app
    app.close()


def play(tmp_path: Path, run_python: RunPython, scene: Any, conf: dict[str, Any] | None = None, **options: Any) -> str:
    """Run a scene inside a program whose worker has child processes; return what it said on stderr."""
    (tmp_path / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    options.setdefault("concurrency", 1)
    process = run_python(tmp_path / "tasks.py", scene.__name__, repr(conf or {}), repr(options))
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return err


def lines(here: Path) -> list[str]:
    path = here / "ledger"
    return path.read_text().splitlines() if path.exists() else []


# -- children wear out


def scene_max_tasks(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    pids = Counter(one.get(timeout=30) for one in [tasks.pid.delay() for _ in range(40)])
    assert sorted(pids.values()) == [10] * 4
    assert worker.statistics().states == {"SUCCESS": 40} and worker.statistics().lost == 0
    attempts = app.engine.database.read(lambda tx: tx.execute("SELECT DISTINCT attempts FROM litetq_result").fetchall())
    assert attempts == [(1,)], "what waited in a child that retired spent no attempt"
    eventually(lambda: len(worker.statistics().processes) == 1)


@pytest.mark.row("8.max tasks per child")
@pytest.mark.row("20.worker_max_tasks_per_child")
@pytest.mark.parametrize("setting", ["worker_max_tasks_per_child", "CELERYD_MAX_TASKS_PER_CHILD"])
def test_a_child_is_replaced_after_so_many_tasks_and_nothing_is_lost(
    tmp_path: Path, run_python: RunPython, setting: str
) -> None:
    play(tmp_path, run_python, scene_max_tasks, {setting: 10})


def scene_max_memory(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    first = tasks.pid.delay().get(timeout=10)
    assert tasks.pid.delay().get(timeout=10) == first, "a small child stays"
    assert tasks.grow.delay(300_000).get(timeout=10) == first, "the task that makes it large ends well"
    assert tasks.pid.delay().get(timeout=10) != first


@pytest.mark.row("8.max memory per child")
@pytest.mark.row("20.worker_max_memory_per_child")
def test_a_child_that_has_grown_too_large_is_replaced_after_its_task(tmp_path: Path, run_python: RunPython) -> None:
    play(tmp_path, run_python, scene_max_memory, {"worker_max_memory_per_child": 250_000})


def test_what_only_concerns_children_is_said_to_have_no_effect_elsewhere(
    app: LiteTQ, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.worker_max_tasks_per_child = 10
    with app.run_embedded():
        assert "worker_max_tasks_per_child has no effect in pool threads: it has no child processes" in caplog.messages


def scene_many_children(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    me = psutil.Process()
    for n in range(4):
        app.engine.send(Plan(tuple(Message(f"{n}-{i}", "tasks.pid", b"[[],{}]") for i in range(5_000))))
        eventually(lambda: worker.statistics().states.get("SUCCESS") == 5_000 * (n + 1), 40)  # noqa: B023
        eventually(lambda: worker.statistics().held == 0)
        if n == 0:
            before = me.memory_info().rss
            threads = threading.active_count() + 1
    eventually(lambda: me.memory_info().rss - before < 6_000_000)
    eventually(lambda: threading.active_count() <= threads)
    assert worker.statistics().states == {"SUCCESS": 20_000}


@pytest.mark.slow
def test_the_worker_does_not_grow_with_the_children_it_replaces(tmp_path: Path, run_python: RunPython) -> None:
    play(tmp_path, run_python, scene_many_children, {"worker_max_tasks_per_child": 1000}, concurrency=2)


def test_the_worker_command_takes_what_concerns_children(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    engine = FileEngine(tmp_path / "jobs.sqlite")
    ids = [f"pid-{n}" for n in range(6)]
    engine.send(Plan(tuple(Message(id, "tasks.pid", b"[[],{}]") for id in ids)))
    command = ("-m", "litetq", "-A", "tasks", "worker", "--drain", "--autoscale", "1")
    process = run_python(*command, "--max-tasks-per-child", "2", "--max-memory-per-child", "9000000")
    code, err = after(process)
    pids = Counter(record.result for record in engine.read_many(ids).values())
    engine.close()
    assert code == 0 and sorted(pids.values()) == [2, 2, 2], err
    for wrong, words in (("1,3", "the largest number comes first"), ("many", "is not MAX,MIN")):
        code, err = after(run_python(*command[:-1], wrong))
        assert code == 2 and words in err


# -- pools of another size


def scene_size(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    worker.pool_grow(2)
    held = [tasks.hold.delay(n) for n in range(4)]
    eventually(lambda: len(lines(here)) == 3)
    assert worker.statistics().concurrency == 3 and held[3].state == "PENDING"
    with pytest.raises(ValueError, match="none would be left"):
        worker.pool_shrink(3)
    worker.pool_shrink(2)
    eventually(lambda: worker.statistics().concurrency == 1)
    (here / "go").touch()
    assert sorted(one.get(timeout=10) for one in held) == [0, 1, 2, 3], "what ran was not disturbed"
    eventually(lambda: len(worker.statistics().processes) == 1)
    [before] = worker.statistics().processes
    worker.pool_restart()
    eventually(lambda: len(worker.statistics().processes) == 1 and worker.statistics().processes != [before])
    assert tasks.pid.delay().get(timeout=10) != before


def test_a_pool_of_processes_grows_shrinks_and_starts_afresh(tmp_path: Path, run_python: RunPython) -> None:
    play(tmp_path, run_python, scene_size)


def test_a_pool_of_threads_grows_and_shrinks(app: LiteTQ) -> None:
    come: list[int] = []
    go = threading.Event()

    @app.task(name="hold")
    def hold(n: int) -> int:
        come.append(n)
        go.wait(20)
        return n

    before = set(threading.enumerate())  # one that another test let run past its hard limit may be among them

    def threads() -> int:
        return sum(one.name.startswith("ThreadPoolWorker") for one in threading.enumerate() if one not in before)

    with app.run_embedded(concurrency=1) as worker:
        held = [hold.delay(n) for n in range(3)]
        eventually(lambda: come == [0])
        worker.pool_grow(1)
        eventually(lambda: come == [0, 1])
        worker.pool_shrink(1)
        eventually(lambda: worker.statistics().concurrency == 1)
        go.set()
        assert [one.get(timeout=10) for one in held] == [0, 1, 2]
        eventually(lambda: threads() == 1)
        worker.pool_restart()
        assert hold.delay(9).get(timeout=10) == 9


def test_solo_has_one_place_for_ever(app: LiteTQ) -> None:
    with app.run_embedded(pool="solo") as worker:
        for change in (worker.pool_grow, worker.pool_shrink):
            with pytest.raises(NotImplementedError, match="pool solo cannot"):
                change()
    with pytest.raises(ImproperlyConfigured, match="autoscale"):
        app.run_embedded(pool="solo", autoscale=(3, 1))
    with pytest.raises(ImproperlyConfigured, match="largest number first"):
        app.run_embedded(pool="threads", autoscale=(1, 3))


def test_autoscale_follows_the_work_between_its_bounds(app: LiteTQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSCALE_KEEPALIVE", "0.5")
    come: list[int] = []
    go = threading.Event()

    @app.task(name="hold")
    def hold(n: int) -> int:
        come.append(n)
        go.wait(30)
        return n

    with app.run_embedded(autoscale=(3, 1)) as worker:
        assert worker.statistics().concurrency == 1
        held = [hold.delay(n) for n in range(5)]
        eventually(lambda: len(come) == 3)
        assert worker.statistics().concurrency == 3
        go.set()
        assert [one.get(timeout=10) for one in held] == list(range(5))
        eventually(lambda: worker.statistics().concurrency == 1)


# -- running tasks that are ended


def scene_soft_signal(tasks: Any, worker: Any, here: Path) -> None:
    before = tasks.pid.delay().get(timeout=10)
    cleaning = tasks.clean_up.delay()
    eventually(lambda: lines(here)[-1] == "began cleaning")
    assert worker.terminate(cleaning.id, signal="SIGUSR1")
    assert cleaning.get(timeout=10) == "cleaned"
    assert tasks.pid.delay().get(timeout=10) == before, "that signal kills nothing"


def scene_terminate(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    first = tasks.pid.delay().get(timeout=10)
    running = tasks.hold.delay(1)
    eventually(lambda: lines(here) == ["began 1"])
    app.engine.revoke([running.id], "terminated")
    assert worker.terminate(running.id)
    with pytest.raises(TaskRevokedError, match="terminated"):
        running.get(timeout=10)
    assert running.state == "REVOKED"
    assert tasks.pid.delay().get(timeout=10) != first
    assert not worker.terminate("unknown")
    with pytest.raises(ValueError, match="no such signal"):
        worker.terminate(running.id, "NONSENSE")
    second = tasks.pid.delay().get(timeout=10)
    if not PORTABLE:  # there a child hears no signals
        scene_soft_signal(tasks, worker, here)
    deaf = tasks.ignore_term.delay()
    eventually(lambda: lines(here)[-1] == "ignores")
    assert worker.terminate(deaf.id)
    assert deaf.get(timeout=10) == "survived", "who survives the signal has ended by itself"
    assert tasks.pid.delay().get(timeout=10) != second, "but a child that was to die gets no more work"


@pytest.mark.row("8.terminate")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGUSR1")
def test_a_running_task_is_terminated_with_its_child(tmp_path: Path, run_python: RunPython) -> None:
    play(tmp_path, run_python, scene_terminate)


def test_threads_cannot_be_terminated(app: LiteTQ) -> None:
    with app.run_embedded() as worker, pytest.raises(NotImplementedError, match="pool threads"):
        worker.terminate("x")


def scene_fragile(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    assert tasks.fragile.delay(2).get(timeout=20) == "survived"
    assert lines(here) == ["fragile 0", "fragile 1", "fragile 2"]
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        tasks.fragile.delay(9).get(timeout=20)
    assert len(lines(here)) == 6


@pytest.mark.row("2.retry_on_worker_lost")
@pytest.mark.row("4.task_retry_on_worker_lost")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_task_whose_child_died_is_retried_if_it_says_so(tmp_path: Path, run_python: RunPython) -> None:
    play(tmp_path, run_python, scene_fragile)


def scene_crash_loop(app: LiteTQ, tasks: Any, worker: Any, here: Path) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("celery.worker").addHandler(handler)
    dead = [tasks.die.delay() for _ in range(7)]
    began = time.monotonic()
    for one in dead:
        with pytest.raises(WorkerLostError, match="exitcode 3"):
            one.get(timeout=20)
    assert tasks.pid.delay().get(timeout=20)
    assert time.monotonic() - began > 1.4, "the last children came after a pause"
    assert any("die one after the other (Worker exited prematurely: exitcode 3.)" in line for line in said)


def test_children_that_die_one_after_the_other_are_replaced_ever_more_slowly(
    tmp_path: Path, run_python: RunPython
) -> None:
    play(tmp_path, run_python, scene_crash_loop)


# -- stopping


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


@pytest.fixture
def engine(house: Path) -> Iterator[FileEngine]:
    engine = FileEngine(house / "jobs.sqlite")
    engine.send(Plan((Message("early", "tasks.hold", b"[[1],{}]"), Message("late", "tasks.hold_late", b"[[2],{}]"))))
    yield engine
    engine.close()


def start(run_python: RunPython, house: Path, *, seconds: float, env: dict[str, str] | None = None) -> Any:
    (house / "settings.py").write_text(
        f"from tasks import app\napp.conf.worker_soft_shutdown_timeout = {seconds}\n", encoding="utf-8"
    )
    process = run_python("-m", "litetq", "-A", "settings", "worker", "-c", "2", env=env)
    eventually(lambda: len(lines(house)) == 2, 20)
    return process


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read what a worker says until these words come; two signals at once would be taken in any order."""
    assert process.stderr is not None
    while words not in (line := process.stderr.readline()):
        assert line, f"it ended without a word of {words!r}"


def after(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.row("8.soft shutdown")
@pytest.mark.row("20.worker_soft_shutdown_timeout")
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_soft_shutdown_gives_what_runs_its_time(house: Path, engine: FileEngine, run_python: RunPython) -> None:
    process = start(run_python, house, seconds=30)
    process.send_signal(signal.SIGTERM)
    wait_for(process, "Warm shutdown")
    process.send_signal(signal.SIGINT)
    wait_for(process, "Soft shutdown")
    (house / "go").touch()
    code, err = after(process)
    assert code == 0, err
    assert [engine.read(id).state for id in ("early", "late")] == ["SUCCESS", "SUCCESS"]  # type: ignore[union-attr]


@pytest.mark.row("8.soft shutdown")
@pytest.mark.row("8.REMAP_SIGTERM")
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("way", ["time is over", "asked again", "TERM remapped"])
def test_after_a_soft_shutdown_what_runs_is_cut_off_and_late_work_is_delivered_again_unspent(
    house: Path, engine: FileEngine, run_python: RunPython, way: str
) -> None:
    remapped = way == "TERM remapped"
    process = start(
        run_python,
        house,
        seconds=60 if way == "asked again" else 0.3,
        env={"REMAP_SIGTERM": "SIGQUIT"} if remapped else {},
    )
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    if not remapped:
        wait_for(process, "Warm shutdown")
        process.send_signal(signal.SIGINT)
    if way == "asked again":
        wait_for(process, "Soft shutdown")
        process.send_signal(signal.SIGINT)
    code, err = after(process)
    assert code == 1 and time.monotonic() - began < 10
    early = engine.read("early")
    assert early is not None and early.state == "FAILURE" and b"WorkerLostError" in (early.result or b"")
    late = engine.database.read(
        lambda tx: tx.execute("SELECT state, attempts, deliveries FROM litetq_task WHERE id = 'late'").fetchall()
    )
    assert late == [(0, 0, 0)], err
    (house / "go").touch()
    code, err = after(run_python("-m", "litetq", "-A", "settings", "worker", "-c", "1", "--drain"))
    assert code == 0 and lines(house)[2:] == ["late 2", "again"], err


def test_a_stop_is_made_harder_never_softer(app: LiteTQ) -> None:
    go = threading.Event()
    come: list[int] = []
    app.conf.worker_soft_shutdown_timeout = 0.3

    @app.task(name="hold")
    def hold() -> None:
        come.append(1)
        go.wait(20)

    try:
        with app.run_embedded(concurrency=1) as worker:
            result = app.send_task("hold")
            eventually(lambda: come)
            worker.stop(0, how="soft")
            worker.stop(0, how="warm")
            assert worker.stopping == "soft"
            assert worker.join(10) and worker.stopping == "cold"
        assert isinstance(result.result, WorkerLostError)
        with pytest.raises(ValueError, match="'warm', 'soft' or 'cold'"):
            worker.stop(how="gently")
    finally:
        go.set()
