"""What a worker writes to its log and to the terminal, line by line, and which settings and options change it."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from litetq.platforms import PORTABLE
from tests.conftest import RunPython
from tests.waiting import eventually

pytestmark = pytest.mark.system
posix_only = pytest.mark.skipif(PORTABLE, reason="there these signals are not heard")

TASKS = """
import logging, os, sys, time
from litetq import LiteTQ
from litetq.exceptions import Ignore, Reject
from litetq.log import get_task_logger

app = LiteTQ("tasks", broker="jobs.sqlite")
logger = get_task_logger(__name__)

@app.task
def works(): return 7

@app.task
def ignores(): raise Ignore()

@app.task(acks_late=True, bind=True)
def rejects(self):
    if not self.request.delivery_info["redelivered"]:
        raise Reject("not now", requeue=True)

@app.task
def refuses(): raise Reject("never")

@app.task
def fails(): raise ValueError("no")

@app.task(name="od\\x1b[31md")
def odd(): raise ValueError("\\x1b]0;title\\x07\\u202e")

@app.task
def logs():
    logger.error("from a task")
    logging.getLogger("of.mine").error("from a module")

@app.task
def named():
    import multiprocessing
    return multiprocessing.current_process().name
"""
Log = Callable[..., str]


@pytest.fixture
def log(tmp_path: Path, run_python: RunPython) -> Log:
    """Run these calls in a worker that ends when nothing is due, and return what it said."""
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")

    def run(calls: str, *options: str, settings: str = "") -> str:
        (tmp_path / "mine.py").write_text(f"from tasks import *\n{settings}\n", encoding="utf-8")
        process = run_python(f"from tasks import *\n{calls}")
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        command = ("-m", "litetq", "-A", "mine", "worker", "--drain", "-c", "1", "-n", "w@here")
        worker = run_python(*command, *(options or ("-l", "INFO", "-P", "solo")), stderr=subprocess.STDOUT)
        out, _ = worker.communicate(timeout=30)
        assert worker.returncode == 0, out
        return out

    return run


def test_what_a_line_tells_of_a_task_cannot_command_the_terminal(log: Log) -> None:
    out = log("odd.apply_async(task_id='a\\x1b[2Jb')", settings='app.conf.worker_log_format = "\\x1b[1m%(message)s"')
    assert "\x1b[1mTask od\\x1b[31md[a\\x1b[2Jb] raised unexpected: ValueError(" in out
    assert "ValueError: \\x1b]0;title\\x07\\u202e" in out  # the last line of the traceback
    assert not {"\x07", "\u202e"}.intersection(out) and "\x1b[2J" not in out and "\x1b[31m" not in out


def test_no_name_or_id_makes_a_line_of_the_log(log: Log) -> None:
    forged = r"\n[2026-01-01 00:00:00,000: INFO/MainProcess] Task pay[1] succeeded in 0s: 1000"
    said = log(f"app.send_task('no.such{forged}')\napp.send_task('tasks.fails', task_id='a{forged}')")
    assert not [line for line in said.splitlines() if line.startswith("[2026-01-01 00:00:00,000")], said
    assert said.count(r"\n[2026-01-01 00:00:00,000: INFO/MainProcess] Task pay[1] succeeded") >= 4
    assert "\nTraceback" in said


@pytest.mark.row("8.worker log: retry, ignored, rejected, revoked")
def test_each_end_of_a_task_has_celerys_line(log: Log) -> None:
    said = log(
        "for name in ('ignores', 'rejects', 'refuses', 'fails', 'works'): app.send_task(f'tasks.{name}', task_id=name)\n"
        "app.send_task('tasks.works', task_id='late', expires=-1)\n"
        "app.send_task('no.such', task_id='unknown')"
    )
    for line in (
        r"INFO/MainProcess\] Task tasks\.ignores\[ignores\] received",
        r"INFO/MainProcess\] Task tasks\.ignores\[ignores\] ignored",
        r"WARNING/MainProcess\] Task tasks\.rejects\[rejects\] reject requeue=True: not now\nTraceback",
        r"WARNING/MainProcess\] Task tasks\.refuses\[refuses\] reject requeue=False: never\nTraceback",
        r"ERROR/MainProcess\] Task tasks\.fails\[fails\] raised unexpected: ValueError\('no'\)\nTraceback",
        r"INFO/MainProcess\] Task tasks\.works\[works\] succeeded in [\de.-]+s: 7",
        r"INFO/MainProcess\] Discarding revoked task: tasks\.works\[late\]",
        r"ERROR/MainProcess\] Received unregistered task of type 'no\.such'",
    ):
        assert re.search(line, said), f"{line} not in:\n{said}"


@pytest.mark.row("15.formats, dates, colours")
@pytest.mark.row("20.worker_log_format")
@pytest.mark.row("20.worker_log_datefmt")
@pytest.mark.row("20.worker_task_log_format")
@pytest.mark.row("20.worker_task_log_datefmt")
@pytest.mark.parametrize("pool", ["solo", "processes"])
def test_settings_say_how_lines_look(log: Log, pool: str) -> None:
    said = log(
        "app.send_task('tasks.logs', task_id='one')",
        *("-P", pool),
        settings="app.conf.update(worker_log_format='L|%(asctime)s|%(levelname)s|%(message)s', worker_log_datefmt='year %Y',"
        " worker_task_log_format='T|%(asctime)s|%(task_name)s|%(task_id)s|%(message)s', worker_task_log_datefmt='in %Y')",
    )
    assert re.search(r"^L\|year \d{4}\|ERROR\|from a module$", said, re.M), said
    assert re.search(r"^T\|in \d{4}\|tasks\.logs\|one\|from a task$", said, re.M), said


@pytest.mark.row("15.formats, dates, colours")
@pytest.mark.row("20.worker_log_color")
@pytest.mark.parametrize(("colour", "options"), [("True", ()), ("None", ()), ("True", ("--no-color",))])
def test_lines_are_coloured_where_that_is_wanted(log: Log, colour: str, options: tuple[str, ...]) -> None:
    settings = f"app.conf.worker_log_color = {colour}"
    said = log("app.send_task('tasks.logs')", "-P", "solo", *options, settings=settings)
    lines = [line for line in said.splitlines() if line.endswith(("from a module", "from a module\x1b[0m"))]
    assert [line.startswith("\x1b[1;31m[") for line in lines] == [colour == "True" and not options], said


@pytest.mark.row("15.worker_hijack_root_logger")
@pytest.mark.row("20.worker_hijack_root_logger")
@pytest.mark.parametrize("hijack", [True, False])
def test_a_worker_takes_over_the_root_logger_unless_told_not_to(log: Log, hijack: bool) -> None:
    said = log(
        "app.send_task('tasks.logs')",
        settings="logging.basicConfig(format='mine: %(message)s', stream=sys.stderr)\n"
        f"app.conf.worker_hijack_root_logger = {hijack}",
    )
    assert ("mine: from a module" in said) == (not hijack)
    assert bool(re.search(r"ERROR/MainProcess\] from a module", said)) == hijack


@pytest.mark.row("15.a log per child")
def test_each_child_may_have_a_log_of_its_own(log: Log, tmp_path: Path) -> None:
    log("app.send_task('tasks.logs')", "-l", "INFO", "-P", "processes", "-f", "%n%I.log")
    main, child = (tmp_path / name for name in ("w.log", "w-1.log"))
    assert "ready." in main.read_text() and "from a module" not in main.read_text()
    assert "from a module" in child.read_text() and "ready." not in child.read_text()


@pytest.mark.row("8.--without-gossip, --without-mingle, --without-heartbeat")
def test_options_about_nodes_that_meet_are_taken(log: Log) -> None:
    options = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    said = log("app.send_task('tasks.works', task_id='one')", "-l", "INFO", "-P", "solo", *options)
    assert "Task tasks.works[one] succeeded" in said


@posix_only
@pytest.mark.row("8.USR1 shows all threads")
def test_a_signal_shows_where_all_threads_of_a_worker_are(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    worker = run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "threads", "-l", "INFO")
    assert worker.stderr is not None
    lines = iter(worker.stderr.readline, "")
    assert any(line.endswith("ready.\n") for line in lines)
    worker.send_signal(signal.SIGUSR1)
    seen = [next(lines)]
    while "in stacks" not in seen[-1]:  # the thread that shows them
        seen.append(next(lines))
    worker.terminate()
    text = "".join([*seen, *lines])
    assert worker.wait(20) == 0
    for thread, place in (("MainThread", "to_the_end"), (r"litetq-worker\S*", "_run")):
        assert re.search(rf"^{thread}\n=+\n(  .*\n)*.* in {place}$", text, re.M), text


@pytest.mark.row("20.worker_concurrency")
@pytest.mark.row("20.worker_pool")
def test_settings_say_where_and_how_many_tasks_run(log: Log, tmp_path: Path, run_python: RunPython) -> None:
    settings = "app.conf.update(worker_pool='threads', worker_concurrency=3)"
    said = log("app.send_task('tasks.named', task_id='n')", "-n", "w@here", settings=settings)
    assert re.search(r"concurrency: 1 \(threads\)", said), said  # -c stands over the setting
    worker = run_python("-m", "litetq", "-A", "mine", "worker", "--drain")
    out, err = worker.communicate(timeout=30)
    assert re.search(r"concurrency: 3 \(threads\)", out + err), out + err


SOFT = "app.conf.update(worker_soft_shutdown_timeout=0.2, worker_enable_soft_shutdown_on_idle=True)\n"


@posix_only
@pytest.mark.row("20.worker_enable_soft_shutdown_on_idle")
@pytest.mark.parametrize("on_idle", [True, False])
def test_an_idle_worker_is_stopped_softly_by_setting(tmp_path: Path, run_python: RunPython, on_idle: bool) -> None:
    (tmp_path / "tasks.py").write_text(
        f"{TASKS}\napp.conf.update(worker_soft_shutdown_timeout=0.2, worker_enable_soft_shutdown_on_idle={on_idle})\n"
    )
    worker = run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "solo", "-l", "INFO", stderr=subprocess.STDOUT)
    assert worker.stdout is not None
    assert any(line.endswith("ready.\n") for line in iter(worker.stdout.readline, ""))
    worker.send_signal(signal.SIGQUIT)
    out, _ = worker.communicate(timeout=20)
    assert ("Soft shutdown, cold in 0.2 seconds" in out) == on_idle and ("Cold shutdown" in out) == (not on_idle)


@posix_only
@pytest.mark.parametrize(("settings", "when"), [("", "at once"), (SOFT, "in 0.2 seconds")])
def test_a_warm_stop_says_what_ctrl_c_does_the_next_time(
    tmp_path: Path, run_python: RunPython, settings: str, when: str
) -> None:
    (tmp_path / "tasks.py").write_text(f"{TASKS}\n{settings}", encoding="utf-8")
    worker = run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "solo", "-l", "INFO", stderr=subprocess.STDOUT)
    assert worker.stdout is not None
    assert any(line.endswith("ready.\n") for line in iter(worker.stdout.readline, ""))
    worker.send_signal(signal.SIGINT)
    out, _ = worker.communicate(timeout=20)
    assert f"worker: Ctrl-C again stops {when}; tasks that run then are cut off\n" in out


@pytest.mark.row("20.beat_logfile")
@pytest.mark.row("20.beat_pidfile")
def test_settings_name_the_log_and_the_pid_file_of_a_beat(tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(
        f"{TASKS}\napp.conf.update(beat_logfile='beat.log', beat_pidfile='beat.pid',\n"
        "    beat_schedule={'often': {'task': 'tasks.works', 'schedule': 0.2}})\n"
    )
    beat = run_python("-m", "litetq", "-A", "tasks", "beat", "-l", "INFO")
    eventually(lambda: (tmp_path / "beat.log").exists() and "often" in (tmp_path / "beat.log").read_text(), 30)
    assert (tmp_path / "beat.pid").read_text().strip() == str(beat.pid)
    beat.terminate()
    beat.communicate(timeout=20)
    assert not (tmp_path / "beat.pid").exists()
