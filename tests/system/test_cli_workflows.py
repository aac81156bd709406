"""`litetq show` and `litetq watch`: a workflow as a tree, and a bar until it has ended."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, chain, chord, cli, group

LONG = 20.0  # seconds


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tests", broker=db, set_as_current=False) as app:
        yield app


@pytest.fixture
def add(app: LiteTQ) -> Any:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    return add


def say(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    code = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def test_show_draws_the_tree_of_a_workflow_from_any_of_its_tasks(
    app: LiteTQ, add: Any, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = chain(add.s(1, 1), add.s(2), group(add.s(3), add.s(4)))()
    first = last.parent.parent
    other = add.delay(5, 5)
    code, lines, _ = say(capsys, "show", "--tree", db, last.results[1].id)
    assert code == cli.OK
    assert lines == [
        f"add[{first.id}] QUEUED (waits for a free worker)",
        f"add[{last.parent.id}] BLOCKED (waits for another task)",
        f"├─ add[{last.results[0].id}] BLOCKED (waits for another task)",
        f"└─ add[{last.results[1].id}] BLOCKED (waits for another task)",
    ]
    with app.run_embedded(concurrency=1):
        assert last.get(timeout=LONG) == [7, 8] and other.get(timeout=LONG) == 10
    code, lines, _ = say(capsys, "show", "--tree", db, first.id)
    assert len(lines) == 4 and all(
        re.search(r"SUCCESS at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d in \d+\.\d{3} s$", line) for line in lines
    )


def test_show_draws_the_beginning_of_a_large_workflow_and_the_task_that_was_asked_for(
    app: LiteTQ, add: Any, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = group(add.s(n, n) for n in range(150))()
    _, lines, _ = say(capsys, "show", db, result.children[140].id)
    drawn = [line for line in lines if line.startswith("add[")]
    assert len(drawn) == 101 and result.children[140].id in drawn[-1]
    assert lines[-1].startswith("... and 49 others; --tree draws them all (0 of 150 done")
    assert len(say(capsys, "show", "--tree", db, result.children[0].id)[1]) == 150


def test_the_members_of_a_chord_are_shown_with_its_body(
    app: LiteTQ, add: Any, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    result = chord([add.s(n, n) for n in range(5)])(total.s())
    assert len(say(capsys, "show", "--tree", db, result.id)[1]) == 6
    with app.run_embedded(concurrency=1):
        assert result.get(timeout=LONG) == 20
    _, lines, _ = say(capsys, "show", "--tree", db, result.id)
    assert len(lines) == 6 and sum("total[" in line for line in lines) == 1
    assert say(capsys, "watch", db, result.id)[:2] == (cli.OK, [f"[{'#' * 30}] 6/6"])


def drawn(capsys: pytest.CaptureFixture[str], db: Path, result: Any) -> list[str]:
    """Return the lines of `show` up to the names of the tasks."""
    return [line.partition("[")[0] for line in say(capsys, "show", "--tree", db, result.id)[1]]


def test_the_body_of_a_chord_stands_below_its_members_at_the_edge_of_what_they_follow(
    app: LiteTQ, add: Any, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = app.task(name="total")(sum)
    first, other = add.s(1, 1), add.s(2)
    assert drawn(capsys, db, (first | group(other, other) | total.s() | add.s(1))()) == [
        "add", "├─ add", "└─ add", "total", "add",
    ]  # fmt: skip
    assert drawn(capsys, db, chord([first, first | add.s(2) | add.s(3)], total.s())()) == [
        "├─ add", "└─ add", "   add", "   add", "total",
    ]  # fmt: skip
    assert drawn(capsys, db, chord([chord([first, first], total.s()), first], total.s() | add.s(1))()) == [
        "├─ add", "├─ add", "├─ total", "└─ add", "total", "add",
    ]  # fmt: skip


def test_watch_ends_with_the_workflow_and_tells_of_failures(
    app: LiteTQ, add: Any, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    come, gate = threading.Event(), threading.Event()

    @app.task(name="fail")
    def fail(*args: int) -> None:
        come.set()
        gate.wait(LONG)
        raise ValueError("boom")

    result = chain(add.s(1, 1), fail.s(), add.s(2))()
    codes: list[int] = []
    watching = threading.Thread(target=lambda: codes.append(cli.main(["watch", str(db), result.id])))
    watching.start()
    with app.run_embedded(concurrency=1):
        assert come.wait(LONG) and watching.is_alive()
        gate.set()
        watching.join(LONG)
    assert codes == [cli.FAILED]
    bar, *failed = capsys.readouterr().out.splitlines()
    assert bar == f"[{'#' * 30}] 3/3, 2 failed"
    assert [line.partition("[")[0] for line in failed] == ["fail", "add"] and "FAILURE" in failed[0]
    assert "a task that it waited for failed" in failed[1]


def test_watch_does_not_wait_for_an_errback_that_is_not_needed(
    app: LiteTQ, add: Any, db: Path, capsys: pytest.CaptureFixture[str], run_python: Any
) -> None:
    gate = threading.Event()
    wait = app.task(name="wait")(lambda: gate.wait(LONG))
    result = wait.apply_async(link_error=add.si(1, 1))
    assert len(say(capsys, "show", "--tree", db, result.id)[1]) == 2
    watching = run_python("-m", "litetq", "watch", db, result.id)
    assert "no worker runs" in watching.stderr.readline()  # it has read both tasks
    gate.set()
    with app.run_embedded(concurrency=1):
        out, _ = watching.communicate(timeout=LONG)
    assert (watching.returncode, out) == (cli.OK, f"[{'#' * 30}] 1/1\n")


def test_retry_runs_again_what_failed_and_says_what(
    app: LiteTQ, add: Any, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = True

    @app.task(name="flaky")
    def flaky(x: int) -> int:
        if broken:
            raise ValueError("boom")
        return x * 10

    result = chain(add.s(1, 1), flaky.s(), add.s(2))()
    first = result.parent.parent
    code, lines, error = say(capsys, "retry", db, first.id)
    assert (code, lines) == (cli.FAILED, [])
    assert "Nothing to retry: no task of this workflow has failed, and 3 of 3 have not ended yet." in error
    with app.run_embedded(concurrency=1):
        with pytest.raises(ValueError, match="boom"):
            result.get(timeout=LONG)
    code, lines, error = say(capsys, "retry", db, first.id)
    assert (code, lines) == (
        cli.OK,
        [
            "2 tasks run again:",
            f"flaky[{result.parent.id}] QUEUED (waits for a free worker)",
            f"add[{result.id}] BLOCKED (waits for another task)",
        ],
    )
    assert "no worker runs on" in error
    assert say(capsys, "retry", db, result.id)[0] == cli.FAILED
    broken = False
    with app.run_embedded(concurrency=1):
        assert app.AsyncResult(result.id).get(timeout=LONG) == 22
    code, lines, error = say(capsys, "retry", db, result.id)
    assert (code, lines) == (cli.FAILED, [])
    assert "Nothing to retry: all 3 tasks of this workflow have succeeded." in error


def test_retry_says_in_one_sentence_that_something_has_been_forgotten(
    app: LiteTQ, add: Any, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail = app.task(name="fail")(lambda: 1 / 0)
    result = chord([fail.si(), fail.si()])(add.si(1, 1))
    with app.run_embedded(concurrency=1):
        result.get(timeout=LONG, propagate=False)
        result.parent.join(timeout=LONG, propagate=False)
    result.parent[0].forget()
    code, lines, error = say(capsys, "retry", db, result.id)
    assert (code, lines) == (cli.FAILED, [])
    assert f"Error: Task {result.id} cannot be run again: what it needs of its workflow has expired" in error


def test_of_many_workflows_those_that_cannot_be_resumed_are_named_and_the_others_are(
    app: LiteTQ, add: Any, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail = app.task(name="fail")(lambda: 1 / 0)
    results = [chord([fail.si(), fail.si()])(add.si(1, 1)) for _ in range(3)]
    with app.run_embedded(concurrency=1):
        for result in results:
            result.get(timeout=LONG, propagate=False)
            result.parent.join(timeout=LONG, propagate=False)
    results[1].parent[0].forget()
    code, lines, error = say(capsys, "retry", db, "--name", "add", "--state", "failure", "--yes")
    assert (code, lines) == (cli.FAILED, ["6 tasks to run again."])
    assert f"Task {results[1].id} cannot be run again: what it needs of its workflow has expired" in error
    assert [result.retry() for result in (results[0], results[2])] == [0, 0]


@pytest.mark.parametrize("name", ["show", "watch", "retry"])
def test_an_unknown_task_or_file_is_said_in_one_sentence(
    add: Any, db: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add.delay(1, 1)
    code, lines, error = say(capsys, name, db, "nobody")
    assert (code, lines) == (cli.FAILED, []) and error.startswith("Error: No task nobody is known to")
    code, lines, error = say(capsys, name, db, "--id", "no\x1b[31m\nbody\u202e")
    assert (code, lines) == (cli.FAILED, []) and r"No task no\x1b[31m\nbody\u202e is known to" in error
    missing = tmp_path / "missing.sqlite"
    code, lines, error = say(capsys, name, missing, "nobody")
    assert (code, lines) == (cli.USAGE, []) and "Error: There is no file" in error and not missing.exists()
