"""Remote control and events over the wire: the tools of both, with workers of both.

Where a worker of each lives already (`town`), a test does not start its own.
"""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import eventually
from tests.wire.conftest import Programs

BOTH = ["litetq", "celery"]
SIDES = [("litetq", "litetq"), ("celery", "litetq"), ("litetq", "celery")]

# Asks a worker, `NODE`, for all that tools show; the long delay is what it holds meanwhile.
QUESTIONS = """
import time
held = add.apply_async((1, 1), countdown=600, queue=QUEUE)
inspect = app.control.inspect([NODE], timeout=10)
deadline = time.monotonic() + 20
while not (scheduled := (inspect.scheduled() or {}).get(NODE)) and time.monotonic() < deadline: pass
found = {
    'ping': inspect.ping()[NODE],
    'knows add': 'add' in inspect.registered()[NODE],
    'holds': held.id in [entry['request']['id'] for entry in scheduled],
    'queues': sorted(queue['name'] for queue in inspect.active_queues()[NODE]),
    'places': inspect.stats()[NODE]['pool']['max-concurrency'],
    'active': inspect.active()[NODE],
    'asked for': inspect.query_task(held.id)[NODE][held.id][0],
    'clock': isinstance(inspect.clock()[NODE]['clock'], int),
    'settings': inspect.conf()[NODE]['task_default_queue'],
}
held.revoke()
while held.id not in (inspect.revoked() or {}).get(NODE, ()) and time.monotonic() < deadline: pass
found['revoked'] = held.id in inspect.revoked()[NODE]
answer(found)
"""

# Tells a worker, `NODE`, to change, and looks whether it has.
ORDERS = """
def told(command, *args, **options):
    [reply] = getattr(app.control, command)(*args, destination=[NODE], reply=True, timeout=10, **options)
    return 'ok' in reply[NODE]

inspect = app.control.inspect([NODE], timeout=10)
served = lambda: sorted(queue['name'] for queue in inspect.active_queues()[NODE])
found = {
    'rate_limit': told('rate_limit', 'quiet', '100/s'),
    'time_limit': told('time_limit', 'quiet', soft=50, hard=60),
    'add_consumer': told('add_consumer', 'another'),
    'serves': served(),
    'from there': end(add.apply_async((1, 2), queue='another')),
    'cancel_consumer': told('cancel_consumer', 'another'),
    'serves no more': served(),
    'enable_events': told('enable_events'),
}
answer(found)
"""


def asked(programs: Programs, asks: str, code: str, node: str) -> Any:
    whose = node.partition("@")[0]
    return programs.ask(asks, f"NODE, QUEUE = {node!r}, {whose!r}\n{code}")


@pytest.mark.slow
@pytest.mark.parametrize(("asks", "answers"), SIDES)
def test_workers_answer_what_tools_ask(town: Programs, asks: str, answers: str) -> None:
    assert asked(town, asks, QUESTIONS, f"{answers}@here") == {
        "ping": {"ok": "pong"},
        "knows add": True,
        "holds": True,
        "queues": sorted([answers, "shared"]),
        "places": 2,
        "active": [],
        "asked for": "scheduled",
        "clock": True,
        "settings": answers,
        "revoked": True,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("asks", "obeys"), SIDES)
def test_workers_do_what_tools_tell_them(town: Programs, asks: str, obeys: str) -> None:
    assert asked(town, asks, ORDERS, f"{obeys}@here") == {
        "rate_limit": True,
        "time_limit": True,
        "add_consumer": True,
        "serves": sorted(["another", obeys, "shared"]),
        "from there": 3,
        "cancel_consumer": True,
        "serves no more": sorted([obeys, "shared"]),
        "enable_events": True,
    }


@pytest.mark.slow
@pytest.mark.parametrize("asks", BOTH)
def test_both_answer_who_asks_everybody(town: Programs, asks: str) -> None:
    code = "answer([sorted(app.control.inspect(timeout=5).ping()), len(app.control.ping(timeout=5))])"
    assert town.ask(asks, code) == [["celery@here", "litetq@here"], 2]


@pytest.mark.slow
@pytest.mark.parametrize(("asks", "runs"), SIDES)
def test_a_revoked_task_ends_as_such(town: Programs, asks: str, runs: str) -> None:
    code = (
        f"result = late.apply_async(('revoked',), countdown=3, queue={runs!r})\n"
        "app.control.revoke(result.id, reply=True, limit=2, timeout=20)\n"  # the two workers have heard it then
        "answer(end(result)[:1])"
    )
    assert town.ask(asks, code) == ["TaskRevokedError"]
    assert "revoked" not in town.noted()


@pytest.mark.slow
@pytest.mark.parametrize("runs", BOTH)
def test_tasks_are_revoked_by_their_stamps(town: Programs, runs: str) -> None:
    code = (
        f"result = late.apply_async(('stamped',), countdown=3, queue={runs!r}, stamped_headers=['who'], who='me')\n"
        "app.control.revoke_by_stamped_headers({'who': ['me']}, reply=True, limit=2, timeout=20)\nanswer(end(result)[:1])"
    )
    assert town.ask("litetq", code) == ["TaskRevokedError"]
    assert "stamped" not in town.noted()


