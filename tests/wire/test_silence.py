"""Connections that break without a word, as when a cable is pulled or a firewall forgets them: who only waits never hears of it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.servers import LOCAL, places
from tests.waiting import eventually
from tests.wire.conftest import BROKERS, Programs

pytestmark = pytest.mark.slow


class Way:
    """A way to a server that can fall silent: what goes over its connections goes nowhere then, and nobody is told."""

    def __init__(self, to: tuple[str, int]) -> None:
        self._to = to
        self._listens = socket.create_server((LOCAL, 0))
        self.port: int = self._listens.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket, threading.Event]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listens.accept()
                far, is_silent = socket.create_connection(self._to), threading.Event()
                self._pairs.append((near, far, is_silent))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink, is_silent), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not is_silent.is_set():
                    sink.sendall(data)
            if not is_silent.is_set():
                sink.shutdown(socket.SHUT_WR)

    def silence(self) -> None:
        """Let nothing pass any more over the connections that there are; new ones are all right."""
        for _, _, is_silent in self._pairs:
            is_silent.set()

    def close(self) -> None:
        self._listens.close()
        for near, far, _ in self._pairs:
            near.close()
            far.close()


class Through(NamedTuple):
    """Programs that reach their broker over a way; their results they reach without it."""

    way: Way
    programs: Programs
    settings: dict[str, Any]


@pytest.fixture(params=BROKERS)
def through(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Through]:
    with places(request.param, request, tmp_path) as (broker, results):
        parts = urlsplit(broker)
        assert parts.hostname and parts.port
        way = Way((parts.hostname, parts.port))
        programs = Programs(broker, tmp_path, results)
        url = broker.replace(f"{parts.hostname}:{parts.port}", f"{LOCAL}:{way.port}")
        yield Through(way, programs, {"broker_url": url, "broker_heartbeat": 4})
        programs.close()
        way.close()


def test_a_worker_connects_anew_for_tasks_and_for_commands(through: Through) -> None:
    programs = through.programs
    programs.worker("litetq", "-P", "threads", settings=through.settings)
    assert programs.ask("litetq", "answer(end(add.delay(0, 0)))") == 0
    through.way.silence()
    assert programs.ask("litetq", "answer(add.delay(1, 1).get(timeout=60))") == 2
    asks = "answer(sorted(app.control.inspect(timeout=1).ping() or {}))"
    eventually(lambda: programs.ask("litetq", asks) == ["litetq@here"], within=60)


def test_a_call_over_a_connection_that_is_broken_goes_over_a_new_one(through: Through) -> None:
    programs = through.programs
    code = (
        "from program import *\n"
        "import time\n"
        "quiet.delay(1)\n"
        "note('sent')\n"
        "while not os.path.exists(os.environ['LEDGER'] + '.go'): time.sleep(0.01)\n"
        "quiet.apply_async((2,), queue='other')\n"  # which has to be declared, too
        "note('sent')\n"
    )
    sender = programs.start("litetq", "-c", code, settings=through.settings)
    eventually(lambda: programs.noted() == ["sent"], within=30)
    through.way.silence()
    (programs.folder / "ledger.go").touch()
    assert sender.wait(60) == 0
    assert programs.noted() == ["sent", "sent"]
