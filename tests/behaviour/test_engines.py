"""All tests of this folder over brokers, in an environment that has kombu, redis and amqp, and no Celery."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat import packages
from tests.conftest import ROOT, missing
from tests.servers import RabbitCommands, redis_for

HERE = Path(__file__).parent
MODULES = sorted(path.name for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)
WITHOUT_CHORDS = ("test_calls.py", "test_ends.py", "test_routing.py", "test_control.py")  # rpc:// counts none
PLACES = [
    *[("redis", module) for module in MODULES],
    *[("rabbitmq, results in redis", module) for module in MODULES],
    *[("rabbitmq, results by rpc", module) for module in WITHOUT_CHORDS],
    ("redis, results by rpc", "test_calls.py"),
]


@contextlib.contextmanager
def place(of: str, rabbitmq: RabbitCommands | None, folder: Path) -> Iterator[tuple[str, str]]:
    """Give the URLs of an empty broker and of an empty result store."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_for(folder / "redis")).url if "redis" in of else ""
        broker = stack.enter_context(rabbitmq.virtual_host()).url if rabbitmq is not None else redis
        yield broker, "rpc://" if of.endswith("rpc") else redis


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("of", "module"), PLACES)
def test_every_behaviour_is_the_same_over(of: str, module: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    environment = packages.WITHOUT_CELERY
    if not environment.is_there():
        missing("python -m tests.compat.packages has not been run: it brings kombu, redis and amqp")
    rabbitmq = request.getfixturevalue("rabbitmq_server") if of.startswith("rabbitmq") else None
    with place(of, rabbitmq, tmp_path) as (broker, results):
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
