"""`litetq inspect`, `control` and `status`: what people and scripts read, and with which exit code it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, cli
from litetq.control import inspect_command
from litetq.panel import PANEL
from tests.waiting import eventually

LONG = 20.0  # seconds


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tasks", broker=db, set_as_current=False) as app:

        @app.task(name="add", rate_limit="100/s")
        def add(x: int, y: int) -> int:
            return x + y

        yield app


@pytest.fixture
def worker(app: LiteTQ) -> Iterator[Any]:
    with app.run_embedded(hostname="w@here", concurrency=1) as worker:
        yield worker


@pytest.fixture
def panel() -> Iterator[None]:
    before = dict(PANEL)
    yield
    PANEL.clear()
    PANEL.update(before)


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def error(self) -> str:
        """The last line on stderr."""
        return self.err.rstrip("\n").rpartition("\n")[2]


@pytest.fixture
def say(db: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line in this process; `-b FILE` is added."""

    def run(*words: object) -> Said:
        capsys.readouterr()
        code = cli.main(["-b", str(db), *(str(word) for word in words)])
        return Said(code, *capsys.readouterr())

    return run


# -- who answers


@pytest.mark.row("13.status, inspect, control")
def test_answers_are_printed_as_celerys_are(worker: Any, say: Any) -> None:
    assert say("inspect", "ping").out == "->  w@here: OK\n        pong\n\n1 node online.\n"
    assert say("inspect", "active").out == "->  w@here: OK\n    - empty -\n\n1 node online.\n"
    assert say("inspect", "registered").out == "->  w@here: OK\n    * add [rate_limit=100/s]\n\n1 node online.\n"
    assert say("inspect", "clock").out.startswith('->  w@here: OK\n    {\n        "clock": ')
    assert say("control", "heartbeat").out == "->  w@here: OK\n    None\n"
    assert say("-q", "inspect", "ping").out == " w@here: OK\n        pong\n"


def test_json_is_json_and_nothing_else(worker: Any, say: Any) -> None:
    assert json.loads(say("inspect", "ping", "-j").out) == {"w@here": {"ok": "pong"}}
    assert json.loads(say("control", "pool_grow", "2", "--json").out) == [{"w@here": {"ok": "pool will grow"}}]
    assert list(json.loads(say("inspect", "-j", "stats").out)["w@here"]["total"]) == []


def test_an_order_that_a_worker_refuses_is_an_error_in_its_words(worker: Any, say: Any) -> None:
    said = say("control", "rate_limit", "nosuch", "10/m")
    assert (said.code, said.out) == (cli.OK, "->  w@here: ERROR\n        unknown task\n")
    assert say("control", "pool_restart").out == "->  w@here: ERROR\n        ValueError('Pool restarts not enabled')\n"


@pytest.mark.row("9.commands from the command line")
@pytest.mark.parametrize("name", sorted({info.name for info in PANEL.values() if info.visible}))
def test_every_command_for_workers_reaches_one(name: str, app: LiteTQ, worker: Any, say: Any) -> None:
    kind = PANEL[name].kind
    words = {
        "add_consumer": ["more"],
        "cancel_consumer": ["more"],
        "autoscale": ["3", "1"],
        "rate_limit": ["add", "10/m"],
        "time_limit": ["add", "5", "10"],
        "revoke": ["some-id"],
        "terminate": ["KILL", "some-id"],
        "revoke_by_stamped_headers": ["name=stamp"],
        "query_task": ["some-id"],
    }.get(name, [])
    said = say(kind, name, *words, "-j", "-t", LONG)
    assert said.code == cli.OK, said.err
    replies = json.loads(said.out)
    assert list(replies if kind == "inspect" else replies[0]) == ["w@here"]
    if name == "add_consumer":
        assert "more" in worker.queues
    if name == "shutdown":
        eventually(lambda: not list(filter(app.engine.may_live, app.engine.workers())), within=LONG)


@pytest.mark.row("9.no reply")
def test_nobody_there_is_69(app: LiteTQ, say: Any) -> None:
    app.engine.store.set_meta("some", "thing")  # the file is there
    for line in ("inspect ping", "control enable_events", "control shutdown", "inspect ping -j"):
        said = say(*line.split(), "-t", "0.1")
        assert (said.code, said.out) == (cli.UNAVAILABLE, "")
        assert said.err == "Error: No nodes replied within time constraint\n"


