"""What tests of brokers share: a private server, and programs of litetq and of real Celery that speak through it.

The programs run in the environment of `tests.compat.packages`, which has Celery, kombu and the client of Redis; litetq comes from
the checkout. A server is started on a free port; without `redis-server` the tests are skipped, in CI they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat import packages
from tests.conftest import ROOT, missing
from tests.waiting import eventually

PROGRAM = Path(__file__).with_name("program.py")


class Server:
    """A Redis of this test alone; it keeps what it has over a restart."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("redis-server")
        if found is None:
            missing("redis-server is not on PATH: apt-get install redis-server")
        assert found is not None
        self._command = found
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "appendonly": "yes", "save": ""}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([self._command, *words], stdout=subprocess.DEVNULL)
        eventually(self._answers, within=20)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def ask(self, *words: str) -> str:
        """Send a command and return the beginning of the answer, as the server writes it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(65536).decode()

    def _answers(self) -> bool:
        try:
            return self.ask("PING").startswith("+PONG")
        except OSError:
            return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "redis"
    folder.mkdir()
    found = Server(folder)
    yield found
    found.stop()


class Programs:
    """Starts programs of both, with the tasks of `program.py`, in one folder."""

    def __init__(self, server: Server, folder: Path) -> None:
        if not packages.is_there():
            missing("python -m tests.compat.packages has not been run: it brings Celery, kombu and redis")
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self._server = server
        self._started: list[subprocess.Popen[str]] = []
        shutil.copy(PROGRAM, folder / "program.py")

    def start(self, whose: str, *words: str, **popen: Any) -> subprocess.Popen[str]:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "WHOSE": whose,
            "BROKER": self._server.url,
            "LEDGER": str(self.ledger),
        }
        settings: dict[str, Any] = {"cwd": self.folder, "env": env, "encoding": "utf-8", "stdin": subprocess.DEVNULL}
        process = subprocess.Popen([str(packages.PYTHON), *words], **{**settings, **popen})
        self._started.append(process)
        return process

    def worker(self, whose: str, *options: str) -> subprocess.Popen[str]:
        """Start a worker and return when it answers."""
        log = open(self.folder / f"{whose}.log", "a")
        name = f"{whose}@here"
        words = ["-m", whose, "-A", "program", "worker", "-n", name, "-c", "2", "-l", "INFO", *options]
        process = self.start(whose, *words, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        eventually(lambda: "ready." in self.log(whose), within=60)
        return process

    def log(self, whose: str) -> str:
        return (self.folder / f"{whose}.log").read_text(encoding="utf-8", errors="replace")

    def ask(self, whose: str, code: str, within: float = 90) -> Any:
        """Run code after `from program import *`; return what it hands to `answer`."""
        words = ["-c", f"from program import *\n{code}"]
        process = self.start(whose, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=within)
        lines = [line for line in out.splitlines() if line.startswith("ANSWER ")]
        assert lines, f"{whose} gave no answer (exit {process.returncode})\n{out}\n{err}"
        return json.loads(lines[-1].removeprefix("ANSWER "))

    def command(self, whose: str, *words: str, within: float = 60) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        process = self.start(
            whose, "-m", whose, "-A", "program", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = process.communicate(timeout=within)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def noted(self) -> list[str]:
        return self.ledger.read_text(encoding="utf-8").split()

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()


@pytest.fixture
def programs(server: Server, tmp_path: Path) -> Iterator[Programs]:
    found = Programs(server, tmp_path)
    yield found
    found.close()
