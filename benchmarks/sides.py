"""The task queues under measurement: how each is started empty, how its worker is started, how its program is told to work.

Worker and program are processes of their own for all of them, from the same kind of script (`programs/`). Peers live in a
virtual environment of their own (`.venv-peers`), made here at first use.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.figures import OURS, say

PROGRAMS: Final = Path(__file__).parent / "programs"
PEER_VENV: Final = Path(__file__).parent.parent / ".venv-peers"
PEER_PACKAGES: Final = ("celery[redis]>=5.4,<6", "huey>=2.5,<4")
CELERY: Final = "celery+redis"
HUEY: Final = "huey+sqlite"
ANSWER_TIMEOUT: Final = 300.0  # seconds for one command of a program; arbitrary


class Unavailable(Exception):
    """A peer cannot be measured here; the message says why."""


class Side:
    """One task queue in a folder of its own, empty at first; a context manager that leaves nothing behind."""

    name = ""
    python = sys.executable
    program = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="litetq-bench-"))
        self.environment = {**os.environ, "BENCH_FILE": str(self.folder / "jobs.sqlite")}
        self._count = 0

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def worker_command(self, pool: str, concurrency: int) -> list[str]:
        """Return the command of a worker: pool is "solo", "threads" or "processes"."""
        raise NotImplementedError

    def tell(self, verb: str, *words: object) -> dict[str, Any]:
        """Let the program do one thing and return its answer."""
        return answer_of(self.start_program(verb, *words))

    def start_program(self, verb: str, *words: object) -> subprocess.Popen[str]:
        command = [self.python, self.program, verb, *map(str, words)]
        return subprocess.Popen(command, cwd=PROGRAMS, env=self.environment, stdout=subprocess.PIPE, text=True)

    @contextmanager
    def worker(self, pool: str, concurrency: int) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker within the block; its output goes to a file that is shown if it ends by itself."""
        self._count += 1
        log = self.folder / f"worker-{self._count}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                self.worker_command(pool, concurrency), cwd=PROGRAMS, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield process
            if process.poll() is not None:
                raise RuntimeError(f"the worker of {self.name} ended by itself:\n{log.read_text(errors='replace')}")
        finally:
            end(process)


class Litetq(Side):
    """litetq as it stands beside this package, installed or not."""

    name = OURS
    program = "litetq_program.py"

    def __init__(self) -> None:
        super().__init__()
        path = [str(PROGRAMS.parent.parent), self.environment.get("PYTHONPATH", "")]
        self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))

    def worker_command(self, pool: str, concurrency: int) -> list[str]:
        self._count += 1
        return [
            sys.executable, "-m", "litetq", "-A", "litetq_program", "worker", "-l", "WARNING",
            "-P", pool, "-c", str(concurrency), "-n", f"bench{self._count}@%h",
        ]  # fmt: skip


class Celery(Side):
    """Celery's defaults, with a Redis of its own that keeps nothing on disk."""

    name = CELERY
    program = "celery_program.py"

    def __init__(self) -> None:
        super().__init__()
        self.python = str(peer_python())
        program = shutil.which("redis-server")
        if program is None:
            shutil.rmtree(self.folder)
            raise Unavailable("redis-server is not installed (Debian: apt-get install redis-server)")
        port = free_port()
        self.environment["BENCH_REDIS"] = f"redis://127.0.0.1:{port}/0"
        self._redis = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.folder],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for_port(port)

    def __exit__(self, *_: object) -> None:
        end(self._redis)
        super().__exit__()

    def worker_command(self, pool: str, concurrency: int) -> list[str]:
        pool = "prefork" if pool == "processes" else pool
        return [
            self.python, "-m", "celery", "-A", "celery_program", "worker", "-l", "WARNING", "-P", pool,
            "-c", str(concurrency),
        ]  # fmt: skip


class Huey(Side):
    """huey's defaults: its file is written with synchronous=OFF, and a task leaves it when it is taken."""

    name = HUEY
    program = "huey_program.py"

    def __init__(self) -> None:
        super().__init__()
        self.python = str(peer_python())

    def worker_command(self, pool: str, concurrency: int) -> list[str]:
        kind = "process" if pool == "processes" else "thread"
        return [
            self.python, "-m", "huey.bin.huey_consumer", "huey_program.huey", "-q", "-w", str(concurrency), "-k", kind,
        ]  # fmt: skip


SIDES: Final[dict[str, Callable[[], Side]]] = {OURS: Litetq, CELERY: Celery, HUEY: Huey}


def available_peers() -> list[str]:
    """Return the peers that can be measured here; say why others cannot."""
    found = []
    for name in (CELERY, HUEY):
        try:
            with SIDES[name]():
                found.append(name)
        except Unavailable as reason:
            say(f"{name} is left out: {reason}")
    return found


def peer_python() -> Path:
    """Return the Python of the peers' environment, which is made if it is not there."""
    python = PEER_VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    mark = PEER_VENV / "complete"
    if not mark.exists() or mark.read_text() != "\n".join(PEER_PACKAGES):
        say(f"making {PEER_VENV} with {', '.join(PEER_PACKAGES)}")
        make = [sys.executable, "-m", "venv", str(PEER_VENV)]
        for command in (make, [str(python), "-m", "pip", "install", "-q", *PEER_PACKAGES]):
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                raise Unavailable(f"{' '.join(command)} failed: {made.stderr.strip().splitlines()[-1:]}")
        mark.write_text("\n".join(PEER_PACKAGES))
    return python


def peer_versions() -> dict[str, str]:
    listed = subprocess.run([peer_python(), "-m", "pip", "freeze"], capture_output=True, text=True).stdout
    versions = dict(line.split("==") for line in listed.splitlines() if "==" in line)
    return {name: version for name, version in versions.items() if name in ("celery", "kombu", "redis", "huey")}


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a program and return what it answered; RuntimeError when it failed, its message is on stderr."""
    try:
        output, _ = process.communicate(timeout=ANSWER_TIMEOUT)
    except BaseException:
        end(process)
        raise
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with code {process.returncode}")
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that was started here, by its own handle: asked first, killed after ten seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_of(processes: Sequence[psutil.Process]) -> float:
    """Return the CPU seconds that processes have used, in steps of 10 ms on Linux."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def read_mark(path: Path, worker: subprocess.Popen[Any], timeout: float) -> float:
    """Wait for the file that the task `mark` writes and return the time in it."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return float(path.read_text())
        except (OSError, ValueError):
            pass
        if time.monotonic() > deadline or worker.poll() is not None:
            state = "still runs" if worker.poll() is None else f"ended with code {worker.returncode}"
            raise RuntimeError(f"{path.name} was not written; the worker {state}")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def on_each(sides: Sequence[str], sample: Callable[..., Any], *words: Any) -> dict[str, Callable[..., Any]]:
    """Return for each side a function that takes one sample of it: sample(side name, scale, *words)."""
    return {name: lambda scale, name=name: sample(SIDES[name], scale, *words) for name in sides}
