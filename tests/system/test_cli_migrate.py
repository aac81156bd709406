"""`litetq migrate`: waiting tasks go from one file to another, none is lost, and repeating is harmless."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litetq import LiteTQ, chain, cli, platforms
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


def test_workflows_and_what_runs_stay_and_are_counted(files: Files, say: Say) -> None:
    add = files.old.tasks["add"]
    chain(add.s(1, 2), add.s(3))()
    files.old.send_task("add", (1, 2))
    code, out, err = say("-a", "-q")
    assert (code, out) == (cli.OK, "1 task migrated.\n")
    assert err == "note: 2 tasks stayed: they belong to workflows, or are running\n"


def test_a_step_that_has_its_predecessors_value_stays(files: Files, say: Say) -> None:
    add = files.old.tasks["add"]
    chain(add.s(1, 2).set(queue="a"), add.s(3).set(queue="b"))()
    with files.old.run_embedded(concurrency=1, queues={"a"}):
        eventually(lambda: files.waiting(files.old) == [("add", "b")], within=LONG)
    assert say("-a", "-q")[1:] == (
        "0 tasks migrated.\n",
        "note: 1 task stayed: it belongs to a workflow, or is running\n",
    )


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
    assert (len(files.waiting(files.old)), len(files.waiting(files.new))) == (3, 3)
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


def test_timeout_waits_for_what_comes_late(files: Files, run_python: RunPython) -> None:
    files.old.send_task("add", (1, 2))
    carrying = run_python("-m", "litetq", "migrate", "old.sqlite", "new.sqlite", "-a", "-q", "-t", "2")
    eventually(lambda: len(files.waiting(files.new)) == 1, within=LONG)
    files.old.send_task("add", (3, 4))
    assert carrying.communicate(timeout=LONG)[0] == "2 tasks migrated.\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["redis://:secret@host/0", "new.sqlite"], "is no file; this version carries tasks from file to file."),
        (["old.sqlite", "amqp://host//"], "amqp://host// is no file"),
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
