"""Each signal of Celery's is sent by a real worker, from the process and with the sender and the arguments that Celery's has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, execution, signals
from litetq.message import Delivery, Outcome
from tests.conftest import RunPython
from tests.waiting import eventually

PROGRAM = """
import json, os, sys, time
from litetq import LiteTQ, signals
from litetq.signals import Signal

app = LiteTQ("told", broker="jobs.sqlite")
app.conf.include = ()
app.conf.worker_hijack_root_logger = True

def shown(value):
    return value if value is None or isinstance(value, (str, int, float, bool)) else type(value).__name__

def listen(name, signal):
    def receive(signal=None, sender=None, **named):
        line = {"signal": name, "pid": os.getpid(), "sender": shown(sender), "named": {k: shown(v) for k, v in named.items()}}
        with open("heard", "a") as file:
            file.write(json.dumps(line) + "\\n")
    signal.connect(receive, weak=False)

for name, signal in list(vars(signals).items()):
    if isinstance(signal, Signal) and name != "setup_logging":
        listen(name, signal)

@app.task(name="works")
def works(a, b=1):
    return a

@app.task(name="fails")
def fails():
    raise ValueError("no")

@app.task(name="retries", bind=True)
def retries(self):
    if not self.request.retries:
        raise self.retry(countdown=0)

@app.task(name="sleeps", bind=True)
def sleeps(self):
    time.sleep(60)
