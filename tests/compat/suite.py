"""Celery's own tests, run over litetq: `python -m tests.compat.suite [PART...]`, or `dev.py celery-suite`.

The tests come with the source distribution of Celery, from the package index; they, and an environment that they run in, are kept
outside of the repository (`LITETQ_CACHE`, by default `~/.cache/litetq`). `import celery` brings litetq there. What is run, what
is left out and why, and how many must pass, says `suite.txt`.

Exit codes: 0, as many pass as are recorded and none fails; 1, otherwise; 2, a part that there is not, or nothing to download.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

ROOT: Final = Path(__file__).resolve().parents[2]
LIST: Final = Path(__file__).with_name("suite.txt")
VERSION: Final = "5.7.0"
WANTED: Final = (
    "cryptography>=42",
    "django>=5",
    "ephem>=4",
    "freezegun==1.5.5",
    "msgpack>=1.0",
    "pydantic>=2.4",
    "pytest>=9",
    "pytest-timeout>=2.3",
    "python-dateutil",
    "pyyaml>=6",
    "tblib>=3",
    "redis",  # tasks of tests say by it what they did
    "kombu>=5.6",
    "billiard>=4.2",
    "vine>=5.1",
    # what litetq itself needs, which comes from the checkout
    "apsw>=3.51.3",
    "click>=8.1",
    "croniter>=2.0",
    "psutil>=5.9",
    "rich>=13.0",
    "tomli>=2.0; python_version < '3.11'",
)
SECONDS: Final = 240  # for one test; tight limits fail on a machine that does other things too
_UNLESS_REDIS: Final = re.compile(r"if not (?:manager\.)?app\.conf\.result_backend\.startswith\(.*\)")
_OF_NO_MEANING: Final = "propagate=True"  # to `apply`, which Celery passes over, and litetq refuses
_NOT_THERE: Final = (
    "from celery.backends.cache import CacheBackend, DummyClient",
    "TaskMessage1, ",
)  # imports of their conftest
_SILENCE: Final = 2  # seconds that they wait for what must not come, instead of 10: some do so twenty times
_INI: Final = """[pytest]
python_classes = test_*
filterwarnings = ignore
markers =
    flaky
    sleepdeprived_patched_module
    masked_modules
    patched_environ
    patched_module
    amqp
"""


class Part(NamedTuple):
    """Some files of Celery's tests."""

    name: str
    passes: int  # at least
    files: list[str]
    left_out: dict[str, str]  # pattern of names -> reason


def main(names: list[str]) -> int:
    parts = {part.name: part for part in read_list(LIST.read_text(encoding="utf-8"))}
    unknown = [name for name in names if name not in parts]
    if unknown:
        stop(f"there is no part {unknown[0]!r}; the parts are {', '.join(parts)}")
    cache = Path(os.environ.get("LITETQ_CACHE") or Path.home() / ".cache" / "litetq")
    source, python = sources(cache), environment(cache)
    good = True
    for part in [parts[name] for name in names] or parts.values():
        with tempfile.TemporaryDirectory(prefix="litetq-suite-") as folder:
            with side_channel(Path(folder)) as redis:
                good = run(part, source, python, Path(folder), redis) and good
    return 0 if good else 1


def read_list(text: str) -> list[Part]:
    """Return the parts that the list names.

    `part NAME passes N`, then lines of files, then `- PATTERN: reason` for what is left out; `#` begins a comment.
    """
    parts: list[Part] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if words[0] == "part":
            parts.append(Part(words[1], int(words[3]), [], {}))
        elif words[0] == "-":
            pattern, _, reason = line[2:].partition(": ")
            if not reason:
                stop(f"{LIST.name}: {line!r} gives no reason")
            parts[-1].left_out[pattern.strip()] = reason
        else:
            parts[-1].files.extend(words)
    return parts


