"""`litetq beat`, `litetq worker -B` and `litetq schedule`, as people type them."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq.engine import FileEngine
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = """
from litetq import LiteTQ
from litetq.schedules import crontab

app = LiteTQ("tasks", broker="jobs.sqlite", timezone="Asia/Shanghai")

@app.task
def add(x, y):
    return x + y

@app.on_after_configure.connect
def set_up(sender, **kwargs):
    sender.add_periodic_task(0.2, add.s(1, 2), name="often")
    sender.add_periodic_task(crontab(hour=4, minute=30), add.s(3, 4), name="nightly")
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FileEngine]:
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    engine = FileEngine(tmp_path / "jobs.sqlite")
    yield engine
    engine.close()


def litetq(run_python: Any, *words: str, code: int = 0) -> tuple[str, str]:
    """Run a command to its end; return what it said."""
    process = run_python("-m", "litetq", *words)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, (out, err)
    return out, err


def runs(engine: FileEngine, name: str) -> int:
    entry = engine.timetable.entry(name)
    return entry.runs if entry else 0


def test_what_stands_in_the_file_is_shown_and_changed_without_the_program(
    engine: FileEngine, run_python: Any, tmp_path: Path
) -> None:
    litetq(run_python, "schedule", "-A", "tasks", "add", "mine", "tasks.add", "--cron", "0 4 * * *")
    (tmp_path / "tasks.py").write_text("raise SystemExit('the program was imported')", encoding="utf-8")
    out, _ = litetq(run_python, "schedule", "list", "jobs.sqlite")
    assert re.search(r"^mine  tasks.add  cron 0 4 \* \* \*  \S+ 04:00:00 ", out, re.MULTILINE), out  # in Shanghai
    assert litetq(run_python, "schedule", "pause", "jobs.sqlite", "mine")[0] == "paused: mine\n"


@pytest.mark.parametrize(
    "line",
    [
        "-A tasks beat -l INFO",
        "beat -A tasks -l info",
        "beat jobs.sqlite -A tasks -l INFO -s celerybeat-schedule --max-interval 300",
        "-A tasks beat -l INFO -S celery.beat:PersistentScheduler",
    ],
)
def test_beat_sends_what_is_due_and_says_so(engine: FileEngine, run_python: Any, line: str) -> None:
    beat = run_python("-m", "litetq", *line.split())
    eventually(lambda: runs(engine, "often") >= 3)
    if sys.platform == "win32":
        beat.kill()
        return
    beat.send_signal(signal.SIGTERM)
    out, err = beat.communicate(timeout=20)
    assert beat.returncode == 0, err
    assert "litetq beat v" in out and "litetq.beat.PersistentScheduler" in out and "jobs.sqlite" in out
    assert "Scheduler: Sending due task often (tasks.add)" in err and "beat: Shutting down..." in err


def test_workers_with_a_beat_each_run_each_due_time_once(engine: FileEngine, run_python: Any) -> None:
    for _ in range(2):
        run_python("-m", "litetq", "-A", "tasks", "worker", "-B", "-P", "threads", "-c", "1", "-s", "x")
    eventually(lambda: runs(engine, "often") >= 10, within=30)
    rows = sorted(engine.timetable.firings("often"), key=lambda row: row.due_at)
    steps = {round(after.due_at - before.due_at, 3) for before, after in zip(rows, rows[1:], strict=False)}
    assert steps == {0.2}
    eventually(lambda: [record.state for record in [engine.read(rows[0].task_id or "")] if record] == ["SUCCESS"])


def test_a_wrong_entry_ends_beat_with_one_sentence(tmp_path: Path, run_python: Any) -> None:
    (tmp_path / "tasks.py").write_text(
        TASKS + "\napp.conf.beat_schedule = {'bad': {'task': 'tasks.add', 'schedule': 5, 'args': (16)}}\n",
        encoding="utf-8",
    )
    _, err = litetq(run_python, "-A", "tasks", "beat", code=2)
    assert "Error: entry 'bad' of the schedule:" in err and "(x) is no tuple, (x,) is" in err and "Traceback" not in err


