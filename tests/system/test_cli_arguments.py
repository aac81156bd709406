"""What the command line accepts, in which order, and what it says to a mistake: one sentence, exit code 2."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from litetq import cli
from litetq.cli import commands
from litetq.cli.commands import Invocation
from litetq.cli.nodes import fill_path, node_name

Words = tuple[str, ...]


class Said:
    """What the line came to, for one command that only looks at it."""

    invocation: Invocation
    options: dict[str, object]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run `worker` up to the point where it would begin to work."""
    from litetq.cli import worker

    seen = Said()

    def look(invocation: Invocation, **options: object) -> int:
        seen.invocation, seen.options = invocation, options
        return cli.OK

    monkeypatch.setattr(worker.command, "callback", click.pass_obj(look))
    return seen


@pytest.mark.parametrize(
    "line",
    [
        "-A tasks.app worker -l INFO",
        "worker -A tasks.app -l INFO",
        "worker -l INFO -A tasks.app",
        "--app tasks.app worker --loglevel INFO",
        "--app=tasks.app worker --loglevel=INFO",
        "-Atasks.app worker -lINFO",
        "-l INFO -A tasks.app worker",
        "-A tasks.app -l INFO worker",
        "-A wrong worker -A tasks.app -l info",
        "-A tasks.app worker  -l Info",
    ],
)
def test_options_may_stand_before_and_after_the_command(said: Said, line: str) -> None:
    assert cli.main(line.split()) == cli.OK
    assert said.invocation.app == "tasks.app"
    assert said.options["loglevel"] == "INFO"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-qA tasks worker", {"quiet": True, "app": "tasks"}),
        ("worker -qC -A tasks", {"quiet": True, "no_color": True, "app": "tasks"}),
        ("-C worker -q", {"quiet": True, "no_color": True}),
        ("-b a.sqlite worker", {"broker": "a.sqlite"}),
        ("worker -b a.sqlite --result-backend b.sqlite", {"broker": "a.sqlite", "result_backend": "b.sqlite"}),
        ("--config settings --loader app worker --skip-checks", {"config": "settings", "skip_checks": True}),
        ("-A worker worker", {"app": "worker"}),
    ],
)
def test_shared_options_mean_the_same_in_both_places(said: Said, line: str, expected: dict[str, object]) -> None:
    assert cli.main(line.split()) == cli.OK
    assert {name: getattr(said.invocation, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-c 4 worker jobs.sqlite", {"concurrency": 4, "file": "jobs.sqlite"}),
        ("--concurrency=4 -P threads worker", {"concurrency": 4, "pool": "threads"}),
        ("--drain -Q a,b worker jobs.sqlite", {"drain": True, "queues": ("a", "b"), "file": "jobs.sqlite"}),
        ("worker -P prefork -X c", {"pool": "prefork", "exclude_queues": ("c",)}),
        ("worker --discard --events -I m,n", {"purge": True, "events": True, "include": ("m", "n")}),
        ("worker --without-gossip --without-mingle --without-heartbeat -E -O fair", {"optimization": "fair"}),
        ("worker -n w1@%h -f log.txt --pidfile p", {"hostname": "w1@%h", "logfile": "log.txt", "pidfile": "p"}),
    ],
)
def test_options_of_the_worker_may_stand_before_its_name_too(
    said: Said, line: str, expected: dict[str, object]
) -> None:
    assert cli.main(line.split()) == cli.OK
    assert {name: said.options[name] for name in expected} == expected


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL", "info", "Fatal"])
def test_every_level_is_taken_in_any_case(said: Said, level: str) -> None:
    assert cli.main(["worker", "-l", level]) == cli.OK
    assert said.options["loglevel"] == level.upper()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-A  worker -l info -P threads", ["name of the app is missing after -A", "litetq -A tasks worker"]),
        ("-A worker", ["name of the app is missing after -A"]),
        ("-A worker jobs.sqlite", ["name of the app is missing after -A"]),
        ("-A", ["name of the app is missing after -A"]),
        ("worker -A", ["name of the app is missing after -A"]),
        ("worker -A -l INFO", ["name of the app is missing after -A", "'-l' came instead"]),
        ("wrker", ["No such command 'wrker'", "Did you mean 'worker'?"]),
        ("xyz", ["No such command 'xyz'", "There are: worker, beat, "]),
        ("-A tasks", ["Missing command"]),
        ("stop w1", ["No such command 'stop'. Did you mean 'multi stop'?"]),
        ("ping", ["Did you mean 'inspect ping'?"]),
        ("pause", ["Did you mean 'schedule pause' or 'queue pause'?"]),
        ("queue", ["Which command? There are: list, pause, resume, purge."]),
        ("-b x.sqlite schedule", ["Which command? There are: list, add,"]),
        ("-c 4", ["'-c' belongs to a command, and none was given"]),
        ("worker --concurency 3", ["No such option '--concurency'", "--concurrency"]),
        ("--concurency 3 worker", ["No such option '--concurency'", "--concurrency"]),
        ("worker --pol threads", ["No such option '--pol'", "--pool"]),
        ("worker -P gvent", ["'gvent' is not one of 'prefork', 'processes', 'threads', 'solo'", "module:Class"]),
        ("worker -l LOUD", ["'LOUD' is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL, FATAL"]),
        ("worker -l", ["'-l' requires an argument"]),
        ("worker -c 0", ["'0' is not a number from 1 up"]),
        ("worker -c many", ["'many' is not a number from 1 up"]),
        ("worker -Q a,,b", ["'a,,b' has an empty name in it"]),
        ("worker one.sqlite two.sqlite", ["unexpected extra argument", "two.sqlite"]),
        ("worker --prefetch-multiplier x", ["'x' is not a valid integer"]),
        ("worker -O quick", ["'quick' is not one of 'default', 'fair'"]),
        ("--workdir /no/such/directory worker", ["--workdir", "cannot go to '/no/such/directory'"]),
        ("worker jobs.sqlite -b other.sqlite", ["FILE ('jobs.sqlite') and -b ('other.sqlite')", "give one"]),
        ("demo --resume somewhere", ["leave DIR out"]),
        ("demo no/such/directory", ["'no/such/directory' is not a directory"]),
        ("demo --resume", ["no interrupted demo here", "litetq demo"]),
    ],
)
def test_a_mistake_gets_one_sentence_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == cli.USAGE
    printed = capsys.readouterr()
    sentence = printed.err.strip().splitlines()[-1]
    assert sentence.startswith("Error: ") and "Traceback" not in printed.err
    assert all(word in sentence for word in words), sentence
    assert os.listdir(tmp_path) == []


