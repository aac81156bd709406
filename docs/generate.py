"""Write docs/settings.md, docs/cli.md, docs/cli-celery.md and docs/celery-names.md from the code: `python -m docs.generate` at the root of the repository.

Which settings take effect is not a matter of opinion: a setting counts as working when a room of litetq reads it. So the
pages change with the code, and tests/docs/test_generated.py fails until they are written again.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from docs import celery_names, celery_table
from litetq import cli, conf
from litetq.cli import commands

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"

WORKS: Final = "works"
LATER: Final = "not yet"
WITHOUT_EFFECT: Final = "no effect"
WITH_SERVER: Final = "needs a server"

# Read somewhere, yet not to be called working without a word.
_REMARKS: Final = {
    "timezone": (WORKS, "for `app.now()`; log lines show local time"),
    "enable_utc": (WORKS, "for `app.now()`"),
    "cache_backend": (WORKS, "django-celery-results reads it"),
    "worker_concurrency": (WORKS, "`litetq worker` only; `run_embedded` takes an argument"),
    "worker_pool": (WORKS, "`litetq worker` only; `run_embedded` takes an argument"),
}

# What the help of an option does not say yet.
_OPTION_REMARKS: Final[dict[str, str]] = {}

_GROUPS: Final = {  # heading -> beginnings of names, the first that fits counts
    "litetq's own": ("litetq_",),
    "General": ("accept_content", "enable_utc", "imports", "include", "timezone", "override_backends"),
    "Broker": ("broker_",),
    "Results": ("result_",),
    "Tasks": ("task_",),
    "Workers": ("worker_",),
    "Schedule (beat)": ("beat_",),
    "Events and remote control": ("event", "control_"),
    "Signed messages": ("security_",),
    "Redis, SQL database and cache as result stores": ("redis_", "database_", "cache_"),
    "Result stores that litetq does not have": ("",),
}


def main() -> int:
    """Write the pages."""
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8", newline="\n")
    return 0


def pages() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {
        "settings.md": settings_page(),
        "cli.md": cli_page(),
        "cli-celery.md": celery_table.page(),
        "celery-names.md": celery_names.page(),
    }


# -- settings --------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    standing = {key: standing_of(key, option) for key, option in conf.OPTIONS.items()}
    count = {word: sum(word == found for found, _ in standing.values()) for word in (WORKS, LATER)}
    lines = [
        "# Settings",
        "",
        "<!-- Written by `python -m docs.generate` from litetq/conf.py. Do not edit. -->",
        "",
        "Every setting of Celery 5.7 can be given, so a configuration module that Celery reads is read here too. How to give",
        "them, and which of several places wins, is told in [configuration](guide/configuration.md).",
        "",
        f"- **{WORKS}** ({count[WORKS]}): some part of litetq obeys it.",
        f"- **{LATER}** ({count[LATER]}): it is meant to be obeyed and is accepted, but nothing in this version looks at it.",
        f"- **{WITHOUT_EFFECT}**: accepted for ever and without effect; the meaning says why.",
        f"- **{WITH_SERVER}**: concerns a broker, or a place of results, that is a server: see [engines](engines.md).",
        "",
        "Seconds may be given as a number or as a `timedelta`.",
    ]
    for heading, keys in _grouped():
        lines += ["", f"## {heading}", "", "| setting | default | value | meaning | today |", "|---|---|---|---|---|"]
        for key in keys:
            option = conf.OPTIONS[key]
            word, remark = standing[key]
            today = f"**{word}**" if word == WORKS else word
            cells = (
                f"`{key}`",
                f"`{option.default!r}`",
                conf.KINDS[option.kind],
                option.meaning,
                f"{today}: {remark}" if remark else today,
            )
            lines.append(f"| {' | '.join(_cell(text) for text in cells)} |")
    lines += _spellings()
    return "\n".join(lines) + "\n"


def standing_of(key: str, option: conf.Option) -> tuple[str, str]:
    """Return what becomes of a setting in this version, and a remark."""
    if key in _REMARKS:
        return _REMARKS[key]
    if option.effect == conf.ACCEPTED:
        return WITHOUT_EFFECT, ""
    if option.effect == conf.ADAPTER:
        return WITH_SERVER, ""
    if option.effect == conf.LATER:
        return LATER, ""
    return (WORKS if key in read_settings() else LATER), ""


_read: set[str] = set()


def read_settings() -> set[str]:
    """Return the settings that litetq's source reads: as `conf.<name>`, or as the attribute of a task that follows one."""
    if not _read:
        following: dict[str, str] = {}  # attribute of a task -> setting
        attributes: set[str] = set()
        for tree in _sources():
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    attributes.add(node.attr)
                    if _name_of(node.value) == "conf" and node.attr in conf.OPTIONS:
                        _read.add(node.attr)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
                    if _name_of(node.value.func) == "FromSetting" and isinstance(node.target, ast.Name):
                        setting = node.value.args[0]
                        assert isinstance(setting, ast.Constant)
                        following[node.target.id] = str(setting.value)
        _read.update(setting for attribute, setting in following.items() if attribute in attributes)
    return _read


