"""The file commands that take care of a file: `backup`, `vacuum`, `doctor`, `bench`; and how long all of them take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, chain, cli
from litetq.database import SCHEMA, Database
from litetq.message import Message, Plan, uuid
from tests.waiting import eventually

LONG = 30.0  # seconds
posix = pytest.mark.skipif(os.name != "posix", reason="file modes and signals of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="who has a file open is known quickly on Linux only")

Say = Any  # what `say` is: (words) -> (exit code, lines on stdout, stderr)


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tests", broker=db, set_as_current=False) as app:
        yield app


@pytest.fixture
def add(app: LiteTQ) -> Any:
    return app.task(name="add")(lambda x, y: x + y)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def say(*words: object) -> tuple[int, list[str], str]:
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return say


def many(app: LiteTQ, count: int, body: bytes = b"[[1, 2], {}]", name: str = "add") -> list[str]:
    """Send many tasks in one transaction; return their ids."""
    messages = [Message(uuid(), name, body) for _ in range(count)]
    app.engine.send(Plan(tuple(messages)))
    return [message.id for message in messages]


def findings(say: Say, *words: object) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Return doctor's exit code and what it found that is not good, by topic."""
    code, lines, error = say("doctor", *words, "-j")
    assert error == ""
    found: dict[str, list[dict[str, str]]] = {}
    for finding in map(json.loads, lines):
        if finding["level"] != "good":
            found.setdefault(finding["about"], []).append(finding)
    return code, found


# -- backup ----------------------------------------------------------------------------------------------------------


def test_a_backup_taken_while_workers_run_is_whole(say: Say, app: LiteTQ, add: Any, tmp_path: Path) -> None:
    ids = many(app, 3000)
    last = chain(*(add.s(1, 1) if n == 0 else add.s(1) for n in range(300)))()
    with app.run_embedded(concurrency=2):
        for n in range(4):
            copy = tmp_path / f"copy{n}.sqlite"
            code, lines, error = say("backup", app.engine.path, copy)
            assert (code, error) == (cli.OK, "") and lines[0].startswith(f"{copy}: ")
            code, found = findings(say, copy)
            assert "integrity" not in found and "schema" not in found
            with LiteTQ("copy", broker=copy, set_as_current=False) as other:
                assert set(ids) == set(other.engine.read_many(ids))
        assert last.get(timeout=LONG) == 301
    assert not [path for path in tmp_path.iterdir() if ".part" in path.name]