def test_the_schedule_is_changed_from_the_command_line_while_beat_runs(engine: FileEngine, run_python: Any) -> None:
    run_python("-m", "litetq", "-A", "tasks", "beat")
    eventually(lambda: runs(engine, "often") >= 1)
    out, _ = litetq(
        run_python, "schedule", "-A", "tasks", "add", "mine", "tasks.add", "--every", "0.1", "--args", "[5, 6]",
        "--queue", "slow", "--overlap", "skip",
    )  # fmt: skip
    # So short a time may be over before it is printed.
    assert re.search(
        r"^added: mine sends tasks\.add, every 0\.1 seconds; next: (due since )?20\d\d-", out, re.MULTILINE
    ), out
    eventually(lambda: runs(engine, "mine") >= 1)
    out, _ = litetq(run_python, "schedule", "edit", "mine", "--cron", "0 4 * * mon-fri", "-b", "jobs.sqlite")
    assert "changed: mine sends tasks.add, cron 0 4 * * mon-fri" in out
    entry = engine.timetable.entry("mine")
    assert entry is not None and json.loads(entry.definition)["options"] == {"queue": "slow"}
    assert entry.policy == '{"overlap": "skip"}' and entry.zone == "Asia/Shanghai"

    out, _ = litetq(run_python, "schedule", "pause", "often", "mine")
    assert out == "paused: often\npaused: mine\n"
    before = runs(engine, "often")
    out, _ = litetq(run_python, "-A", "tasks", "schedule", "next", "2")
    assert out.count("nightly  tasks.add") == 2 and "04:30:00" in out and "often: paused" in out
    assert runs(engine, "often") == before
    out, _ = litetq(run_python, "schedule", "resume", "often")
    assert re.match(r"resumed: often; next: (due since )?20\d\d-", out), out
    eventually(lambda: runs(engine, "often") > before)

    out, _ = litetq(run_python, "schedule", "run-now", "mine")
    id = out.split()[-1]
    assert (record := engine.read(id)) is not None and record.queue == "slow"
    out, _ = litetq(run_python, "schedule", "ls", "jobs.sqlite")
    lines = [line.split("  ") for line in out.splitlines()]
    assert [line[0] for line in lines] == ["NAME", "mine", "nightly", "often"]
    out, _ = litetq(run_python, "schedule", "rm", "mine")
    assert out == "removed: mine\n" and engine.timetable.entry("mine") is None
    out, _ = litetq(run_python, "schedule", "list", "--json")
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["nightly", "often"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("schedule", "Which command? There are: list, add,"),
        ("schedule mend x", "No such command 'mend'. There are: list, add, edit"),
        ("schedule add x tasks.add", "When? Give --every, --cron or --crontab."),
        ("schedule add x tasks.add --every 5 --cron @daily", "Both --every and --cron say when; give one."),
        ("schedule add x tasks.add --every 0", "'x' of the schedule: an interval of 0 seconds would never end"),
        ("schedule add x tasks.add --cron @never", "'@never' is no schedule; of this form there are @yearly"),
        ("schedule add x tasks.add --every 5 --args {}", "'{}' is no JSON list, like [1, \"two\"]"),
        ("schedule add x tasks.add --every 5 --kwargs x", "'x' is no JSON"),
        ("schedule add x tasks.add --every 5 --starts-at noon", "starts_at='noon' is no date"),
        ("schedule edit x", "What is to be changed?"),
        ("schedule remove x", "there is no entry 'x' in the schedule"),
        ("schedule next 0", "0 is not in the range"),
        ("beat -S no.such:Class", "there is no scheduler 'no.such:Class'"),
    ],
)
def test_a_mistake_gets_one_sentence(
    line: str, said: str, engine: FileEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from litetq import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tasks", raising=False)
    assert cli.main(["-A", "tasks", *line.split()]) == cli.USAGE
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    if (tasks := sys.modules.pop("tasks", None)) is not None:
        tasks.app.close()


def test_a_file_whose_app_is_unknown_can_be_looked_at(tmp_path: Path, run_python: Any) -> None:
    engine = FileEngine(tmp_path / "bare.sqlite")
    engine.timetable.entries()
    engine.close()
    out, _ = litetq(run_python, "schedule", "list", "bare.sqlite")
    assert "The schedule is empty" in out
    out, _ = litetq(run_python, "schedule", "-b", "bare.sqlite", "add", "x", "far.work", "--crontab", "0 4 * * mon")
    assert "added: x sends far.work, crontab 0 4 * * mon" in out


@pytest.mark.parametrize("words", [["list"], ["next"], ["pause", "x"], ["resume", "x"], ["run-now", "x"], ["rm", "x"]])
def test_a_missing_file_is_not_made_and_another_programs_database_is_left_alone(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from litetq import cli

    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("foreign.sqlite") as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    before = Path("foreign.sqlite").read_bytes()
    for file, said in (
        ("missing.sqlite", "There is no file"),
        ("foreign.sqlite", "a database without tasks of litetq"),
    ):
        assert cli.main(["schedule", words[0], file, *words[1:]]) == cli.USAGE
        assert said in capsys.readouterr().err
    assert Path("foreign.sqlite").read_bytes() == before and not Path("missing.sqlite").exists()
