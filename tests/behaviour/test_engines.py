"""All tests of this folder over brokers, in an environment that has kombu, redis and amqp, and no Celery."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.compat import packages
from tests.conftest import ROOT, missing
from tests.servers import places

HERE = Path(__file__).parent
MODULES = sorted(path.name for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)
WITHOUT_CHORDS = ("test_calls.py", "test_ends.py", "test_routing.py", "test_control.py")  # rpc:// counts none
PLACES = [
    *[("redis", module) for module in MODULES],
    *[("rabbitmq", module) for module in MODULES],
    *[("rabbitmq, rpc", module) for module in WITHOUT_CHORDS],
    ("redis, rpc", "test_calls.py"),
]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("of", "module"), PLACES)
def test_every_behaviour_is_the_same_over(of: str, module: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    environment = packages.WITHOUT_CELERY
    if not environment.is_there():
        missing("python -m tests.compat.packages has not been run: it brings kombu, redis and amqp")
    with places(of, request, tmp_path) as (broker, results):
        process = subprocess.run(
            [environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / module, "--basetemp", tmp_path / "t"],
            cwd=ROOT,
            env={**os.environ, "LITETQ_TEST_BROKER": broker, "LITETQ_TEST_RESULTS": results},
            capture_output=True,
            text=True,
            timeout=390,
        )  # fmt: skip
    assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"


@pytest.mark.slow
def test_no_path_to_a_broker_needs_celery() -> None:
    environment = packages.WITHOUT_CELERY
    if not environment.is_there():
        missing("python -m tests.compat.packages has not been run: it brings kombu, redis and amqp")
    code = "import importlib.util as u; print([n for n in ('celery', 'billiard', 'kombu', 'redis', 'amqp') if u.find_spec(n)])"
    process = subprocess.run([environment.python, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "['kombu', 'redis', 'amqp']"
