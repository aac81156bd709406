"""Workers and beats in the background: what is seen of their start, who they run as, and how they end."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, RunPython
from tests.waiting import eventually

TASKS = """
import os, sys
from litetq import LiteTQ
app = LiteTQ("tasks", broker="jobs.sqlite")

@app.task
def who():
    print("nobody is there to read this", file=sys.__stderr__, flush=True)
    mask = os.umask(0)
    os.umask(mask)
    return {"parent": os.getppid(), "uid": os.getuid(), "gid": os.getgid(), "umask": mask}

@app.on_after_configure.connect
def every_second(sender, **kwargs):
    sender.add_periodic_task(1, who.s(), name="who")
"""
CALL = "import json, tasks; print(json.dumps(tasks.who.delay().get(timeout=20)))"
pytestmark = [pytest.mark.system, pytest.mark.skipif(sys.platform == "win32", reason="asks for POSIX sessions")]
only_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can become somebody else"
)


@pytest.fixture
def said(run_python: RunPython, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Run a command to its end; return exit code, stdout and stderr."""
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")

    def run(*words: str, **options: Any) -> tuple[int, str, str]:
        process = run_python("-m", "litetq", *words, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    return run


Said = Callable[..., tuple[int, str, str]]


def pid_in(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def stop(path: Path) -> None:
    """End the process that a pid file names, and wait until it has taken the file away."""
    os.kill(pid_in(path), signal.SIGTERM)
    eventually(lambda: not path.exists(), 20)


@pytest.mark.row("8.-D, --uid, --gid, --umask, --executable")
def test_a_detached_worker_runs_in_a_session_of_its_own_and_the_command_ends_when_it_is_ready(
    said: Said, tmp_path: Path, run_python: RunPython
) -> None:
    words = ("-A", "tasks", "worker", "-D", "-c", "1", "-n", "w1", "-l", "INFO", "--pidfile", "%n.pid", "-f", "%n.log")
    code, out, err = said(*words)
    pid = pid_in(tmp_path / "w1.pid")
    assert (code, out, err) == (0, f"litetq worker: runs in the background, process {pid}\n", "")
    assert "ready." in (tmp_path / "w1.log").read_text()
    assert os.getsid(pid) == pid != os.getsid(0)
    open_ones = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} if sys.platform == "linux" else {os.devnull}
    assert open_ones == {os.devnull}
    called = run_python(CALL)
    assert f'"parent": {pid}' in called.communicate(timeout=30)[0]
    stop(tmp_path / "w1.pid")
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.row("8.-D, --uid, --gid, --umask, --executable")
@pytest.mark.row("20.beat_pidfile")
@pytest.mark.row("20.beat_logfile")
def test_a_detached_beat_sends_and_ends_when_asked(said: Said, tmp_path: Path, run_python: RunPython) -> None:
    with open(tmp_path / "tasks.py", "a", encoding="utf-8") as file:
        file.write("app.conf.update(beat_pidfile='beat.pid', beat_logfile='beat.log')\n")
    code, out, _ = said("-A", "tasks", "beat", "--detach", "-l", "INFO")
    assert (code, out) == (0, f"litetq beat: runs in the background, process {pid_in(tmp_path / 'beat.pid')}\n")
    eventually(lambda: "Sending due task who" in (tmp_path / "beat.log").read_text(), 20)
    stop(tmp_path / "beat.pid")


def test_what_keeps_it_from_starting_is_said_where_it_was_asked_for(said: Said, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "held.pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "wrong.py").write_text(TASKS + "app.conf.worker_pool = 'no-such-pool'\n")
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 3\n")
    silent.chmod(0o755)
    for words, expected, sentence in [
        (("-A", "broken", "worker", "-D"), 2, "No module named 'nothing_of_this_name'"),
        (("-A", "tasks", "worker", "-D", "--pidfile", "held.pid"), 73, "which is running"),
        (("-A", "tasks", "beat", "-D", "--pidfile", "held.pid"), 73, "which is running"),
        (("-A", "wrong", "worker", "-D"), 2, "no-such-pool"),
        (("-A", "tasks", "worker", "-D", "--executable", "./not-there"), 2, "'./not-there' cannot be started"),
        (("-A", "tasks", "worker", "-D", "--executable", "./silent"), 3, "with exit code 3, without a word"),
        (("-A", "tasks", "worker", "-D", "--until-eof"), 2, "no input whose end could be seen"),
        (("-A", "tasks", "worker", "--umask", "888"), 2, "no octal number"),
    ]:
        code, out, err = said(*words)
        assert (code, out) == (expected, ""), (words, out, err)
        assert sentence in err and "Traceback" not in err, (words, err)


def test_without_a_log_file_it_is_said_where_the_log_goes_and_quiet_says_nothing_else(
    said: Said, tmp_path: Path
) -> None:
    code, out, err = said("-A", "tasks", "-q", "worker", "-D", "-P", "solo", "--drain")
    assert (code, out, err) == (0, "", "note: what it logs goes nowhere; name a file with -f\n")


def test_a_program_with_an_app_of_its_own_cannot_be_started_anew(run_python: RunPython) -> None:
    process = run_python(
        "from litetq import LiteTQ\nprint(LiteTQ('x', broker='j.sqlite').worker_main(['worker', '-D']))"
    )
    out, err = process.communicate(timeout=30)
    assert out == "2\n" and "cannot be found again" in err


def test_the_line_means_the_same_in_the_background(said: Said, tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "tasks.py").write_text(TASKS)
    words = ("--workdir", "inner", "-A", "tasks", "worker", "-D", "-P", "solo", "--pidfile", "w.pid", "-f", "w.log")
    assert said(*words)[0] == 0
    assert (tmp_path / "inner" / "jobs.sqlite").exists()
    called = run_python(CALL, cwd=tmp_path / "inner")
    assert '"parent": ' in called.communicate(timeout=30)[0]
    stop(tmp_path / "inner" / "w.pid")


def test_settings_stand_for_the_options(said: Said, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\necho "$0" > asked\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    (tmp_path / "set.py").write_text(
        TASKS + "app.conf.update(worker_executable='./python', worker_umask='027', beat_umask=0o022,\n"
        "                worker_pidfile='w.pid', worker_logfile='w.log')\n"
    )
    assert said("-A", "set", "worker", "-D", "-P", "solo")[0] == 0
    assert (tmp_path / "asked").read_text() == "./python\n"
    assert stat.S_IMODE((tmp_path / "w.log").stat().st_mode) == 0o640
    stop(tmp_path / "w.pid")


# -- somebody else


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of the user `nobody`, with the program in it; pytest's own are closed to everybody else."""
    folder = Path(tempfile.mkdtemp(prefix="litetq-test-"))
    (folder / "tasks.py").write_text(TASKS, encoding="utf-8")
    (folder / "tasks.py").chmod(0o644)
    os.chown(folder, 65534, 65534)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def shared_python(home: Path) -> tuple[str, dict[str, str]]:
    """A Python that everybody may read, and the environment in which it finds litetq and what that needs."""
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])}
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        try:
            subprocess.run(
                [python, "-c", "import apsw, click, psutil, litetq"],
                user=65534,
                check=True,
                capture_output=True,
                cwd=home,
                env={**os.environ, **env},
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python, env
    pytest.skip("there is no Python of this version that other users may read")


RUN_AS = """
import subprocess, sys
user = int(sys.argv[1])
sys.exit(subprocess.run(sys.argv[2:], user=user, group=user, extra_groups=[]).returncode)
"""


@pytest.fixture
def run_as(run_python: RunPython, home: Path, shared_python: tuple[str, dict[str, str]]) -> Said:
    """Run that Python as a user, and return exit code, stdout and stderr."""
    python, env = shared_python

    def run(user: int, *words: str) -> tuple[int, str, str]:
        process = run_python(RUN_AS, str(user), python, *words, env=env, cwd=home)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    return run


@only_root
@pytest.mark.row("8.-D, --uid, --gid, --umask, --executable")
@pytest.mark.parametrize("by", ["option", "setting"])
def test_a_worker_runs_as_the_user_and_group_that_are_named(run_as: Said, home: Path, by: str) -> None:
    options: tuple[str, ...] = ("--uid", "nobody", "--gid", "12345", "--umask", "077")
    if by == "setting":
        options = ()
        with open(home / "tasks.py", "a", encoding="utf-8") as file:
            file.write("app.conf.update(worker_uid='nobody', worker_gid=12345, worker_umask=0o077)\n")
    words = ("-m", "litetq", "-A", "tasks", "worker", "-D", "-c", "1", "--pidfile", "w.pid", "-f", "w.log", *options)
    assert run_as(0, *words)[::2] == (0, "")
    assert '"uid": 65534, "gid": 12345, "umask": 63' in run_as(65534, "-c", CALL)[1]
    for name in ("jobs.sqlite", "w.log", "w.pid"):
        found = (home / name).stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 12345, 0o600), name
    stop(home / "w.pid")


