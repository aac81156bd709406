"""Remote control and events over the wire: the tools of both, with workers of both."""

from __future__ import annotations

import subprocess

import pytest

from tests.waiting import eventually
from tests.wire.conftest import Programs


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