def test_every_command_stands_below_a_heading_with_a_whole_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([]) == cli.OK
    shown = capsys.readouterr().out
    assert all(f"\n{heading}:\n  {name}" in shown for name, heading in commands._HEADINGS.items())
    assert next(iter(commands._HEADINGS)) == next(iter(commands._MODULES))
    for line in ([], *([name] for name in ("schedule", "queue", "dead", "multi", "logtool", "graph", "upgrade"))):
        assert cli.main([*line, "--help"]) == cli.OK
        assert "..." not in capsys.readouterr().out.replace("ARGS]...", ""), line


@pytest.mark.parametrize(
    "line",
    ["--help", "-h", "", "worker --help", "report --help", "demo --help", "worker -h", "help", "help queue list"],
)
def test_help_needs_no_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == cli.OK
    out = capsys.readouterr().out
    assert out.startswith("Usage: litetq") and "--app" in out


def test_the_help_of_the_worker_lists_its_options_first(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["worker", "--help"])
    out = capsys.readouterr().out
    assert out.index("--concurrency") < out.index("Options of every command") < out.index("--broker")


@pytest.mark.parametrize("line", ["--version", "worker --version"])
def test_the_version_is_printed(capsys: pytest.CaptureFixture[str], line: str) -> None:
    from litetq import __version__

    assert cli.main(line.split()) == cli.OK
    assert capsys.readouterr().out.strip() == __version__


def test_the_working_directory_is_entered_before_the_file_is_looked_for(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    Invocation(workdir=str(tmp_path)).enter()
    assert Path.cwd() == tmp_path


def test_what_the_shared_options_said_is_handed_on_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CELERY_CONFIG_MODULE", "CELERY_LOADER", "CELERY_SKIP_CHECKS"):
        monkeypatch.setenv(name, "before")
    Invocation(config="settings", skip_checks=True).enter()
    assert [os.environ[name] for name in ("CELERY_CONFIG_MODULE", "CELERY_LOADER", "CELERY_SKIP_CHECKS")] == [
        "settings",
        "before",
        "true",
    ]


@pytest.mark.row("8.node names")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "celery@box.example.org"),
        ("w1", "w1@box.example.org"),
        ("w1@%h", "w1@box.example.org"),
        ("w1@%n", "w1@box"),
        ("w1.%n@%d", "w1.box@example.org"),
        ("50%%@%x", "50%@%x"),
    ],
)
def test_node_names_are_filled_in_as_celery_does(text: str | None, expected: str) -> None:
    assert node_name(text, "box.example.org") == expected


@pytest.mark.row("8.node names")
def test_paths_are_filled_in_with_parts_of_the_node_name() -> None:
    assert fill_path("/v/%n%I.%p.%h.%i.log", "w1@box") == "/v/w1.w1@box.box.0.log"
    assert fill_path("/v/%n%I.%i.log", "w1@box", "7") == "/v/w1-7.7.log"


def test_every_command_has_a_module_and_a_line_of_help() -> None:
    context = click.Context(commands.litetq)
    for name in commands.litetq.list_commands(context):
        command = commands.litetq.get_command(context, name)
        assert command is not None and command.get_short_help_str()