@only_root
def test_a_beat_runs_as_the_user_that_is_named_with_the_users_own_group(run_as: Said, home: Path) -> None:
    words = ("-m", "litetq", "-A", "tasks", "beat", "-D", "--pidfile", "b.pid", "-f", "b.log", "--uid", "65534")
    assert run_as(0, *words)[::2] == (0, "")
    found = psutil.Process(pid_in(home / "b.pid"))
    assert (found.uids(), found.gids()) == ((65534,) * 3, (65534,) * 3)
    stop(home / "b.pid")


@only_root
def test_only_root_can_become_somebody_else_and_whoever_is_unknown_is_named(run_as: Said) -> None:
    worker = ("-m", "litetq", "-A", "tasks", "worker", "-P", "solo", "--drain")
    for user, options, expected, sentence in [
        (65534, ("--uid", "root"), 2, "only root can become user 'root', and this process runs as user 65534"),
        (65534, ("--gid", "0"), 2, "only root can become group '0'"),
        (65534, ("--uid", "nobody"), 0, ""),  # that is who it is
        (0, ("--uid", "nobody-at-all"), 2, "there is no user 'nobody-at-all' here"),
        (0, ("--gid", "no-such-group"), 2, "there is no group 'no-such-group' here"),
    ]:
        code, _, err = run_as(user, *worker, *options)
        assert code == expected and sentence in err and "Traceback" not in err, (options, err)


@only_root
@pytest.mark.row("8.root user")
def test_root_takes_no_pickle_unless_it_is_told_to(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS + "app.conf.accept_content = ['json', 'pickle']\n", encoding="utf-8")
    for forced, expected in (("", 2), ("1", 0)):
        worker = run_python(
            "-m", "litetq", "-A", "tasks", "worker", "-P", "solo", "--drain", env={"C_FORCE_ROOT": forced}
        )
        _, err = worker.communicate(timeout=30)
        assert worker.returncode == expected and ("runs as root" in err) == (not forced), err
