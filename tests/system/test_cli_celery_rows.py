"""Every row of docs/cli-celery.md: each command and option of Celery's command line is taken, or refused with a sentence.

That an option does what Celery's does is shown beside its command: test_cli_call, _asking, _events, _small, _migrate, _worker,
_beat and others.
"""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from docs import celery_table
from docs.celery_table import LATER, REFUSED, WITHOUT_EFFECT, Row
from litetq import cli
from litetq.cli import commands
from litetq.panel import PANEL

ROWS = list(celery_table.rows())

# A value that each option takes, where it does not take "1".
VALUES = {
    "-a": '["x"]',
    "-k": '{"x": 1}',
    "--eta": "2034-05-06T07:08:09",
    "-l": "info",
    "-P": "solo",
    "--umask": "022",
    "-O": "fair",
    "--autoscale": "10,3",
}
# The arguments that a command cannot do without.
ARGUMENTS = {
    "call": ["name"], "inspect": ["ping"], "control": ["shutdown"], "result": ["id"], "upgrade settings": ["file"],
    "migrate": ["a.sqlite", "b.sqlite"], "list bindings": [], "": ["report"],
}  # fmt: skip


def shown(row: Row) -> str:
    return " ".join(["litetq", row.command, *row.spellings]).replace("  ", " ")


def test_nothing_of_celerys_is_missing() -> None:
    assert [row for row in ROWS if row.standing == LATER] == []
    assert len(ROWS) > 150
    assert all(row.remark for row in ROWS)


@pytest.mark.parametrize("row", [row for row in ROWS if row.spellings], ids=shown)
def test_every_spelling_of_an_option_is_taken(row: Row) -> None:
    command = celery_table._command(row.command)
    assert command is not None
    value = next((VALUES[name] for name in row.spellings if name in VALUES), "1")
    if "--json" in row.spellings or "--version" in row.spellings or "--list" in row.spellings:
        value = ""
    for spelling in row.spellings:
        arity = commands.arity(command.params)
        assert arity[spelling] == row.takes_value, spelling
        words = [spelling, *([value] if row.takes_value else []), *ARGUMENTS.get(row.command, [])]
        context = click.Context(command, obj=commands.Invocation())
        context.resilient_parsing = row.spellings[0] in ("--version", "--list")  # these two end the command at once
        command.parse_args(context, words)


@pytest.mark.parametrize("row", [row for row in ROWS if row.standing == REFUSED], ids=shown)
def test_what_is_refused_ends_with_2_and_a_sentence(row: Row, db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from litetq import LiteTQ

    with LiteTQ("tasks", broker=db, set_as_current=False) as app:
        app.engine.store.set_meta("some", "thing")
        assert cli.main(["-b", str(db), *row.command.split()]) == cli.USAGE
    said = capsys.readouterr()
    assert said.out == "" and "Error: " in said.err and "Traceback" not in said.err


# Whoever gives these gets what he wants without them.
SILENT = {"--without-gossip", "--without-mingle"}


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.standing == WITHOUT_EFFECT and row.spellings[-1] not in SILENT], ids=shown
)
def test_an_option_without_effect_says_so(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    value = next((VALUES[name] for name in row.spellings if name in VALUES), "1")
    words = [row.spellings[-1], *([value] if row.takes_value else [])]
    # There is no app and no task here: the command ends behind its note.
    assert cli.main([*(row.command or "report").split(), *ARGUMENTS.get(row.command or "-", []), *words]) == cli.USAGE
    assert "note: no effect here of " in capsys.readouterr().err


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.command.split()[:1] in (["inspect"], ["control"])], ids=shown
)
def test_every_command_for_workers_is_known(row: Row) -> None:
    kind, _, name = row.command.partition(" ")
    if name and row.standing != REFUSED:
        assert PANEL[name].kind == kind and PANEL[name].visible


@pytest.mark.parametrize(
    "name", sorted({row.command for row in ROWS if row.standing != LATER and " " not in row.command})
)
def test_help_needs_no_app_and_no_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    below = getattr(celery_table._command(name), "commands", {}) if name else {}
    for words in ([name], *([name, word] for word in below)):
        assert cli.main([*filter(None, words), "--help"]) == cli.OK
        said = capsys.readouterr()
        assert said.out.startswith(f"Usage: litetq {' '.join(words)}".rstrip()) and said.err == ""
    assert list(tmp_path.iterdir()) == []
