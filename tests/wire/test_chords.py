"""Chords whose parts are counted at a place of their own, while servers go and come."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.servers import RabbitMQ, Redis, Server
from tests.waiting import eventually
from tests.wire.conftest import Programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CHORDS, MEMBERS = 25, 6

SEND = f"""
import time
def sent(header):
    while True:
        try: return chord(header, total.s()).apply_async()
        except Exception as error:
            assert type(error).__name__ == "OperationalError", repr(error)
            time.sleep(0.1)
bodies = []
for c in range({CHORDS}):
    bodies.append(sent([late.s(c * 100 + n) for n in range({MEMBERS})]))
    time.sleep(0.15)
answer([end(body) for body in bodies])
"""
TOTALS = [sum(chord * 100 + member for member in range(MEMBERS)) for chord in range(CHORDS)]


@pytest.mark.parametrize("kind", [RabbitMQ, Redis])
def test_chords_come_to_their_end_while_broker_and_results_are_restarted(tmp_path: Path, kind: type[Server]) -> None:
    broker, results = kind(tmp_path / "broker"), Redis(tmp_path / "results")
    programs = Programs(broker.url, tmp_path, results.url)
    try:
        broker.start()
        results.start()
        for node in ("one", "two"):
            programs.worker("litetq", "-P", "threads", node=node)
        sender = programs.start("litetq", "-c", f"from program import *\n{SEND}", stdout=subprocess.PIPE)
        for part, server in ((20, results), (60, broker), (100, results)):
            eventually(lambda part=part: len(set(programs.noted())) >= part, within=90)
            server.restart()
        out, _ = sender.communicate(timeout=200)
        assert f"ANSWER {TOTALS}" in out
    finally:
        programs.close()
        broker.close()
        results.close()
