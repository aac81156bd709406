"""The file commands that read: `status`, `tasks`, `show`, `queue list`, `dead list`, and which file is meant."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, chain, cli
from litetq.message import Message, Plan, uuid
from tests.waiting import eventually

LONG = 30.0  # seconds
HOSTILE = "evil\x1b]0;owned\x07\n[red]x[/red]\u202e"
ESCAPED = r"evil\x1b]0;owned\x07\n[red]x[/red]\u202e"

Say = Any  # what `say` is: (words) -> (exit code, lines on stdout, stderr)


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tests", broker=db, set_as_current=False) as app:
        yield app


@pytest.fixture
def add(app: LiteTQ) -> Any:
    return app.task(name="add")(lambda x, y: x + y)


@pytest.fixture
def boom(app: LiteTQ) -> Any:
    @app.task(name="boom", bind=True, max_retries=1, default_retry_delay=0)
    def boom(self: Any, what: str) -> None:
        raise self.retry(exc=ValueError(what))

    return boom


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def say(*words: object) -> tuple[int, list[str], str]:
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return say


def masked(lines: list[str]) -> list[str]:
    """Return lines with what differs from run to run replaced: ids, spans, sizes, points in time."""
    text = "\n".join(lines)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "<time>", text)
    text = re.sub(r"\d+(\.\d+)? (KiB|MiB|B)\b", "<size>", text)
    text = re.sub(r"(?m)^(emails +2 +)\d s ", r"\1<span> ", text)
    text = re.sub(r"(?<=in )59 min \d+ s|\d+ s ago|(?<=in )1 h", "<span>", text)
    return re.sub(r" +", " ", re.sub(r"\d\.\d{2,3} s", "<took>", text)).splitlines()


# -- which file ------------------------------------------------------------------------------------------------------


def test_the_file_is_named_by_the_first_word_by_an_option_by_the_environment_or_is_the_default(
    say: Say, add: Any, app: LiteTQ, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add.delay(1, 2)
    seen = say("tasks", db)[1]
    assert len(seen) == 2 and "(1, 2)" in seen[1]
    for words in (["jobs.sqlite"], ["sqlite:///jobs.sqlite"], ["-b", db], ["./jobs.sqlite"], ["--broker=jobs.sqlite"]):
        assert masked(say("tasks", *words)[1]) == masked(seen), words
    code, _, error = say("tasks")
    assert code == cli.USAGE and "Which file?" in error
    for variable in ("LITETQ_BROKER", "CELERY_BROKER_URL"):
        monkeypatch.setenv(variable, str(db))
        assert masked(say("tasks")[1]) == masked(seen)
        monkeypatch.delenv(variable)
    monkeypatch.setenv("LITETQ_BROKER", "elsewhere.sqlite")
    monkeypatch.setenv("LITETQ_RESULT_BACKEND", "redis://nowhere")
    assert masked(say("tasks", db)[1]) == masked(seen) == masked(say("tasks", "-b", db)[1])  # the line counts more
    monkeypatch.delenv("LITETQ_BROKER")
    monkeypatch.delenv("LITETQ_RESULT_BACKEND")
    app.close()
    db.rename(tmp_path / "litetq.sqlite")
    assert masked(say("tasks")[1]) == masked(seen)


@pytest.mark.parametrize("how", ["-A", "$LITETQ_APP", "pyproject.toml"])
def test_an_app_that_is_named_leads_to_its_file(tmp_path: Path, run_python: Any, how: str) -> None:
    (tmp_path / "proj.py").write_text("from litetq import LiteTQ\napp = LiteTQ('p', broker='its.sqlite')\n")
    with LiteTQ("p", broker=tmp_path / "its.sqlite", set_as_current=False) as app:
        app.send_task("any", queue="here")
    if how == "pyproject.toml":
        (tmp_path / how).write_text('[tool.litetq]\napp = "proj:app"\n')
    words = ["-A", "proj"] if how == "-A" else []
    env = {"LITETQ_APP": "proj"} if how == "$LITETQ_APP" else {}
    process = run_python("-m", "litetq", *words, "queue", "list", env=env)
    out, error = process.communicate(timeout=LONG)
    assert process.returncode == 0 and out.splitlines()[1].split()[:2] == ["here", "1"], error


def test_no_code_of_the_user_is_imported_for_a_file(
    app: LiteTQ, add: Any, db: Path, run_python: Any, tmp_path: Path
) -> None:
    add.delay(1, 2)
    (tmp_path / "tasks.py").write_text("from litetq import LiteTQ\napp = LiteTQ('x')\nraise SystemExit('imported')\n")
    for words in (["status"], ["tasks"], ["queue", "list"], ["doctor", "--quick"], ["dead", "list"]):
        process = run_python("-m", "litetq", *words, db)
        out, error = process.communicate(timeout=LONG)
        assert (process.returncode, error) == (0, ""), words


def test_another_programs_database_is_not_touched(say: Say, tmp_path: Path) -> None:
    import apsw

    path = tmp_path / "bookmarks.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE bookmark (url TEXT)")
    connection.close()
    before = path.read_bytes()
    for words in (["status"], ["tasks"], ["vacuum"], ["doctor"], ["queue", "pause"]):
        code, lines, error = say(*words, path, *(["emails"] if "pause" in words else []))
        assert (code, lines) == (cli.USAGE, []) and "without tasks of litetq" in error, words
    assert path.read_bytes() == before and not list(tmp_path.glob("bookmarks.db-*"))


@pytest.mark.parametrize(
    "words", [["status"], ["tasks"], ["show", "--id=x"], ["queue", "list"], ["backup", "to.sqlite"]]
)
def test_a_file_that_is_not_there_is_not_made(say: Say, tmp_path: Path, words: list[str]) -> None:
    missing = tmp_path / "missing.sqlite"
    place = 2 if words[0] == "queue" else 1
    code, lines, error = say(*words[:place], missing, *words[place:])
    assert (code, lines) == (cli.USAGE, []) and f"There is no file {str(missing)!r}" in error and not missing.exists()


def test_what_is_no_database_and_what_is_a_server_gets_a_sentence(say: Say, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("milk, bread, and more text than a header of SQLite has, some hundred bytes" * 3)
    code, _, error = say("status", "notes.db")
    assert code == cli.FAILED and "Traceback" not in error and "not a database" in error
    code, _, error = say("tasks", "redis://:secret@localhost/0")
    assert code == cli.USAGE and "no file" in error and "secret" not in error
    code, _, error = say("status", "redis://:secret@localhost:1/0")  # there it asks the workers, as Celery's does
    assert code != cli.OK and "no file" not in error and "secret" not in error and "Traceback" not in error
    code, _, error = say("status", "redis://localhost:1/0", "-b", "other.sqlite")
    assert code == cli.USAGE and "give one" in error
    code, _, error = say("status", "some.sqlite", "-b", "other.sqlite")
    assert code == cli.USAGE and "give one" in error


def test_an_id_that_looks_like_a_file_is_given_with_id(say: Say, app: LiteTQ, add: Any, db: Path) -> None:
    add.apply_async((1, 2), task_id="import/2026.db")
    code, lines, _ = say("show", db, "--id", "import/2026.db")
    assert code == cli.OK and lines[1] == "  id         import/2026.db"
    code, lines, _ = say("-b", db, "delete", "--id", "import/2026.db")
    assert (code, lines) == (cli.OK, ["1 task deleted."])


# -- what people read ------------------------------------------------------------------------------------------------


def test_status_of_a_quiet_file(say: Say, app: LiteTQ, add: Any, boom: Any, db: Path) -> None:
    add.delay(1, 2)
    boom.delay("milk")
    with app.run_embedded(concurrency=1):
        eventually(
            lambda: not app.engine.store.records.counts()["QUEUED"] and not app.engine.store.records.counts()["CLAIMED"]
        )
    add.apply_async((1, 1), countdown=3600)
    add.apply_async((1, 1), queue="emails")
    chain(add.s(1, 1).set(queue="emails"), add.s(2))()
    code, lines, error = say("status", db)
    assert (code, error) == (cli.OK, "")
    assert masked(lines) == [
        f"{db} <size>, log <size>",
        "",
        f"no worker runs; start one: litetq worker {db}",
        "",
        "QUEUE WAITING OLDEST RUNNING STATE",
        "celery 0 - 0 open",
        "emails 2 <span> 0 open",
        "",
        "later: 1 task scheduled, the next in <span>; 1 task waits for another one",
        "ended: 1 succeeded, 1 failed",
        "minute: 1 succeeded, 1 failed",
        "hour: 1 succeeded, 1 failed",
    ]


def test_status_as_json_has_all_of_it(say: Say, app: LiteTQ, add: Any, db: Path) -> None:
    result = add.delay(1, 2)
    with app.run_embedded(concurrency=1, hostname="w@here"):
        assert result.get(timeout=LONG) == 3
        add.apply_async((1, 1), countdown=3600)
        code, lines, _ = say("status", db, "-j")
    told = json.loads(lines[0])
    assert code == cli.OK and len(lines) == 1
    (worker,) = told["workers"]
    assert (worker["name"], worker["alive"], worker["pid"], worker["holds"]) == ("w@here", True, os.getpid(), 0)
    assert told["queues"] == [{"name": "celery", "waiting": 0, "oldest": None, "running": 0, "paused": False}]
    assert told["scheduled"]["count"] == 1 and told["scheduled"]["next"].endswith("+00:00")
    assert told["ended"]["total"] == {"SUCCESS": 1} == told["ended"]["last_minute"] and told["ended"]["dead"] == 0


def test_a_worker_that_died_is_told_from_one_that_lives(say: Say, db: Path, tmp_path: Path, run_python: Any) -> None:
    (tmp_path / "tasks.py").write_text(
        "import time\nfrom litetq import LiteTQ\napp = LiteTQ('t', broker='jobs.sqlite')\n"
        "@app.task\ndef sleep():\n    open('began', 'w').close()\n    time.sleep(60)\n"
    )
    with LiteTQ("t", broker=db, set_as_current=False) as app:
        app.send_task("tasks.sleep")
        process = run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "solo", "-n", "w@x", "-q")
        eventually((tmp_path / "began").exists, LONG)
        row = next(line for line in say("status", db)[1] if line.startswith("w@x"))
        assert row.split()[1] == "alive" and row.split()[-2:] == ["1", "celery"]
        (running,) = say("tasks", db, "--state", "running")[1][1:]
        assert running.startswith("RUNNING") and "tasks.sleep" in running
        process.kill()
        process.wait()
        eventually(lambda: any(line.startswith("w@x") and line.split()[1] == "gone" for line in say("status", db)[1]))
        code, lines, _ = say("doctor", db)
        assert code == cli.OK and any("w@x" in line and "is gone and holds 1 task" in line for line in lines)


def test_tasks_lists_the_newest_first_and_tells_what_became_of_them(
    say: Say, app: LiteTQ, add: Any, boom: Any, db: Path
) -> None:
    add.delay(1, y=2)
    boom.delay("milk")
    with app.run_embedded(concurrency=1):
        eventually(lambda: app.engine.store.records.counts()["DONE"] == 2)
    add.apply_async(("x", [1]), countdown=3600)
    add.apply_async((0, 0), queue="emails")
    code, lines, error = say("tasks", db)
    assert (code, error) == (cli.OK, "")
    assert masked(lines) == [
        "STATE ID NAME QUEUE SENT TOOK ARGUMENTS",
        "QUEUED <id> add emails <span> - (0, 0)",
        "SCHEDULED <id> add celery <span> - ('x', [1]) due in <span>",
        "FAILURE <id> boom celery <span> <took> ('milk') -> ValueError('milk')",
        "SUCCESS <id> add celery <span> <took> (1, y=2) -> 3",
    ]


def test_show_tells_all_of_one_task_with_its_attempts(say: Say, app: LiteTQ, boom: Any, db: Path) -> None:
    result = boom.delay("milk")
    with app.run_embedded(concurrency=1, hostname="w@here"):
        eventually(lambda: app.engine.store.records.counts()["DONE"] == 1)
    code, lines, _ = say("show", db, result.id)
    shown = masked(lines)
    assert code == cli.OK
    assert code == cli.OK
    assert shown[: shown.index(" traceback")] == [
        "boom FAILURE",
        " id <id>",
        " queue celery",
        " sent <time> (<span>)",
        " started <time> (<span>)",
        " ended <time> (<span>), after <took>",
        " worker w@here",
        " retries 1",
        " arguments ('milk')",
        " error ValueError('milk')",
        " attempts 1. RETRY <time> (<span>) on w@here ValueError('milk')",
    ]
    assert shown[-1] == " ValueError: milk"
    told = json.loads(say("show", db, result.id, "-j")[1][0])
    assert (told["state"], told["result"], told["args"]) == ("FAILURE", "ValueError('milk')", "('milk')")
    assert [each["outcome"] for each in told["attempts"]] == ["RETRY"] and "ValueError" in told["traceback"]


def test_queues_are_listed_with_what_comes_later(say: Say, app: LiteTQ, add: Any, db: Path) -> None:
    add.apply_async((1, 1), queue="emails")
    add.apply_async((1, 1), queue="emails", countdown=3600)
    chain(add.si(1, 1).set(queue="emails"), add.si(1, 1).set(queue="slow"))()
    assert say("queue", "pause", db, "slow")[:2] == (cli.OK, ["slow is paused"])
    code, lines, _ = say("queue", "list", db)
    assert code == cli.OK and [line.split()[0] for line in lines] == ["QUEUE", "emails", "slow"]
    assert lines[1].split()[1] == "2" and lines[1].split()[-4:] == ["0", "1", "0", "open"]
    assert lines[2].split() == ["slow", "0", "-", "0", "0", "1", "paused"]
    told = [json.loads(line) for line in say("queue", "list", db, "-j")[1]]
    assert [(q["name"], q["waiting"], q["scheduled"], q["blocked"], q["paused"]) for q in told] == [
        ("emails", 2, 1, 0, False),
        ("slow", 0, 0, 1, True),
    ]


# -- filters ---------------------------------------------------------------------------------------------------------


def test_tasks_are_found_by_state_name_queue_age_and_text(say: Say, app: LiteTQ, db: Path) -> None:
    def send(name: str, args: Any = (), **more: Any) -> str:
        return str(app.send_task(name, args, **more).id)

    report = send("reports.daily", ["2026-03-01"])
    weekly = send("reports.weekly", ['Zürich ☃ "quoted"'], queue="slow")
    later = send("mail", [1], countdown=3600)

    def found(*words: str) -> set[str]:
        return {json.loads(line)["id"] for line in say("tasks", db, "-j", *words)[1]}

    assert found() == {report, weekly, later}
    assert found("--name", "reports.*") == {report, weekly} == found("--state", "queued")
    assert found("--name", "reports.daily", "--name", "mail") == {report, later}
    assert found("--queue", "slow") == {weekly} == found("--text", "Zürich ☃") == found("--text", '"quoted"')
    assert found("--text", "2026-03") == {report} and found("--text", "nowhere") == set()
    assert found("--state", "scheduled") == {later} and found("--state", "scheduled,queued") == {report, weekly, later}
    assert found("--state", "waiting", "--name", "mail") == {later}
    assert found("--newer", "1h") == {report, weekly, later} and found("--older", "1h") == set()
    assert found("--name", "reports[.]daily") == set()  # only * and ? are wild
    assert len(say("tasks", db, "--limit", "2")[1]) == 3
    assert found("--state", "failure") == set()


def test_ids_of_a_programs_own_take_their_place_by_time(say: Say, app: LiteTQ, add: Any, db: Path) -> None:
    for id in ("zebra", None, "0", None, "apple"):
        add.apply_async((1, 1), task_id=id)
    sent = [json.loads(line)["id"] for line in say("tasks", db, "-j")[1]]
    with app.run_embedded(concurrency=1):
        eventually(lambda: app.engine.store.records.counts()["DONE"] == 5)
    ended = [json.loads(line)["id"] for line in say("tasks", db, "-j")[1]]
    assert sent[0] == "apple" and sent[2] == "0" and sent[4] == "zebra" and ended == sent
    assert [json.loads(line)["id"] for line in say("tasks", db, "-j", "--limit", "1")[1]] == ["apple"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--state", "sucess"], "'sucess' is no state; did you mean success?"),
        (["--older", "3y"], "'3y' is no span of time; write 90s, 10m, 2h, 3d or 1w"),
        (["--limit", "0"], "0 is not in the range"),
        (["nobody"], "'nobody' is no file"),
    ],
)
def test_a_wrong_filter_gets_one_sentence(say: Say, add: Any, db: Path, words: list[str], said: str) -> None:
    add.delay(1, 1)
    code, lines, error = say("tasks", db, *words)
    assert (code, lines) == (cli.USAGE, []) and said in error


# -- content from tasks ----------------------------------------------------------------------------------------------


def test_what_tasks_say_is_shown_and_not_obeyed(say: Say, app: LiteTQ, db: Path) -> None:
    @app.task(name=HOSTILE)
    def hostile(*args: Any, **kwargs: Any) -> Any:
        return args[0]

    @app.task(name=f"{HOSTILE}2")
    def failing(*args: Any) -> None:
        raise ValueError(args[0])

    result = hostile.apply_async((HOSTILE,), {"k": HOSTILE}, queue=HOSTILE, task_id=f"id{HOSTILE}")
    failing.apply_async((HOSTILE,))
    with app.run_embedded(concurrency=1, queues=[HOSTILE, "celery"]):
        eventually(lambda: app.engine.store.records.counts()["DONE"] == 2)
    hostile.apply_async((1,), queue=HOSTILE)
    app.engine.store.revoke(["nobody"], HOSTILE, 0.0)
    for words in (
        ["tasks"],
        ["status"],
        ["queue", "list"],
        ["show", f"--id={result.id}"],
        ["doctor"],
        ["delete", "--all"],
    ):
        place = 2 if words[0] == "queue" else 1
        for more in ([], ["-j"] if words[0] != "delete" else []):
            _, lines, error = say(*words[:place], db, *words[place:], *more)
            text = "".join(lines) + error
            assert all(letter.isprintable() for letter in text), (words, more)
            assert more or words[0] == "doctor" or ESCAPED in text, words


def test_arguments_that_a_caller_hides_stay_hidden(say: Say, app: LiteTQ, add: Any, db: Path) -> None:
    result = add.apply_async(("secret", "token"), argsrepr="(***)", kwargsrepr="{}")
    for words in (["tasks", db], ["tasks", db, "-j"], ["show", db, result.id], ["show", db, result.id, "-j"]):
        text = "".join(say(*words)[1])
        assert "secret" not in text and "(***)" in text, words
        assert "(***) {}" not in text, "who has no keyword arguments is shown none"


def test_pickled_arguments_are_not_unpickled(say: Say, app: LiteTQ, db: Path) -> None:
    app.conf.update(accept_content=["json", "pickle"], task_serializer="pickle")
    app.send_task("any", [1, 2])
    assert "(application/x-python-serialize, " in say("tasks", db)[1][1]


def test_a_terminal_gets_colours_and_lines_that_fit_and_a_pipe_neither(
    app: LiteTQ, add: Any, db: Path, tmp_path: Path
) -> None:
    pty = pytest.importorskip("pty")
    add.apply_async(("long" * 100, 1))
    words = [sys.executable, "-m", "litetq", "tasks", str(db)]
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {
        "COLUMNS": "100",
        "TERM": "xterm",
    }

    def on_terminal(**more: str) -> str:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(words, stdout=theirs, stderr=theirs, stdin=theirs, env=env | more)
        os.close(theirs)
        read = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break  # Linux says so when the other end is closed
            if not piece:
                break
            read += piece
        os.close(ours)
        assert process.wait(LONG) == 0
        return read.decode()

    coloured, plain = on_terminal(), on_terminal(NO_COLOR="1")
    assert "\x1b[1m" in coloured and "\x1b" not in plain
    lines = plain.splitlines()
    assert max(map(len, lines)) == 100 and lines[1].endswith("…")
    assert "QUEUE" not in lines[0] and "QUEUE" in on_terminal(COLUMNS="140").splitlines()[0]
    narrow = on_terminal(COLUMNS="80", NO_COLOR="1").splitlines()
    assert [line.split()[:1] for line in narrow] == [["QUEUED"], [lines[1].split()[1]]]
    assert narrow[1].endswith("…") and max(map(len, narrow)) == 80
    assert max(map(len, on_terminal(COLUMNS="40", NO_COLOR="1").splitlines())) <= 40
    piped = subprocess.run(words, capture_output=True, text=True, env=env, timeout=LONG, check=True).stdout
    assert "\x1b" not in piped and "long" * 100 in piped and len(piped.splitlines()) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output_is_said_in_a_sentence(app: LiteTQ, add: Any, db: Path) -> None:
    add.delay(1, 1)
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "litetq", "tasks", str(db)]
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=LONG, check=False)
    assert ended.returncode == cli.FAILED
    assert ended.stderr == "Error: What this command prints cannot be written: No space left on device.\n"


# -- as it happens ---------------------------------------------------------------------------------------------------


def test_follow_tells_each_task_that_is_sent_and_each_end_once(
    app: LiteTQ, add: Any, boom: Any, db: Path, run_python: Any
) -> None:
    before = add.delay(0, 0)
    with app.run_embedded(concurrency=1):
        before.get(timeout=LONG)
    follower = run_python("-m", "litetq", "tasks", db, "--follow", "-j")
    told = [json.loads(follower.stdout.readline())]
    assert told[0]["id"] == before.id  # it looks from now on
    waiting = [add.delay(n, n) for n in range(5)] + [boom.delay("milk"), add.apply_async((1, 1), task_id="zebra")]
    told += [json.loads(follower.stdout.readline()) for _ in waiting]
    assert [task["state"] for task in told[1:]] == ["QUEUED"] * 7
    with app.run_embedded(concurrency=1):
        while sum(task["state"] in ("SUCCESS", "FAILURE") for task in told) < 8:
            told.append(json.loads(follower.stdout.readline()))
        last = add.delay(9, 9)
        while told[-1]["id"] != last.id or told[-1]["state"] != "SUCCESS":
            told.append(json.loads(follower.stdout.readline()))
    ends = [task["id"] for task in told if task["state"] in ("SUCCESS", "FAILURE")]
    assert sorted(ends) == sorted([before.id, last.id, *(result.id for result in waiting)])


def test_follow_ends_when_the_reader_of_its_pipe_has_gone(app: LiteTQ, add: Any, db: Path, run_python: Any) -> None:
    add.delay(1, 1)
    follower = run_python("-m", "litetq", "tasks", db, "--follow")
    assert follower.stdout.readline()
    follower.stdout.close()
    add.delay(2, 2)
    assert follower.wait(LONG) == cli.FAILED


def test_follow_takes_filters_and_ends_with_ctrl_c(app: LiteTQ, add: Any, db: Path, run_python: Any) -> None:
    import signal

    add.apply_async((1, 1), queue="other")
    sleepers = sorted(app.engine.run_folder.iterdir())
    follower = run_python("-m", "litetq", "tasks", db, "--follow", "--queue", "emails")
    ticket = add.apply_async((1, 1), queue="emails")
    line = follower.stdout.readline()
    assert ticket.id in line and "QUEUED" in line
    assert sorted(app.engine.run_folder.iterdir()) == sleepers  # nobody rings for it
    if os.name == "posix":
        follower.send_signal(signal.SIGINT)
        out, error = follower.communicate(timeout=LONG)
        assert (follower.returncode, out, error.strip()) == (cli.INTERRUPTED, "", "")


def test_a_reader_who_goes_away_ends_a_list_without_a_traceback(app: LiteTQ, db: Path, run_python: Any) -> None:
    app.engine.send(Plan(tuple(Message(uuid(), "any", b"[[], {}]") for _ in range(5000))))
    process = run_python("-m", "litetq", "tasks", db, "--limit", "5000")
    process.stdout.readline()
    process.stdout.close()
    process.wait(LONG)
    assert "Traceback" not in process.stderr.read()
