"""`litetq call`, `result`, `purge`, `list` and `report`: what reaches the file, and what is printed."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, cli
from tests.waiting import eventually

LONG = 20.0  # seconds


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tasks", broker=db, set_as_current=False) as app:

        @app.task(name="add")
        def add(x: Any, y: Any) -> Any:
            return x + y

        @app.task(name="fail")
        def fail() -> None:
            raise ValueError("gone\x1b[31m")

        app.engine.store.set_meta("some", "thing")  # the file is there
        yield app


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line in this process, as if it were a new one: what it puts into the environment does not stay."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        for name in ("LITETQ_BROKER", "LITETQ_RESULT_BACKEND"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def call(say: Say, db: Path, *words: str) -> str:
    code, out, err = say("-b", db, "call", *words)
    assert code == cli.OK, err
    return out.strip()


# -- call


@pytest.mark.row("13.call NAME")
def test_call_prints_the_id_and_the_task_runs(app: LiteTQ, say: Say, db: Path) -> None:
    id = call(say, db, "add", "-a", "[2]", "--kwargs", '{"y": 3}')
    assert set(json.loads(call(say, db, "add", "-a", "[1, 2]", "-j"))) == {"id"}
    with app.run_embedded(concurrency=1):
        assert app.AsyncResult(id).get(timeout=LONG) == 5


@pytest.mark.row("13.call NAME")
def test_the_options_of_call_are_those_of_apply_async(app: LiteTQ, say: Say, db: Path) -> None:
    def record(*words: str) -> Any:
        return app.engine.read(call(say, db, "add", *words))

    now = record("--queue", "mail")
    assert (now.queue, now.place) == ("mail", "QUEUED")
    assert record("--eta", "2034-05-06T07:08:09").due_at == record("--eta", "2034-05-06T09:08:09+02:00").due_at
    later = record("--countdown", "60")
    assert later.place == "SCHEDULED" and later.due_at == pytest.approx(later.enqueued_at + 60, abs=5)
    assert record("--serializer", "json").body_type in (None, "application/json")


def test_a_call_that_is_too_late_does_not_run(app: LiteTQ, say: Say, db: Path) -> None:
    late = call(say, db, "add", "-a", "[1, 2]", "--expires", "2001-01-01T00:00")
    in_time = call(say, db, "add", "-a", "[1, 2]", "--expires", "1000")
    with app.run_embedded(concurrency=1):
        assert app.AsyncResult(in_time).get(timeout=LONG) == 3
        eventually(lambda: app.AsyncResult(late).state == "REVOKED", within=LONG)


PROGRAM = """
from litetq import LiteTQ
from litetq.routing import Queue

