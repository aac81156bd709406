"""Which tasks a command is about: ids, or a filter; what a filter finds is shown first and changed with --yes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli, clock
from litetq.browse import STATES, Browse, Filter
from litetq.cli import console
from litetq.cli.commands import Invocation, one_of, usage
from litetq.cli.opening import named_file, open_file, unknown_task
from litetq.cli.text import Paper, as_json, counted, paper
from litetq.exceptions import LiteTQError
from litetq.rearrange import BATCH

if TYPE_CHECKING:
    from litetq.app import LiteTQ

_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_SAME: Final = {
    "PENDING": "WAITING",
    "STARTED": "RUNNING",
    "CLAIMED": "RUNNING",
    "FAILED": "FAILURE",
    "DONE": "FINISHED",
}
_PREVIEW: Final = 10  # tasks that a dry run shows


def _span(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Read a span of time: 90, 90s, 10m, 2h, 3d, 1w."""
    if value is None:
        return None
    try:
        return seconds_in(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None


def seconds_in(words: str) -> float:
    """Return a span of time in seconds: 90, 90s, 10m, 2h, 3d, 1w. Raises ValueError with a sentence."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z]*)", words.strip().lower())
    if found is None or (found[2] or "s") not in _UNITS:
        raise ValueError(f"{words!r} is no span of time; write 90s, 10m, 2h, 3d or 1w")
    return float(found[1]) * _UNITS[found[2] or "s"]


def _states(context: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(state_named(value) for text in values for value in text.split(",") if value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None


def state_named(value: str) -> str:
    """Read a state: a word of STATES in any case, another one as a program's own in capitals. Raises ValueError with a sentence."""
    word = _SAME.get(value.upper(), value.upper())
    if word not in STATES and value != value.upper():
        near = get_close_matches(word, STATES)
        hint = f"did you mean {near[0].lower()}?" if near else f"there are {', '.join(STATES).lower()}"
        raise ValueError(f"{value!r} is no state; {hint} (a state of your own in capitals)")
    return word


FILTERS: Final[list[Callable[..., Any]]] = [
    click.option(
        "--state", "states", multiple=True, callback=_states, metavar="STATE",
        shell_complete=one_of([state.lower() for state in STATES]),
        help="In this state: waiting, queued, scheduled, blocked, running, retry, success, failure, revoked, dead, "
        "finished, unfinished, or one of your own. May be repeated.",
    ),
    click.option("--name", "names", multiple=True, metavar="NAME", help="Of this name; * and ? are wild. May be repeated."),
    click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="Sent to this queue. May be repeated."),
    click.option("--older", callback=_span, metavar="SPAN", help="Sent longer ago than this: 90s, 10m, 2h, 3d."),
    click.option("--newer", callback=_span, metavar="SPAN", help="Sent within this time."),
    click.option("--text", metavar="TEXT", help="With this text in the arguments."),
]  # fmt: skip
CHANGES: Final[list[Callable[..., Any]]] = [
    click.argument("words", nargs=-1, metavar="[FILE] [ID]..."),
    click.option("--id", "ids", multiple=True, metavar="ID", help="An id, also where it looks like a file."),
    *FILTERS,
    click.option("--all", "all_of_them", is_flag=True, help="All tasks that this can be done to."),
    click.option("--yes", is_flag=True, help="Do it; without this, what a filter finds is only shown."),
    click.option("-j", "--json", "in_json", is_flag=True, help="Print JSON."),
]


def options(*lists: Sequence[Callable[..., Any]]) -> Callable[[Any], Any]:
    """Return a decorator that gives a command the options of these lists, in this order."""

    def decorate(function: Any) -> Any:
        for option in reversed([option for each in lists for option in each]):
            function = option(function)
        return function

    return decorate


def filter_of(said: dict[str, Any]) -> Filter:
    """Take the options of FILTERS out of what was said, and return the filter that they make."""
    now = clock.now()
    older, newer = said.pop("older"), said.pop("newer")
    return Filter(
        tuple(said.pop("states")),
        tuple(said.pop("names")),
        tuple(said.pop("queues")),
        said.pop("text") or None,
        None if older is None else now - older,
        None if newer is None else now - newer,
    )


