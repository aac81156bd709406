"""Promises of the README that need whole processes: no error under contention, a healthy file, quiet when idle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from litetq import LiteTQ
from litetq.engine import FileEngine
from litetq.message import Message, Plan, uuid
from tests.waiting import eventually

TASKS = """
import os
from pathlib import Path
from litetq import LiteTQ

HERE = Path(__file__).parent
app = LiteTQ("tasks", broker=HERE / "jobs.sqlite")

@app.task
def note(text):
    ledger = os.open(HERE / f"ledger-{os.getpid()}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(ledger, f"{text}\\n".encode())
    os.close(ledger)
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    return tmp_path


def ledgers(house: Path) -> Counter[str]:
    lines = [line for path in house.glob("ledger-*") for line in path.read_text().split("\n")[:-1]]
    return Counter(lines)


@pytest.mark.row("6.result_backend_always_retry and its pauses")
@pytest.mark.parametrize("each", [500, pytest.param(2500, marks=pytest.mark.slow)])
def test_no_database_is_locked_two_workers_and_eight_producers(house: Path, run_python: Any, each: int) -> None:
    """Every task is run once; no error reaches a producer or a worker."""
    workers = [
        run_python(
            "-m", "litetq", "-A", "tasks", "worker", "-P", pool, "-c", "2", "-n", f"{pool}@here", "-l", "WARNING"
        )
        for pool in ("threads", "processes")
    ]
    produce = "import sys, tasks\nfor n in range(int(sys.argv[2])): tasks.note.delay(f'{sys.argv[1]}.{n}')"
    producers = [run_python(produce, str(number), str(each)) for number in range(8)]
    for producer in producers:
        _, err = producer.communicate(timeout=100)
        assert producer.returncode == 0 and err == "", err
    engine = FileEngine(house / "jobs.sqlite")
    eventually(lambda: engine.store.records.counts()["DONE"] == 8 * each, 60)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate(timeout=30)
        assert worker.returncode == 0
        assert "ERROR" not in err and "Traceback" not in err, err
    runs = ledgers(house)
    assert len(runs) == 8 * each and set(runs.values()) == {1}
    states = engine.database.read(
        lambda tx: tx.execute("SELECT DISTINCT state, attempts FROM litetq_result").fetchall()
    )
    assert states == [("SUCCESS", 1)]
    engine.close()


def test_the_file_stays_small_and_healthy(tmp_path: Path) -> None:
    """Results expire while a worker lives, without a beat; their space is used again, and given back."""
    app = LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", result_expires=0.2, set_as_current=False)

    @app.task(name="echo")
    def echo(text: str) -> str:
        return text

    def round_of_results() -> int:
        body = b'[["' + b"x" * 2000 + b'"],{}]'
        app.engine.send(Plan(tuple(Message(uuid(), "echo", body) for _ in range(1500))))
        with app.run_embedded(concurrency=2):
            eventually(lambda: not any(app.engine.store.records.counts().values()), 30)
            eventually(lambda: app.engine.database.read(lambda tx: tx.execute("PRAGMA freelist_count").get) <= 256, 30)
        app.close()
        return (tmp_path / "jobs.sqlite").stat().st_size

    first = round_of_results()
    second = round_of_results()
    third = round_of_results()
    assert first < 2_000_000, "space was not given back"
    assert max(second, third) <= first + 400_000
    app.close()


@pytest.mark.row("8.heartbeat rows")
@pytest.mark.row("8.idle: wake-up and CPU")
def test_an_idle_worker_writes_nothing_but_a_rare_heartbeat(house: Path, run_python: Any) -> None:
    worker = run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "threads", "-c", "4")
    engine = FileEngine(house / "jobs.sqlite")
    eventually(lambda: (house / "jobs.sqlite").exists() and engine.store.roster.workers(), 30)
    process = psutil.Process(worker.pid)
    versions = lambda: engine.database.read(lambda tx: tx.execute("PRAGMA data_version").get)  # noqa: E731
    beats = lambda: engine.store.roster.workers()[0].beats  # noqa: E731
    eventually(lambda: beats() >= 1, 30)
    before, written, cpu = versions(), beats(), process.cpu_times()
    # The next heartbeat ends the watch: about ten seconds later, and nothing else was committed in between.
    eventually(lambda: beats() > written, 30)
    after = process.cpu_times()
    assert versions() - before <= 2
    assert (after.user + after.system) - (cpu.user + cpu.system) < 0.5
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    engine.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs pid namespaces")
def test_workers_in_two_pid_namespaces_do_not_take_each_others_work(house: Path, run_python: Any) -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--pid", "--fork", "true"], check=False).returncode
    ):
        pytest.skip("unshare --pid is not to be had here")
    (house / "tasks.py").write_text(
        TASKS + "\n@app.task\ndef hold(n):\n    import time\n    note(f'hold {n}')\n"
        "    while not (HERE / 'go').exists(): time.sleep(0.005)\n    return n\n",
        encoding="utf-8",
    )
    engine = FileEngine(house / "jobs.sqlite")
    engine.send(Plan((Message("h1", "tasks.hold", b"[[1],{}]"), Message("h2", "tasks.hold", b"[[2],{}]"))))
    command = [sys.executable, "-m", "litetq", "-A", "tasks", "worker", "-P", "processes", "-c", "1"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    inside = [
        subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", *command, "-n", f"w{n}@here"], cwd=house, env=env
        )
        for n in (1, 2)
    ]
    try:
        eventually(lambda: len(ledgers(house)) == 2, 30)
        beats = {worker.id: worker.beats for worker in engine.store.roster.workers()}
        assert len(beats) == 2
        # Each has looked at the other many times (once a second) by the time both have counted a heartbeat.
        eventually(lambda: all(worker.beats > beats[worker.id] for worker in engine.store.roster.workers()), 30)
        assert {worker.id for worker in engine.store.roster.workers()} == beats.keys()
        (house / "go").touch()
        eventually(lambda: all((record := engine.read(id)) and record.state == "SUCCESS" for id in ("h1", "h2")), 15)
    finally:
        for process in inside:
            process.kill()
            process.wait()
    assert ledgers(house) == {"hold 1": 1, "hold 2": 1}
    engine.close()