"""

OPTIONAL = {"task_internal_error", "task_sent", "beat_init", "beat_embedded_init", "user_preload_options"}
TASK = {"task_id", "task", "args", "kwargs"}
LOGGING = {"logger", "loglevel", "logfile", "format", "colorize"}
# signal -> sender, names of the arguments, and where: in the worker, its child, or both.
EXPECTED: dict[str, tuple[object, set[str], str]] = {
    "import_modules": ("LiteTQ", set(), "both"),
    "celeryd_init": ("one@here", {"instance", "conf", "options"}, "worker"),
    "celeryd_after_setup": ("one@here", {"instance", "conf"}, "worker"),
    "worker_init": ("Worker", set(), "worker"),
    "worker_before_create_process": ("ProcessPool", set(), "worker"),
    "worker_process_init": ("one@here", set(), "child"),
    "worker_process_shutdown": (None, {"pid", "exitcode"}, "child"),
    "worker_ready": ("Worker", set(), "worker"),
    "worker_shutting_down": ("one@here", {"sig", "how", "exitcode"}, "worker"),
    "worker_shutdown": ("Worker", set(), "worker"),
    "heartbeat_sent": ("Seat", set(), "worker"),
    "after_setup_logger": (None, LOGGING, "both"),
    "after_setup_task_logger": (None, LOGGING, "both"),
    "task_received": ("Worker", {"request"}, "worker"),
    "task_prerun": ("Task", TASK, "child"),
    "task_postrun": ("Task", TASK | {"retval", "state"}, "child"),
    "task_success": ("Task", {"result", "runtime"}, "child"),
    "task_failure": ("Task", {"task_id", "exception", "args", "kwargs", "traceback", "einfo"}, "child"),
    "task_retry": ("Task", {"request", "reason", "einfo"}, "child"),
    "task_unknown": (None, {"message", "exc", "name", "id"}, "child"),
    "task_rejected": (None, {"message", "exc"}, "child"),
    "task_revoked": ("Task", {"request", "terminated", "signum", "expired"}, "worker"),
}
SENDING: dict[str, tuple[object, set[str]]] = {
    "before_task_publish": (
        "works",
        {"body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"},
    ),
    "after_task_publish": ("works", {"headers", "body", "exchange", "routing_key"}),
}
SEND = """
import told
told.works.delay(1, b=2)
told.fails.delay()
told.retries.delay()
told.app.send_task("nobody.knows")
told.app.send_task("works", args=[1], serializer="pickle")
told.works.apply_async((1,), expires=-1)
told.sleeps.apply_async(task_id="sleeping")
"""


def heard(folder: Path) -> list[dict[str, Any]]:
    path = folder / "heard"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("told")


@pytest.fixture
def lines(told: Path, run_python: RunPython) -> list[dict[str, Any]]:
    """What is heard while a worker with processes runs tasks of every kind, and is stopped. One run serves all tests."""
    if not heard(told):
        (told / "told.py").write_text(PROGRAM)
        assert run_python(SEND, cwd=told).wait(30) == 0
        arguments = ("-A", "told", "worker", "-c", "1", "-P", "processes", "-n", "one@here", "-l", "INFO")
        worker = run_python("-m", "litetq", *arguments, cwd=told, stderr=subprocess.STDOUT)
        (told / "worker.pid").write_text(str(worker.pid))
        names = lambda: {line["signal"] for line in heard(told)}  # noqa: E731
        eventually(lambda: {"task_retry", "task_success", "task_failure", "task_rejected"} <= names(), 30)
        eventually(lambda: any(line["named"].get("task_id") == "sleeping" for line in heard(told)), 30)
        assert run_python("import told; told.app.control.revoke('sleeping', terminate=True)", cwd=told).wait(30) == 0
        eventually(lambda: "heartbeat_sent" in names(), 30)
        eventually(lambda: any(line["named"].get("terminated") for line in heard(told)), 30)
        eventually(lambda: [line["signal"] for line in heard(told)].count("worker_process_init") == 2, 30)
        worker.terminate()
        output, _ = worker.communicate(timeout=30)
        assert worker.returncode == 0, output
    return heard(told)


@pytest.mark.row("8.unknown task")
@pytest.mark.row("12.after_setup_logger, after_setup_task_logger")
@pytest.mark.row("12.task_received, task_prerun, task_postrun")
@pytest.mark.row("12.task_success, task_failure, task_retry, task_rejected, task_unknown")
@pytest.mark.row("12.import_modules, celeryd_init, celeryd_after_setup")
@pytest.mark.row("12.worker_init, worker_before_create_process, worker_process_init, worker_process_shutdown")
@pytest.mark.row("12.worker_ready, worker_shutting_down, worker_shutdown, heartbeat_sent")
@pytest.mark.parametrize("name", EXPECTED)
def test_a_worker_sends_it(told: Path, lines: list[dict[str, Any]], name: str) -> None:
    sender, named, where = EXPECTED[name]
    worker = int((told / "worker.pid").read_text())
    found = [line for line in lines if line["signal"] == name]
    assert found, f"{name} was not heard"
    assert {line["sender"] for line in found} == {sender}
    assert all(set(line["named"]) == named for line in found), found[0]
    if where == "worker":
        assert {line["pid"] for line in found} == {worker}
    if where == "child":
        assert worker not in {line["pid"] for line in found}


@pytest.mark.row("12.before_task_publish, after_task_publish")
@pytest.mark.parametrize("name", SENDING)
def test_the_caller_sends_it(told: Path, lines: list[dict[str, Any]], name: str) -> None:
    worker = int((told / "worker.pid").read_text())
    sender, named = SENDING[name]
    found = [line for line in lines if line["signal"] == name]
    assert found[0]["sender"] == sender and found[0]["pid"] != worker
    assert all(set(line["named"]) == named for line in found)


@pytest.mark.row("12.task_revoked")
def test_a_revoked_task_is_told_with_its_reason(lines: list[dict[str, Any]]) -> None:
    told = [line["named"] for line in lines if line["signal"] == "task_revoked"]
    assert {"request": "Context", "terminated": False, "signum": None, "expired": True} in told
    assert {"request": "Context", "terminated": True, "signum": 15, "expired": False} in told


@pytest.mark.row("12.task_received, task_prerun, task_postrun")
def test_postrun_comes_after_every_attempt(lines: list[dict[str, Any]]) -> None:
    states = [line["named"]["state"] for line in lines if line["signal"] == "task_postrun"]
    assert sorted(states) == ["FAILURE", "RETRY", "SUCCESS", "SUCCESS"]


@pytest.mark.row("12.setup_logging")
def test_who_connects_to_setup_logging_sets_logging_up_alone(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "alone.py").write_text(
        "import logging\n"
        "from litetq import LiteTQ, signals\n"
        "app = LiteTQ('alone', broker='jobs.sqlite')\n"
        "@signals.setup_logging.connect\n"
        "def set_up(loglevel, logfile, format, colorize, **kwargs):\n"
        "    open('set-up', 'a').write(f'{loglevel} {logfile}\\n')\n"
    )
    worker = run_python("-m", "litetq", "-A", "alone", "worker", "-P", "solo", "-l", "INFO", "--drain")
    out, err = worker.communicate(timeout=30)
    assert (tmp_path / "set-up").read_text() == "20 None\n"
    assert "INFO" not in err


@pytest.mark.row("12.worker_init, worker_before_create_process, worker_process_init, worker_process_shutdown")
def test_in_pool_solo_the_worker_is_the_process_that_begins(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "told.py").write_text(PROGRAM)
    worker = run_python("-m", "litetq", "-A", "told", "worker", "-P", "solo", "-n", "one@here", "--drain")
    worker.communicate(timeout=30)
    begun = [line for line in heard(tmp_path) if line["signal"] == "worker_process_init"]
    assert [(line["pid"], line["sender"]) for line in begun] == [(worker.pid, "one@here")]


@pytest.mark.row("12.task_internal_error")
def test_an_error_that_is_not_the_tasks_own_is_told_as_internal(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a tool that wraps each attempt fails: the task never ran, and ends as FAILURE with that error."""
    app = LiteTQ("tasks", broker=db)
    works = app.task(name="works")(lambda *args, **kwargs: None)
    original = execution.build_tracer

    def wrapped(name: str, task: Any, **named: Any) -> execution.Trace:
        original(name, task, **named)

        def fail(delivery: Delivery) -> Outcome:
            raise OSError("the tool broke")

        return fail

    monkeypatch.setattr(execution, "build_tracer", wrapped)
    told: list[dict[str, Any]] = []

    def listen(**named: Any) -> None:
        told.append(named)

    signals.task_internal_error.connect(listen)
    try:
        with app.run_embedded(pool="solo", hostname="one@here"):
            result = works.delay(1, b=2)
            with pytest.raises(OSError, match="the tool broke"):
                result.get(timeout=10)
    finally:
        signals.task_internal_error.disconnect(listen)
        app.close()
    (named,) = told
    assert named.keys() - {"signal"} == {
        *("sender", "task_id", "args", "kwargs", "request", "exception", "traceback", "einfo")
    }
    assert (named["sender"], named["task_id"], named["args"], named["kwargs"]) == (works, result.id, [1], {"b": 2})
    assert (named["request"].id, named["request"].hostname) == (result.id, "one@here")
    assert str(named["exception"]) == "the tool broke" and named["traceback"] is not None
    assert "the tool broke" in str(named["einfo"])


def test_the_request_of_task_received_tells_all_that_the_message_does(tmp_path: Path) -> None:
    app = LiteTQ("told", broker=str(tmp_path / "jobs.sqlite"), set_as_current=False)
    seen: list[Any] = []

    def received(request: Any, **_: Any) -> None:
        seen.append(
            (request.name, request.args, request.retries, request.replaced_task_nesting, request.tenant, request.stamps)
        )

    add = app.task(name="add")(lambda a, b: a + b)
    call = add.s(1, 2)
    call.stamp(batch="seven")
    signals.task_received.connect(received)
    try:
        with app.run_embedded(1):
            assert call.apply_async(headers={"tenant": "one"}).get(timeout=10) == 3
    finally:
        signals.task_received.disconnect(received)
    assert seen == [("add", [1, 2], 0, 0, "one", {"batch": "seven"})]
