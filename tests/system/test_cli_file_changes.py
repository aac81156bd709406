"""The file commands that change: `revoke`, `delete`, `move`, `retry`, `dead retry`, `queue pause|resume|purge`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, chain, cli
from litetq.exceptions import Reject
from litetq.message import Message, Plan, uuid
from litetq.wake import WORK
from tests.waiting import eventually

LONG = 30.0  # seconds

Say = Any  # what `say` is: (words) -> (exit code, lines on stdout, stderr)


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tests", broker=db, set_as_current=False) as app:
        yield app


@pytest.fixture
def add(app: LiteTQ) -> Any:
    return app.task(name="add")(lambda x, y: x + y)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], db: Path) -> Say:
    def say(*words: object) -> tuple[int, list[str], str]:
        place = 2 if words[0] in ("queue", "dead") else 1
        code = cli.main([str(word) for word in (*words[:place], db, *words[place:])])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return say


def places(app: LiteTQ) -> dict[str, int]:
    return {place: count for place, count in app.engine.store.records.counts().items() if count}


# -- by id, by filter ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "done"),
    [(["revoke"], "revoked"), (["delete"], "deleted"), (["move", "--to", "slow"], "moved")],
)
def test_what_a_filter_finds_is_first_only_shown(
    say: Say, app: LiteTQ, add: Any, command: list[str], done: str
) -> None:
    for n in range(12):
        add.delay(n, n)
    app.send_task("other")
    version = app.engine.store.records.counts()
    code, lines, error = say(*command, "--name", "a*")
    assert (code, error) == (cli.OK, "") and len(lines) == 13
    assert lines[-2:] == [
        "... and 2 others",
        f"12 tasks would be {done}. Nothing was changed; with --yes it is done.",
    ]
    assert app.engine.store.records.counts() == version and say("queue", "list")[1][1].split()[:2] == ["celery", "13"]
    code, lines, _ = say(*command, "--name", "a*", "--yes")
    assert code == cli.OK and lines == [f"12 tasks {done}{' to slow' if done == 'moved' else ''}."]
    assert say(*command, "--name", "nobody", "--yes")[1] == [f"No task to {command[0]}."]


@pytest.mark.parametrize("command", [["revoke"], ["delete"], ["move", "--to", "slow"], ["retry"], ["dead", "retry"]])
def test_without_ids_and_filter_nothing_is_done(say: Say, app: LiteTQ, add: Any, command: list[str]) -> None:
    add.delay(1, 1)
    code, lines, error = say(*command, "--yes")
    assert (code, lines) == (cli.USAGE, []) and "Give ids, or a filter" in error and places(app) == {"QUEUED": 1}
    code, lines, error = say(*command, "some-id", "--name", "add")
    assert (code, lines) == (cli.USAGE, []) and "Give ids or a filter, not both." in error


@pytest.mark.parametrize("command", [["delete"], ["move", "--to", "slow"]])
def test_an_unknown_id_is_refused_before_anything_is_changed(
    say: Say, app: LiteTQ, add: Any, command: list[str]
) -> None:
    known = add.delay(1, 1)
    code, lines, error = say(*command, known.id, "nobody")
    assert (code, lines) == (cli.FAILED, []) and "No task nobody is known" in error and places(app) == {"QUEUED": 1}


def test_changes_are_told_as_json(say: Say, app: LiteTQ, add: Any) -> None:
    def told(*words: str) -> Any:
        code, lines, _ = say(*words, "-j")
        assert code == cli.OK and len(lines) == 1
        return json.loads(lines[0])

    ids = [add.delay(n, n).id for n in range(3)]
    shown = told("move", "--all", "--to", "slow")
    assert (shown["found"], shown["changed"], sorted(shown["ids"])) == (3, 0, ids)
    assert told("move", "--all", "--to", "slow", "--yes") == {"moved": 3, "running": 0, "left": 0}
    assert told("revoke", ids[0], "nobody") == {"revoked": 1, "running": [], "over": [], "remembered": ["nobody"]}
    assert told("revoke", "nobody", "--undo") == {"no_longer_revoked": 1}
    assert told("retry", ids[0]) == {"retried": 1}
    assert told("delete", "--name", "none", "--yes") == {"found": 0, "changed": 0, "ids": []}
    assert told("delete", ids[1]) == {"deleted": 1, "revoked": 0, "running": 0}
    assert told("dead", "retry", ids[0]) == {"retried": 0, "left": [ids[0]]}
    assert told("queue", "pause", "slow") == {"name": "slow", "paused": True, "changed": True}
    assert told("queue", "resume", "slow") == {"name": "slow", "paused": False, "changed": True}
    assert told("queue", "purge", "slow") == {"found": 2, "removed": 0}
    assert told("queue", "purge", "slow", "--yes") == {"found": 2, "removed": 2}


# -- revoke ----------------------------------------------------------------------------------------------------------


def test_revoke_ends_what_waits_with_no_worker_alive(say: Say, app: LiteTQ, add: Any) -> None:
    result, later = add.delay(1, 1), add.apply_async((1, 1), countdown=3600)
    done = add.delay(2, 2)
    assert say("revoke", result.id, later.id)[:2] == (cli.OK, ["2 tasks revoked."])
    with app.run_embedded(concurrency=1):
        assert done.get(timeout=LONG) == 4
    assert (result.state, later.state) == ("REVOKED", "REVOKED")
    assert say("revoke", done.id)[1] == [f"0 tasks revoked; over already: {done.id}."]


def test_an_id_that_comes_later_is_remembered_and_the_revoke_can_be_taken_back(say: Say, app: LiteTQ, add: Any) -> None:
    add.delay(0, 0)
    code, lines, _ = say("revoke", "early", "kept")
    assert (code, lines) == (cli.OK, ["0 tasks revoked; not known, remembered for three hours: early, kept."])
    assert say("revoke", "--undo", "kept")[1] == ["1 task no longer revoked."]
    early, kept = add.apply_async((1, 1), task_id="early"), add.apply_async((1, 1), task_id="kept")
    with app.run_embedded(concurrency=1):
        assert kept.get(timeout=LONG) == 2
    assert early.state == "REVOKED"


def test_what_runs_is_left_to_run_unless_it_is_to_be_ended(say: Say, db: Path, tmp_path: Path, run_python: Any) -> None:
    (tmp_path / "tasks.py").write_text(
        "import time\nfrom litetq import LiteTQ\napp = LiteTQ('t', broker='jobs.sqlite')\n"
        "@app.task\ndef sleep(name):\n    open(name, 'w').close()\n    time.sleep(60)\n"
    )
    with LiteTQ("t", broker=db, set_as_current=False) as app:
        result = app.send_task("tasks.sleep", ["began"])
        run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "processes", "-c", "1", "-q")
        eventually((tmp_path / "began").exists, LONG)
        code, lines, _ = say("revoke", "--name", "tasks.*", "--yes")
        assert lines == ["0 tasks revoked; 1 running: no further attempt (--terminate ends them now)."]
        assert say("delete", result.id)[1] == ["0 tasks deleted; 1 left alone, because they run (litetq revoke)."]
        assert say("move", result.id, "--to", "slow")[1] == ["0 tasks moved to slow; 1 left alone, because they run."]
        assert say("revoke", result.id, "--terminate")[1] == ["0 tasks revoked; 1 running: told to end."]
        eventually(lambda: result.state == "REVOKED", LONG)


# -- delete, move ----------------------------------------------------------------------------------------------------


def test_deleted_tasks_leave_no_trace_and_those_that_waited_for_them_fail(say: Say, app: LiteTQ, add: Any) -> None:
    done = add.delay(1, 1)
    with app.run_embedded(concurrency=1):
        done.get(timeout=LONG)
    waiting = add.delay(1, 1)
    last = chain(add.s(1, 1), add.s(1))()
    code, lines, _ = say("delete", done.id, waiting.id, last.parent.id)
    assert (code, lines) == (cli.OK, ["2 tasks deleted; 1 ended as REVOKED, because they belong to a workflow."])
    assert app.engine.read(done.id) is None and app.engine.read(waiting.id) is None
    assert (last.parent.state, last.state) == ("REVOKED", "FAILURE")
    other = chain(add.s(1, 1), add.s(1))()
    assert say("delete", other.id)[1] == ["0 tasks deleted; 1 ended as REVOKED, because they belong to a workflow."]
    assert (other.parent.state, other.state) == ("PENDING", "REVOKED")
    (finding,) = [json.loads(line) for line in say("doctor", "-j")[1] if '"integrity"' in line]
    assert finding["level"] == "good"


def test_history_is_deleted_by_state_and_age(say: Say, app: LiteTQ, add: Any) -> None:
    for n in range(3):
        add.delay(n, n)
    with app.run_embedded(concurrency=1):
        eventually(lambda: places(app) == {"DONE": 3})
    add.delay(7, 7)
    assert say("delete", "--state", "success", "--older", "1h", "--yes")[1] == ["No task to delete."]
    assert say("delete", "--state", "success", "--newer", "1h", "--yes")[1] == ["3 tasks deleted."]
    assert places(app) == {"QUEUED": 1}


def test_moved_tasks_are_run_by_the_workers_of_their_new_queue(say: Say, app: LiteTQ, add: Any) -> None:
    first, second = add.apply_async((1, 1), queue="a"), add.apply_async((2, 2), queue="a")
    assert say("move", first.id, "--to", "b")[:2] == (cli.OK, ["1 task moved to b."])
    assert say("move", first.id, "--to", "b")[1] == ["0 tasks moved to b; 1 finished, or there already."]
    with app.run_embedded(concurrency=1, queues=["b"]):
        assert first.get(timeout=LONG) == 2
        assert second.state == "PENDING"
        assert say("move", "--queue", "a", "--to", "b", "--yes")[1] == ["1 task moved to b."]
        assert second.get(timeout=LONG) == 4


def test_who_sleeps_is_woken_by_a_move(say: Say, app: LiteTQ, add: Any) -> None:
    moved = add.apply_async((1, 1), queue="a")
    with app.engine.bell.waiter(WORK) as sleeper:
        sleeper.announce()
        assert say("move", moved.id, "--to", "b")[0] == cli.OK
        assert sleeper.wait(LONG)


def test_a_task_with_a_rate_limit_keeps_it_in_its_new_queue(say: Say, app: LiteTQ) -> None:
    app.engine.set_rate_limit("mail", "1/h")
    for _ in range(3):
        app.send_task("mail", queue="a")
    assert say("move", "--name", "mail", "--to", "b", "--yes")[1] == ["3 tasks moved to b."]
    seat = app.engine.seat("w@here", queues=frozenset({"b"}))
    try:
        assert len(seat.take(10).deliveries) == 1
    finally:
        seat.leave()


# -- retry, dead letters ---------------------------------------------------------------------------------------------


def test_failures_are_retried_by_filter(say: Say, app: LiteTQ) -> None:
    broken = True

    @app.task(name="fragile")
    def fragile(n: int) -> int:
        if broken:
            raise ValueError("broken")
        return n

    results = [fragile.delay(n) for n in range(3)]
    with app.run_embedded(concurrency=1):
        eventually(lambda: places(app) == {"DONE": 3})
    assert say("retry", "--name", "fragile")[1][-1].startswith("3 tasks would be retried.")
    broken = False
    code, lines, error = say("retry", "--name", "fragile", "--yes")
    assert (code, lines) == (cli.OK, ["3 tasks to run again."]) and "no worker runs" in error
    with app.run_embedded(concurrency=1):
        assert [result.get(timeout=LONG) for result in results] == [0, 1, 2]
    code, lines, error = say("retry", "--state", "success")
    assert code == cli.USAGE and "Only what has failed can be retried" in error


def test_dead_letters_are_listed_and_run_again(say: Say, app: LiteTQ, add: Any) -> None:
    poisoned = True

    @app.task(name="poison", acks_late=True)
    def poison() -> str:
        if poisoned:
            raise Reject("no", requeue=False)
        return "fine"

    result, plain = poison.delay(), add.delay(1, 1)
    with app.run_embedded(concurrency=1):
        assert plain.get(timeout=LONG) == 2
        eventually(lambda: places(app) == {"DONE": 2})
    lines = say("dead", "list")[1]
    assert len(lines) == 2 and result.id in lines[1] and "(dead letter)" in lines[1]
    assert json.loads(say("dead", "ls", "-j")[1][0])["dead"] is True
    assert "1 dead letter" in "".join(say("status")[1])
    assert say("dead", "retry", plain.id)[1] == ["0 tasks to run again; 1 left alone: no dead letter (litetq retry)."]
    assert say("dead", "retry", "--all")[1][-1].startswith("1 task would be retried.")
    poisoned = False
    assert say("dead", "retry", "--all", "--yes")[1] == ["1 task to run again."]
    with app.run_embedded(concurrency=1):
        assert result.get(timeout=LONG) == "fine"
    assert say("dead", "list")[1] == []


# -- queues ----------------------------------------------------------------------------------------------------------


def test_nobody_takes_from_a_paused_queue_until_it_is_resumed(say: Say, app: LiteTQ, add: Any) -> None:
    add.delay(0, 0)
    assert say("queue", "pause", "emails")[1] == ["emails is paused (a queue that nobody has used yet)"]
    assert say("queue", "pause", "emails")[1] == ["emails is paused already"]
    paused, open_one = add.apply_async((1, 1), queue="emails"), add.delay(2, 2)
    with app.run_embedded(concurrency=1, queues=["emails", "celery"]):
        assert open_one.get(timeout=LONG) == 4
        record = app.engine.read(paused.id)
        assert record is not None and (record.place, record.reason) == ("QUEUED", "its queue is paused")
        assert "(its queue is paused)" in say("tasks", "--queue", "emails")[1][1]
        assert any("emails is paused, 1 task waits in it" in line for line in say("doctor")[1])
        assert say("queue", "resume", "emails")[1] == ["emails is open"]
        assert paused.get(timeout=LONG) == 2
    assert say("queue", "resume", "emails")[1] == ["emails is open: it was not paused"]


def test_a_pause_outlives_the_workers_and_holds_for_limited_tasks_too(say: Say, app: LiteTQ, add: Any) -> None:
    add.apply_async((1, 1), queue="emails")
    say("queue", "pause", "emails")
    app.engine.set_rate_limit("limited", "1000/s")  # a lane of its own, which is made after the pause
    app.send_task("limited", queue="emails")
    for _ in range(2):
        seat = app.engine.seat("w@here")
        assert seat.take(10).deliveries == [] and seat.probe() == (False, None)
        seat.leave()
    say("queue", "resume", "emails")
    seat = app.engine.seat("w@here")
    assert len(seat.take(10).deliveries) == 2
    seat.leave()


def test_what_has_begun_runs_on_when_its_queue_is_paused(say: Say, app: LiteTQ) -> None:
    began, gate = threading.Event(), threading.Event()

    @app.task(name="slow")
    def slow() -> str:
        began.set()
        gate.wait(LONG)
        return "done"

    first, second = slow.delay(), slow.delay()
    with app.run_embedded(concurrency=1):
        assert began.wait(LONG)
        say("queue", "pause", "celery")
        gate.set()
        assert first.get(timeout=LONG) == "done"
        assert say("queue", "list")[1][1].split()[1] == "1" and second.state == "PENDING"


def test_a_drain_does_not_wait_for_a_paused_queue(say: Say, app: LiteTQ, add: Any, db: Path, run_python: Any) -> None:
    add.delay(1, 1)
    say("queue", "pause", "celery")
    (db.parent / "tasks.py").write_text("from litetq import LiteTQ\napp = LiteTQ('t', broker='jobs.sqlite')\n")
    process = run_python("-m", "litetq", "-A", "tasks", "worker", "--drain", "-P", "solo", "-q")
    process.communicate(timeout=LONG)
    assert process.returncode == 0 and places(app) == {"QUEUED": 1}


def test_a_queue_is_purged_after_a_look(say: Say, app: LiteTQ, add: Any) -> None:
    for n in range(3):
        add.apply_async((n, n), queue="emails", countdown=3600 if n else None)
    kept = add.delay(1, 1)
    assert say("queue", "purge", "emails")[1] == [
        "3 tasks would be removed. Nothing was changed; with --yes it is done."
    ]
    assert say("queue", "purge", "emails", "--yes")[1] == ["3 tasks removed from emails."]
    assert places(app) == {"QUEUED": 1} and kept.state == "PENDING"
    code, lines, error = say("queue", "purge", "email")
    assert (code, lines) == (cli.USAGE, []) and "There is no queue 'email'" in error and "emails" in error


# -- many ------------------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_what_was_done_and_says_how_much(app: LiteTQ, db: Path, run_python: Any) -> None:
    app.engine.send(Plan(tuple(Message(uuid(), "any", b"[[], {}]") for _ in range(5000))))
    program = """
import os, signal, sys
from litetq import cli
from litetq.rearrange import Rearrange
whole, turn = Rearrange.move, iter(range(100))
def move(self, ids, queue):
    if next(turn) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return whole(self, ids, queue)
Rearrange.move = move
sys.exit(cli.main(["move", sys.argv[1], "--all", "--to", "slow", "--yes"]))
"""
    process = run_python(program, str(db))
    out, error = process.communicate(timeout=LONG)
    assert process.returncode == cli.INTERRUPTED
    assert "Interrupted: of 5,000 tasks, the first 1,500 were moved." in error
    assert out == "1,500 tasks moved to slow.\n"


def test_a_million_ids_are_no_list_of_parameters(say: Say, app: LiteTQ) -> None:
    """Batches are JSON, so the number of ids has no limit of SQLite's."""
    app.engine.send(Plan(tuple(Message(uuid(), "any", b"[[], {}]") for _ in range(3000))))
    assert say("revoke", "--all", "--yes")[1] == ["3,000 tasks revoked."]
    assert say("delete", "--all", "--yes")[1] == ["3,000 tasks deleted."]
    assert places(app) == {}
