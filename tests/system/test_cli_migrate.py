"""`litetq migrate`: waiting tasks go from one file to another, none is lost, and repeating is harmless."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litetq import LiteTQ, chain, chord, cli, group, platforms
from tests.conftest import RunPython
from tests.waiting import eventually

LONG = 30.0  # seconds


class Files:
    """Two files, with an app each that knows `add`."""

    def __init__(self, folder: Path) -> None:
        self.paths = folder / "old.sqlite", folder / "new.sqlite"
        self.old, self.new = (LiteTQ("tasks", broker=path, set_as_current=False) for path in self.paths)
        for app in (self.old, self.new):
            app.task(name="add")(lambda x, y: x + y)
            app.task(name="total")(sum)
            app.task(name="shown")(lambda value: value)

    def waiting(self, app: LiteTQ) -> list[tuple[str, str]]:
        """Return (name, queue) of what waits, in the order in which it would be claimed."""
        sql = "SELECT t.name, l.queue FROM litetq_task AS t JOIN litetq_lane AS l ON l.id = t.lane ORDER BY t.seq"
        found: list[tuple[str, str]] = app.engine.database.read(lambda tx: tx.execute(sql).fetchall())
        return found


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    files = Files(tmp_path)
    with files.old, files.new:
        yield files


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(files: Files, capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["migrate", *map(str, files.paths), *map(str, words)])
        return (code, *capsys.readouterr())

    return run


@pytest.mark.row("13.migrate SRC DST")
def test_tasks_are_carried_whole_and_run_in_the_other_file(files: Files, say: Say) -> None:
    now = files.old.send_task("add", (1, 2), queue="mail", priority=7)
    later = files.old.send_task("add", (1, 2), countdown=3600, expires=7200)
    before = files.old.engine.read(later.id)
    code, out, err = say("-a")
    assert (code, err) == (cli.OK, "")
    assert out.splitlines() == [
        f"Migrating task 1/?: add[{now.id}] to mail",
        f"Migrating task 2/?: add[{later.id}] to celery",
        "2 tasks migrated.",
    ]
    assert files.waiting(files.old) == [] and files.waiting(files.new) == [("add", "mail"), ("add", "celery")]
    after = files.new.engine.read(later.id)
    assert before is not None and after is not None and before.due_at == after.due_at and after.place == "SCHEDULED"
    with files.new.run_embedded(concurrency=1, queues={"mail"}):
        assert files.new.AsyncResult(now.id).get(timeout=LONG) == 3


def test_without_ack_they_stay_and_nothing_is_carried_twice(files: Files, say: Say) -> None:
    for _ in range(3):
        files.old.send_task("add", (1, 2))
    assert say("-q") == (cli.OK, "3 tasks migrated.\n", "")
    assert say()[0] == cli.OK
    assert len(files.waiting(files.old)) == len(files.waiting(files.new)) == 3
    assert say("-a")[0] == cli.OK
    assert (len(files.waiting(files.old)), len(files.waiting(files.new))) == (0, 3)


def test_only_what_is_named_is_carried(files: Files, say: Say) -> None:
    for name, queue in (("add", "a"), ("add", "b"), ("mul", "a"), ("mul", "c")):
        files.old.send_task(name, (1, 2), queue=queue)
    say("-a", "-T", "add, nothing", "-Q", "a:x,c")
    assert files.waiting(files.new) == [("add", "x")]
    say("-a", "-n", "1", "--queues", "c,b")
    assert files.waiting(files.new) == [("add", "x"), ("add", "b")]
    assert say("-a", "-n", "1")[1].startswith("Migrating task 1/1: mul[")
    assert files.waiting(files.old) == [("mul", "c")]


def rows(app: LiteTQ) -> int:
    """Return how many rows a file has of what is not ended, and of what waits for what."""
    tables = ("litetq_task", "litetq_link", "litetq_join", "litetq_part")
    sql = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    return int(app.engine.database.read(lambda tx: tx.execute(f"SELECT {sql}").get))


def test_workflows_go_whole_and_end_as_they_would_have(files: Files, say: Say) -> None:
    add, total = files.old.tasks["add"], files.old.tasks["total"]
    nested = chord([chain(add.s(0, 1), group(add.s(1), add.s(2))), add.s(3, 3)], files.old.tasks["shown"].s())
    results = [
        chain(add.s(1, 2), add.s(3))(),
        chord([add.s(1, 1), chain(add.s(1, 1), add.s(1))], total.s())(),
        nested(),
        add.apply_async((1, 1), link=add.s(5), link_error=total.si([])),
    ]
    before = rows(files.old)
    assert say("-a", "-q") == (cli.OK, "14 tasks migrated.\n", "")
    assert (rows(files.old), rows(files.new)) == (0, before)
    with files.new.run_embedded(concurrency=1):
        ends = [files.new.AsyncResult(result.id).get(timeout=LONG) for result in results]
    assert ends == [6, 5, [[2, 3], 6], 2]
    assert rows(files.new) == 0


def test_a_step_that_has_its_predecessors_value_takes_it_along(files: Files, say: Say) -> None:
    add = files.old.tasks["add"]
    result = chain(add.s(1, 2).set(queue="a"), add.s(3).set(queue="b"), add.s(4))()
    with files.old.run_embedded(concurrency=1, queues={"a"}):
        eventually(lambda: files.waiting(files.old) == [("add", "b"), ("add", "celery")], within=LONG)
    assert say("-a", "-q") == (cli.OK, "2 tasks migrated.\n", "")
    with files.new.run_embedded(concurrency=1, queues={"b", "celery"}):
        assert files.new.AsyncResult(result.id).get(timeout=LONG) == 10


def test_a_chord_that_has_values_and_what_runs_stay_and_are_counted(files: Files, say: Say) -> None:
    add, total = files.old.tasks["add"], files.old.tasks["total"]
    chord([add.s(1, 1).set(queue="a"), add.s(2, 2)], total.s())()
    with files.old.run_embedded(concurrency=1, queues={"a"}):
        eventually(lambda: len(files.waiting(files.old)) == 2, within=LONG)
    files.old.send_task("add", (1, 2))
    seat = files.old.engine.seat("other", queues=frozenset({"held"}))
    files.old.send_task("add", (1, 2), queue="held")
    assert len(seat.take(1).deliveries) == 1
    code, out, err = say("-a", "-q")
    assert (code, out) == (cli.OK, "1 task migrated.\n")
    assert sorted(err.splitlines()) == [
        "note: 1 task stayed: running, or belonging to what runs",
        "note: 2 tasks stayed: in workflows that have begun",
    ]
    seat.leave()


def test_a_failed_workflow_that_runs_again_is_carried_though_its_errbacks_have_gone_before(
    files: Files, say: Say
) -> None:
    add, shown = files.old.tasks["add"], files.old.tasks["shown"]
    told = chain(shown.si("told").set(queue="errbacks"), shown.s().set(queue="later"))
    result = add.si("1", 2).set(queue="failing", link_error=[told]).delay()
    with files.old.run_embedded(concurrency=1, queues={"failing", "errbacks"}):
        eventually(lambda: files.waiting(files.old) == [("shown", "later")], within=LONG)
    assert files.old.AsyncResult(result.id).retry() == 1
    assert files.waiting(files.old) == [
        ("add", "failing"),
        ("shown", "later"),
        ("shown", "errbacks"),
        ("shown", "later"),
    ]
    assert say("-a", "-q") == (cli.OK, "4 tasks migrated.\n", "")
    assert sorted(files.waiting(files.new)) == [
        ("add", "failing"), ("shown", "errbacks"), ("shown", "later"), ("shown", "later"),
    ]  # fmt: skip


def test_what_is_held_comes_back_as_it_was_when_the_command_dies(files: Files, run_python: RunPython) -> None:
    later = files.old.send_task("add", (1, 2), countdown=3600)
    now = files.old.send_task("add", (1, 2))
    assert run_python(KILLED.replace('== "sent"', '== "held"')).wait(LONG) == 9
    places = {id: record.place for id, record in files.old.engine.read_many([later.id, now.id]).items()}
    assert places == {later.id: "CLAIMED", now.id: "CLAIMED"}
    with files.old.run_embedded(concurrency=1):
        assert files.old.AsyncResult(now.id).get(timeout=LONG) == 3
    record = files.old.engine.read(later.id)
    assert record is not None and record.place == "SCHEDULED"


def test_a_dry_run_says_what_waits_and_carries_nothing(files: Files, say: Say) -> None:
    files.old.send_task("add", (1, 2), queue="mail")
    files.old.send_task("add", (1, 2))
    assert say("--dry-run", "-a") == (
        cli.OK,
        "celery: 1 task\nmail: 1 task\n2 tasks would be looked at; nothing was carried.\n",
        "",
    )
    assert (len(files.waiting(files.old)), len(files.waiting(files.new))) == (2, 0)


def test_more_tasks_than_a_page_keep_their_order(files: Files, say: Say) -> None:
    for n in range(1200):
        files.old.send_task(f"t{n}")
    assert say("-a", "-q")[1] == "1,200 tasks migrated.\n"
    assert [name for name, _ in files.waiting(files.new)] == [f"t{n}" for n in range(1200)]


KILLED = """
import os, sys
from litetq import cli, probes

