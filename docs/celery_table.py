"""Every command and option of Celery's command line, and what becomes of it here: the rows of docs/cli-celery.md.

Celery's side is celery-cli.json, taken by celery_cli.py from Celery itself; our side is asked of the commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from litetq.cli import commands
from litetq.cli.amqp import INSTEAD
from litetq.cli.asking import NOT_HERE
from litetq.panel import PANEL

TAKEN: Final = Path(__file__).with_name("celery-cli.json")

WORKS: Final = "works"
WITHOUT_EFFECT: Final = "no effect"
REFUSED: Final = "refused"
LATER: Final = "not yet"

# Where a word of Celery's is not a command of its own here.
_WORDS: Final = {"list bindings": (WORKS, "The queues with the exchange and routing key by which a call finds them.")}


class Row(NamedTuple):
    """A command of Celery's, one of its options, or a command for workers."""

    command: str  # "" for Celery itself; "inspect active"
    spellings: tuple[str, ...]  # of the option; empty: the row is the command
    takes_value: bool
    standing: str
    remark: str


def rows() -> Iterator[Row]:
    """Yield a row for all that Celery's command line has, in its order."""
    taken: dict[str, Any] = json.loads(TAKEN.read_text(encoding="utf-8"))
    for name, facts in taken["commands"].items():
        command = _command(name)
        if name:
            yield Row(name, (), False, *_standing(name, command))
        if command is not None:
            for option in facts["options"]:
                names = tuple(option["names"])
                yield Row(name, names, option["value"], *_standing_of_option(command, names))
        for word in taken.get(name, ()):  # the commands for workers
            yield Row(f"{name} {word}", (), False, *_standing_of_remote(name, word))


def version() -> str:
    return str(json.loads(TAKEN.read_text(encoding="utf-8"))["celery"])


def _command(name: str) -> click.Command | None:
    """Return our command of this name; None: there is none."""
    words = name.split()
    if not words:
        return commands.litetq
    module = commands._MODULES.get(words[0])
    found: Any = None if module is None else import_module(module).command
    for word in words[1:]:
        found = getattr(found, "commands", {}).get(word)
    return found if isinstance(found, click.Command) else None


def _standing(name: str, command: click.Command | None) -> tuple[str, str]:
    if name in _WORDS:
        return _WORDS[name]
    first, _, rest = name.partition(" ")
    if first == "amqp" and rest:
        return REFUSED, INSTEAD[rest]
    if command is None:
        return LATER, ""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return (REFUSED, text.removeprefix("Refused: ")) if text.startswith("Refused") else (WORKS, text)


def _standing_of_option(command: click.Command, names: tuple[str, ...]) -> tuple[str, str]:
    found = max(
        (param for param in command.params if isinstance(param, click.Option)),
        key=lambda option: sum(map(len, {*option.opts, *option.secondary_opts}.intersection(names))),
    )
    if {*found.opts, *found.secondary_opts}.isdisjoint(names):
        return LATER, ""
    text = found.help or ""
    return (WITHOUT_EFFECT, text.removeprefix("Accepted; ")) if text.startswith("Accepted; ") else (WORKS, text)


def _standing_of_remote(kind: str, name: str) -> tuple[str, str]:
    if (kind, name) in NOT_HERE:
        return REFUSED, NOT_HERE[kind, name]
    info = PANEL.get(name)
    return (WORKS, info.help or "") if info is not None and info.kind == kind else (LATER, "")


def page() -> str:
    """Return docs/cli-celery.md."""
    lines = [
        "# Celery's commands",
        "",
        "<!-- Written by `python -m docs.generate` from docs/celery-cli.json and litetq/cli. Do not edit. -->",
        "",
        f"Every command and option of Celery {version()}'s command line, and what `litetq` does with it. A test takes each row.",
        "",
        f"- **{WORKS}**: it does what Celery's does; where it does something else, [differences](differences.md) says so.",
        f"- **{WITHOUT_EFFECT}**: accepted; the reason is told here and, where somebody may rely on it, on stderr.",
        f"- **{REFUSED}**: ends with 2 and one sentence.",
        *([f"- **{LATER}**: not in this version."] if any(row.standing == LATER for row in rows()) else []),
        "",
        "Options of Celery itself may stand before and after the command. `CELERY_WORKER_CONCURRENCY=4` in the environment is",
        "`--concurrency 4` for `litetq worker`, and so on for every option, as with Celery.",
    ]
    heading = None
    for row in rows():
        group = row.command.split(" ")[0]
        if group != heading:
            heading = group
            lines += ["", f"## {f'litetq {group}' if group else 'Options of every command'}", "", *_HEAD]
        what = " ".join((row.command, *row.spellings[:1])) if not row.spellings else ", ".join(row.spellings)
        under = row.command if row.spellings and " " in row.command else ""
        shown = f"`{what.strip()}`" + (f" of `{under}`" if under else "")
        lines.append(f"| {shown} | {row.standing} | {_sentence(row.remark)} |")
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


_HEAD: Final = ("| Celery's | here | |", "|---|---|---|")