@contextmanager
def side_channel(folder: Path) -> Iterator[dict[str, str]]:
    """Run a private Redis and yield the variables that name it, or nothing where this machine has no `redis-server`.

    Tasks of Celery's tests tell by lists of Redis what they did; broker and results are the file all the same.
    """
    program = shutil.which("redis-server")
    if program is None:
        yield {}
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        wait_for_door(int(port))
        yield {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": port}
    finally:
        server.terminate()
        server.wait()


def wait_for_door(port: int) -> None:
    """Return when something accepts connections on this port; stop after 30 seconds."""
    for _ in range(300):
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    stop("the private redis-server did not start within 30 seconds; without one in PATH these tests are skipped")


def run(part: Part, source: Path, python: Path, folder: Path, redis: dict[str, str]) -> bool:
    """Run one part in a folder of its own; return whether it is as it must be."""
    lay_out(source, python, folder, lift_skips=bool(redis))
    counts = folder / "counts.json"
    file = str(folder / "jobs.sqlite")
    env = {
        **os.environ,
        **redis,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "litetq" / "compat" / "startup"), str(ROOT)]),
        "LITETQ_AS_CELERY": "1",  # in the programs that tests start
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "SUITE_LEFT_OUT": json.dumps(list(part.left_out)),
        "SUITE_COUNTS": str(counts),
        "TEST_BROKER": file,
        "TEST_BACKEND": file,
        "TZ": "UTC",
    }
    plugin = ["-p", "no:cacheprovider", "-p", "tests.compat.suite_plugin"]
    command = [str(python), "-m", "pytest", "-q", "--tb=short", "-r", "fE", f"--timeout={SECONDS}", *plugin]
    ended = subprocess.run([*command, *part.files], cwd=folder, env=env, capture_output=True, text=True)
    found = json.loads(counts.read_text(encoding="utf-8")) if counts.exists() else {}
    good = bool(found) and found["passed"] >= part.passes and not found["failed"]
    if not good:
        print(ended.stdout[-20_000:], ended.stderr[-2_000:], sep="\n")
    said = ", ".join(f"{number} {what}" for what, number in found.items()) or "did not run"
    print(f"{part.name}: {said} (at least {part.passes} must pass){'' if good else '  <-- NOT GOOD'}", flush=True)
    return good


def lay_out(source: Path, python: Path, folder: Path, *, lift_skips: bool) -> None:
    """Copy the tests: with our fixtures in the place of those of the unit tests, a worker of threads, and a command `celery`.

    Children of a pool of processes could not know an app that a fixture makes. Many tests are skipped unless the results are in
    Redis, though they ask for it only beside; with `lift_skips` they run.
    """
    shutil.copytree(source / "t", folder / "t")
    ours, theirs = folder / "t" / "unit" / "conftest.py", folder / "t" / "unit" / "theirs.py"
    text = ours.read_text(encoding="utf-8")
    for imported in _NOT_THERE:
        text = text.replace(imported, "")
    theirs.write_text(text, encoding="utf-8")
    shutil.copy(Path(__file__).with_name("suite_unit.py"), ours)
    of_tasks = folder / "t" / "unit" / "tasks" / "test_tasks.py"
    text = of_tasks.read_text(encoding="utf-8").replace(f", {_OF_NO_MEANING}", "").replace(_OF_NO_MEANING, "")
    of_tasks.write_text(text, encoding="utf-8")
    conftest = folder / "t" / "integration" / "conftest.py"
    conftest.write_text(
        conftest.read_text(encoding="utf-8").replace("return 'prefork'", "return 'threads'"), encoding="utf-8"
    )
    if lift_skips:
        for name in ("test_canvas.py", "test_group_chains.py"):
            tests = folder / "t" / "integration" / name
            text = _UNLESS_REDIS.sub("if False", tests.read_text(encoding="utf-8"))
            tests.write_text(text.replace("timeout=10)", f"timeout={_SILENCE})"), encoding="utf-8")
    (folder / "pytest.ini").write_text(_INI, encoding="utf-8")
    command = folder / "bin" / "celery"
    command.parent.mkdir()
    command.write_text(
        f"#!{python}\nimport runpy\n\nrunpy.run_module('celery', run_name='__main__')\n", encoding="utf-8"
    )
    command.chmod(0o755)


def sources(cache: Path) -> Path:
    """Return where Celery's source distribution is unpacked, downloading it once."""
    place = cache / f"celery-{VERSION}"
    if not (place / "t").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            wanted = ["--no-binary", "celery", f"celery=={VERSION}", "--dest", folder]
            if subprocess.run([*pip, *wanted]).returncode:
                stop(
                    f"Celery {VERSION} could not be downloaded from the package index; LITETQ_CACHE may name a place that has it"
                )
            with tarfile.open(next(Path(folder).glob("celery-*.tar.gz"))) as archive:
                archive.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(
                    folder
                )
            os.replace(Path(folder) / f"celery-{VERSION}", place)
    return place


def environment(cache: Path) -> Path:
    """Return the Python of an environment with what the tests import, and without Celery; made once."""
    place = cache / f"suite-{sys.version_info[0]}.{sys.version_info[1]}"
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = place / "wanted.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != "\n".join(WANTED):
        venv.create(place, with_pip=True, symlinks=os.name == "posix")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, *WANTED]).returncode:
            stop("what Celery's tests import could not be installed; connect to the package index for the first run")
        stamp.write_text("\n".join(WANTED), encoding="utf-8")
    return python


def stop(text: str) -> NoReturn:
    print(f"celery-suite: {text}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