def test_a_file_that_is_not_there_yet_is_not_made_by_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "later.py").write_text("from litetq import LiteTQ\napp = LiteTQ('later', broker='later.sqlite')\n")
    monkeypatch.chdir(tmp_path)
    for line in ("inspect ping", "control revoke a", "control shutdown"):
        assert cli.main(["-A", "later", *line.split()]) == cli.UNAVAILABLE
        assert "there is no file" in capsys.readouterr().err
    assert not (tmp_path / "later.sqlite").exists()


def test_only_the_nodes_that_are_named_are_asked(app: LiteTQ, worker: Any, say: Any) -> None:
    with app.run_embedded(hostname="x@here", concurrency=1):
        assert sorted(json.loads(say("inspect", "ping", "-j").out)) == ["w@here", "x@here"]
        assert list(json.loads(say("inspect", "ping", "-d", "x@here, y@here", "-j", "-t", "0.2").out)) == ["x@here"]
        assert say("inspect", "ping", "-d", "x@here").out.endswith("\n1 node online.\n")
    assert say("inspect", "ping", "-d", ",").code == cli.USAGE


def test_the_words_of_a_node_are_shown_and_not_obeyed(worker: Any, say: Any, panel: None) -> None:
    @inspect_command(name="evil")
    def evil(state: Any) -> Any:
        return ["a\x1b[31mred", {"k": "[bold]x[/bold]\n"}]

    @inspect_command(name="text")
    def text(state: Any) -> Any:
        return "one\n\x1b]0;title\x07two\tthree"

    assert say("inspect", "evil").out.startswith(
        "->  w@here: OK\n    * a\\x1b[31mred\n    * {'k': '[bold]x[/bold]\\n'}\n"
    )
    assert say("inspect", "text").out.startswith("->  w@here: OK\n    one\n    \\x1b]0;title\\x07two\tthree\n")


# -- what needs no worker


def test_orders_about_tasks_are_carried_out_in_the_file_where_no_worker_lives(app: LiteTQ, say: Any, db: Path) -> None:
    result = app.send_task("add", (1, 2))
    said = say("control", "-t", "0.1", "revoke", result.id)
    assert (said.code, said.out) == (
        cli.OK,
        f"->  file@{db.name}: OK\n        tasks {result.id} flagged as revoked; no worker runs them\n",
    )
    assert result.state == "REVOKED"
    other = app.send_task("add", (1, 2), stamped_headers=["tenant"], tenant="blue")
    assert "flagged as revoked" in say("control", "-t", "0.1", "revoke_by_stamped_headers", "tenant=blue").out
    assert other.state == "REVOKED"
    assert "rate limit set in the file" in say("control", "-t", "0.1", "rate_limit", "add", "10/m").out
    assert json.loads(say("control", "-t", "0.1", "terminate", "TERM", "some-id", "-j").out)[0][f"file@{db.name}"]["ok"]
    said = say("control", "-t", "0.1", "rate_limit", "add", "fast")
    assert said.code == cli.USAGE and said.error.startswith('Error: rate_limit: a rate limit is like "10/s"')


def test_what_is_due_later_is_listed_without_a_worker(app: LiteTQ, say: Any, db: Path) -> None:
    app.send_task("add", (1, 2), countdown=3600)
    said = say("inspect", "scheduled")
    assert said.out.startswith(f"->  file@{db.name}: OK\n    * {{'eta': ") and said.out.endswith("\n0 nodes online.\n")


