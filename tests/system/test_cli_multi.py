"""`litetq multi`: nodes in the background start, restart and stop, as Celery's do, with POSIX signals and without."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import RunPython
from tests.waiting import eventually

HOST = socket.gethostname()
LONG = 60.0  # seconds
TASKS = """
import time
from pathlib import Path
from litetq import LiteTQ
app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task
def hold():
    Path("began").touch()
    while not Path("go").exists():
        time.sleep(0.005)
    return "done"
"""
pytestmark = pytest.mark.system
ways = pytest.mark.parametrize(
    "portable",
    [
        pytest.param("", marks=pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")),
        pytest.param("1", marks=[] if sys.platform == "win32" else pytest.mark.slow),
    ],
)

Multi = Callable[..., tuple[int, str, str]]


@pytest.fixture
def multi(run_python: RunPython, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Multi]:
    """Run `litetq multi` to its end; return exit code, stdout without the first line, and stderr."""
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    portable = request.node.callspec.params.get("portable", "") if hasattr(request.node, "callspec") else ""

    def run(*words: str) -> tuple[int, str, str]:
        process = run_python("-m", "litetq", "multi", *words, env={"LITETQ_PORTABLE": portable})
        out, err = process.communicate(timeout=LONG)
        splash, _, rest = out.partition("\n")
        assert splash.startswith("litetq multi v") or words[0] in ("show", "names", "expand", "get", "help") or not out
        return process.returncode, rest if splash.startswith("litetq multi v") else out, err

    yield run
    (tmp_path / "go").touch()


def pids(folder: Path, *names: str) -> list[int]:
    return [int((folder / f"{name}.pid").read_text()) for name in names]


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)


def call(run_python: RunPython, tmp_path: Path) -> subprocess.Popen[str]:
    """Call `hold` and wait until it runs; its end is printed."""
    waiting = run_python("import tasks; print(tasks.hold.delay().get(timeout=60))")
    eventually((tmp_path / "began").exists, LONG)
    return waiting


@ways
@pytest.mark.row("13.multi")
def test_three_nodes_start_restart_and_stop(multi: Multi, tmp_path: Path, portable: str) -> None:
    line = ("3", "-A", "tasks", "-P", "threads", "-c", "1", "-c:2", "2", "-l", "INFO", "--pidfile=run/%n.pid")
    assert multi("start", *line) == (
        0,
        f"> Starting nodes...\n\t> celery1@{HOST}: OK\n\t> celery2@{HOST}: OK\n\t> celery3@{HOST}: OK\n",
        "",
    )
    first = pids(tmp_path / "run", "celery1", "celery2", "celery3")
    assert all(map(lives, first))
    assert " -c 2 " in " ".join(psutil.Process(first[1]).cmdline())
    assert "ready." in (tmp_path / "celery3.log").read_text()

    code, out, err = multi("restart", *line)
    second = pids(tmp_path / "run", "celery1", "celery2", "celery3")
    assert (code, err) == (0, "")
    assert out.startswith(
        "> Stopping nodes...\n" + "".join(f"\t> celery{n + 1}@{HOST}: TERM -> {pid}\n" for n, pid in enumerate(first))
    )
    assert re.search(r"^> Waiting for 3 nodes -> \d+, \d+, \d+\.\.\.+$", out, re.MULTILINE)
    for number in (1, 2, 3):
        assert f"\t> celery{number}@{HOST}: OK\n> Restarting node celery{number}@{HOST}: OK\n" in out
    assert not any(map(lives, first)) and all(map(lives, second)) and not set(first) & set(second)

    code, out, err = multi("stopwait", "3", "--pidfile=run/%n.pid")
    assert (code, err) == (0, "")
    assert all(f"> celery{number}@{HOST}: DOWN\n" in out for number in (1, 2, 3))
    assert not any(map(lives, second)) and list((tmp_path / "run").iterdir()) == []
    down = "".join(f"> celery{number}@{HOST}: DOWN\n" for number in (1, 2, 3))
    assert multi("stop", "3", "--pidfile=run/%n.pid") == (0, down, "")


@ways
@pytest.mark.row("13.multi")
def test_stop_does_not_wait_for_a_running_task_and_stopwait_does(
    multi: Multi, run_python: RunPython, tmp_path: Path, portable: str
) -> None:
    assert multi("start", "w1", "-A", "tasks", "-c", "1")[0] == 0
    [pid] = pids(tmp_path, "w1")
    called = call(run_python, tmp_path)
    assert multi("stop", "w1") == (0, f"> Stopping nodes...\n\t> w1@{HOST}: TERM -> {pid}\n", "")
    eventually(lambda: not list(tmp_path.glob("*.word")), LONG)  # it has heard
    assert lives(pid)

    waiting = run_python("-m", "litetq", "multi", "stopwait", "w1", env={"LITETQ_PORTABLE": portable})
    assert waiting.stdout is not None
    shown = [waiting.stdout.readline() for _ in range(3)]
    assert shown[2] == f"\t> w1@{HOST}: TERM -> {pid}\n"
    assert waiting.stdout.read(len("> Waiting")) == "> Waiting"
    assert waiting.poll() is None and lives(pid)
    (tmp_path / "go").touch()
    out, err = waiting.communicate(timeout=LONG)
    assert out.endswith(f"\n\t> w1@{HOST}: OK\n> w1@{HOST}: DOWN\n") and err == "" and waiting.returncode == 0
    assert called.communicate(timeout=LONG)[0] == "done\n", "a second SIGTERM makes no haste"
    assert not lives(pid)


@ways
def test_quit_stops_at_once_and_kill_does_not_ask(
    multi: Multi, run_python: RunPython, tmp_path: Path, portable: str
) -> None:
    assert multi("start", "w1", "w2", "-A", "tasks", "-P:w1", "solo", "-c:w2", "1", "-Q:w2", "none")[0] == 0
    one, two = pids(tmp_path, "w1", "w2")
    call(run_python, tmp_path)
    assert multi("kill", "w2") == (0, f"Sending KILL to node w2@{HOST} ({two})\n", "")
    eventually(lambda: not lives(two), LONG)
    assert (tmp_path / "w2.pid").exists()
    code, out, err = multi("stopwait", "w1", "w2", "-9" if portable else "-SIGKILL")
    assert out.startswith(f"> w2@{HOST}: DOWN\n> Stopping nodes...\n\t> w1@{HOST}: KILL -> {one}\n"), err
    assert not lives(one)
    assert multi("restart", "w1", "w2", "-P", "solo", "-A", "tasks", "-Q", "none") == (
        0,
        f"> Restarting node w1@{HOST}: OK\n> Restarting node w2@{HOST}: OK\n",
        "",
    )
    code, out, err = multi("stopwait", "w1", "w2", "-QUIT")
    assert (code, err) == (0, "") and f"\t> w2@{HOST}: QUIT -> " in out
    assert not list(tmp_path.glob("*.pid*"))


@pytest.mark.row("13.multi")
def test_a_node_that_does_not_start_is_named_with_its_reason(multi: Multi, tmp_path: Path) -> None:
    (tmp_path / "w2.pid").write_text(f"{os.getpid()}\n")
    code, out, err = multi("start", "w1", "w2", "-A", "tasks", "-P", "solo")
    assert code == 1
    assert out == (
        f"> Starting nodes...\n\t> w1@{HOST}: OK\n\t> w2@{HOST}: FAILED\n* Child terminated with exit code 73\n"
    )
    assert f"w2.pid names process {os.getpid()}, which is running" in err and "Traceback" not in err
    assert multi("stopwait", "w1", "-q") == (0, "", "")
    for line, sentence in [
        (("-A", "nothing-there"), "was not found"),
        (("--workdir=nowhere",), "cannot go to 'nowhere'"),
        (("--executable=./no-python",), "'./no-python' cannot be started"),
        (("-l", "LOUD"), "'LOUD' is not one of"),
    ]:
        code, out, err = multi("start", "w1", *line)
        assert code == 1 and "FAILED" in out and sentence in err and "Traceback" not in err, line
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.row("13.multi")
def test_what_only_tells_starts_nothing_and_writes_nothing(multi: Multi, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    where = "--pidfile=run/%n.pid"
    assert multi("names", "2", where) == (0, f"celery1@{HOST}\ncelery2@{HOST}\n", "")
    assert multi("expand", "%n of %d%I", "2") == (0, f"celery1 of {HOST}%I\ncelery2 of {HOST}%I\n", "")
    code, out, err = multi("show", "2", where, "-c:2", "7")
    assert code == 0 and [" -c 7 " in line for line in out.splitlines()] == [False, True]
    assert multi("get", "celery2", "2", where, "-c:2", "7")[1] == out.splitlines()[1].partition(" ")[2] + "\n"
    assert multi("get", "w", "2") == (
        1,
        "",
        f"Error: there is no node 'w'; there are: celery1@{HOST}, celery2@{HOST}\n",
    )
    assert "start" in multi("help")[1]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.row("13.multi")
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("strt 3", "Did you mean 'start'?"),
        ("start", "Which nodes?"),
        ("stop 0", "0 nodes are none"),
        ("start 2 -c:5 1", "there is no node 5"),
        ("stop 2 -77", "there is no signal 77"),
        ("expand", "Which text?"),
        ("get", "Which node?"),
    ],
)
def test_a_wrong_line_ends_with_2_and_a_sentence(multi: Multi, line: str, sentence: str) -> None:
    code, out, err = multi(*line.split())
    assert code == 2 and out == "" and sentence in err


def test_words_before_multi_are_for_the_workers(run_python: RunPython) -> None:
    for line in (
        "-q -A my_app --workdir w multi show 2 -E",
        "-A my_app multi --workdir w show 2 -E -- -- more",
        "multi -A my_app --workdir=w show -E 2",
    ):
        out, err = run_python("-m", "litetq", *line.split()).communicate(timeout=LONG)
        found = [" -m litetq -A my_app --workdir=w worker --detach -E -n " in each for each in out.splitlines()]
        assert (found, err) == ([True, True], ""), line


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_reader_who_goes_away_is_no_reason_to_leave_nodes_unstarted(
    multi: Multi, run_python: RunPython, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    starting = run_python("-m", "litetq", "multi", "start", "w1", "w2", "-A", "tasks", "-P", "solo", stdout=writer)
    os.close(writer)
    os.close(reader)
    err = starting.communicate(timeout=LONG)[1]
    assert (starting.returncode, err) == (0, "") and all(map(lives, pids(tmp_path, "w1", "w2")))
    assert multi("stopwait", "w1", "w2")[0] == 0


# -- pid files


@pytest.mark.skipif(sys.platform == "win32", reason="sets times as POSIX does")
def test_a_process_that_got_the_id_of_a_node_is_left_alone(multi: Multi, run_python: RunPython, tmp_path: Path) -> None:
    stranger = run_python("import time; time.sleep(60)")
    file = tmp_path / "w1.pid"
    file.write_text(f"{stranger.pid}\n")
    long_ago = psutil.Process(stranger.pid).create_time() - 3600
    os.utime(file, (long_ago, long_ago))
    assert multi("stop", "w1") == (0, f"> w1@{HOST}: DOWN\n", "")
    assert stranger.poll() is None
    assert multi("start", "w1", "-A", "tasks", "-P", "solo")[0] == 0, "the file is taken over"
    assert multi("stopwait", "w1")[0] == 0
    for text in ("", "no number", "-5", "99999999999999999999"):
        file.write_text(text)
        assert multi("stop", "w1") == (0, f"> w1@{HOST}: DOWN\n", ""), text


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_the_folders_belong_to_the_user_that_the_node_becomes(multi: Multi, tmp_path: Path) -> None:
    """The node itself cannot start here: the program lies where only root may read."""
    multi("start", "w1", "-A", "tasks", "--uid=65534", "--gid=12345", "--pidfile=run/%n.pid", "--logfile=log/%n.log")
    for name in ("run", "log"):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid) == (65534, 12345)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_the_waiting_and_nothing_else(multi: Multi, run_python: RunPython, tmp_path: Path) -> None:
    assert multi("start", "w1", "-A", "tasks", "-P", "threads")[0] == 0
    call(run_python, tmp_path)
    waiting = run_python("-m", "litetq", "multi", "stopwait", "w1")
    assert waiting.stdout is not None
    shown = ""
    while "Waiting" not in shown:
        shown += waiting.stdout.read(1)
    waiting.send_signal(signal.SIGINT)
    assert "Traceback" not in waiting.communicate(timeout=LONG)[1] and waiting.returncode == 130
    assert lives(pids(tmp_path, "w1")[0])