class Choice:
    """The tasks that a change is about.

    Args:
        verb: the verb with its past participle: ("move", "moved").
        places: where a task must stand for it: of QUEUED, SCHEDULED, BLOCKED, CLAIMED and DONE.
        by_ids: they were named, not found by a filter.
    """

    def __init__(
        self,
        app: LiteTQ,
        verb: tuple[str, str],
        places: frozenset[str],
        paper: Paper,
        *,
        by_ids: bool,
        in_json: bool,
    ) -> None:
        self.app = app
        self.browse = Browse(app.engine.database)
        self.verb, self.done = verb
        self.places = places
        self.paper = paper
        self.by_ids = by_ids
        self.in_json = in_json

    def report(self, facts: Mapping[str, Any], *sentence: str) -> None:
        """Say what was done: as JSON, or as a sentence of these parts, of which empty ones are left out."""
        console.say(as_json(facts) if self.in_json else f"{'; '.join(part for part in sentence if part)}.")

    def known(self, ids: Sequence[str]) -> list[str]:
        """Return the ids; one that the file does not know is a mistake, and then nothing is changed."""
        found = self.browse.by_ids(ids)
        for id in ids:
            if id not in found:
                unknown_task(self.app, id, "nothing was changed")
        return list(ids)

    def matching(self, wanted: Filter, *, all_of_them: bool, yes: bool) -> list[str] | None:
        """Return the ids of what a filter finds, None where they were only shown."""
        if wanted == Filter() and not all_of_them:
            usage(
                f"Which tasks? Give ids, or a filter such as --state, --name, --queue, --older; --all means all to {self.verb}."
            )
        found = dict.fromkeys(id for page in self.browse.ids(wanted) for id, place in page if place in self.places)
        if found and yes:
            return list(found)
        if self.in_json:
            console.say(as_json({"found": len(found), "changed": 0, "ids": list(found)}))
            return None
        if not found:
            console.say(f"No task to {self.verb}.")
            return None
        self._preview(list(found))
        return None

    def _preview(self, ids: list[str]) -> None:
        from litetq.cli.tasks import lines_of

        for line in lines_of(list(self.browse.by_ids(ids[:_PREVIEW]).values()), self.paper):
            console.say(line)
        if len(ids) > _PREVIEW:
            console.say(f"... and {counted(len(ids) - _PREVIEW, 'other')}")
        what = counted(len(ids), "task")
        console.say(f"{what} would be {self.done}. Nothing was changed; with --yes it is done.")

    def each_batch(self, ids: Sequence[str], do: Callable[[Sequence[str]], None]) -> bool:
        """Do it in transactions of some hundred tasks; return False after Ctrl-C, when what was done stands."""
        shows = sys.stderr.isatty() and len(ids) > 10 * BATCH
        done = 0
        try:
            for done in range(0, len(ids), BATCH):
                if shows:
                    sys.stderr.write(f"\r{done:,} of {len(ids):,} ")
                    sys.stderr.flush()
                do(ids[done : done + BATCH])
        except KeyboardInterrupt:
            console.say(f"\nInterrupted: of {len(ids):,} tasks, the first {done:,} were {self.done}.", sys.stderr)
            return False
        except LiteTQError:
            console.say(f"Of {len(ids):,} tasks, the first {done:,} were {self.done}.", sys.stderr)
            raise
        if shows:
            sys.stderr.write("\r\x1b[K")
        return True


def chosen(
    invocation: Invocation,
    said: dict[str, Any],
    verb: tuple[str, str],
    places: frozenset[str],
    do: Callable[[Choice, list[str]], int],
    *,
    check_ids: bool = True,
) -> int:
    """Read what CHANGES said, and do it: to the ids at once, to what a filter finds with --yes.

    Args:
        do: gets the choice and the ids; returns the exit code.
        check_ids: refuse ids that the file does not know.
    """
    file, rest = named_file(invocation, said.pop("words"))
    wanted, given = filter_of(said), [*rest, *said.pop("ids")]
    all_of_them, yes, in_json = said.pop("all_of_them"), said.pop("yes"), said.pop("in_json")
    if given and (wanted != Filter() or all_of_them):
        usage("Give ids or a filter, not both.")
    with open_file(invocation, file) as app:
        sheet = paper(no_color=invocation.no_color)
        choice = Choice(app, verb, places, sheet, by_ids=bool(given), in_json=in_json)
        if given:
            return do(choice, choice.known(given) if check_ids else given)
        found = choice.matching(wanted, all_of_them=all_of_them, yes=yes)
        return cli.OK if found is None else do(choice, found)


def exit_code(finished: bool) -> int:
    return cli.OK if finished else cli.INTERRUPTED