@pytest.mark.slow
@pytest.mark.parametrize("listens", BOTH)
def test_events_of_workers_are_heard(town: Programs, listens: str) -> None:
    words = ["-m", listens, "-A", "program", "events", "--dump"]
    path = town.folder / f"events-{listens}"
    with open(path, "w") as heard:
        process = town.start(listens, *words, stdout=heard, stderr=subprocess.STDOUT)
    for tells in BOTH:
        eventually(lambda tells=tells: f"{tells}@here" in path.read_text() and "heartbeat" in path.read_text(), 60)
        id = town.ask("celery", f"result = add.apply_async((1, 2), queue={tells!r})\nend(result)\nanswer(result.id)")
        eventually(lambda id=id: f"task succeeded: add({id})" in path.read_text(), within=30)
        assert f"task received: add({id})" in path.read_text()
    process.terminate()
    process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("asks", BOTH)
def test_the_command_line_speaks_with_workers_of_both(town: Programs, asks: str) -> None:
    done = town.command(asks, "inspect", "-t", "10", "ping")
    assert "celery@here: OK" in done.stdout and "litetq@here: OK" in done.stdout, done
    assert done.returncode == 0
    told = town.command(asks, "control", "-t", "10", "-d", "litetq@here", "rate_limit", "quiet", "50/s")
    assert told.returncode == 0 and "litetq@here: OK" in told.stdout, told
    asked = town.command("litetq", "result", "nobody")
    assert asked.returncode == 1 and "No task nobody is known to " in asked.stderr and " None" not in asked.stderr, (
        asked
    )


@pytest.mark.slow
def test_flower_as_it_is_lists_workers_and_their_tasks_and_sends_some(
    town: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "celery", "-A", "program", "flower", f"--port={port}", "--address=127.0.0.1"]
    with open(town.folder / "flower.log", "w") as log:
        flower = town.start("celery", *words, stdout=log, stderr=subprocess.STDOUT)

    def api(path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", data, timeout=20) as answer:
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except OSError:  # not there yet
            return {}

    workers = eventually(
        lambda: (found := api("workers?refresh=1")) and set(found) >= {"litetq@here", "celery@here"} and found, 90
    )
    ours = workers["litetq@here"]
    assert "add" in ours["registered"]
    assert {queue["name"] for queue in ours["active_queues"]} == {"litetq", "shared"}
    assert ours["stats"]["broker"]["transport"] == workers["celery@here"]["stats"]["broker"]["transport"]
    id = town.ask("litetq", "result = add.apply_async((1, 2), queue='litetq')\nend(result)\nanswer(result.id)")
    eventually(lambda: api("tasks").get(id, {}).get("state") == "SUCCESS", within=30)
    assert api("tasks")[id]["worker"] == "litetq@here"
    assert api("task/info/" + id)["result"] == "3"
    sent = api("task/async-apply/add", {"args": [3, 4], "queue": "litetq"})["task-id"]
    eventually(lambda: api(f"task/result/{sent}").get("result") == 7, within=30)
    later = api("task/async-apply/add", {"args": [3, 4], "queue": "litetq", "countdown": 5})["task-id"]
    form = urllib.parse.urlencode({"terminate": "false"}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/task/revoke/{later}", form, timeout=20) as answer:
        assert later in json.loads(answer.read())["message"]
    eventually(lambda: api(f"task/result/{later}").get("state") == "REVOKED", within=30)
    flower.terminate()
    flower.wait(30)


# -- with a worker of its own


@pytest.mark.slow
def test_a_rate_limit_reaches_the_workers(anywhere: Programs) -> None:
    anywhere.worker("litetq", "-P", "threads")
    code = (
        "app.control.rate_limit('late', '1/h')\n"
        "assert app.control.ping(timeout=5)\n"  # commands are answered in order
        "results = [late.delay(n) for n in range(3)]\n"
        "answer([end(results[0]), app.control.inspect(timeout=5).reserved()])"
    )
    first, _ = anywhere.ask("litetq", code)
    assert first == 0
    assert anywhere.noted() == ["0"]


@pytest.mark.slow
def test_workers_at_a_broker_are_asked_without_an_app(town: Programs, tmp_path: Path) -> None:
    for words in (["status", "-t", "5"], ["inspect", "ping", "-t", "5"]):
        process = town.start(
            "litetq", "-m", "litetq", "-b", town._places["BROKER"], *words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )  # fmt: skip
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "->  celery@here: OK" in out and "->  litetq@here: OK" in out


@pytest.mark.slow
def test_periodic_tasks_are_sent_to_the_broker(anywhere: Programs) -> None:
    (anywhere.folder / "timed.py").write_text(
        "from program import *\napp.conf.beat_schedule = {'often': {'task': 'late', 'schedule': 0.5, 'args': ('beat',)}}\n"
    )
    with open(anywhere.folder / "beat.log", "w") as log:
        anywhere.start(
            "litetq", "-m", "litetq", "-A", "timed", "worker", "-B", "-P", "threads", "-c", "1", stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    eventually(lambda: anywhere.noted().count("beat") >= 2, within=60)


@pytest.mark.slow
@pytest.mark.parametrize(("asks", "runs"), SIDES)
def test_a_running_task_is_watched_terminated_and_limited(anywhere: Programs, asks: str, runs: str) -> None:
    anywhere.worker(runs, "-P", {"litetq": "processes", "celery": "prefork"}[runs])
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
    assert anywhere.ask(asks, code) == [halfway, halfway, "TaskRevokedError", ["TimeLimitExceeded", "1"], "whole"]


@pytest.mark.slow
@pytest.mark.parametrize("asks", BOTH)
def test_a_worker_is_stopped_from_afar(anywhere: Programs, asks: str) -> None:
    worker = anywhere.worker("litetq", "-P", "threads")
    anywhere.ask(asks, "app.control.shutdown(destination=['litetq@here'])\nanswer(0)")
    assert worker.wait(30) == 0
