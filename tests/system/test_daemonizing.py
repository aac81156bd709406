"""The recipes of docs/guide/daemonizing.md: what each service manager would start runs, and is stopped as it would be."""

from __future__ import annotations

import plistlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import ROOT, RunPython

PAGE = ROOT / "docs" / "guide" / "daemonizing.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
UNITS = {text.splitlines()[0].removeprefix("# "): text for kind, text in BLOCKS if kind == "ini"}
TASKS = next(text for kind, text in BLOCKS if kind == "python")
PLIST, SERVICE = (text for kind, text in BLOCKS if kind == "xml")
LONG = 60  # seconds


def run_until_ready(run_python: RunPython, tmp_path: Path, words: list[str], **env: str) -> subprocess.Popen[str]:
    """Start what a recipe starts (the path of litetq, then its words), and wait until the worker says that it is ready."""
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    assert Path(words[0].replace("\\", "/")).stem == "litetq"
    worker = run_python("-m", "litetq", *words[1:], env=env, stderr=subprocess.STDOUT)
    assert worker.stdout is not None
    for line in worker.stdout:
        if "ready." in line:
            return worker
    raise AssertionError(f"it ended with {worker.wait()}")


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("name", UNITS)
def test_what_a_unit_of_systemd_starts_stops_at_sigterm(name: str, tmp_path: Path, run_python: RunPython) -> None:
    found = re.search(r"^ExecStart=(.*)$", UNITS[name], re.MULTILINE)
    assert found is not None
    line = found[1].replace("%%", "\0").replace("%i", "mail").replace("\0", "%")
    worker = run_until_ready(run_python, tmp_path, shlex.split(line))
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=LONG)
    assert worker.returncode == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong_with_a_unit(name: str, tmp_path: Path) -> None:
    program = tmp_path / "litetq"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / name.replace("@", "@mail")
    unit.write_text(UNITS[name].replace("/srv/shop/.venv/bin/litetq", str(program)), encoding="utf-8")
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert [line for line in said.stderr.splitlines() if unit.name in line] == [], said.stderr
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=gently"), encoding="utf-8")
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert "gently" in said.stderr, "it looks at all"


@pytest.mark.system
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_launchd_starts_stops_at_sigterm(tmp_path: Path, run_python: RunPython) -> None:
    job = plistlib.loads(PLIST.encode())
    assert (job["RunAtLoad"], job["KeepAlive"], job["ExitTimeOut"]) == (True, {"SuccessfulExit": False}, 600)
    assert not {"-D", "--detach"} & set(job["ProgramArguments"])
    worker = run_until_ready(run_python, tmp_path, job["ProgramArguments"])
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=LONG)
    assert worker.returncode == 0


@pytest.mark.system
def test_what_a_service_of_windows_starts_stops_by_its_second_command(tmp_path: Path, run_python: RunPython) -> None:
    service = ElementTree.fromstring(SERVICE)
    program = service.findtext("executable", "")
    worker = run_until_ready(
        run_python, tmp_path, [program, *service.findtext("startarguments", "").split()], LITETQ_PORTABLE="1"
    )
    stop = service.findtext("stoparguments", "").split()
    stopping = run_python("-m", "litetq", *stop, env={"LITETQ_PORTABLE": "1"})
    out, err = stopping.communicate(timeout=LONG)
    worker.communicate(timeout=LONG)
    assert (stopping.returncode, err, worker.returncode) == (0, "", 0), out
