"""`litetq worker`, as a user runs it: real processes on a real file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import RunPython
from tests.waiting import eventually

TASKS = """
import os, time
from litetq import LiteTQ
app = LiteTQ("tasks", broker="own.sqlite")

@app.task
def add(x, y):
    return x + y

@app.task
def say(text):
    print(text)
    return os.getpid()

@app.task
def hold(path, seconds=30):
    open(path, "w").write(str(os.getpid()))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not os.path.exists(path + ".go"):
        time.sleep(0.01)
    return "held"
"""
pytestmark = pytest.mark.system
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


class Output:
    """What a process prints, collected while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.parts: list[str] = []
        self.readers = [threading.Thread(target=self._read, args=(s,)) for s in (process.stdout, process.stderr)]
        for reader in self.readers:
            reader.start()

    def _read(self, stream: object) -> None:
        for line in stream:  # type: ignore[attr-defined]
            self.parts.append(line)

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def wait_for(self, words: str, within: float = 20.0) -> str:
        def seen() -> bool:
            return words in self.text or self.process.poll() is not None

        eventually(seen, within)
        assert words in self.text, f"{words!r} is not in:\n{self.text}"
        return self.text

    def end(self, within: float = 20.0) -> int:
        code = self.process.wait(within)
        for reader in self.readers:
            reader.join(within)
        return code


Litetq = Callable[..., Output]


@pytest.fixture
def litetq(run_python: RunPython, tmp_path: Path) -> Litetq:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")

    def start(*words: str, **settings: object) -> Output:
        return Output(run_python("-m", "litetq", *words, **settings))  # type: ignore[arg-type]

    return start


@pytest.fixture
def program(run_python: RunPython) -> Callable[..., str]:
    """Run a program of the user to its end and return what it printed."""

    def run(code: str, env: dict[str, str] | None = None) -> str:
        process = run_python(code, env=env)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        return out.strip()

    return run


JOBS = {"LITETQ_BROKER": "jobs.sqlite"}
POOLS = ("processes", "threads", "solo")


@pytest.mark.row("8.pools prefork, threads, solo")
@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_runs_what_a_program_enqueues_and_answers_it(
    litetq: Litetq, program: Callable[..., str], pool: str
) -> None:
    worker = litetq("worker", "jobs.sqlite", "-l", "INFO", "-P", pool, "-c", "2")
    worker.wait_for("ready.")
    assert program("from tasks import add; print(add.delay(2, 2).get(timeout=20))", JOBS) == "4"
    worker.process.terminate()
    assert worker.end() == 0
    assert "tasks.add" in worker.text and "succeeded in" in worker.text
    assert "worker: Warm shutdown (MainProcess)" in worker.text


def test_the_banner_has_celerys_fields(litetq: Litetq, tmp_path: Path) -> None:
    worker = litetq("-A", "tasks", "worker", "jobs.sqlite", "-c", "2", "-Q", "mail,celery", "-E", "-n", "w1@%h")
    worker.wait_for("ready.")
    worker.process.terminate()
    worker.end()
    for pattern in (
        r"w1@\S+ v\d+\.\d+\.\d+ \(litetq\)",
        r"\.> app: +tasks:0x[0-9a-f]+",
        r"\.> transport: +.*jobs\.sqlite.* \(command line\)",
        r"\.> results: +.*jobs\.sqlite",
        r"\.> concurrency: 2 \((prefork|processes)\)",
        r"\.> task events: ON",
        r"\[queues\]\n \.> celery +exchange=celery\(direct\) key=celery\n \.> mail ",
        r"\[tasks\]\n  \. tasks\.add\n",
    ):
        assert re.search(pattern, worker.text), f"{pattern} not in:\n{worker.text}"
    assert not (tmp_path / "own.sqlite").exists()


def test_quiet_shows_no_banner(litetq: Litetq) -> None:
    worker = litetq("-q", "-A", "tasks", "worker", "jobs.sqlite", "-P", "solo", "--drain")
    assert worker.end() == 0
    assert worker.text == ""


def test_drain_ends_when_nothing_is_due(litetq: Litetq, program: Callable[..., str]) -> None:
    ids = program("from tasks import add\nfor n in range(20): print(add.delay(n, n).id)", JOBS).split()
    later = program("from tasks import add; print(add.apply_async((1, 1), countdown=3600).id)", JOBS)
    worker = litetq("worker", "jobs.sqlite", "--drain", "-P", "threads", "-c", "2")
    assert worker.end() == 0
    states = f"from tasks import app\nprint(*[app.AsyncResult(i).state for i in {[*ids, later]!r}])"
    assert program(states, JOBS).split() == ["SUCCESS"] * 20 + ["PENDING"]