def test_a_backup_does_not_say_that_workers_of_the_file_run_in_it(say: Say, app: LiteTQ, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    with app.run_embedded(concurrency=1):
        assert say("backup", app.engine.path, copy)[0] == cli.OK
        assert [worker["alive"] for worker in json.loads(say("status", app.engine.path, "-j")[1][0])["workers"]] == [
            True
        ]
    assert [worker["alive"] for worker in json.loads(say("status", copy, "-j")[1][0])["workers"]] == [None]
    assert any(" unknown " in line for line in say("status", copy)[1])
    _, found = findings(say, copy)
    assert "runs cannot be known" in found["workers"][0]["text"]


def test_tasks_of_a_backup_can_be_worked_on(say: Say, app: LiteTQ, add: Any, tmp_path: Path) -> None:
    result = add.delay(1, 2)
    (tmp_path / "folder").mkdir()
    assert say("backup", app.engine.path, tmp_path / "folder")[0] == cli.OK
    with LiteTQ("copy", broker=tmp_path / "folder" / "jobs.sqlite", set_as_current=False) as other:
        other.task(name="add")(lambda x, y: x + y)
        with other.run_embedded(concurrency=1):
            assert other.AsyncResult(result.id).get(timeout=LONG) == 3
    assert result.state == "PENDING"


def test_a_backup_replaces_nothing_by_mistake(say: Say, app: LiteTQ, add: Any, tmp_path: Path) -> None:
    add.delay(1, 2)
    path, copy = app.engine.path, tmp_path / "copy.sqlite"
    copy.write_text("mine")
    for target, said in (
        (copy, "exists; give another name, or --overwrite"),
        (path, "would replace the file itself"),
        (tmp_path / "none" / "copy.sqlite", "does not exist"),
    ):
        code, lines, error = say("backup", path, target)
        assert (code, lines) == (cli.USAGE, []) and said in error
    assert copy.read_text() == "mine"
    assert say("backup", path, copy, "--overwrite")[0] == cli.OK and len(say("tasks", copy)[1]) == 2
    with LiteTQ("copy", broker=copy, set_as_current=False) as other:
        other.send_task("more")
        code, _, error = say("backup", path, copy, "--overwrite")
        assert code == cli.USAGE and "is in use" in error


@posix
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_backup_that_is_interrupted_leaves_the_old_one(
    app: LiteTQ, add: Any, tmp_path: Path, run_python: Any, how: signal.Signals
) -> None:
    many(app, 20_000)
    copy = tmp_path / "copy.sqlite"
    copy.write_text("the old one")
    program = """
import os, sys
from litetq import checkup, cli
checkup.BACKUP_PAGES = 10
import litetq.cli.backup as command
def progress(done, of):
    if done >= 20:
        os.kill(os.getpid(), int(sys.argv[3]))
copy = command.backup
command.backup = lambda source, target, _: copy(source, target, progress)
sys.exit(cli.main(["backup", sys.argv[1], sys.argv[2], "--overwrite"]))
"""
    process = run_python(program, str(app.engine.path), str(copy), str(int(how)))
    process.communicate(timeout=LONG)
    assert process.returncode == (-how if how == signal.SIGKILL else cli.INTERRUPTED)
    assert copy.read_text() == "the old one"
    parts = [path.name for path in tmp_path.iterdir() if path.name.startswith("copy.sqlite.")]
    assert bool(parts) == (how == signal.SIGKILL)


# -- vacuum ----------------------------------------------------------------------------------------------------------


def test_vacuum_removes_what_has_expired_and_gives_the_space_back(say: Say, app: LiteTQ, add: Any) -> None:
    app.conf.result_expires = 0.001
    many(app, 3000, b'[[1, 2], {"pad": "%s"}]' % (b"x" * 400), name="unknown")
    with app.run_embedded(concurrency=2):
        eventually(lambda: not app.engine.store.records.counts()["QUEUED"], LONG)
        code, lines, error = say("vacuum", app.engine.path, "--full")
        assert code == cli.FAILED and "A worker runs" in error
    app.close()
    told = json.loads(say("vacuum", app.engine.path, "-j")[1][0])
    assert told["bytes"] < told["bytes_before"] / 3
    assert say("vacuum", app.engine.path)[1][0].startswith(f"{app.engine.path}: 0 expired records removed; ")


def test_vacuum_full_makes_a_file_small_that_another_program_made(say: Say, tmp_path: Path) -> None:
    import apsw

    path = tmp_path / "own.sqlite"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE own (x); INSERT INTO own VALUES (1)")
    connection.close()
    with LiteTQ("own", broker=path, set_as_current=False) as app:
        many(app, 5000)
        app.engine.purge()
    assert json.loads(say("vacuum", path, "-j")[1][0])["bytes"] > 500_000
    assert json.loads(say("vacuum", path, "--full", "-j")[1][0])["bytes"] < 400_000
    assert Database(path).read(lambda tx: tx.execute("SELECT x FROM own").get) == 1
    assert findings(say, path)[1].keys() <= {"permissions"}


# -- doctor ----------------------------------------------------------------------------------------------------------


def change(db: Path, sql: str) -> None:
    database = Database(db)
    database.write(lambda tx: tx.execute(sql).fetchall())
    database.close()


def test_a_healthy_file_gets_a_clean_bill(say: Say, app: LiteTQ, add: Any, db: Path) -> None:
    result = add.delay(1, 2)
    with app.run_embedded(concurrency=1):
        assert result.get(timeout=LONG) == 3
        code, lines, error = say("doctor", db)
    assert (code, error) == (cli.OK, "") and lines[-1] == "All is well."
    assert [line.split("  ")[0] for line in lines[:-1]] == [
        "ok SQLite", "ok file system", "ok permissions", "ok schema", "ok log", "ok processes", "ok workers", "ok integrity",
    ]  # fmt: skip
    assert f"version {SCHEMA}, all tables and indexes as they should be" in lines[3]
    assert len(say("doctor", db, "--quick")[1]) == 7  # without a worker, without integrity: they are told nothing of
    assert say("doctor", db, "--full")[0] == cli.OK
    assert "give one" in say("doctor", db, "--full", "--quick")[2]


@posix
@pytest.mark.parametrize(("mode", "said"), [(0o644, "others may read"), (0o666, "others may write")])
def test_doctor_sees_who_may_read_and_write(say: Say, add: Any, db: Path, mode: int, said: str) -> None:
    add.delay(1, 2)
    db.chmod(mode)
    code, found = findings(say, db, "--quick")
    assert code == cli.OK and said in found["permissions"][0]["text"] and "chmod" in found["permissions"][0]["advice"]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP INDEX litetq_task_due", "litetq_task_due is missing"),
        ("CREATE INDEX own ON litetq_task (name)", "own is not litetq's"),
        ("DROP INDEX litetq_task_due; CREATE INDEX litetq_task_due ON litetq_task (name)", "litetq_task_due differs"),
        ("CREATE TRIGGER own AFTER DELETE ON litetq_task BEGIN SELECT 1; END", "own is not litetq's"),
    ],
)
def test_doctor_sees_that_another_program_changed_the_tables(say: Say, add: Any, db: Path, sql: str, said: str) -> None:
    add.delay(1, 2)
    change(db, sql)
    code, found = findings(say, db, "--quick")
    assert code == cli.FAILED and found["schema"][0]["text"].startswith(said) and found["schema"][0]["advice"]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM litetq_link", "1 tasks are BLOCKED and nothing will release them"),
        ("UPDATE litetq_task SET follower = NULL", "1 tasks are BLOCKED and nothing will release them"),
        ("DELETE FROM litetq_task WHERE role = 1", "2 links lead from or to a task that is gone"),
        ("DELETE FROM litetq_task WHERE follows", "1 tasks lead to a follower that does not follow them"),
        ("UPDATE litetq_task SET lane = 99 WHERE follows", "1 tasks are in no queue"),
    ],
)
def test_doctor_sees_a_workflow_that_was_changed_by_hand(say: Say, add: Any, db: Path, sql: str, said: str) -> None:
    chain(add.s(1, 1), add.s(1)).apply_async(link_error=add.si(0, 0))
    change(db, sql)
    code, found = findings(say, db)
    assert code == cli.FAILED and said in [finding["text"] for finding in found["integrity"]]
    assert "integrity" not in findings(say, db, "--quick")[1]