app = LiteTQ("routed", broker="routed.sqlite")
app.conf.task_queues = [
    Queue("celery"),
    Queue("mail", exchange="post", routing_key="mail.out"),
    Queue("other", routing_key="log.#"),
]
app.conf.task_routes = {"send_*": {"queue": "mail"}}
"""


@pytest.fixture
def routed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiteTQ]:
    """An app with declared queues and routes, as module `routed` of the working directory."""
    (tmp_path / "routed.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "routed", raising=False)
    import routed  # type: ignore[import-not-found,unused-ignore]

    with routed.app as app:
        yield app
    monkeypatch.delitem(sys.modules, "routed")


def test_the_apps_routes_decide_about_the_queue_of_a_call(routed: LiteTQ, say: Say) -> None:
    def queue_of(*words: str) -> Any:
        code, out, err = say("-A", "routed", "call", *words)
        assert code == cli.OK, err
        record = routed.engine.read(out.strip())
        assert record is not None
        return record.queue

    assert queue_of("send_letter") == "mail"
    assert queue_of("x", "--exchange", "post") == "mail"
    assert queue_of("x", "--routing-key", "log.error") == "other"
    assert queue_of("x") == "celery"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["add", "-a", "1"], "'-a' / '--args': 1 was not an array; write for example [1, \"two\"]"),
        (["add", "-a", "x"], "'-a' / '--args': 'x' is no JSON: Expecting value"),
        (["add", "-k", "[]"], "'-k' / '--kwargs': [] was not an object"),
        (["add", "--eta", "foo"], "'--eta': 'foo' is no date in ISO 8601; write for example 2026-03-29T01:30"),
        (["add", "--expires", "soon"], "'--expires': 'soon' is no date"),
        (["add", "--countdown", "x"], "'--countdown': 'x' is not a valid float"),
        (["add", "--countdown", "1", "--eta", "2034-01-01"], "Both --eta and --countdown say when; give one."),
        (["add", "--serializer", "foo"], "No encoder installed for foo"),
        ([""], "needs the name of a task"),
        ([], "Missing argument 'NAME'."),
    ],
)
def test_a_call_that_cannot_be_made_ends_with_2_and_sends_nothing(
    app: LiteTQ, say: Say, db: Path, line: list[str], sentence: str
) -> None:
    code, out, err = say("-b", db, "call", *line)
    assert (code, out) == (cli.USAGE, "") and sentence in err.replace("\n", " ") and "Traceback" not in err
    assert app.control.purge() == 0


def test_a_call_to_a_file_that_is_not_there_makes_it(tmp_path: Path, say: Say) -> None:
    new = tmp_path / "new.sqlite"
    id = call(say, new, "add")
    assert say("result", new, id, "--timeout", "0")[0] == cli.FAILED and new.is_file()


# -- result


@pytest.fixture
def ended(app: LiteTQ) -> dict[str, str]:
    """Ids of tasks that have ended, by what became of them."""
    made = {
        "sum": app.send_task("add", (1, 2)),
        "text": app.send_task("add", ("a\x1b[31m\n[red]b\t", "c")),
        "failure": app.send_task("fail"),
    }
    with app.run_embedded(concurrency=1):
        for result in made.values():
            result.get(timeout=LONG, propagate=False)
    revoked = app.send_task("add", (1, 2))
    revoked.revoke()
    return {name: result.id for name, result in made.items()} | {"revoked": revoked.id}


@pytest.mark.row("13.result ID")
def test_result_prints_the_value(ended: dict[str, str], say: Say, db: Path) -> None:
    assert say("-b", db, "result", ended["sum"]) == (cli.OK, "3\n", "")
    assert say("result", db, ended["sum"]) == (cli.OK, "3\n", "")
    assert say("result", db, "--id", ended["sum"]) == (cli.OK, "3\n", "")
    assert say("result", db, ended["text"]) == (cli.OK, "a\\x1b[31m\n[red]b\tc\n", "")


def test_result_of_a_failure_is_1_and_one_sentence(ended: dict[str, str], say: Say, db: Path) -> None:
    assert say("result", db, ended["failure"]) == (
        cli.FAILED,
        "",
        "Error: FAILURE: ValueError: gone\\x1b[31m (--traceback shows where)\n",
    )
    code, out, _ = say("result", db, ended["failure"], "--traceback")
    assert code == cli.OK and out.startswith("Traceback (most recent call last):\n") and "\x1b" not in out
    assert say("result", db, ended["sum"], "--traceback") == (cli.OK, "\n", "")
    code, _, err = say("result", db, ended["revoked"])
    assert code == cli.FAILED and err.startswith("Error: REVOKED: TaskRevokedError: revoked")


def test_result_as_json(ended: dict[str, str], say: Say, db: Path) -> None:
    code, out, _ = say("result", db, ended["text"], "-j")
    told = json.loads(out)
    assert code == cli.OK and "\x1b" not in out
    assert (told["id"], told["name"], told["state"]) == (ended["text"], "add", "SUCCESS")
    assert told["result"] == "a\x1b[31m\n[red]b\tc" and told["done_at"].endswith("+00:00")
    code, out, _ = say("result", db, ended["failure"], "-j")
    assert code == cli.FAILED and json.loads(out)["result"] == "ValueError('gone\\x1b[31m')"


def test_result_waits_for_the_end(app: LiteTQ, say: Say, db: Path) -> None:
    come, gate = threading.Event(), threading.Event()

    @app.task(name="slow")
    def slow() -> str:
        come.set()
        assert gate.wait(LONG)
        return "late"

    result = slow.delay()
    said: list[Any] = []
    with app.run_embedded(concurrency=1):
        assert come.wait(LONG)
        code, _, err = say("result", db, result.id, "--timeout", "0.1")
        assert code == cli.FAILED and "The operation timed out." in err
        waiting = threading.Thread(target=lambda: said.append(cli.main(["result", str(db), result.id])))
        waiting.start()
        gate.set()
        waiting.join(LONG)
    assert said == [cli.OK]


@pytest.mark.row("13.result ID")
def test_result_does_not_wait_for_a_task_that_nobody_knows(app: LiteTQ, say: Say, db: Path) -> None:
    code, out, err = say("result", db, "nobody")
    assert (code, out) == (cli.FAILED, "") and err.startswith("Error: No task nobody is known to ")


def test_result_says_that_no_worker_runs(app: LiteTQ, say: Say, db: Path) -> None:
    id = call(say, db, "add")
    code, _, err = say("result", db, id, "--timeout", "0.1")
    assert code == cli.FAILED and err.startswith(f"litetq: no worker runs on {db}; this waits for one\n")


def test_the_option_of_result_that_has_no_effect_says_so(ended: dict[str, str], say: Say, db: Path) -> None:
    code, out, err = say("result", db, ended["sum"], "-t", "add")
    assert (code, out) == (
        cli.OK,
        "3\n",
    ) and err == "note: no effect here of -t: every task's result is in the same place\n"


@pytest.mark.parametrize("words", [[], ["a", "b"], ["--id", "a", "b"]])
def test_result_wants_one_id(app: LiteTQ, say: Say, db: Path, words: list[str]) -> None:
    assert say("result", db, *words)[0] == cli.USAGE


# -- purge


@pytest.mark.row("13.purge")
def test_purge_asks_first_and_says_what_it_did(
    app: LiteTQ, say: Say, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in ("celery", "celery", "mail"):
        app.send_task("add", queue=queue)
    question = (
        "WARNING: This will remove all tasks from queues: celery, mail.\n"
        "         There is no undo for this operation!\n\n(to skip this prompt use the -f option)\n"
        "Are you sure you want to delete all tasks? [y/N]: "
    )
    for answer in ("", "n\n", "what\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code, out, err = say("purge", db)
        assert (code, out.rstrip("\n"), err) == (cli.FAILED, question, "Aborted!\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert say("purge", db) == (cli.OK, question + "Purged 3 messages from 2 known task queues.\n", "")
    assert say("purge", db, "-f") == (cli.OK, "No messages purged from 2 queues.\n", "")


def test_purge_takes_the_queues_that_are_named_or_all_but_them(app: LiteTQ, say: Say, db: Path) -> None:
    for queue in ("a", "b", "c"):
        app.send_task("add", queue=queue)
    assert json.loads(say("purge", db, "-f", "-Q", "a, nothing", "-j")[1]) == {"purged": 1, "queues": ["a", "nothing"]}
    assert say("purge", db, "--force", "-X", "c,a,celery")[1] == "Purged 1 message from 1 known task queue.\n"
    assert say("purge", db, "-f", "-X", "a,b,c,celery") == (
        cli.OK,
        "",
        "note: no queue is left; nothing was purged\n",
    )
    assert say("purge", db, "-j")[0] == cli.USAGE
    assert app.control.purge() == 1


# -- list


@pytest.mark.row("13.list bindings")
def test_list_bindings_is_celerys_table(routed: LiteTQ, say: Say) -> None:
    routed.send_task("x", queue="celery")
    assert say("-A", "routed", "list", "bindings")[1].splitlines() == [
        f"{'Queue':<28} {'Exchange':<28} Routing Key",
        f"{'-' * 16:<28} {'-' * 16:<28} {'-' * 16}",
        f"{'celery':<28} {'celery':<28} celery",
        f"{'mail':<28} {'post':<28} mail.out",
        f"{'other':<28} {'other':<28} log.#",
    ]


def test_list_queues_knows_those_of_the_file(app: LiteTQ, say: Say, db: Path) -> None:
    app.send_task("add", queue="mail\x1b[31m")
    expected = (cli.OK, "celery\nmail\\x1b[31m\n", "")
    assert say("list", "queues", db) == say("list", db) == expected
    assert json.loads(say("list", "queues", db, "-j")[1].splitlines()[1])["queue"] == "mail\x1b[31m"
    app.control.rate_limit("add", "10/m")  # its lane belongs to no queue
    assert say("list", "queues", db) == expected
    assert say("-b", db, "purge", "-f")[1] == "Purged 1 message from 2 known task queues.\n"


@pytest.mark.parametrize(("words", "sentence"), [([], "List what?"), (["nothing"], "nothing called 'nothing'")])
def test_list_says_what_can_be_listed(app: LiteTQ, say: Say, db: Path, words: list[str], sentence: str) -> None:
    code, _, err = say("-b", db, "list", *words)
    assert code == cli.USAGE and sentence in err and "bindings, queues" in err


# -- report


@pytest.mark.row("13.report")
def test_a_strict_report_fails_on_settings_that_nobody_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, line in (("good", ""), ("odd", "app.conf.task_serialiser = 'json'")):
        (tmp_path / f"{name}_settings.py").write_text(
            f"from litetq import LiteTQ\napp = LiteTQ('x', broker='x.sqlite')\n{line}\n"
        )
    code, out, err = say("-A", "good_settings", "report", "--strict")
    assert (code, err) == (cli.OK, "") and out.startswith("\nsoftware -> litetq:")
    with pytest.warns(match="did you mean task_serializer"):
        code, out, err = say("-A", "odd_settings", "report", "--strict")
    assert code == cli.FAILED and err == "Error: Unknown settings: task_serialiser.\n" and "software -> litetq:" in out
    assert say("-A", "odd_settings", "report")[0] == cli.OK
