"""`litetq migrate` between files and brokers: nothing is lost, workflows go whole, and what a kill leaves is known."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from litetq import LiteTQ, chain, chord
from tests.compat import packages
from tests.conftest import ROOT
from tests.docs.test_snippets import commands_of, is_as_shown
from tests.servers import Rabbit, Redis
from tests.waiting import eventually
from tests.wire.conftest import Programs


def tasks_of(path: Path, ledger: Path) -> LiteTQ:
    """Return an app at a file with the tasks of `program.py` that the tests send."""
    app = LiteTQ("program", broker=path, set_as_current=False)

    @app.task(name="quiet", ignore_result=True)
    def quiet(value: object) -> None:
        with open(ledger, "a") as opened:
            opened.write(f"quiet-{value}\n")

    app.task(name="add")(lambda a, b: a + b)
    app.task(name="total")(lambda values: sum(values))
    app.task(name="shown", bind=True)(lambda self: None)
    return app


def waiting(app: LiteTQ) -> list[str]:
    found: list[tuple[str]] = app.engine.database.read(
        lambda tx: tx.execute("SELECT id FROM litetq_task ORDER BY seq").fetchall()
    )
    return [id for (id,) in found]


@pytest.mark.slow
@pytest.mark.parametrize("runs", ["litetq", "celery"])
def test_tasks_and_workflows_go_from_a_file_to_a_broker_and_run_there(
    programs: Programs, server: Redis, tmp_path: Path, runs: str
) -> None:
    path = tmp_path / "jobs.sqlite"
    with tasks_of(path, programs.ledger) as app:
        add, total, quiet = (app.tasks[name] for name in ("add", "total", "quiet"))
        chained = chain(add.s(1, 1), add.s(1), add.s(1))()
        with app.run_embedded(concurrency=1) as worker:  # until its first step has ended
            chained.parent.parent.get(timeout=30)
            worker.stop()
        half_done = bool(waiting(app))
        results = [
            add.delay(1, 2),
            add.apply_async((2, 2), countdown=2, priority=3),
            chord([add.s(n, n) for n in range(3)], total.s())(),
            chain(add.s(1, 1), chord([add.s(1), add.s(2)], total.s()), add.s(1))(),
        ]
        late = quiet.apply_async(("last",), priority=0)
        first = quiet.apply_async(("first",), priority=9)
        done = programs.command(runs if runs == "litetq" else "litetq", "migrate", str(path), server.url, "-a")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert waiting(app) == []
    assert f"[{first.id}]" in done.stdout and f"[{late.id}]" in done.stdout
    programs.worker(runs, "-c", "1", "-P", "threads")
    ids = [result.id for result in results] + ([chained.id] if half_done else [])
    ends = programs.ask(runs, f"answer([end(app.AsyncResult(id)) for id in {ids!r}])")
    assert ends == [3, 4, 6, 8, 4][: len(ids)]
    eventually(lambda: len(programs.noted()) == 2)
    assert programs.noted() == ["quiet-first", "quiet-last"]


@pytest.mark.slow
@pytest.mark.parametrize("sends", ["litetq", "celery"])
def test_tasks_and_chains_go_from_a_broker_to_a_file_and_what_cannot_stays_there(
    programs: Programs, server: Redis, tmp_path: Path, sends: str
) -> None:
    code = (
        "answer([add.delay(1, 2).id, add.apply_async((1, 1), countdown=2, priority=4).id, chain(add.s(1, 2), add.s(3)).apply_async().id,"
        " add.apply_async((1, 1), link=quiet.s()).id, chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async().id,"
        " quiet.apply_async(('mail',), queue='mail').id])"
    )
    *ids, in_chord, mail = programs.ask(sends, code)
    path = tmp_path / "jobs.sqlite"
    looked = programs.command("litetq", "migrate", server.url, str(path), "--dry-run", "-Q", "celery,mail,none")
    assert looked.stdout.splitlines() == [
        "celery: 6 tasks", "mail: 1 task", "7 tasks would be looked at; nothing was carried.",
    ], looked.stderr  # fmt: skip
    moved = programs.command("litetq", "migrate", server.url, str(path), "-a", "-q", "-Q", "celery,mail:post")
    assert (moved.returncode, moved.stdout) == (0, "7 tasks migrated.\n"), moved.stderr
    assert moved.stderr == "note: 2 tasks stayed: in chords whose parts are counted where the results are\n"
    with tasks_of(path, programs.ledger) as app:
        assert in_chord not in waiting(app) and mail in waiting(app)
        with app.run_embedded(concurrency=1, queues={"celery", "post"}):
            assert [app.AsyncResult(id).get(timeout=30) for id in ids] == [3, 2, 6, 2]
            eventually(lambda: set(programs.noted()) == {"quiet-2", "quiet-mail"})
    programs.worker(sends, "-P", "threads")
    assert programs.ask(sends, f"answer(end(app.AsyncResult({in_chord!r})))") == 6


@pytest.mark.slow
def test_a_file_goes_to_rabbitmq_and_comes_back(rabbitmq: Rabbit, tmp_path: Path) -> None:
    path, ledger = tmp_path / "jobs.sqlite", tmp_path / "ledger"
    programs = Programs(rabbitmq.url, tmp_path, "rpc://")
    with tasks_of(path, ledger) as app:
        add, total = app.tasks["add"], app.tasks["total"]
        single, chained = add.apply_async((1, 2), priority=7, queue="mail"), chain(add.s(1, 1), add.s(1))()
        later = add.apply_async((2, 2), countdown=1)
        chorded = chord([add.s(1, 1), add.s(2, 2)], total.s())()
        words = ["-m", "litetq", "migrate", "-a", "-q"]
        away = programs.start("litetq", *words, str(path), rabbitmq.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = away.communicate(timeout=60)
        assert out == "4 tasks migrated.\n"
        assert err.startswith("note: 3 tasks stayed: a chord") and "needs a result backend" in err
        assert len(waiting(app)) == 3
        words += ["-Q", "none,mail:post,celery"]
        back = programs.start("litetq", *words, rabbitmq.url, str(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert back.communicate(timeout=60) == ("4 tasks migrated.\n", "")
        with app.run_embedded(concurrency=1, queues={"celery", "post"}):
            ends = [app.AsyncResult(one.id).get(timeout=30) for one in (single, chained, later, chorded)]
        assert ends == [3, 3, 4, 6]


@pytest.mark.slow
def test_messages_go_from_broker_to_broker_as_they_are(programs: Programs, server: Redis, tmp_path: Path) -> None:
    other = server.url.removesuffix("/0") + "/1"
    code = "answer([add.apply_async((1, 2), priority=3).id, chain(add.s(1, 2), add.s(3)).apply_async().id, quiet.delay(1).id])"
    ids = programs.ask("celery", code)
    copied = programs.command("litetq", "migrate", server.url, other, "-q")
    assert copied.stdout == "3 tasks migrated.\n"
    moved = programs.command("litetq", "migrate", server.url, other, "-q", "-a", "-T", "add")
    assert moved.stdout == "2 tasks migrated.\n", moved.stderr  # what had been copied was still there
    assert server.ask("LLEN", "celery") == ":1\r\n" and server.ask("HLEN", "unacked") == ":0\r\n"
    there = Programs(other, tmp_path / "there", other) if (tmp_path / "there").mkdir() is None else programs
    try:
        there.worker("celery", "-P", "threads")
        assert there.ask("celery", f"answer([end(app.AsyncResult(id)) for id in {ids[:2]!r}])") == [3, 6]
        eventually(lambda: there.noted() == ["quiet-1"])
    finally:
        there.close()


@pytest.mark.slow
def test_killed_in_the_middle_with_workers_on_both_sides_loses_nothing_and_at_most_one_is_in_both(
    programs: Programs, server: Redis, tmp_path: Path
) -> None:
    path, count = tmp_path / "jobs.sqlite", 1500
    with tasks_of(path, programs.ledger) as app:
        app.tasks["quiet"].apply_async(("later",), countdown=3600)
        for n in range(count):
            app.tasks["quiet"].delay(n)
        words = ["-m", "litetq", "migrate", str(path), server.url, "-a", "-q"]
        carrying = programs.start("litetq", *words)
        eventually(lambda: sent(server) > 200, within=60)
        carrying.kill()
        carrying.wait()
        there = sent(server)
        assert count + 1 <= there + len(waiting(app)) <= count + 2
        programs.worker("litetq", "-P", "threads", "-c", "1")
        with app.run_embedded(concurrency=1):
            again = programs.start("litetq", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            out, err = again.communicate(timeout=90)
            assert again.returncode == 0, err
            assert "migrated" in out
            eventually(lambda: len(set(programs.noted())) == count, within=90)
    noted = Counter(programs.noted())
    assert set(noted) == {f"quiet-{n}" for n in range(count)}
    assert sum(noted.values()) <= count + 1


@pytest.mark.slow
def test_the_page_about_growing_shows_what_happens(programs: Programs, server: Redis, tmp_path: Path) -> None:
    """As `tests.docs` does it, with the server of this test in place of the page's; blocks in lists are indented."""
    page = (ROOT / "docs" / "growing.md").read_text(encoding="utf-8").replace("redis://localhost:6379/0", server.url)
    ran = 0
    for kind, block in re.findall(r"^ *```(\w+)\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL):
        text = textwrap.dedent(block)
        named = re.match(r"# (\w+\.py)\n", text)
        if named:
            (tmp_path / named[1]).write_text(text, encoding="utf-8")
        for command, expected in commands_of(text) if kind == "console" else ():
            words = shlex.split(command)
            env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
            while "=" in words[0]:
                variable, _, env[variable] = words.pop(0).partition("=")
            program = [str(packages.PYTHON), *(["-m", "litetq"] if words[0] == "litetq" else []), *words[1:]]
            done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert is_as_shown(expected, done.stdout), f"{command}\n{done.stdout}{done.stderr}"
            ran += 1
    assert ran == 4


def sent(server: Redis) -> int:
    """Return how many messages lie in the queue `celery`."""
    return sum(int(server.ask("LLEN", key)[1:]) for key in ("celery", *(f"celery\x06\x16{n}" for n in (3, 6, 9))))


@pytest.mark.slow
def test_a_broker_that_is_away_ends_the_command_in_a_sentence(
    programs: Programs, server: Redis, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.sqlite"
    with tasks_of(path, programs.ledger) as app:
        id = app.tasks["add"].delay(1, 1).id
        server.stop()
        done = programs.command("litetq", "migrate", str(path), server.url, "-a")
        server.start()
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert (
            f"the broker {server.url} cannot be used" in done.stderr and "(0 tasks migrated before that)" in done.stderr
        )
        record = app.engine.read(id)
        assert record is not None and record.place == "QUEUED"
