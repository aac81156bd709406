"""`litetq monitor`: the command, and what the page is told over HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from litetq import LiteTQ, chain, chord, cli
from litetq.browse import Browse
from litetq.dashboard.answers import Answers, Kept
from litetq.dashboard.server import Access, Server, Site, names_of
from litetq.message import Message, Plan, uuid
from tests.system.test_cli_file_care import add_results
from tests.waiting import eventually

LONG = 30.0  # seconds
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Asker:
    """Asks a page over HTTP."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(
        self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None, **query: Any
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONG)
        try:
            connection.request(method, path + (f"?{urlencode(query)}" if query else ""), headers=headers or {})
            reply = connection.getresponse()
            return Answer(reply.status, reply.headers, reply.read())
        finally:
            connection.close()


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


@contextmanager
def shown(app: LiteTQ, access: Access | None = None) -> Iterator[Asker]:
    """Show a file in this process, as the command does."""
    answers = Answers(app)
    server = Server("127.0.0.1", 0, Site(answers, access or Access(names_of("127.0.0.1"))))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Asker(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        answers.close()


@pytest.fixture
def ask(app: LiteTQ) -> Iterator[Asker]:
    with shown(app) as asker:
        yield asker


def counted(ask: Asker) -> Any:
    """Return the overview once all is counted."""

    def look() -> Any:
        data = ask("/api/overview").json
        parts = [data["ended"], data["findings"], data["queues"], *(worker["processed"] for worker in data["workers"])]
        return None not in [*parts, *(queue["scheduled"] for queue in data["queues"] or ())] and data

    return eventually(look, within=120)


# -- the command -----------------------------------------------------------------------------------------------------


Start = Callable[..., tuple[Asker, Any]]


@pytest.fixture
def start(run_python: Any) -> Start:
    """Start `litetq ...` with a free port; return who asks it, and the process."""

    def start(*words: object, **more: Any) -> tuple[Asker, Any]:
        process = run_python("-m", "litetq", *map(str, words), "--port", "0", **more)
        line = process.stdout.readline()
        assert " is shown at http://127.0.0.1:" in line, (line, process.communicate(timeout=LONG))
        return Asker(int(line.partition("127.0.0.1:")[2].partition("/")[0])), process

    return start


@posix
def test_M1_M4_L25_the_page_needs_an_app_or_a_file_and_nothing_else(
    tmp_path: Path, app: LiteTQ, db: Path, add: Any, start: Start
) -> None:
    """No worker, no events, nothing to install; Ctrl-C ends it."""
    (tmp_path / "proj.py").write_text("from litetq import LiteTQ\napp = LiteTQ('p', broker='jobs.sqlite')\n")
    sent = add.delay(1, 2)
    for words in (["-A", "proj", "flower"], ["monitor", db], ["flower", db]):
        ask, process = start(*words)
        for page in ("/", "/tasks", "/workers", "/queues", "/schedule", "/file", "/task?id=x"):
            answer = ask(page)
            assert answer.status == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert list(ask("/api/tasks").json) == [sent.id]
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == cli.OK
        assert process.stderr.read() == ""


def test_M2_B30_the_file_is_named_as_everywhere(tmp_path: Path, app: LiteTQ, db: Path, add: Any, start: Start) -> None:
    (tmp_path / "proj.py").write_text("from litetq import LiteTQ\napp = LiteTQ('p', broker='none.sqlite')\n")
    sent = add.delay(1, 2)
    for words in (
        ["-A", "proj", "flower", f"--broker={db}"],
        ["-b", db, "flower"],
        ["flower", "-b", f"sqlite:///{db}"],
    ):
        ask, _ = start(*words)
        assert list(ask("/api/tasks").json) == [sent.id], words
    (tmp_path / "proj.py").write_text("from litetq import LiteTQ\napp = LiteTQ('p', broker='jobs.sqlite')\n")
    ask, _ = start("-A", "proj", "flower")
    assert list(ask("/api/tasks").json) == [sent.id]


def test_the_page_of_an_app_may_come_before_its_file(tmp_path: Path, start: Start) -> None:
    (tmp_path / "proj.py").write_text("from litetq import LiteTQ\napp = LiteTQ('p', broker='new.sqlite')\n")
    ask, _ = start("-A", "proj", "flower")
    assert ask("/api/tasks").json == {}
    with LiteTQ("p", broker=tmp_path / "new.sqlite", set_as_current=False) as app:
        sent = app.send_task("any")
    assert list(ask("/api/tasks").json) == [sent.id]


def test_what_has_happened_is_there_after_a_restart(app: LiteTQ, db: Path, add: Any, start: Start) -> None:
    with app.run_embedded(concurrency=1):
        assert add.delay(1, 2).get(timeout=LONG) == 3
    seen = []
    for _ in range(2):
        ask, process = start("monitor", db)
        seen.append(ask("/api/list").json["tasks"])
        process.kill()
        process.wait()
    assert seen[0] == seen[1] and seen[0][0]["result"] == "3"


def test_the_page_changes_nothing_in_the_file(app: LiteTQ, db: Path, add: Any, start: Start) -> None:
    sent = add.delay(1, 2)
    browse = Browse(app.engine.database)
    ask, _ = start("monitor", db)
    before = browse.version()
    counted(ask)
    for path in ("/", "/api/list", "/api/workers", f"/api/task?id={sent.id}", f"/api/workflow?id={sent.id}"):
        assert ask(path).status == 200
    assert browse.version() == before


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["missing.sqlite"], cli.USAGE, "There is no file"),
        (["jobs.sqlite", "more"], cli.USAGE, "'more' is no file"),
        (["jobs.sqlite", "--address", "nowhere.invalid"], cli.USAGE, "--address nowhere.invalid is no address"),
        (["jobs.sqlite", "--port", "70000"], cli.USAGE, "70000 is not in the range"),
        (["jobs.sqlite", "--basic_auth", "secret"], cli.USAGE, "account 1 is not of the form user:password"),
        (["jobs.sqlite", "--url_prefix", "a b"], cli.USAGE, "may hold letters, digits"),
        (["jobs.sqlite", "--oauth2_key=x"], cli.USAGE, "--oauth2_key is an option of Flower's that is not here"),
        (["jobs.sqlite", "--auth-provider=x"], cli.USAGE, "--auth_provider is an option of Flower's that is not here"),
        (["jobs.sqlite", "--portt", "1"], cli.USAGE, "Did you mean --port?"),
        (["-b", "redis://:secret@nowhere"], cli.USAGE, "redis://:**@nowhere, which is no file"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(app: LiteTQ, run_python: Any, words: list[str], code: int, said: str) -> None:
    app.send_task("any")
    out, error = (process := run_python("-m", "litetq", "monitor", *words)).communicate(timeout=LONG)
    assert (process.returncode, out) == (code, "") and said in error and "Traceback" not in error
    assert "secret" not in error


def test_a_port_that_is_taken_is_said(app: LiteTQ, db: Path, run_python: Any) -> None:
    app.send_task("any")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run_python("-m", "litetq", "monitor", db, "--port", str(port))
        _, error = process.communicate(timeout=LONG)
    assert process.returncode == cli.FAILED
    assert error == f"Error: port {port} of 127.0.0.1 is taken by another program; --port 0 takes a free one.\n"


def test_options_of_flowers_without_an_effect_are_named(app: LiteTQ, db: Path, start: Start) -> None:
    app.send_task("any")
    ask, process = start("flower", db, "--persistent=True", "--db=flower.db", "--max-tasks=5", "--debug")
    assert ask("/healthcheck").body == b"OK"
    process.kill()
    said = process.communicate(timeout=LONG)[1].splitlines()
    assert [line.split(":")[1].split()[-1] for line in said] == ["--persistent", "--db", "--max_tasks", "--debug"]


def test_a_page_for_other_machines_warns_unless_it_asks_for_a_password(app: LiteTQ, db: Path, run_python: Any) -> None:
    app.send_task("any")
    for env, warned in (({}, True), ({"FLOWER_BASIC_AUTH": "ann:secret"}, False)):
        process = run_python("-m", "litetq", "monitor", db, "--address", "0.0.0.0", "--port", "0", env=env)
        line = process.stdout.readline()
        ask = Asker(int(line.partition("127.0.0.1:")[2].partition("/")[0]))
        assert ask("/api/list").status == (200 if warned else 401)
        process.kill()
        error = process.communicate(timeout=LONG)[1]
        assert ("can read all tasks; --basic_auth asks for a password" in error) is warned and "secret" not in error


# -- who may look ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:5555", 200), ("LOCALHOST", 200), ("127.0.0.1:5555", 200), ("[::1]:5555", 200),
        ("192.168.0.7", 200), ("jobs.example", 200),
        ("evil.example", 403), ("evil.example:5555", 403), ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403),
        ("evil.example@localhost", 403), ("localhost/x", 403), ("", 403), ("localhost:x", 403),
    ],
)  # fmt: skip
def test_another_sites_name_that_points_here_gets_nothing(app: LiteTQ, host: str, status: int) -> None:
    """DNS rebinding: a page of evil.example lets its own name mean 127.0.0.1, and reads what is there as its own."""
    app.engine.read("none")  # so that there is a file
    with shown(app, Access(names_of("127.0.0.1", ["Jobs.example"]))) as ask:
        for path in ("/", "/api/overview", "/static/app.js"):
            assert ask(path, headers={"Host": host}).status == status