def test_the_app_that_the_file_names_is_found_without_dash_a(
    litetq: Litetq, program: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "aaa.py").write_text("from litetq import LiteTQ\napp = LiteTQ('aaa')\n", encoding="utf-8")
    (tmp_path / "tasks.py").rename(tmp_path / "jobs_of_mine.py")
    program("from jobs_of_mine import add; add.delay(2, 3)", JOBS)
    worker = litetq("worker", "jobs.sqlite", "--drain", "-P", "solo", "-l", "INFO")
    assert worker.end() == 0, worker.text
    assert "importing the app 'jobs_of_mine:app' that" in worker.text
    refused = litetq("worker", "jobs.sqlite", "--drain", "--no-recorded-app")
    assert refused.end() == 2
    assert "aaa, jobs_of_mine" in refused.text and "say which with -A" in refused.text


@pytest.mark.row("8.start method spawn")
def test_tasks_of_a_script_run_on_a_worker(
    litetq: Litetq, run_python: RunPython, program: Callable[..., str], tmp_path: Path
) -> None:
    script = tmp_path / "my_script.py"
    script.write_text(
        "from litetq import LiteTQ\napp = LiteTQ()\n"
        "@app.task\ndef double(x):\n    return 2 * x\n"
        "if __name__ == '__main__':\n    print(double.delay(21).id)\n",
        encoding="utf-8",
    )
    process = run_python(script, env=JOBS)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    worker = litetq("worker", "jobs.sqlite", "--drain", "-P", "processes", "-c", "1")
    assert worker.end() == 0, worker.text
    asked = f"from tasks import app; print(app.AsyncResult({out.strip()!r}).get(timeout=5))"
    assert program(asked, JOBS) == "42", worker.text


@pytest.mark.parametrize("pool", POOLS)
def test_what_a_task_prints_is_a_line_of_the_log(litetq: Litetq, program: Callable[..., str], pool: str) -> None:
    program("from tasks import say; say.delay('hello from a task')", JOBS)
    worker = litetq("worker", "jobs.sqlite", "--drain", "-P", pool, "-c", "1")
    assert worker.end() == 0
    assert re.search(r"^\[[-\d]+ [:,\d]+: WARNING/\S+\] hello from a task$", worker.text, re.M), worker.text


@pytest.mark.row("8.node names")
@pytest.mark.row("8.pidfile, logfile")
def test_the_log_goes_to_a_file_when_asked(litetq: Litetq, program: Callable[..., str], tmp_path: Path) -> None:
    program("from tasks import say; say.delay('hällo 中文')", JOBS)
    worker = litetq("worker", "jobs.sqlite", "--drain", "-f", "%n.log", "-l", "INFO", "-n", "w1", "-P", "threads")
    assert worker.end() == 0
    log = (tmp_path / "w1.log").read_text(encoding="utf-8")
    assert "hällo 中文" in log and "w1@" in log and "ready." in log
    assert "\x1b[" not in log + worker.text


def test_a_log_file_that_cannot_be_written_is_refused(litetq: Litetq, tmp_path: Path) -> None:
    worker = litetq("-A", "tasks", "worker", "jobs.sqlite", "-f", "no/such/dir/w.log")
    assert worker.end() == 2
    assert "Error: the log file" in worker.text and "Traceback" not in worker.text
    assert not (tmp_path / "jobs.sqlite").exists()


def test_output_that_the_console_cannot_show_is_escaped(litetq: Litetq, program: Callable[..., str]) -> None:
    program("from tasks import say; say.delay('中文')", JOBS)
    worker = litetq("worker", "jobs.sqlite", "--drain", "-P", "threads", env={"PYTHONIOENCODING": "cp1252"})
    assert worker.end() == 0
    assert "\\u4e2d\\u6587" in worker.text and "UnicodeEncodeError" not in worker.text


@pytest.mark.row("8.warm shutdown")
@posix_only
@pytest.mark.parametrize("pool", POOLS)
def test_the_first_ctrl_c_lets_running_tasks_finish(
    litetq: Litetq, program: Callable[..., str], tmp_path: Path, pool: str
) -> None:
    id = program("from tasks import hold; print(hold.delay('held').id)", JOBS)
    worker = litetq("worker", "jobs.sqlite", "-P", pool, "-c", "1")
    eventually(lambda: (tmp_path / "held").exists())
    worker.process.send_signal(signal.SIGINT)
    worker.wait_for("Warm shutdown")
    (tmp_path / "held.go").touch()
    assert worker.end() == 0
    assert program(f"from tasks import app; print(app.AsyncResult({id!r}).get(timeout=5))", JOBS) == "held"