# -- what is refused


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("inspect", "Missing argument 'COMMAND'."),
        ("inspect nope", "Command nope not recognized. Available inspect commands: active, active_queues, clock, "),
        ("control nope", "Command nope not recognized. Available control commands: add_consumer, autoscale, "),
        ("inspect pool_grow", "It is a command of control:  litetq control pool_grow."),
        ("control election", "Command election is refused: workers of one file have nothing to elect"),
        ("control rate_limit", "takes arguments: <task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>; task_name is missing."),
        ("control rate_limit add", "; rate_limit is missing."),
        ("control rate_limit add 1 2", "; '2' is one word too many."),
        ("control revoke", "takes arguments: [id1 [id2 [... [idN]]]]; task_id is missing."),
        ("control pool_grow x", "takes arguments: [N=1]; n must be a whole number, found 'x'."),
        ("control time_limit add x", "soft must be a number, found 'x'."),
        ("inspect ping more", "Command 'ping' takes no arguments; 'more' is one word too many."),
        ("inspect memdump all", "samples must be a whole number, found 'all'."),
    ],
)  # fmt: skip
def test_words_that_do_not_fit_end_with_2_before_anybody_is_asked(
    app: LiteTQ, say: Any, line: str, sentence: str
) -> None:
    app.engine.store.set_meta("some", "thing")
    said = say(*line.split())
    assert (said.code, said.out) == (cli.USAGE, "") and sentence in said.error


def test_list_needs_no_file_and_no_worker(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "--list"]) == cli.OK
    shown = capsys.readouterr().out
    assert shown.startswith("Inspect Commands:\n") and "registered [attr1 [attr2 [... [attrN]]]]" in shown
    assert "hello" not in shown  # a hidden one
    assert cli.main(["control", "--list"]) == cli.OK
    assert "add_consumer <queue>" in capsys.readouterr().out


# -- commands of one's own


@pytest.mark.row("9.custom commands: usable from CLI")
def test_commands_of_the_apps_own_modules_are_there_with_the_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], panel: None
) -> None:
    (tmp_path / "own_panel.py").write_text(
        "from litetq import LiteTQ\n"
        "from litetq.control import control_command\n"
        "app = LiteTQ('own', broker='own.sqlite')\n"
        "@control_command(args=[('n', int)], signature='[N=1]')\n"
        "def raise_level(state, n=1):\n"
        "    'Raise the level.'\n"
        "    return {'ok': f'level is {n}'}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_panel  # type: ignore[import-not-found,unused-ignore]

    with own_panel.app, own_panel.app.run_embedded(hostname="w@here", concurrency=1):
        assert cli.main(["-A", "own_panel", "control", "raise_level", "3"]) == cli.OK
        assert capsys.readouterr().out == "->  w@here: OK\n        level is 3\n"


@pytest.mark.row("13.status, inspect, control")
def test_status_of_an_app_is_who_is_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "online.py").write_text("from litetq import LiteTQ\napp = LiteTQ('online', broker='online.sqlite')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import online  # type: ignore[import-not-found,unused-ignore]

    def status(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["-A", "online", "status", *words])
        return (code, *capsys.readouterr())

    with online.app:
        code, out, err = status("-t", "0.1")
        assert (code, out) == (cli.UNAVAILABLE, "") and err.startswith("Error: No nodes replied within time constraint")
        with online.app.run_embedded(hostname="w@here", concurrency=1):
            assert status() == (cli.OK, "->  w@here: OK\n\n1 node online.\n", "")
            assert json.loads(status("-j")[1]) == {"w@here": {"ok": "pong"}}
            assert status("-q") == (cli.OK, " w@here: OK\n", "")
            assert status("-d", "other@here", "-t", "0.1")[0] == cli.UNAVAILABLE
            monkeypatch.setenv("CELERY_APP", "online")
            assert cli.main(["status"]) == cli.OK and "1 node online." in capsys.readouterr().out


def test_a_worker_answers_while_it_is_busy(app: LiteTQ, say: Any) -> None:
    come, gate = threading.Event(), threading.Event()

    @app.task(name="busy")
    def busy() -> None:
        come.set()
        assert gate.wait(LONG)

    with app.run_embedded(hostname="w@here", concurrency=1):
        result = busy.delay()
        assert come.wait(LONG)
        try:
            assert f"'id': '{result.id}'" in say("inspect", "active").out
            assert json.loads(say("inspect", "query_task", result.id, "-j").out)["w@here"][result.id][0] == "active"
        finally:
            gate.set()


def test_a_misspelled_option_finds_its_neighbour(app: LiteTQ, say: Any) -> None:
    assert "Did you mean --timeout?" in say("inspect", "ping", "--timout", "3").error