def test_nothing_but_looking_is_possible(ask: Asker) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = ask("/api/task/revoke/x", method=method)
        assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD" and "only reads" in answer.json["error"]
    answer = ask("/api/list", method="HEAD")
    assert answer.status == 200 and answer.body == b"" and int(answer.headers["Content-Length"]) > 0


def test_a_password_is_asked_for_when_there_is_one(app: LiteTQ) -> None:
    with shown(app, Access(names_of("127.0.0.1"), ("ann:secret", "bob:é:x"))) as ask:
        for said, status in (("ann:secret", 200), ("bob:é:x", 200), ("ann:wrong", 401), ("", 401), ("ann", 401)):
            words = base64.b64encode(said.encode()).decode()
            assert ask("/api/list", headers={"Authorization": f"Basic {words}"}).status == status, said
        for header in ("Basic ???", "Basic", "Bearer x", f"Bearer {base64.b64encode(b'ann:secret').decode()}"):
            assert ask("/", headers={"Authorization": header}).status == 401
        answer = ask("/")
        assert answer.status == 401 and answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_the_browser_is_told_to_trust_no_other_script(ask: Asker) -> None:
    for path in ("/", "/static/app.js", "/api/overview", "/nothing"):
        headers = ask(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy and "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and "Access-Control-Allow-Origin" not in headers


def test_only_the_files_of_the_page_are_served(ask: Asker) -> None:
    for path in (
        "/static/",
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/index.html",
        "/../jobs.sqlite",
    ):
        assert ask(path).status == 404


def test_the_page_stands_below_a_prefix_too(app: LiteTQ) -> None:
    with shown(app, Access(names_of("127.0.0.1"), prefix="/jobs")) as ask:
        assert ask("/jobs").headers["Location"] == "/jobs/"
        for path in ("/jobs/", "/jobs/tasks", "/jobs/api/overview", "/jobs/static/app.js", "/tasks"):
            assert ask(path).status == 200
        assert ask("/jobsearch").status == 404
        assert ask("/jobs/task/a%2Fb%0d%0aX").headers["Location"] == "../task?id=a%2Fb%0D%0AX"


# -- what is answered ------------------------------------------------------------------------------------------------


def test_workers_queues_and_counts_are_those_of_the_file(app: LiteTQ, add: Any, boom: Any, ask: Asker) -> None:
    gate = threading.Event()
    app.task(name="hold")(lambda: gate.wait(LONG))
    with app.run_embedded(concurrency=2, hostname="w@here", queues=["celery"]):
        assert add.delay(1, 2).get(timeout=LONG) == 3
        with pytest.raises(ValueError):
            boom.delay("x").get(timeout=LONG)
        held = app.send_task("hold")
        try:
            data = eventually(lambda: (d := counted(ask)) and d["workers"][0]["running"] and d["ended"]["total"] and d)
            (worker,) = data["workers"]
            assert (worker["name"], worker["alive"], worker["pid"]) == ("w@here", True, os.getpid())
            assert (worker["pool"], worker["concurrency"], worker["queues"]) == ("threads", 2, ["celery"])
            assert worker["running"] == [{"id": held.id, "name": "hold", "queue": "celery"}]
            data = eventually(lambda: (d := counted(ask))["workers"][0]["processed"] == 2 and d)
            assert data["workers"][0]["failed"] == 1
        finally:
            gate.set()
        held.get(timeout=LONG)
    for _ in range(3):
        add.apply_async((1, 1), queue="emails")
    add.apply_async((1, 1), countdown=3600)

    def is_seen() -> Any:
        """Each part is as fresh as its last look, a second ago."""
        data = counted(ask)
        advised = any(found["about"] == "workers" and "none runs" in found["text"] for found in data["findings"])
        ended = data["ended"]["total"] == {"SUCCESS": 2, "FAILURE": 1}
        return advised and ended and data["unfinished"]["queued"] == 3 and data["queues"][0]["scheduled"] == 1 and data

    data = eventually(is_seen)
    emails = data["queues"][-1]
    assert (emails["waiting"], emails["paused"], emails["running"]) == (3, False, 0) and emails["oldest"] is not None
    assert data["unfinished"]["scheduled"] == 1 and data["workers"] == []
    assert data["ended"]["last_minute"]["FAILURE"] == 1


def test_a_paused_queue_is_shown_as_such(app: LiteTQ, add: Any, ask: Asker, db: Path) -> None:
    sent = add.delay(1, 2)
    assert cli.main(["queue", "pause", str(db), "celery"]) == cli.OK
    assert eventually(lambda: counted(ask)["queues"][0]["paused"])
    (task,) = ask("/api/list").json["tasks"]
    assert task["id"] == sent.id and task["paused"] is True


def test_M5_the_schedule_has_the_last_and_the_next_run(app: LiteTQ, add: Any, ask: Asker) -> None:
    app.schedule.add("nightly", "add", "30 3 * * *", args=[1, 2])
    app.schedule.add("rests", "add", 60)
    app.schedule.pause("rests")
    run = app.schedule.run_now("nightly")
    nightly, rests = counted(ask)["schedule"]
    assert (nightly["name"], nightly["task"], nightly["args"], nightly["runs"]) == ("nightly", "add", [1, 2], 1)
    assert nightly["last_id"] == run.id and nightly["last"] is not None
    assert nightly["next"].endswith("03:30:00.000+00:00") and "30 3 * * *" in nightly["when"]
    assert rests["paused"] is True and rests["next"] is None and rests["last"] is None


def test_tasks_are_found_by_what_is_known_of_them(app: LiteTQ, add: Any, boom: Any, ask: Asker) -> None:
    with app.run_embedded(concurrency=1):
        done = add.delay(1, 2)
        done.get(timeout=LONG)
        failed = boom.delay("needle")
        with pytest.raises(ValueError):
            failed.get(timeout=LONG)
    mail = add.apply_async((5, 5), queue="emails")
    later = add.apply_async((6, 6), countdown=3600)

    def found(**query: Any) -> list[str]:
        return [task["id"] for task in ask("/api/list", **query).json["tasks"]]

    assert found() == [later.id, mail.id, failed.id, done.id]
    assert found(state="failure") == [failed.id] and found(state="success,scheduled") == [later.id, done.id]
    assert found(name="b*") == [failed.id] and found(name="add", queue="emails") == [mail.id]
    assert found(text="needle") == [failed.id] and found(newer="1h", state="waiting") == [later.id, mail.id]
    assert found(older="1h") == [] and found(name="nothing") == []
    assert found(limit=1, offset=2) == [failed.id] and ask("/api/list", limit=3).json["more"] is True
    assert ask("/api/list", limit=4).json["more"] is False


def test_pages_show_each_task_once_while_others_are_sent(app: LiteTQ, add: Any, ask: Asker) -> None:
    ids = [add.delay(n, n).id for n in range(23)]
    first = ask("/api/list", limit=5).json
    seen = [task["id"] for task in first["tasks"]]
    for offset in range(5, 30, 5):
        add.delay(0, 0)
        page = ask("/api/list", limit=5, offset=offset, before=first["now"]).json
        seen += [task["id"] for task in page["tasks"]]
        assert page["more"] is (offset < 20)
    assert seen == ids[::-1]


def test_one_task_is_shown_whole(app: LiteTQ, add: Any, boom: Any, ask: Asker) -> None:
    with app.run_embedded(concurrency=1, hostname="w@here"):
        failed = boom.delay("n" * 200_000)
        with pytest.raises(ValueError):
            failed.get(timeout=LONG)
    task = ask("/api/task", id=failed.id).json
    assert (task["state"], task["name"], task["retries"], task["worker"]) == ("FAILURE", "boom", 1, "w@here")
    assert "raise self.retry(exc=ValueError(what))" in task["traceback"]
    (attempt,) = task["attempts"]
    assert (attempt["attempt"], attempt["outcome"]) == (1, "RETRY") and attempt["error"].startswith("ValueError('nnn")
    assert task["args"].endswith("(200,004 letters in all)") and len(ask("/api/list").body) < 10_000
    unknown = ask("/api/task", id="no/such%20one")
    assert unknown.status == 404 and "No task no/such%20one is known here" in unknown.json["error"]


def test_a_workflow_is_drawn_as_on_the_command_line(
    app: LiteTQ, add: Any, ask: Asker, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = app.task(name="total")(lambda values: sum(values))
    result = chord([add.s(1, 1), chain(add.s(2, 2), add.s(3))], total.s())()
    with app.run_embedded(concurrency=2):
        assert result.get(timeout=LONG) == 9
    data = ask("/api/workflow", id=result.id).json
    assert cli.main(["show", "--tree", str(db), result.id]) == cli.OK
    lines = capsys.readouterr().out.splitlines()
    assert data["total"] == 4 == len(lines)
    for row, line in zip(data["tasks"], lines, strict=True):
        assert line.startswith(f"{row['before']}{row['name']}[{row['id']}] SUCCESS")
    assert ask("/api/workflow", id="unknown").json == {"tasks": [], "total": 0}


@pytest.mark.row("14.Flower")
def test_the_api_has_flowers_names(app: LiteTQ, add: Any, boom: Any, ask: Asker) -> None:
    with app.run_embedded(concurrency=1, hostname="w@here", queues=["celery"]):
        done, failed = add.delay(1, 2), boom.delay("x")
        done.get(timeout=LONG)
        with pytest.raises(ValueError):
            failed.get(timeout=LONG)
        workers = ask("/api/workers").json
        assert ask("/api/workers", status=1).json == {"w@here": True}
        assert workers["w@here"]["active_queues"] == [{"name": "celery"}]
        assert workers["w@here"]["stats"]["pool"]["max-concurrency"] == 1
        assert "No worker 'x' is signed on" in ask("/api/workers", workername="x").json["error"]
    waits = add.apply_async((1, 1), queue="emails")
    tasks = ask("/api/tasks").json
    assert list(tasks) == [waits.id, failed.id, done.id]
    task = tasks[done.id]
    assert (task["uuid"], task["name"], task["state"], task["args"], task["result"]) == (
        done.id,
        "add",
        "SUCCESS",
        "(1, 2)",
        "3",
    )
    assert task["worker"] == "w@here" and task["routing_key"] == "celery" and task["exception"] is None
    assert task["received"] <= task["succeeded"] == task["timestamp"] <= time.time() and task["failed"] is None
    assert tasks[waits.id]["state"] == "PENDING" and tasks[waits.id]["place"] == "QUEUED"
    assert list(ask("/api/tasks", state="FAILURE", taskname="boom", limit=1).json) == [failed.id]
    whole = ask(f"/api/task/info/{failed.id}").json
    assert (
        whole["exception"] == "ValueError('x')" and "Traceback" in whole["traceback"] and whole["root_id"] == failed.id
    )
    assert ask("/api/task/info/none").status == 404
    lengths = eventually(lambda: ask("/api/queues/length").json["active_queues"])
    assert {"name": "emails", "messages": 1} in lengths


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/list?color=red", "'color' says nothing here; there are before, limit, name"),
        ("/api/list?state=sucess", "did you mean success?"),
        ("/api/list?limit=-1", "limit=-1 must be a whole number up to 1,000"),
        ("/api/list?limit=9999999999999999999999", "must be a whole number up to 1,000"),
        ("/api/list?offset=10001", "offset=10001 must be a whole number up to 10,000"),
        ("/api/list?newer=soon", "'soon' is no span of time"),
        ("/api/list?before=yesterday", "'yesterday' is no point in time"),
        ("/api/task", "Which task? Give its id."),
        ("/api/tasks?sort_by=name", "sort_by has no effect here"),
        ("/api/tasks?workername=x", "workername has no effect here"),
    ],
)
def test_a_wrong_question_is_told_so(ask: Asker, path: str, said: str) -> None:
    answer = ask(path)
    assert answer.status == 400 and said in answer.json["error"]


