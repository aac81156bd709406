"""What all tests share: a file to queue in, programs that are surely dead at the end, and a look for leftovers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

pytest_plugins = ["tests.servers"]

ROOT = Path(__file__).resolve().parent.parent
TAG = "LITETQ_TEST_SESSION"  # inherited by all that a test starts, however often it detaches itself
SESSION = ".".join(filter(None, [os.environ.get(TAG), uuid.uuid4().hex]))  # a pytest inside a test carries both names
KEPT = {"LITETQ_CANVAS_CASES", "LITETQ_PORTABLE", "LITETQ_CHAOS_S", "LITETQ_CHAOS_SEED", TAG}


def pytest_configure(config: pytest.Config) -> None:
    """Take the developer's own settings out of the environment, so that a test finds the same world everywhere."""
    for name in list(os.environ):
        if name.startswith(("LITETQ_", "CELERY_")) and name not in KEPT and not name.startswith("LITETQ_TEST_"):
            del os.environ[name]
    # Programs that tests start would compile all of litetq each time: two thirds of what they cost.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """The path of a queue file that does not exist yet."""
    return tmp_path / "jobs.sqlite"


class RunPython(Protocol):
    def __call__(
        self, what: str | Path, *args: str | Path, env: Mapping[str, str] | None = None, **popen: Any
    ) -> subprocess.Popen[str]: ...


@pytest.fixture
def run_python(tmp_path: Path) -> Iterator[RunPython]:
    """Start Python programs; at the end of the test they and all that they started are dead.

    `run_python("print(1)")` runs code, `run_python(path, "arg")` a script, `run_python("-m", "litetq", "worker", db)` a
    module. They run in `tmp_path`, with the repository importable, and give text through pipes (stdin is empty): read
    them with `communicate(timeout=...)`. `env` is added to the environment; further arguments go to `Popen`.
    """
    tag = f"{SESSION}.{uuid.uuid4().hex}"
    started: list[subprocess.Popen[str]] = []

    def run(
        what: str | Path, *args: str | Path, env: Mapping[str, str] | None = None, **popen: Any
    ) -> subprocess.Popen[str]:
        command = [what] if isinstance(what, Path) or what.startswith("-") else ["-c", what]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        settings: dict[str, Any] = {
            "cwd": tmp_path,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "encoding": "utf-8",
            "errors": "replace",
            "env": {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", **(env or {}), TAG: tag},
        }
        process = subprocess.Popen([sys.executable, *map(str, command), *map(str, args)], **{**settings, **popen})
        started.append(process)
        return process

    yield run
    family = [descendant for process in started for descendant in _descendants(process.pid)]
    for process in started:
        if process.poll() is None:
            process.kill()
    _kill([*family, *_tagged(tag)])
    for process in started:
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


class NeedTool(Protocol):
    def __call__(self, name: str, why: str = "") -> str: ...


@pytest.fixture
def need_tool() -> NeedTool:
    """Return the path of a program on PATH; without it the test is skipped on a laptop and fails in CI (`CI` is set)."""

    def need(name: str, why: str = "") -> str:
        found = shutil.which(name)
        if found is None:
            missing(f"{name} is not on PATH{f': {why}' if why else ''}")
        assert found is not None
        return found

    return need


def missing(what: str) -> None:
    """End the test: skipped on a laptop, failed in CI, where nothing may go unproven in silence."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} (skipped outside CI)", pytrace=False)
    pytest.skip(what)


@pytest.fixture(autouse=True)
def _no_shared_task_left_behind() -> Iterator[None]:
    """What a test shares with all apps is not shared with those of the next one."""
    from litetq import app

    before = list(app._shared)
    yield
    app._shared[:] = before


@pytest.fixture(autouse=True)
def _no_variable_left_behind() -> Iterator[None]:
    """What a command run within a test hands on by environment does not reach the next test."""
    before = dict(os.environ)
    yield
    for name in [name for name in os.environ if name.startswith(("LITETQ_", "CELERY_"))]:
        if name not in before:
            del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name.startswith(("LITETQ_", "CELERY_"))})


@pytest.fixture(scope="session", autouse=True)
def _no_process_left_behind() -> Iterator[None]:
    """After the last test nothing that the tests started is alive. Under xdist each worker looks for its own."""
    os.environ[TAG] = SESSION
    yield
    found = {process.pid: process for process in [*_descendants(os.getpid()), *_tagged(SESSION)]}
    left = [process for process in found.values() if not _belongs_to_multiprocessing(process)]
    alive = _still_running(left, within=2.0)  # what is just ending may end
    if alive:
        shown = "; ".join(_describe(process) for process in alive)
        _kill(alive)
        pytest.fail(f"the tests left processes behind: {shown}", pytrace=False)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def _tagged(tag: str) -> list[psutil.Process]:
    """Return the processes whose environment carries the tag; they may have lost their parents long ago."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and _environ(process).get(TAG, "").startswith(tag):
                found.append(process)
        except (psutil.Error, OSError):  # gone, or another user's
            continue
    return found


def _environ(process: psutil.Process) -> dict[str, str]:
    """Return the environment of a process; one that is in the middle of its start has none for a moment."""
    while not (found := process.environ()) and time.time() - process.create_time() < 3:
        if process.status() == psutil.STATUS_ZOMBIE:
            break  # it has ended, and never gets one again
        time.sleep(0.01)
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _still_running(processes, within=10.0)


def _still_running(processes: list[psutil.Process], within: float) -> list[psutil.Process]:
    """Wait so many seconds for the end of these; return those that run on."""
    deadline = time.monotonic() + within
    while (left := [process for process in processes if runs(process.pid)]) and time.monotonic() < deadline:
        time.sleep(0.005)
    return left


def runs(pid: int) -> bool:
    """Return whether a process has not ended. One that its parent has not asked for has: some an init asks for after seconds."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _belongs_to_multiprocessing(process: psutil.Process) -> bool:
    """Its tracker and its fork server live as long as the process that used them: as pytest itself."""
    return any(
        word in _describe(process) for word in ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
    )


def _describe(process: psutil.Process) -> str:
    try:
        return f"pid {process.pid}: {' '.join(process.cmdline())[:200]} ({process.status()})"
    except psutil.Error:
        return f"pid {process.pid}: (gone)"