def _sources() -> Iterator[ast.Module]:
    for path in sorted((ROOT / "litetq").rglob("*.py")):
        if path.name != "conf.py":
            yield ast.parse(path.read_text(encoding="utf-8"))


def _name_of(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _grouped() -> Iterator[tuple[str, list[str]]]:
    rest = list(conf.OPTIONS)
    for heading, beginnings in _GROUPS.items():
        yield heading, sorted(key for key in rest if key.startswith(beginnings))
        rest = [key for key in rest if not key.startswith(beginnings)]


def _spellings() -> list[str]:
    lines = [
        "",
        "## Old names",
        "",
        "Celery's upper-case names from before version 4 are understood too, as long as one source keeps to one spelling.",
        "",
        "| old name | setting |",
        "|---|---|",
    ]
    return lines + [f"| `{old}` | `{key}` |" for old, key in sorted(conf.TO_NEW.items())]


# -- command line ----------------------------------------------------------------------------------------------------


def cli_page() -> str:
    shared = commands.shared_options()
    lines = [
        "# Command line",
        "",
        "<!-- Written by `python -m docs.generate` from litetq/cli. Do not edit. -->",
        "",
        "`litetq COMMAND` and `python -m litetq COMMAND` are the same.",
        "",
        "Options of every command may stand before and after the command's name; options of a command may stand before its",
        "name too.",
        "",
        "## Commands",
        "",
        "| command | what it does |",
        "|---|---|",
    ]
    found = {name: import_module(module).command for name, module in commands._MODULES.items()}
    lines += [f"| [`{name}`](#litetq-{name}) | {_cell(_paragraphs(it)[0])} |" for name, it in found.items()]
    for name, command in found.items():
        lines += ["", f"## litetq {name}", "", f"    {_usage(name, command)}", ""]
        for paragraph in _paragraphs(command):
            lines += [paragraph, ""]
        lines += _own_options(command)
        below = getattr(command, "commands", {})
        tables = {sub_name: _own_options(sub) for sub_name, sub in below.items()}
        each = _common(list(tables.values()))
        lines += (
            ["", f"Options of its commands{'' if all(tables.values()) else ', where they have any'}:", "", *each]
            if each
            else []
        )
        for sub_name, sub in below.items():
            lines += ["", f"### litetq {name} {sub_name}", "", f"    {_usage(f'{name} {sub_name}', sub)}", ""]
            lines += [*_paragraphs(sub), ""]
            lines += tables[sub_name] if not each else []
    lines += ["", "## Options of every command", "", *_option_table(shared)]
    lines += ["", "## Exit codes", "", *(line for line in (cli.__doc__ or "").splitlines() if line.startswith("|"))]
    return "\n".join(lines) + "\n"


def _own_options(command: click.Command) -> list[str]:
    own = [param for param in command.own_params if isinstance(param, click.Option)]  # type: ignore[attr-defined]
    return _option_table(own) if own else []


def _common(tables: list[list[str]]) -> list[str]:
    """Return the one table of options that several commands have; nothing where they differ."""
    found = [table for table in tables if table]
    return found[0] if len(found) > 2 and all(table == found[0] for table in found) else []


def _usage(name: str, command: click.Command) -> str:
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    return " ".join(
        ["litetq", name, "[OPTIONS]", *(str(argument.make_metavar(click.Context(command))) for argument in arguments)]
    )


def _paragraphs(command: click.Command) -> list[str]:
    """Return the command's help: paragraphs on one line each, examples (marked by click's \\b) as code."""
    texts = []
    for paragraph in (command.help or "").split("\n\n"):
        lines = [line.rstrip() for line in paragraph.strip("\n").splitlines()]
        if lines and lines[0].strip() == "\b":
            texts.append("\n".join(["```text", *(line.strip() for line in lines[1:] if line.strip()), "```"]))
        else:
            texts.append(" ".join(line.strip() for line in lines).strip())
    return texts


def _option_table(options: list[click.Option]) -> list[str]:
    lines = ["| option | meaning |", "|---|---|"]
    for option in options:
        names = ", ".join((*option.opts, *option.secondary_opts))
        value = _value_name(option)
        meaning = next((text for name, text in _OPTION_REMARKS.items() if name in option.opts), option.help or "")
        lines.append(f"| `{_cell(f'{names} {value}'.strip())}` | {_cell(meaning)} |")
    return lines


def _value_name(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return f"[{'|'.join(map(str, option.type.choices))}]"
    return str(option.metavar or "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def differing(found: Mapping[str, str]) -> list[str]:
    """Return the names of those of these pages that are not what lies in docs/."""
    return [name for name, text in found.items() if _written(name) != text]


def _written(name: str) -> Any:
    path = DOCS / name
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