def test_doctor_sees_pages_that_are_damaged(say: Say, app: LiteTQ, add: Any, db: Path) -> None:
    many(app, 3000, b'["%s"]' % (b"x" * 500))
    app.close()
    with open(db, "r+b") as file:
        file.seek(4096 * 200)
        file.write(b"\xff" * 4096 * 50)
    code, found = findings(say, db)
    assert code == cli.FAILED and found["integrity"] and all("backup" in f["advice"] for f in found["integrity"])


def test_doctor_examines_a_file_that_nobody_else_can_open(say: Say, app: LiteTQ, add: Any, db: Path) -> None:
    many(app, 200)
    app.close()
    os.truncate(db, db.stat().st_size // 2)
    code, _, error = say("status", db)
    assert code == cli.FAILED and "then run `litetq doctor`" in error
    code, found = findings(say, db)
    assert code == cli.FAILED and found["integrity"][0]["level"] == "bad"
    assert "doctor" not in json.dumps(found)  # its advice is not to run itself


@posix
def test_doctor_says_which_file_this_user_may_not_use(say: Say, app: LiteTQ, add: Any, db: Path) -> None:
    add.delay(1, 2)
    app.close()
    db.chmod(0)
    if os.access(db, os.R_OK):
        pytest.skip("the superuser may do it all")
    code, found = findings(say, db)
    assert code == cli.FAILED and found["permissions"][0]["text"] == f"this user may not write to {db}"
    assert "cannot be looked at" in found["settings"][0]["text"] and "workers" not in found
    assert "cannot be looked at" in found["integrity"][0]["text"]


def test_doctor_sees_queues_that_nobody_serves_and_entries_that_nobody_sends(
    say: Say, app: LiteTQ, add: Any, db: Path
) -> None:
    add.apply_async((1, 1), queue="a")
    code, found = findings(say, db, "--quick")
    assert code == cli.OK and found["workers"][0]["text"] == "none runs, and 1 task waits"
    app.schedule.add("nightly", "add", 3600.0)
    change(db, "UPDATE litetq_entry SET due_at = due_at - 90000, next_at = next_at - 90000")
    change(db, "UPDATE litetq_task SET enqueued_at = enqueued_at + 600")
    with app.run_embedded(concurrency=1, queues=["b"]):
        code, found = findings(say, db, "--quick")
    assert code == cli.FAILED and found["queues"][0]["text"] == "no worker serves queue a, 1 task waits in it"
    assert found["schedule"][0]["text"].startswith("nightly was due 8") and "beat" in found["schedule"][0]["advice"]
    assert "in the future" in found["clock"][0]["text"]


@posix
def test_doctor_sees_a_worker_that_was_stopped(
    say: Say, app: LiteTQ, db: Path, tmp_path: Path, run_python: Any
) -> None:
    (tmp_path / "tasks.py").write_text("from litetq import LiteTQ\napp = LiteTQ('t', broker='jobs.sqlite')\n")
    app.send_task("other", queue="other")
    worker = run_python("-m", "litetq", "-A", "tasks", "worker", "-P", "solo", "-n", "w@x", "-q")
    eventually(app.engine.has_worker, LONG)
    worker.send_signal(signal.SIGSTOP)
    eventually(lambda: "workers" in findings(say, db, "--quick")[1])
    text = findings(say, db, "--quick")[1]["workers"][0]["text"]
    worker.send_signal(signal.SIGCONT)
    assert text == f"w@x (pid {worker.pid}) stands still and holds 0 tasks"
    eventually(lambda: "workers" not in findings(say, db, "--quick")[1])


@linux
def test_doctor_names_a_foreign_program_that_holds_up_the_log(
    say: Say, app: LiteTQ, add: Any, db: Path, run_python: Any
) -> None:
    add.delay(1, 2)
    program = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM litetq_task").fetchall()
print("reading", flush=True)
sys.stdin.read()
"""
    reader = run_python(program, str(db), stdin=subprocess.PIPE)
    assert reader.stdout.readline() == "reading\n"
    for _ in range(20):
        many(app, 1000, b'["%s"]' % (b"x" * 500))
    code, found = findings(say, db, "--quick")
    assert code == cli.OK and "held by a program that reads since long ago" in found["log"][0]["text"]
    assert f"process {reader.pid} (" in found["other programs"][0]["text"]
    reader.stdin.close()
    reader.wait(LONG)
    assert "log" not in findings(say, db, "--quick")[1]


def test_doctor_is_clear_about_a_file_of_a_newer_litetq(say: Say, add: Any, db: Path) -> None:
    add.delay(1, 2)
    change(db, "UPDATE litetq_meta SET value = '99' WHERE key = 'schema'")
    code, lines, error = say("doctor", db)
    assert code == cli.FAILED and "newer litetq (schema 99" in error and "Traceback" not in error


# -- bench -----------------------------------------------------------------------------------------------------------


def test_bench_measures_and_leaves_nothing_behind(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litetq.cli.bench.SEND_S", 0.1)
    monkeypatch.setattr("litetq.cli.bench.TRIPS_S", 0.1)
    monkeypatch.setenv("LITETQ_BROKER", "of-the-user.sqlite")
    code, lines, error = say("bench", tmp_path)
    assert (code, error) == (cli.OK, "") and len(lines) == 5
    assert [line.split("  ")[0] for line in lines[1:]] == ["send", "send", "drain", "round trip"]
    assert list(tmp_path.iterdir()) == [] and os.environ["LITETQ_BROKER"] == "of-the-user.sqlite"
    figures = [json.loads(line) for line in say("bench", tmp_path, "-j", "--durability", "full")[1]]
    assert all(figure["rate"] for figure in figures[:3]) and 0 < figures[3]["p50"] <= figures[3]["p99"]


def test_bench_says_in_a_sentence_why_it_cannot(say: Say, tmp_path: Path) -> None:
    code, lines, error = say("bench", tmp_path / "missing")
    assert (code, lines) == (cli.USAGE, []) and "is no folder" in error
    code, lines, error = say("bench", tmp_path, "--pool", "nonsense")
    assert code == cli.FAILED and "the worker ended with exit code 2" in error and list(tmp_path.iterdir()) == []


# -- a million tasks -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["finished", "waiting", "scheduled"])
def test_what_only_reads_takes_less_than_a_second_with_a_million_tasks(
    app: LiteTQ, db: Path, kind: str, run_python: Any
) -> None:
    resource = pytest.importorskip("resource")
    now = time.time()
    if kind == "finished":
        add_results(app, 1_000_000, now)
    else:
        for n in range(100):
            due_at = now + 3600 + n if kind == "scheduled" else None
            queue = ("celery", "emails", "reports")[n % 3]
            messages = (
                Message(uuid(), f"tasks.t{m % 7}", b"[[%d], {}]" % m, queue=queue, due_at=due_at) for m in range(10_000)
            )
            app.engine.send(Plan(tuple(messages)))
    some = app.send_task("some")
    app.close()
    for words in (
        ["status"], ["tasks"], ["tasks", "--state", "failure"], ["tasks", "--name", "nothing"], ["tasks", "--older", "1d"],
        ["show", some.id], ["queue", "list"], ["dead", "list"], ["doctor", "--quick"],
    ):  # fmt: skip
        place = 2 if words[0] in ("queue", "dead") else 1
        line = [sys.executable, "-m", "litetq", *words[:place], str(db), *words[place:]]
        taken = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(line, check=True, capture_output=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        # CPU time, which other programs on this machine change little; the file is in the system's cache.
        assert min(taken) < 1.0, (words, taken)


def add_results(app: LiteTQ, count: int, now: float) -> None:
    """Put ends on record as a day of work leaves them."""
    app.engine.send(Plan((Message(uuid(), "tasks.t0", b"[[], {}]"),)))

    def rows() -> Iterator[tuple[Any, ...]]:
        for n in range(count):
            at = now - (count - n) * 0.05
            state = "FAILURE" if n % 25 == 0 else "SUCCESS"
            yield (
                uuid(),
                state,
                b"3",
                at,
                at + 86_400,
                f"tasks.t{n % 7}",
                1,
                "celery@host",
                b"[[%d, 2], {}]" % n,
                at - 1,
                0.01,
                n,
            )

    app.engine.database.write(
        lambda tx: tx.executemany(
            "INSERT INTO litetq_result (id, state, result, done_at, expires_at, name, lane, worker, body, enqueued_at, runtime, "
            "claim) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows(),
        )
    )
