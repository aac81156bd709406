"""The FastAPI service of examples/web: real requests to a real server."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat import packages
from tests.conftest import ROOT, RunPython, missing
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
WITHIN = 60.0  # seconds: programs start slowly on a busy machine


class Service:
    def __init__(self, folder: Path, run: RunPython) -> None:
        self.folder = folder
        self.run = run
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]

    def start(self, **env: str) -> subprocess.Popen[str]:
        with open(self.folder / "log", "a") as log:
            words = ("-m", "uvicorn", "main:api", "--port", str(self._port))
            process = self.run(*words, cwd=self.folder, stdout=log, stderr=log, env=env)

        def answers() -> bool:
            assert process.poll() is None, (self.folder / "log").read_text()
            try:
                self.ask("/files/none")
            except urllib.error.HTTPError as error:
                return error.code == 404
            except urllib.error.URLError:
                return False
            return False

        eventually(answers, WITHIN)
        return process

    def ask(self, path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", data=data)
        with urllib.request.urlopen(request, timeout=WITHIN) as answer:
            return json.load(answer)

    def sum_of(self, id: str) -> Callable[[], Any]:
        return lambda: self.ask(f"/files/{id}") if self.ask(f"/files/{id}")["state"] in ("SUCCESS", "FAILURE") else None


@pytest.fixture
def service(tmp_path: Path, run_python: RunPython, monkeypatch: pytest.MonkeyPatch) -> Service:
    if not packages.is_there():
        missing("the environment of real packages is not there: python -m tests.compat.packages")
    monkeypatch.setattr(sys, "executable", str(packages.PYTHON))
    folder = tmp_path / "web"
    shutil.copytree(ROOT / "examples" / "web", folder, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite*"))
    return Service(folder, run_python)


def test_a_file_is_taken_at_once_and_worked_on_in_the_background(service: Service) -> None:
    service.start()
    taken = service.ask("/files", b"x" * 3_000_000)
    found = eventually(service.sum_of(taken["id"]), WITHIN)
    assert found == {"state": "SUCCESS", "result": hashlib.sha256(b"x" * 3_000_000).hexdigest()}


def test_what_a_killed_server_had_accepted_is_done_after_its_next_start(service: Service) -> None:
    killed = service.start(LITETQ_APART="1")  # nobody works yet
    ids = [service.ask("/files", bytes([n]) * 1000)["id"] for n in range(3)]
    assert {service.ask(f"/files/{id}")["state"] for id in ids} == {"PENDING"}
    killed.kill()
    killed.wait()
    service.start()
    sums = [eventually(service.sum_of(id), WITHIN)["result"] for id in ids]
    assert sums == [hashlib.sha256(bytes([n]) * 1000).hexdigest() for n in range(3)]


def test_a_task_that_fails_is_told_and_an_unknown_one_is_not_found(service: Service) -> None:
    service.start(LITETQ_APART="1")
    taken = service.ask("/files", b"gone")
    for upload in (service.folder / "uploads").iterdir():
        upload.unlink()
    worker = service.run("-m", "litetq", "-A", "tasks", "worker", "--drain", cwd=service.folder)
    out, err = worker.communicate(timeout=WITHIN)
    assert worker.returncode == 0, out + err
    assert "No such file" in service.ask(f"/files/{taken['id']}")["error"]
