"""Remote control and events over the wire: the tools of both, with workers of both."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from typing import Any

import pytest

from tests.waiting import eventually
from tests.wire.conftest import Programs

pytestmark = pytest.mark.slow  # test_interop.py has what runs by default


@pytest.mark.parametrize(("asks", "answers"), [("litetq", "litetq"), ("celery", "litetq"), ("litetq", "celery")])
def test_workers_answer_what_tools_ask(programs: Programs, asks: str, answers: str) -> None:
    programs.worker(answers, "-P", "threads")
    found = programs.ask(
        asks,
        "import time\n"
        "held = add.apply_async((1, 1), countdown=600)\n"
        "inspect = app.control.inspect(timeout=5, limit=1)\n"
        "deadline = time.monotonic() + 20\n"
        "while not (scheduled := inspect.scheduled() or {}).get('"
        + answers
        + "@here') and time.monotonic() < deadline: pass\n"
        "answer([inspect.ping(), sorted(list(inspect.registered().values())[0]), scheduled, held.id])",
    )
    ping, registered, scheduled, held = found
    node = f"{answers}@here"
    assert ping == {node: {"ok": "pong"}}
    assert "add" in registered
    assert [entry["request"]["id"] for entry in scheduled[node]] == [held]


@pytest.mark.parametrize(("asks", "runs"), [("litetq", "litetq"), ("celery", "litetq"), ("litetq", "celery")])
def test_a_revoked_task_ends_as_such(programs: Programs, asks: str, runs: str) -> None:
    programs.worker(runs, "-P", "threads")
    code = "result = late.apply_async((1,), countdown=3)\nresult.revoke()\nanswer(end(result)[:1])"
    assert programs.ask(asks, code) == ["TaskRevokedError"]
    assert programs.noted() == []


@pytest.mark.parametrize("runs", ["litetq", "celery"])
def test_tasks_are_revoked_by_their_stamps(programs: Programs, runs: str) -> None:
    programs.worker(runs, "-P", "threads")
    code = (
        "result = late.apply_async((1,), countdown=3, stamped_headers=['who'], who='me')\n"
        "app.control.revoke_by_stamped_headers({'who': ['me']})\nanswer(end(result)[:1])"
    )
    assert programs.ask("litetq", code) == ["TaskRevokedError"]
    assert programs.noted() == []


def test_a_rate_limit_reaches_the_workers(programs: Programs) -> None:
    programs.worker("litetq", "-P", "threads")
    code = (
        "app.control.rate_limit('late', '1/h')\n"
        "assert app.control.ping(timeout=5)\n"  # commands are answered in order
        "results = [late.delay(n) for n in range(3)]\n"
        "answer([end(results[0]), app.control.inspect(timeout=5).reserved()])"
    )
    first, _ = programs.ask("litetq", code)
    assert first == 0
    assert programs.noted() == ["0"]


def test_periodic_tasks_are_sent_to_the_broker(programs: Programs) -> None:
    (programs.folder / "timed.py").write_text(
        "from program import *\napp.conf.beat_schedule = {'often': {'task': 'late', 'schedule': 0.5, 'args': ('beat',)}}\n"
    )
    with open(programs.folder / "beat.log", "w") as log:
        programs.start(
            "litetq", "-m", "litetq", "-A", "timed", "worker", "-B", "-P", "threads", "-c", "1", stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    eventually(lambda: programs.noted().count("beat") >= 2, within=60)


@pytest.mark.parametrize("asks", ["litetq", "celery"])
def test_a_running_task_is_watched_terminated_and_limited(programs: Programs, asks: str) -> None:
    programs.worker("litetq", "-P", "processes")
    code = (
        "import time\n"
        "deadline = time.monotonic() + 60\n"
        "def until(result):\n"
        "    while result.state != 'HALFWAY' and time.monotonic() < deadline: time.sleep(0.01)\n"
        "    return result.info\n"
        "first, second = tells.delay(), tells.delay()\n"
        "seen = [until(first), until(second)]\n"
        "second.revoke(terminate=True)\n"
        "ends = [end(second)[0], end(too_long.delay())]\n"
        "open(os.environ['LEDGER'] + '.go', 'w').close()\n"
        "answer([*seen, *ends, end(first)])"
    )
    halfway = {"done": 1}
    assert programs.ask(asks, code) == [halfway, halfway, "TaskRevokedError", ["TimeLimitExceeded", "1"], "whole"]


@pytest.mark.parametrize("listens", ["litetq", "celery"])
@pytest.mark.parametrize("tells", ["litetq", "celery"])
def test_events_of_workers_are_heard(programs: Programs, listens: str, tells: str) -> None:
    programs.worker(tells, "-P", "threads", "-E")
    with open(programs.folder / "events", "w") as heard:
        programs.start(
            listens, "-m", listens, "-A", "program", "events", "--dump", stdout=heard, stderr=subprocess.STDOUT
        )
    text = (programs.folder / "events").read_text
    eventually(lambda: "heartbeat" in text(), within=60)
    programs.ask("celery", "answer(end(add.delay(1, 2)))")
    eventually(lambda: "task succeeded: add(" in text(), within=30)
    assert "task received: add(" in text()


def test_the_command_line_speaks_with_workers_of_celery(programs: Programs) -> None:
    programs.worker("celery", "-P", "threads")
    done = programs.command("litetq", "inspect", "ping")
    assert "celery@here: OK" in done.stdout, done
    assert done.returncode == 0


def test_flower_as_it_is_lists_workers_of_ours_and_their_tasks(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs.worker("litetq", "-P", "threads", "-E")
    words = ["-m", "celery", "-A", "program", "flower", f"--port={port}", "--address=127.0.0.1"]
    with open(programs.folder / "flower.log", "w") as log:
        programs.start("celery", *words, stdout=log, stderr=subprocess.STDOUT)

    def asked(path: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=10) as answer:
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except OSError:  # not there yet
            return {}

    workers = eventually(lambda: asked("workers?refresh=1"), within=60)
    assert "add" in workers["litetq@here"]["registered"]
    assert workers["litetq@here"]["stats"]["broker"]["transport"] == "redis"
    id = programs.ask("litetq", "result = add.delay(1, 2)\nend(result)\nanswer(result.id)")
    eventually(lambda: asked("tasks").get(id, {}).get("state") == "SUCCESS", within=30)
    assert asked("tasks")[id]["worker"] == "litetq@here"
