"""What tests of brokers share: a private server, and programs of litetq and of real Celery that speak through it.

The programs run in the environment of `tests.compat.packages`, which has Celery, kombu and the client of Redis; litetq comes from
the checkout. The servers are those of `tests.servers`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.compat import packages
from tests.conftest import ROOT, missing
from tests.servers import Redis, places
from tests.waiting import eventually

PROGRAM = Path(__file__).with_name("program.py")


@pytest.fixture
def server(private_redis: Redis) -> Redis:
    """A Redis of this test alone, which it may stop and start; it keeps what it has over a restart."""
    return private_redis


class Programs:
    """Starts programs of both, with the tasks of `program.py`, in one folder.

    Args:
        broker: where tasks go, a URL.
        results: where results lie, a URL; None: where the tasks are.
    """

    def __init__(self, broker: str, folder: Path, results: str | None = None) -> None:
        if not packages.is_there():
            missing("python -m tests.compat.packages has not been run: it brings Celery, kombu and redis")
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self._places = {"BROKER": broker, "BACKEND": results or broker}
        self._started: list[subprocess.Popen[str]] = []
        shutil.copy(PROGRAM, folder / "program.py")

    def start(
        self,
        whose: str,
        *words: str,
        settings: dict[str, Any] | None = None,
        within: Sequence[str] = (),
        **popen: Any,
    ) -> subprocess.Popen[str]:
        """Start a Python program with these words; `settings` are those of its app, `within` is put before the command."""
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "WHOSE": whose,
            **self._places,
            "LEDGER": str(self.ledger),
            **({"SETTINGS": json.dumps(settings)} if settings else {}),
        }
        given: dict[str, Any] = {"cwd": self.folder, "env": env, "encoding": "utf-8", "stdin": subprocess.DEVNULL}
        process = subprocess.Popen([*within, str(packages.PYTHON), *words], **{**given, **popen})
        self._started.append(process)
        return process

    def worker(
        self,
        whose: str,
        *options: str,
        node: str | None = None,
        settings: dict[str, Any] | None = None,
        within: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Start a worker, named and logged by `node` or whose it is, and return when it answers."""
        node = node or whose
        log = open(self.folder / f"{node}.log", "a")
        words = ["-m", whose, "-A", "program", "worker", "-n", f"{node}@here", "-c", "2", "-l", "INFO", *options]
        process = self.start(whose, *words, settings=settings, within=within, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        eventually(lambda: "ready." in self.log(node), within=60)
        return process

    def log(self, node: str) -> str:
        return (self.folder / f"{node}.log").read_text(encoding="utf-8", errors="replace")

    def ask(self, whose: str, code: str, within: float = 90, before: str = "") -> Any:
        """Run code after `before` and `from program import *`; return what it hands to `answer`."""
        words = ["-c", f"{before}\nfrom program import *\n{code}"]
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

    def has_settled(self) -> bool:
        """Return whether no task has noted anything for some seconds."""
        return time.time() - self.ledger.stat().st_mtime > 5

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


BROKERS = ("redis", "rabbitmq")


@pytest.fixture(scope="module", params=BROKERS)
def town(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Programs of a broker at which all module long a worker of each lives, with threads.

    Each serves the queue that is named like it, where it also sends what follows of its own, and both serve `shared`.
    """
    folder = tmp_path_factory.mktemp("town")
    with places(request.param, request, folder) as (broker, results):
        found = Programs(broker, folder, results)
        try:
            for whose in ("litetq", "celery"):
                words = ("-P", "threads", "-E", "-Q", f"{whose},shared")
                found.worker(whose, *words, settings={"task_default_queue": whose})
            yield found
        finally:
            found.close()


@pytest.fixture(params=BROKERS)
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Programs]:
    """Programs of a broker at which nobody lives yet."""
    with places(request.param, request, tmp_path) as (broker, results):
        found = Programs(broker, tmp_path, results)
        yield found
        found.close()


@pytest.fixture
def programs(server: Redis, tmp_path: Path) -> Iterator[Programs]:
    found = Programs(server.url, tmp_path)
    yield found
    found.close()