def test_returned_means_committed_also_with_durability_full(tmp_path: Path) -> None:
    app = LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", durability="full", set_as_current=False)
    statements: list[str] = []

    @app.task(name="echo")
    def echo(text: str) -> str:
        return text

    echo.delay("a")
    writer = app.engine.database._writer
    assert writer is not None
    assert writer.cursor().execute("PRAGMA synchronous").get == 2
    app.close()
    normal = LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", set_as_current=False)
    normal.engine.send(Plan((Message(uuid(), "echo", b"[[],{}]"),)))
    writer = normal.engine.database._writer
    assert writer is not None and writer.cursor().execute("PRAGMA synchronous").get == 1
    writer.trace_v2(0x01, lambda event: statements.append(event["sql"]))
    normal.engine.send(Plan((Message(uuid(), "echo", b"[[],{}]"),)), durability="full")
    assert any("FULL" in statement for statement in statements)
    normal.close()


@pytest.mark.row("8.bad message")
def test_every_end_is_on_record(tmp_path: Path) -> None:
    """Success without a value, failure, revoked, expired, unknown name, bytes nobody can read: each has its record."""
    app = LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", set_as_current=False)

    @app.task(name="echo", ignore_result=True)
    def echo(text: str) -> str:
        return text

    ignored = echo.delay("x")
    failed = app.send_task("echo", ())
    revoked = app.send_task("echo", ("x",))
    revoked.revoke()
    expired = app.send_task("echo", ("x",), expires=-1)
    unknown = app.send_task("no.such")
    app.engine.send(
        Plan((Message("unreadable", "echo", b"\xff{"), Message("refused", "echo", b"x", "application/x-yaml")))
    )
    with app.run_embedded(concurrency=1) as worker:
        assert worker.drain(20)
    found = {
        id: (record.state, app.AsyncResult(id).result)
        for id, record in app.engine.read_many(
            [ignored.id, failed.id, revoked.id, expired.id, unknown.id, "unreadable", "refused"]
        ).items()
    }
    assert found[ignored.id] == ("SUCCESS", None)
    assert {id: (state, type(error).__name__) for id, (state, error) in found.items() if id != ignored.id} == {
        failed.id: ("FAILURE", "TypeError"),
        revoked.id: ("REVOKED", "TaskRevokedError"),
        expired.id: ("REVOKED", "TaskRevokedError"),
        unknown.id: ("FAILURE", "NotRegistered"),
        "unreadable": ("FAILURE", "DecodeError"),
        "refused": ("FAILURE", "ContentDisallowed"),
    }
    app.close()