def test_trouble_with_the_file_is_an_answer(app: LiteTQ, add: Any, db: Path, start: Start, run_python: Any) -> None:
    for n in range(2000):
        add.delay(n, n)
    app.close()
    ask, _ = start("monitor", db)
    # By another process: here it would drop the locks of this one.
    ruin = f"f = open({str(db)!r}, 'r+b'); f.seek(8192); f.write(b'x' * 200_000)"
    assert run_python(ruin).wait(LONG) == 0
    answer = eventually(lambda: (a := ask("/api/list")).status == 503 and a)
    assert "jobs.sqlite" in answer.json["error"]


def test_any_id_and_any_bytes_are_answered(app: LiteTQ, ask: Asker) -> None:
    ids = ["a/b", "..", "?", "&x=1", "%2e", "\x1b[31m", "\ud800", "", "ü"]
    for id in ids[:6] + ids[8:]:
        app.engine.send(Plan((Message(id, "odd\x00name", b"\xff\xfe", content_type="application/x-odd"),)))
    for id in ids[:6] + ids[8:]:
        task = ask("/api/task", id=id).json
        assert task["id"] == id and task["args"] == "(application/x-odd, 2 B)"
    assert ask("/api/task?id=%ff%00").status == 404 == ask("/api/task", id="").status