@pytest.mark.row("8.cold shutdown")
@posix_only
def test_the_second_ctrl_c_stops_at_once_and_leaves_no_process(
    litetq: Litetq, program: Callable[..., str], tmp_path: Path
) -> None:
    program("from tasks import hold; hold.delay('held')", JOBS)
    worker = litetq("worker", "jobs.sqlite", "-P", "processes", "-c", "1")
    eventually(lambda: (tmp_path / "held").exists() and (tmp_path / "held").read_text() != "")
    child = int((tmp_path / "held").read_text())
    worker.process.send_signal(signal.SIGINT)
    worker.wait_for("Warm shutdown")
    worker.process.send_signal(signal.SIGINT)
    assert worker.end() == 1
    assert "Cold shutdown" in worker.text and "Traceback" not in worker.text
    eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("pool", ["processes", "solo"])
def test_the_end_of_its_input_stops_a_worker_warmly_when_asked(litetq: Litetq, pool: str) -> None:
    worker = litetq("-A", "tasks", "worker", "jobs.sqlite", "-P", pool, "-c", "1", "--until-eof", stdin=subprocess.PIPE)
    worker.wait_for("ready.")
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.end() == 0


@pytest.mark.row("8.pidfile, logfile")
def test_the_pid_file_is_held_and_given_up(litetq: Litetq, tmp_path: Path) -> None:
    pid_file = tmp_path / "w1.pid"
    pid_file.write_text("999999999\n", encoding="ascii")  # left by a crash
    words = ("-A", "tasks", "worker", "jobs.sqlite", "-P", "solo", "-n", "w1", "--pidfile", "%n.pid")
    worker = litetq(*words)
    worker.wait_for("ready.")
    assert int(pid_file.read_text(encoding="ascii")) == worker.process.pid
    second = litetq(*words)
    assert second.end() == 73
    assert f"names process {worker.process.pid}, which is running" in second.text
    worker.process.terminate()
    assert worker.end() == 0
    assert not pid_file.exists()
    without = litetq(*words[:-2], "--pidfile=", "--drain")  # as in many compose files: none
    assert without.end() == 0, without.text


def test_purge_removes_what_waits_first(litetq: Litetq, program: Callable[..., str]) -> None:
    program("from tasks import add\nfor n in range(3): add.delay(n, n)", JOBS)
    worker = litetq("worker", "jobs.sqlite", "--drain", "--purge", "-P", "solo", "-l", "INFO")
    assert worker.end() == 0
    assert "3 waiting tasks removed" in worker.text and "succeeded" not in worker.text


@pytest.mark.row("8.prefetch")
def test_options_without_effect_are_said_to_have_none(litetq: Litetq) -> None:
    worker = litetq(
        "-A", "tasks", "worker", "jobs.sqlite", "-O", "fair", "--prefetch-multiplier", "4", "--drain", "-P", "solo"
    )
    assert worker.end() == 0
    assert "no effect here of -O" in worker.text and "no effect here of --prefetch-multiplier" in worker.text