def die(moment):
    if moment == "sent":
        os._exit(9)

probes.hook = die
sys.exit(cli.main(["migrate", "old.sqlite", "new.sqlite", "-a"]))
"""


@pytest.mark.system
def test_a_crash_between_the_two_files_loses_nothing_and_repeating_mends_it(
    files: Files, say: Say, run_python: RunPython
) -> None:
    for _ in range(3):
        files.old.send_task("add", (1, 2))
    assert run_python(KILLED).wait(LONG) == 9
    assert (len(files.waiting(files.old)), len(files.waiting(files.new))) == (3, 1)
    assert say("-a", "-q") == (cli.OK, "3 tasks migrated.\n", "")
    assert (len(files.waiting(files.old)), len(files.waiting(files.new))) == (0, 3)


@pytest.mark.system
@pytest.mark.skipif(platforms.PORTABLE, reason="Ctrl-C cannot be sent to one process there")
def test_forever_carries_what_comes_until_ctrl_c(files: Files, run_python: RunPython) -> None:
    files.old.send_task("add", (1, 2))
    carrying = run_python("-m", "litetq", "migrate", "old.sqlite", "new.sqlite", "-a", "--forever")
    eventually(lambda: len(files.waiting(files.new)) == 1, within=LONG)
    files.old.send_task("add", (3, 4))
    eventually(lambda: len(files.waiting(files.new)) == 2, within=LONG)
    carrying.send_signal(signal.SIGINT)
    out, _ = carrying.communicate(timeout=LONG)
    assert carrying.returncode == cli.OK and out.endswith("2 tasks migrated.\n")


@pytest.mark.system
@pytest.mark.skipif(platforms.PORTABLE, reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_before_the_end_is_told_and_the_rest_waits(files: Files, run_python: RunPython) -> None:
    group(files.old.signature("add", (n, n)) for n in range(20_000)).apply_async()
    carrying = run_python("-m", "litetq", "migrate", "old.sqlite", "new.sqlite", "-a", "-q")
    eventually(lambda: len(files.waiting(files.new)) > 1, within=LONG)
    carrying.send_signal(signal.SIGINT)
    out, err = carrying.communicate(timeout=LONG)
    assert carrying.returncode == cli.INTERRUPTED and "Interrupted: the same command carries what is left." in err
    carried = len(files.waiting(files.new))
    assert out == f"{carried:,} tasks migrated.\n" and len(files.waiting(files.old)) == 20_000 - carried


def test_timeout_waits_for_what_comes_late(files: Files, run_python: RunPython) -> None:
    files.old.send_task("add", (1, 2))
    carrying = run_python("-m", "litetq", "migrate", "old.sqlite", "new.sqlite", "-a", "-q", "-t", "2")
    eventually(lambda: len(files.waiting(files.new)) == 1, within=LONG)
    files.old.send_task("add", (3, 4))
    assert carrying.communicate(timeout=LONG)[0] == "2 tasks migrated.\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["s3://:secret@host/0", "new.sqlite"], "is neither a file of tasks nor a broker."),
        (["redis://:secret@host/0", "redis://:secret@host/0"], "SOURCE and DESTINATION are one broker"),
        (["nothing.sqlite", "new.sqlite"], "There is no file"),
        (["old.sqlite", "./old.sqlite"], "SOURCE and DESTINATION are one file"),
        (["old.sqlite"], "Missing argument 'DESTINATION'."),
        (["old.sqlite", "new.sqlite", "-n", "0"], "0 is not in the range x>=1"),
    ],
)
def test_what_cannot_be_carried_ends_with_2(
    files: Files,
    words: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    files.old.send_task("add", (1, 2))
    assert cli.main(["migrate", *words]) == cli.USAGE
    err = capsys.readouterr().err
    assert sentence in err and "secret" not in err and not files.paths[1].exists()
