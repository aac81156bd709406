"""What a broker, or the way to it, can do to programs and workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Redis
from tests.waiting import eventually
from tests.wire.conftest import Programs

LIST = "celery\x06\x169"  # where Redis has, of the queue celery, what is least urgent: calls that name no priority


@pytest.mark.slow
def test_a_redis_that_is_restarted_under_load_loses_nothing(programs: Programs, server: Redis) -> None:
    worker = programs.worker("litetq", "-P", "threads")
    sender = programs.start(
        "litetq",
        "-c",
        "from program import *\n"
        "sent = 0\n"
        "import time\n"
        "while sent < 150:\n"
        "    try:\n"
        "        late.delay(sent)\n"
        "        sent += 1\n"
        "    except Exception as error:\n"
        "        assert type(error).__name__ == 'OperationalError', error\n"
        "        time.sleep(0.1)\n",
    )
    for part in (20, 60, 100):
        eventually(lambda part=part: len(set(programs.noted())) >= part, within=60)
        server.stop()
        server.start()
    eventually(lambda: set(programs.noted()) == {str(number) for number in range(150)}, within=60)
    assert sender.wait(30) == 0
    assert worker.poll() is None


@pytest.mark.slow
def test_a_lost_connection_makes_nothing_run_twice(programs: Programs, server: Redis) -> None:
    programs.worker("litetq", "-P", "threads")
    code = "answer([late.apply_async((n,), countdown=1 + n / 10).id for n in range(12)])"
    ids = programs.ask("litetq", code)
    for _ in range(3):
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        eventually(lambda: "cmd=evalsha" in server.ask("CLIENT", "LIST"), within=30)
    ends = programs.ask("litetq", f"answer([end(app.AsyncResult(id)) for id in {ids!r}])")
    assert ends == list(range(12))
    assert sorted(map(int, programs.noted())) == list(range(12))
    eventually(lambda: server.ask("HLEN", "unacked") == ":0\r\n")


@pytest.mark.slow
def test_what_a_killed_worker_had_not_acknowledged_runs_elsewhere(
    programs: Programs, server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIBILITY", "2")  # seconds after which Redis' messages count as lost; an hour by default
    first = programs.worker("litetq", "-P", "threads")
    id = programs.ask("litetq", "answer(hold.delay(1).id)")
    eventually(lambda: programs.noted() == ["began-1"])
    first.kill()
    first.wait()
    (programs.folder / "ledger.go").touch()
    programs.worker("litetq", "-P", "threads")
    assert programs.ask("litetq", f"answer(end(app.AsyncResult({id!r})))") == 1
    assert programs.noted() == ["began-1", "began-1", "ended-1"]


@pytest.mark.slow
def test_a_task_that_runs_longer_than_the_visibility_timeout_runs_once(
    programs: Programs, server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIBILITY", "3")
    programs.worker("litetq", "-P", "threads")
    answered = programs.ask(
        "litetq",
        "results = [hold.delay(0)]\n"
        "import time; deadline = time.monotonic() + 20\n"  # its own worker looks every 5 s for what has timed out
        "while time.monotonic() < deadline: time.sleep(0.1)\n"
        "open(os.environ['LEDGER'] + '.go', 'w').close()\n"
        "answer([end(result) for result in results])",
    )
    assert answered == [0]
    assert sorted(programs.noted()) == ["began-0", "ended-0"]


@pytest.mark.slow
def test_what_comes_while_something_is_held_for_long_is_not_lost(
    programs: Programs, server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIBILITY", "1")  # so that Redis is told every quarter of a second that a task is alive
    programs.worker("litetq", "-P", "threads")
    code = (
        "import time\n"
        "held = hold.delay(0)\n"
        "found = []\n"
        "for n in range(8):\n"
        "    time.sleep(0.7)\n"  # the worker waits for the next message meanwhile, and tells Redis
        "    found.append(end(add.delay(n, 0)))\n"
        "open(os.environ['LEDGER'] + '.go', 'w').close()\n"
        "answer([*found, end(held)])"
    )
    assert programs.ask("litetq", code) == [*range(8), 0]


@pytest.mark.slow
def test_a_worker_that_is_stopped_gives_back_what_it_has_not_begun(programs: Programs, server: Redis) -> None:
    worker = programs.worker("litetq", "-P", "threads")
    programs.ask("litetq", "answer([add.apply_async((n, n), countdown=600).id for n in range(5)])")
    eventually(lambda: server.ask("HLEN", "unacked") == ":5\r\n")
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    programs.ask("litetq", "answer(end(add.delay(1, 1)))")  # it is back
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert server.ask("LLEN", LIST) == ":5\r\n"
    assert server.ask("HLEN", "unacked") == ":0\r\n"


def test_a_call_costs_a_bounded_time_and_says_why_where_no_broker_is(programs: Programs, server: Redis) -> None:
    server.stop()
    code = (
        "import time\n"
        "began = time.monotonic()\n"
        "try: add.delay(1, 1)\n"
        "except Exception as error: answer([type(error).__name__, str(error), time.monotonic() - began])"
    )
    name, text, spent = programs.ask("litetq", code)
    server.start()
    assert name == "OperationalError"
    assert text.startswith("Sending task add[")
    assert f"the broker {server.url} cannot be used" in text
    assert spent < 30


@pytest.mark.slow
def test_a_call_costs_a_bounded_time_where_redis_is_there_and_does_not_answer(
    programs: Programs, server: Redis
) -> None:
    code = (
        "import signal, time\n"
        "add.delay(1, 1)\n"
        "os.kill(%d, signal.SIGSTOP)\n"
        "said = []\n"
        "for tell in (lambda: add.delay(1, 1), lambda: app.control.revoke('a')):\n"
        "    began = time.monotonic()\n"
        "    try: tell()\n"
        "    except Exception as error: said.append([type(error).__name__, str(error), time.monotonic() - began])\n"
        "answer(said)"
    )
    pid = int(server.ask("INFO", "server").partition("process_id:")[2].split()[0])
    try:
        said = programs.ask("litetq", code % pid)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [name for name, _, _ in said] == ["OperationalError"] * 2
    assert all("cannot be used (Timeout" in text and spent < 60 for _, text, spent in said)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("add.apply_async((1, 1), task_id='a', if_new=True)", "if_new asks whether a task is known"),
        (
            "app.conf.result_backend = 'rpc://'; chord([add.s(1, 1)], total.s()).delay()",
            "a result backend that can count its parts",
        ),
        ("app.conf.result_backend = 'ironcache://x'; add.delay(1, 1)", "no longer speaks to"),
        ("app.conf.result_backend = 'jobs.sqlite'; add.delay(1, 1)", "with a broker, results lie in Redis"),
    ],
)
def test_what_a_broker_cannot_keep_is_refused_before_anything_is_sent(
    programs: Programs, server: Redis, code: str, told: str
) -> None:
    answered = programs.ask(
        "litetq", f"try:\n    {code}\nexcept Exception as error: answer([type(error).__name__, str(error)])"
    )
    assert answered[0] == "ImproperlyConfigured"
    assert told in answered[1]
    assert server.ask("LLEN", LIST) == ":0\r\n"


def test_a_missing_package_is_named_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    (tmp_path / "kombu.py").write_text("raise ImportError('not here')\n")
    code = "from litetq import LiteTQ\nLiteTQ('x', broker='redis://127.0.0.1/0').send_task('a')"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )  # fmt: skip
    assert 'install it with  pip install "litetq[redis]"; or' in process.stderr.strip().splitlines()[-1]


def test_a_wrong_password_is_named_and_shown_nowhere(programs: Programs, server: Redis) -> None:
    server.ask("CONFIG", "SET", "requirepass", "hunter2")
    code = (
        f"app.conf.broker_url = app.conf.result_backend = 'redis://:wrong-secret@127.0.0.1:{server.port}/0'\n"
        "texts = []\n"
        "for do in (lambda: add.delay(1, 1), lambda: app.AsyncResult('x').state):\n"
        "    try: do()\n"
        "    except Exception as error: texts.append(str(error))\n"
        "answer(texts)"
    )
    texts = programs.ask("litetq", code)
    assert len(texts) == 2
    assert "wrong-secret" not in json.dumps(texts)
    assert all("give the right password" in text and "is it running" not in text for text in texts), texts


@pytest.mark.slow
def test_workers_of_processes_that_are_killed_under_load_lose_nothing(
    programs: Programs, server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIBILITY", "2")
    worker = programs.worker("litetq", "-P", "processes")
    ids = programs.ask("litetq", "answer([late.delay(n).id for n in range(200)])")
    parts = (20, 70, 120)
    for part in parts:
        eventually(lambda part=part: len(set(programs.noted())) >= part, within=30)
        worker.kill()
        worker.wait()
        worker = programs.worker("litetq", "-P", "processes")
    left = "import redis; c = redis.Redis.from_url(os.environ['BROKER']); answer(c.llen('celery') + c.hlen('unacked'))"
    eventually(lambda: programs.ask("litetq", left) == 0, within=60)
    done = {int(number) for number in programs.noted()}
    assert done == set(range(200))
    assert programs.ask("litetq", f"answer([end(app.AsyncResult(id)) for id in {ids!r}])") == sorted(done)


@pytest.mark.slow
def test_a_task_whose_process_dies_ends_as_lost_over_a_broker_too(programs: Programs, server: Redis) -> None:
    programs.worker("litetq", "-P", "processes")
    id = programs.ask("litetq", "answer(dies.delay().id)")
    assert programs.ask("litetq", f"answer(end(app.AsyncResult({id!r})))")[0] == "WorkerLostError"
    assert programs.ask("litetq", "answer(end(add.delay(1, 2)))") == 3


@pytest.mark.slow
def test_a_chord_is_completed_by_one_worker_and_by_another_when_that_one_dies(
    programs: Programs, server: Redis
) -> None:
    code = (
        "from litetq.adapters.redis import Part, RedisResults\n"
        "from litetq.exceptions import OperationalError\n"
        "results = RedisResults(os.environ['BROKER'])\n"
        "results.open_chord('g', ['a', 'b'])\n"
        "def last(token):\n"
        "    try:\n"
        "        parts = results.count_part('g', Part('b', 'SUCCESS', 2), 1, token)\n"
        "        return None if parts is None else [part.value for part in parts]\n"
        "    except OperationalError:\n"
        "        return 'busy'\n"
        "found = [results.count_part('g', Part('a', 'SUCCESS', 1), 0, 'one'), last('two'), last('two'), last('three')]\n"
        "results.client.delete('celery-taskset-meta-g.c')\n"  # the token of one who died runs out
        "found.append(last('three'))\n"
        "results.close_chord('g', 'three')\n"
        "answer([*found, last('two')])"
    )
    assert programs.ask("litetq", code) == [None, [1, 2], [1, 2], "busy", [1, 2], None]


@pytest.mark.slow
def test_a_body_that_cannot_be_called_fails_and_the_members_do_not(programs: Programs) -> None:
    programs.worker("litetq", "-P", "threads")
    code = (
        "result = chord([add.s(1, 1), add.s(2, 2)], add.s(1, 2, 3)).apply_async()\n"
        "deadline = __import__('time').monotonic() + 20\n"
        "while not result.ready() and __import__('time').monotonic() < deadline: pass\n"
        "answer([result.state, [one.get(timeout=5) for one in result.parent.results]])"
    )
    assert programs.ask("celery", code) == ["FAILURE", [2, 4]]


@pytest.mark.slow
def test_showing_that_something_is_held_takes_no_message_away(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIBILITY", "1")  # a quarter of which passes between two signs of life
    programs.worker("litetq", "-P", "threads")
    code = (
        "import time\n"
        "add.apply_async((1, 1), countdown=600)\n"
        "for n in range(10):\n"
        "    late.delay(n)\n"
        "    time.sleep(0.75)\n"  # so that one comes after a sign of life, to a worker that waits
        "answer(1)"
    )
    programs.ask("litetq", code)
    eventually(lambda: sorted(map(int, programs.noted())) == list(range(10)), within=30)