@pytest.mark.parametrize("survived", range(1, 9))
def test_a_step_of_a_workflow_commits_whole(house: Path, run_python: Any, survived: int) -> None:
    """A chain and a chord, their worker killed at the n-th commit: nothing is broken, hung, or enqueued twice."""
    shutil.copy(Path(__file__).parent / "kill_tasks.py", house)
    (house / "flow.py").write_text(
        "from kill_tasks import app, late\n"
        "from litetq import chain, chord\n"
        "@app.task(acks_late=True)\ndef plus(x, y): return x + y\n"
        "@app.task(acks_late=True)\ndef total(values): return sum(values)\n"
        "if __name__ != '__main__':\n    pass\n",
        encoding="utf-8",
    )
    start = (
        "from flow import *\n"
        "chain(plus.s(1, 1), plus.s(2), plus.s(3)).apply_async(task_id='chain')\n"
        "chord([plus.s(n, n) for n in range(4)], total.s()).apply_async(task_id='chord')"
    )
    process = run_python(start)
    assert process.wait(30) == 0, process.stderr.read()
    worker = ("-m", "litetq", "-A", "flow:app", "worker", "-P", "solo", "-l", "ERROR", "--drain")
    first = run_python(*worker, env={"KILL_AT": f"committing:{survived}"})
    first.wait(30)
    assert first.returncode == (-9 if (house / "killed").exists() else 0)
    assert (house / "killed").exists() or survived > 5
    second = run_python(*worker)
    _, err = second.communicate(timeout=30)
    assert second.returncode == 0, err
    engine = FileEngine(house / "jobs.sqlite")
    records = engine.read_many(["chain", "chord"])
    assert {id: (record.state, record.result) for id, record in records.items()} == {
        "chain": ("SUCCESS", b"7"),
        "chord": ("SUCCESS", b"12"),
    }
    counts = engine.store.records.counts()
    assert counts == {"QUEUED": 0, "SCHEDULED": 0, "BLOCKED": 0, "CLAIMED": 0, "DONE": 3 + 4 + 1}
    engine.close()


@pytest.mark.row("16.accept_content")
def test_untrusted_bytes_stay_bytes(tmp_path: Path) -> None:
    """A pickled body is not even looked at, and a recorded exception never imports a module."""
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    app = LiteTQ("tasks", broker=tmp_path / "jobs.sqlite", set_as_current=False)
    app.task(name="echo")(lambda text: text)
    body = pickle.dumps([(Bomb(),), {}])
    app.engine.send(Plan((Message("bomb", "echo", body, "application/x-python-serialize"),)))
    with app.run_embedded() as worker:
        assert worker.drain(20)
    record = app.engine.read("bomb")
    assert record is not None and record.state == "FAILURE"
    assert not (tmp_path / "exploded").exists()
    hostile = b'{"exc_type": "Popen", "exc_message": ["true"], "exc_module": "antigravity"}'
    app.engine.store_record(record._replace(id="hostile", result=hostile), None)
    error = app.AsyncResult("hostile").result
    assert type(error).__name__ == "Popen" and isinstance(error, Exception)
    assert "antigravity" not in sys.modules
    app.close()