def test_a_pool_of_greenlets_in_the_settings_comes_too_late_and_says_so(litetq: Litetq, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text("worker_pool = 'gevent'\n", encoding="utf-8")
    (tmp_path / "green.py").write_text(
        "from litetq import LiteTQ\napp = LiteTQ('green')\napp.config_from_object('settings')\n", encoding="utf-8"
    )
    worker = litetq("-A", "green", "worker", "jobs.sqlite")
    assert worker.end() == 2
    assert "setting worker_pool: pool gevent: gevent has not patched this program" in worker.text
    assert "-P gevent" in worker.text and "Traceback" not in worker.text


@posix_only
def test_ctrl_c_is_heard_while_the_pool_is_started(litetq: Litetq, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, sys, time\nfrom litetq import LiteTQ\napp = LiteTQ('slow')\n"
        "if not sys.argv[0].endswith('__main__.py') or os.path.exists('loaded'):\n"
        "    open('child', 'w').close()\n    time.sleep(3)\n"
        "open('loaded', 'w').close()\n",
        encoding="utf-8",
    )
    worker = litetq("-A", "slow", "worker", "jobs.sqlite", "-P", "processes", "-c", "1")
    eventually(lambda: (tmp_path / "child").exists())
    worker.process.send_signal(signal.SIGINT)
    worker.wait_for("Warm shutdown", within=2.5)
    assert worker.end() == 0


@pytest.mark.row("11.task_queues")
def test_only_the_queues_asked_for_are_consumed(litetq: Litetq, program: Callable[..., str]) -> None:
    code = "from tasks import add\nfor q in ('a', 'b', 'celery'): print(add.apply_async((1, 1), queue=q).id)"
    ids = program(code, JOBS).split()
    states = f"from tasks import app\nprint(*[app.AsyncResult(i).state for i in {ids!r}])"
    assert litetq("worker", "jobs.sqlite", "--drain", "-P", "solo", "-Q", "a").end() == 0
    assert program(states, JOBS).split() == ["SUCCESS", "PENDING", "PENDING"]
    assert litetq("worker", "jobs.sqlite", "--drain", "-P", "solo", "-Q", "b,celery", "-X", "celery").end() == 0
    assert program(states, JOBS).split() == ["SUCCESS", "SUCCESS", "PENDING"]


def test_a_file_on_the_line_replaces_broker_and_results_also_for_tasks_enqueued_by_tasks(
    litetq: Litetq, program: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "nested.py").write_text(
        "from litetq import LiteTQ\napp = LiteTQ('nested', broker='own.sqlite', backend='results.sqlite')\n"
        "@app.task\ndef inner(x):\n    return x\n"
        "@app.task\ndef outer(x):\n    return inner.delay(x).id\n"
        "other = LiteTQ('other', broker='second.sqlite', set_as_current=False)\n"
        "@app.task\ndef elsewhere(x):\n    return other.send_task('nested.inner', (x,)).id\n",
        encoding="utf-8",
    )
    env = {"LITETQ_BROKER": "jobs.sqlite", "LITETQ_RESULT_BACKEND": "jobs.sqlite"}
    ids = program("from nested import outer, elsewhere; print(outer.delay(7).id, elsewhere.delay(8).id)", env)
    assert litetq("-A", "nested", "worker", "jobs.sqlite", "--drain", "-P", "processes", "-c", "1").end() == 0
    code = "from nested import app\nfor id in {0!r}: print(app.AsyncResult(app.AsyncResult(id).get(timeout=5)).get(timeout=5))"
    assert program(code.format(ids.split()), env).split() == ["7", "8"]
    assert list(tmp_path.glob("*.sqlite")) == [tmp_path / "jobs.sqlite"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("from litetq import LiteTQ\napp = LiteTQ()\nwith app.run_embedded(): pass\n", '__name__ == "__main__"'),
        ("from litetq import LiteTQ\napp = LiteTQ()\napp.AsyncResult('x').get()\n", '__name__ == "__main__"'),
        ("import no_such_thing\n", "No module named 'no_such_thing'"),
    ],
)
def test_a_module_that_works_while_it_is_imported_is_refused(
    litetq: Litetq, tmp_path: Path, source: str, words: str
) -> None:
    (tmp_path / "early.py").write_text(source, encoding="utf-8")
    worker = litetq("-A", "early", "worker", "jobs.sqlite", "--drain")
    assert worker.end() == 2
    assert words in worker.text and "Traceback" not in worker.text
    assert "ready." not in worker.text


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"this is no database at all" * 100, "jobs.sqlite"), (None, "jobs.sqlite")],
    ids=["no database", "a directory"],
)
def test_a_file_that_is_no_database_is_left_as_it_is(
    litetq: Litetq, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "jobs.sqlite"
    path.mkdir() if content is None else path.write_bytes(content)
    worker = litetq("worker", "jobs.sqlite")
    assert worker.end() in (1, 2)
    assert "Error: " in worker.text and words in worker.text and "Traceback" not in worker.text
    assert path.is_dir() if content is None else path.read_bytes() == content


def test_report_says_which_file_and_who_named_it(litetq: Litetq) -> None:
    report = litetq("report", "jobs.sqlite")
    assert report.end() == 0
    assert "jobs.sqlite" in report.text and "command line" in report.text and "py:" in report.text
    report = litetq("-A", "tasks", "report", env={"LITETQ_BROKER": "other.sqlite"})
    assert report.end() == 0
    assert "other.sqlite" in report.text and "LITETQ_BROKER" in report.text


def test_worker_main_and_start_reach_the_command_line(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "prog.py").write_text(
        "import sys\nfrom litetq import LiteTQ\napp = LiteTQ('prog', broker='jobs.sqlite')\n"
        "@app.task\ndef add(x, y):\n    return x + y\n"
        "if __name__ == '__main__':\n"
        "    if sys.argv[1:]:\n        app.start()\n"
        "    else:\n        app.worker_main(argv=['worker', '--loglevel=INFO', '--drain', '-P', 'solo'])\n",
        encoding="utf-8",
    )
    for words in ((), ("worker", "-l", "INFO", "--drain", "-P", "solo")):
        ran = Output(run_python(tmp_path / "prog.py", *words))
        assert ran.end() == 0, ran.text
        assert "ready." in ran.text and "jobs.sqlite" in ran.text
    assert os.path.exists(tmp_path / "jobs.sqlite")
