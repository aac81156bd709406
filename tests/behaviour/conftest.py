"""The same tests for every engine: a place to queue in, workers of their own processes beside it, and notes that tasks leave.

Here the place is a file. `test_engines.py` runs these tests once more for each broker, in an environment without Celery, and names the
place by `LITETQ_TEST_BROKER` and `LITETQ_TEST_RESULTS`. Where engines differ by intention (docs/engines.md), a test asks `Place` what
it can, never which one it is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ
from tests.behaviour import program
from tests.conftest import ROOT
from tests.waiting import eventually

LONG = 40.0  # seconds that a result is waited for; each comes within moments


class Place:
    """Where tasks and results are, who runs them, and what they noted."""

    def __init__(self, folder: Path, broker: str, results: str | None) -> None:
        self.folder = folder
        self.broker = broker
        self.results = results
        self.app = program.make(broker, results, folder)
        (folder / "ledger").touch()
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def is_file(self) -> bool:
        """Every end is on record, limits hold for all workers together, and results are rows."""
        return "://" not in self.broker

    @property
    def results_are_kept(self) -> bool:
        """Results can be read by any process, and chords counted; `rpc://` sends each to who called, once."""
        return self.results != "rpc://"

    def task(self, name: str) -> Any:
        return self.app.tasks[name]

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a command of litetq, with its log in a file of this name."""
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "BEHAVIOUR_BROKER": self.broker,
            "BEHAVIOUR_FOLDER": str(self.folder),
            **({} if self.results is None else {"BEHAVIOUR_RESULTS": self.results}),
        }
        words = ("-m", "litetq", "-A", "tests.behaviour.program", *words)
        with open(self.folder / f"{name}.log", "ab") as log:
            self._started[name] = subprocess.Popen(
                [sys.executable, *words],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._started[name]

    def worker(self, name: str, *options: str) -> None:
        """Have a worker of this name, `name@here`; return when it is ready."""
        if name in self._started and self._started[name].poll() is None:
            return
        seen = self.log(name).count("ready.")
        self.start(name, "worker", "-n", f"{name}@here", "-l", "INFO", *options)
        eventually(lambda: self.log(name).count("ready.") > seen or self._started[name].poll() is not None, within=LONG)
        assert self._started[name].poll() is None, self.log(name)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def let_go(self, name: str) -> None:
        """Let the task that waits for this name go on."""
        (self.folder / f"{name}.go").touch()

    def notes(self, beginning: str = "") -> list[str]:
        """Return the lines that tasks noted, of those that begin like this."""
        lines = (self.folder / "ledger").read_text(encoding="utf-8").split("\n")
        return [line for line in lines if line and line.startswith(beginning)]

    def noted(self, *lines: str) -> None:
        """Wait until these lines are in the ledger."""
        eventually(lambda: set(lines) <= set(self.notes()), within=LONG)

    def signal(self, name: str) -> None:
        """Tell a process to end, as an administrator does."""
        if self._started[name].poll() is None:
            self._started[name].send_signal(signal.SIGTERM)

    def stop(self, name: str) -> int:
        """Have a process end; return its exit code."""
        self.signal(name)
        process = self._started.pop(name)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def close(self) -> None:
        for name in self._started:
            self.signal(name)
        for name in list(self._started):
            self.stop(name)
        self.app.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("behaviour")
    broker = os.environ.get("LITETQ_TEST_BROKER", str(folder / "jobs.sqlite"))
    place = Place(folder, broker, os.environ.get("LITETQ_TEST_RESULTS"))
    yield place
    place.close()


@pytest.fixture
def app(place: Place) -> LiteTQ:
    return place.app


@pytest.fixture
def worker(place: Place) -> Place:
    """The place, with a worker of eight threads."""
    place.worker("one", "-P", "threads", "-c", "8")
    return place


@pytest.fixture
def single(place: Place) -> Place:
    """The place, with a worker that does one task of the queue `single` after another."""
    place.worker("single", "-P", "threads", "-c", "1", "--prefetch-multiplier", "1", "-Q", "single")
    return place


@pytest.fixture
def children(place: Place) -> Place:
    """The place, with a worker of two processes that serves the queue `children`."""
    place.worker("children", "-P", "processes", "-c", "2", "-Q", "children")
    return place
