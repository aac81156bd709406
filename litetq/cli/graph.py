"""`litetq graph workers`: workers, the file and the results as a drawing for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from litetq import cli
from litetq.address import mask
from litetq.cli import asking, console
from litetq.cli.commands import Actions, Command, Invocation, usage

if TYPE_CHECKING:
    from litetq.app import LiteTQ

_WORDS: Final = {  # key:value words, as Celery takes them -> what they say
    "nodes": "draw these, not those who answer",
    "threads": "how many tasks at once each of them runs",
    "backend": "where results go",
    "broker": "where tasks are",
    "wmax": "draw so many workers at most (4)",
    "tmax": "draw so many places of a worker at most (3)",
    "generic": "say what kind of place it is, not which",
    "enumerate": "number workers instead of naming them",
}


@click.group(cls=Actions, short_help="Draw the workers for Graphviz.")
def command() -> None:
    """Draw the workers for Graphviz.

    \b
    litetq -A tasks graph workers | dot -Tpng -o workers.png
    """


@command.command("bootsteps", cls=Command)
@click.argument("words", nargs=-1, metavar="[WORD]...")
def bootsteps(words: tuple[str, ...]) -> int:
    """Refused: workers here have no bootsteps; their parts start in one order, told in docs/architecture.md."""
    usage("Workers here have no bootsteps: their parts start in one order (docs/architecture.md). Try: graph workers.")


@command.command("workers", cls=Command)
@click.argument("words", nargs=-1, metavar="[KEY:VALUE]...")
@click.pass_obj
def workers(invocation: Invocation, words: tuple[str, ...]) -> int:
    """Print a graph of the workers that answer, in the language of dot.

    Words as Celery's: nodes:a,b threads:2,3 backend:URL broker:URL wmax:4 tmax:3 generic enumerate.
    """
    said = dict(_said(word) for word in words)
    app = asking.reach(invocation)
    for line in _drawing(app, said):
        console.say(line)
    return cli.OK


def _said(word: str) -> tuple[str, str]:
    key, _, value = word.partition(":")
    if key not in _WORDS:
        usage(
            f"{word!r} says nothing here; there are: {', '.join(f'{name} ({told})' for name, told in _WORDS.items())}."
        )
    return key, value


def _number(said: dict[str, str], key: str, default: int) -> int:
    value = said.get(key, "")
    if value and not value.isdigit():
        usage(f"{key}:{value} must be a whole number, like {key}:{default}.")
    return int(value) if value else default


def _sizes(app: LiteTQ, said: dict[str, str]) -> dict[str, int]:
    """Return how many tasks at once each worker runs; 0 where that is not said."""
    if "nodes" in said:
        sizes = [int(text) if text.isdigit() else 0 for text in said.get("threads", "").split(",")]
        names = said["nodes"].split(",")
        return dict(zip(names, sizes + [0] * len(names), strict=False))
    replies = app.control.inspect().stats() if asking.has_file(app) else None
    return {name: reply["pool"]["max-concurrency"] for name, reply in (replies or {}).items()}


def _drawing(app: LiteTQ, said: dict[str, str]) -> Iterator[str]:
    sizes = _sizes(app, said)
    broker = _place(said.get("broker") or mask(app.broker_address.text), "Broker", said)
    results = _place(said.get("backend") or mask(app.result_address.text), "Backend", said)
    if results == broker:
        results += " (results)"
    yield "digraph dependencies {"
    yield '    graph [fontname="Helvetica"]'
    yield f'    {_quoted(broker)} [shape="cylinder", style="filled", fillcolor="cadetblue3"]'
    yield f'    {_quoted(results)} [shape="folder", style="filled", fillcolor="peachpuff3"]'
    names = sorted(sizes)
    for number, name in enumerate(_abridged(names, _number(said, "wmax", 4)), 1):
        shown = f"Worker {number}" if "enumerate" in said else name
        yield f'    {_quoted(shown)} [shape="box", style="filled", fillcolor="palegreen3"]'
        yield f"    {_quoted(shown)} -> {_quoted(broker)}"
        yield f"    {_quoted(shown)} -> {_quoted(results)}"
        places = [str(place) for place in range(sizes.get(name, 0))]
        for place in _abridged(places, _number(said, "tmax", 3)):
            yield f'    {_quoted(f"{shown}/{place}")} [shape="oval", label={_quoted(place)}]'
            yield f'    {_quoted(f"{shown}/{place}")} -> {_quoted(shown)} [arrowhead="none", arrowtail="tee"]'
    yield "}"


def _place(address: str, kind: str, said: dict[str, str]) -> str:
    return f"{kind} ({address.partition('://')[0] if '://' in address else 'file'})" if "generic" in said else address


def _abridged(names: list[str], most: int) -> list[str]:
    """Return no more than `most` names: the first ones, an ellipsis, and the last one; 0 is all."""
    if not most or len(names) <= most:
        return names
    return [*names[: max(0, most - 2)], "…", names[-1]]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
