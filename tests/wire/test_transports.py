"""Other transports of kombu: what needs no server of its own is tried here with all that a program does."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat import packages
from tests.servers import BorrowedRedis, Redis, free_port
from tests.waiting import eventually
from tests.wire.conftest import Programs
from tests.wire.test_interop import EXPECTED

NOTED = ["quiet-0", "quiet-1", "quiet-2", "seen", "told"]


def settings(programs: Programs, lines: str) -> None:
    with open(programs.folder / "program.py", "a") as program:
        program.write(f"\n{lines}\n")


# -- a folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Programs]:
    found = Programs("filesystem://", tmp_path, f"file://{tmp_path / 'results'}")
    (tmp_path / "results").mkdir()
    box = tmp_path / "box"
    settings(
        found,
        f"app.conf.broker_transport_options = {{'data_folder_in': {str(box)!r}, 'data_folder_out': {str(box)!r}, "
        f"'control_folder': {str(tmp_path / 'control')!r}, 'polling_interval': 0.1}}",
    )
    yield found
    found.close()


@pytest.mark.slow
def test_a_folder_is_broker_and_results_for_both(folder: Programs) -> None:
    worker = folder.worker("litetq", "-P", "threads")
    code = (
        "answer([end(add.delay(1, 2)), end(third_time.delay()), end(fail.delay()), "
        "end(chain(add.s(1, 2), add.s(3)).apply_async()), end(chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async())])"
    )
    expected = [3, 2, ["ValueError", "no"], 6, 6]
    assert folder.ask("litetq", code) == expected
    assert folder.ask("celery", "answer([end(add.delay(1, 2)), end(chain(add.s(1, 2), add.s(3)).apply_async())])") == [
        3,
        6,
    ]
    pings = folder.ask("litetq", "answer(app.control.ping(timeout=10))")
    assert pings == [{"litetq@here": {"ok": "pong"}}]
    folder.ask("litetq", "answer([add.apply_async((n, n), countdown=600).id for n in range(3)])")
    eventually(lambda: not list((folder.folder / "box").glob("*celery.msg")), within=30)
    worker.terminate()
    assert worker.wait(30) == 0
    assert len(list((folder.folder / "box").glob("*celery.msg"))) == 3  # given back


@pytest.mark.slow
def test_a_folder_that_nobody_names_is_refused_in_a_sentence(tmp_path: Path) -> None:
    programs = Programs("filesystem://", tmp_path, "disabled://")
    try:
        code = "try: add.delay(1, 1)\nexcept Exception as error: answer(str(error))"
        assert "set broker_transport_options" in programs.ask("litetq", code)
    finally:
        programs.close()


# -- SQS


@pytest.fixture
def sqs() -> Iterator[str]:
    """A server that stands in for Amazon's."""
    port = free_port()
    if not packages.is_there():
        pytest.skip("python -m tests.compat.packages has not been run")
    words = [str(packages.PYTHON), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=5):
                return True
        except OSError:
            return False

    try:
        eventually(answers, within=60)
        yield f"sqs://key:secret@127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def programs(sqs: str, redis: Redis | BorrowedRedis, tmp_path: Path) -> Iterator[Programs]:
    found = Programs(sqs, tmp_path, redis.url)
    settings(
        found,
        "app.conf.broker_transport_options = {'region': 'us-east-1', 'is_secure': False, 'visibility_timeout': 3, "
        "'polling_interval': 0.2, 'wait_time_seconds': 1}",
    )
    yield found
    found.close()


@pytest.mark.slow
def test_programs_of_both_do_everything_over_sqs(programs: Programs) -> None:
    settings(
        programs, "app.conf.broker_transport_options = {**app.conf.broker_transport_options, 'visibility_timeout': 60}"
    )
    worker = programs.worker("litetq", "-P", "threads")
    for whose in ("litetq", "celery"):
        programs.ledger.write_text("")
        assert programs.ask(whose, "answer(workflows())") == EXPECTED
        eventually(lambda: sorted(programs.noted()) == NOTED, within=30)
    code = "try: app.control.ping(timeout=1)\nexcept Exception as error: answer([type(error).__name__, str(error)])"
    name, text = programs.ask("litetq", code)
    assert name == "ImproperlyConfigured"
    assert "hands each message to one receiver" in text
    assert "secret" not in text
    worker.terminate()
    assert worker.wait(60) == 0


@pytest.mark.slow
def test_a_task_that_runs_longer_than_the_visibility_timeout_of_sqs_runs_once(programs: Programs) -> None:
    programs.worker("litetq", "-P", "threads")
    programs.worker("litetq", "-P", "threads", "-n", "other@here")  # it would get it, too
    code = (
        "result = hold.delay(0)\n"
        "import time; deadline = time.monotonic() + 12\n"
        "while time.monotonic() < deadline: time.sleep(0.1)\n"
        "open(os.environ['LEDGER'] + '.go', 'w').close()\n"
        "answer(end(result))"
    )
    assert programs.ask("litetq", code) == 0
    assert sorted(programs.noted()) == ["began-0", "ended-0"]
    assert "Task hold" in programs.log("litetq")
    assert "delivered again" not in programs.log("litetq")


# -- what is missing


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    for url, extra in (
        ("amqp://localhost//", "amqp"),
        ("sqs://", "sqs"),
        ("filesystem://", "filesystem"),
        ("kafka://localhost", "kafka"),
        ("mongodb://localhost", "mongodb"),
    ):
        code = (
            "import sys\n"
            "for name in ('kombu', 'boto3', 'confluent_kafka', 'pymongo'): sys.modules[name] = None\n"
            "from litetq import LiteTQ\n"
            f"app = LiteTQ('x', broker={url!r})\n"
            "try: app.send_task('add')\n"
            "except Exception as error: print(type(error).__name__, error)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.stdout.startswith("ImproperlyConfigured"), done
        assert f'pip install "litetq[{extra}]"' in done.stdout


@pytest.mark.parametrize("scheme", ["django", "ironmq", "couchdb"])
def test_a_broker_without_an_adapter_is_refused_in_a_sentence(scheme: str) -> None:
    from litetq import LiteTQ
    from litetq.exceptions import ImproperlyConfigured

    with pytest.raises(ImproperlyConfigured, match=scheme):
        LiteTQ("x", broker=f"{scheme}://localhost", set_as_current=False).send_task("add")