# -- at length -------------------------------------------------------------------------------------------------------


def test_a_long_look_holds_up_no_answer_and_is_taken_once() -> None:
    go, asked = threading.Event(), []

    def look() -> int:
        asked.append(1)
        assert go.wait(LONG)
        return 7

    kept = Kept(look)
    seen: list[int | None] = []
    threads = [threading.Thread(target=lambda: seen.append(kept.latest())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [None] * 5 and len(asked) == 1
    go.set()
    assert eventually(kept.latest) == 7 and len(asked) == 1


def test_trouble_is_raised_until_a_look_succeeds(app: LiteTQ) -> None:
    from litetq.exceptions import StoreBusy

    troubles = [StoreBusy("cannot look", "somebody writes", path="x", waited=1.0)]

    def look() -> str:
        if troubles:
            raise troubles.pop()
        return "well"

    kept = Kept(look)
    with pytest.raises(StoreBusy):
        kept.latest()

    def again() -> str | None:
        try:
            return kept.latest()
        except StoreBusy:
            return None

    assert eventually(again) == "well"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["finished", "waiting"])
def test_each_answer_takes_less_than_a_second_with_a_million_tasks(
    app: LiteTQ, db: Path, kind: str, start: Start
) -> None:
    if kind == "finished":
        add_results(app, 1_000_000, time.time())
    else:
        for _ in range(100):
            app.engine.send(Plan(tuple(Message(uuid(), f"t{m % 7}", b"[[%d], {}]" % m) for m in range(10_000))))
    some = app.send_task("some")
    app.close()
    ask, process = start("monitor", db)
    counted(ask)
    import psutil

    cpu = psutil.Process(process.pid)
    for path in (
        "/api/overview", "/api/list", "/api/list?state=failure", "/api/list?state=running", "/api/list?name=nothing",
        "/api/list?offset=10000", "/api/list?newer=1h", "/api/tasks", "/api/workers", "/api/queues/length",
        f"/api/task?id={some.id}", f"/api/task/info/{some.id}", f"/api/workflow?id={some.id}",
    ):  # fmt: skip
        taken = []
        for _ in range(3):
            before = cpu.cpu_times()
            assert ask(path).status == 200
            after = cpu.cpu_times()
            taken.append(after.user + after.system - before.user - before.system)
        # CPU time, which other programs on this machine change little.
        assert min(taken) < 1.0, (path, taken)
