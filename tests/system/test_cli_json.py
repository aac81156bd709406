"""JSON on request: commands whose output is told elsewhere as words; each line is an object."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from litetq import LiteTQ, cli
from litetq.cli import commands
from tests.conftest import RunPython

LONG = 60.0  # seconds
TASKS = """
from litetq import LiteTQ
app = LiteTQ("tasks", broker="jobs.sqlite", broker_transport_options={"password": "secret"})

@app.task
def add(x, y):
    return x + y
"""

Say = Callable[..., list[Any]]


@pytest.fixture
def say(run_python: RunPython, tmp_path: Path) -> Say:
    """Run a command, and return the objects that it prints."""
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")

    def run(*words: str, code: int = cli.OK) -> list[Any]:
        process = run_python("-m", "litetq", *words, "-j")
        out, err = process.communicate(timeout=LONG)
        assert process.returncode == code, err
        return [json.loads(line) for line in out.splitlines()]

    return run


@pytest.mark.system
def test_changes_of_the_schedule_are_told_as_json(say: Say) -> None:
    [added] = say("-A", "tasks", "schedule", "add", "mine\x1b[2J", "tasks.add", "--every", "60", "--args", "[1, 2]")
    assert (added["name"], added["task"], added["words"]) == ("mine\x1b[2J", "tasks.add", "every minute")
    assert added["due_at"].endswith("+00:00")
    file = ("-b", "jobs.sqlite", "schedule")
    assert [entry["paused"] for entry in say(*file, "pause", added["name"])] == [1]
    assert [entry["paused"] for entry in say(*file, "resume", added["name"])] == [0]
    assert [entry["words"] for entry in say("-A", "tasks", "schedule", "edit", added["name"], "--every", "30")] == [
        "every 30 seconds"
    ]
    [run] = say(*file, "run-now", added["name"])
    assert run["name"] == added["name"] and len(run["id"]) == 36
    assert say(*file, "list")[0]["name"] == added["name"]
    assert say(*file, "remove", added["name"]) == [{"removed": added["name"]}]


@pytest.mark.system
def test_a_report_as_json_hides_passwords_as_the_one_in_words_does(say: Say) -> None:
    [report] = say("-A", "tasks", "report")
    assert report["broker"] == {"address": "jobs.sqlite", "from": "the app's constructor"}
    assert report["settings"]["broker_transport_options"] == {"password": "********"}
    assert report["unknown"] == []


@pytest.mark.system
def test_watch_tells_each_change_and_migrate_each_task(say: Say, db: Path) -> None:
    with LiteTQ("tasks", broker=db, set_as_current=False) as app:
        good, bad = app.send_task("tasks.add", (1, 2)), app.send_task("tasks.add", (1,))
        other = db.with_name("other.sqlite")
        carried = say("migrate", str(db), str(other))
        assert carried == [
            *({"id": sent.id, "name": "tasks.add", "queue": "celery"} for sent in (good, bad)),
            {"migrated": 2, "stayed": 0, "why": {}},
        ]
        app.task(name="tasks.add")(lambda x, y: x + y)
        with app.run_embedded(concurrency=1):
            assert say("watch", str(db), good.id)[-1] == {
                "total": 1,
                "done": 1,
                "failed": 0,
                "running": 0,
                "waiting": 0,
            }
            assert say("watch", str(db), bad.id, code=cli.FAILED)[-1]["failed"] == 1


# What these print is no table: a program's own output, scripts, pictures, the log of other programs, or one line a node.
WORDS_ONLY = {
    "worker", "beat", "demo", "exec", "monitor", "flower", "shell", "completion", "amqp", "upgrade settings",
    "graph workers", "graph bootsteps", "logtool traces", "logtool errors", "logtool incomplete", "logtool debug",
    *(f"multi {verb}" for verb in "start restart stop stopwait kill show names expand get help".split()),
}  # fmt: skip


def test_every_command_that_tells_facts_tells_them_as_json_on_request() -> None:
    lacking = set()
    for name, module in commands._MODULES.items():
        command = import_module(module).command
        below: dict[str, click.Command] = getattr(command, "commands", {"": command})
        for verb, each in below.items():
            if "--json" not in commands.arity(each.params):
                lacking.add(f"{name} {verb}".strip())
    assert lacking == WORDS_ONLY
