r"""The line of `litetq multi`: which nodes it names, and the command that starts each; nothing is written or started here.

3 -A tasks -c 4 -c:2 8 -Q:1,3 mail --pidfile=/run/%n.pid jobs.sqlite -- more
|          |    |      |           |                     |              \ words for each, as they are
|          |    |      |           |                     \ FILE of each
|          |    |      |           \ %n %N name, %h name@host, %d host, %p as %h; %i and %I are left to the worker
|          |    |      \ for the nodes 1 and 3; also 1-3, names, and lists of these
|          |    \ for the node 2, instead
|          \ for all
\ so many nodes, celery1 to celery3; or names
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from litetq.address import FILE_ENDINGS
from litetq.cli.commands import arity, shared_options, usage
from litetq.cli.nodes import fill_path, node_name
from litetq.cli.pidfile import living

if TYPE_CHECKING:
    import psutil

# What is said of the nodes and not to them.
OF_NODES: Final = ("--cmd", "--append", "--prefix", "--suffix", "--range-prefix", "-n", "--hostname")
_ALL: Final = ""
_RANGE: Final = re.compile(r"(\d+)-(\d+)")


class Option(NamedTuple):
    """An option for the workers."""

    whose: str  # "" all; "2", "1-3", "mail", "mail@host"
    flag: str
    value: str | None  # None: it takes none


@dataclass
class Line:
    """A line, read and not yet understood."""

    names: list[str] = field(default_factory=list)
    file: str | None = None
    options: list[Option] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)  # "--" and what follows


class Node(NamedTuple):
    """A worker that may run."""

    name: str  # name@host
    executable: str
    words: tuple[str, ...]  # what the executable gets
    pid_path: Path
    log_path: Path  # of its main process
    workdir: Path
    owner: tuple[str | None, str | None]  # user and group that it will be

    @property
    def short_name(self) -> str:
        return self.name.partition("@")[0]

    @property
    def shown(self) -> str:
        """The command as a person types it."""
        return shown((self.executable, *self.words))

    def process(self) -> psutil.Process | None:
        """Return its process, None where it does not run."""
        return living(self.pid_path, self.name)

    def filled(self, text: str) -> str:
        return _fill(text, _letters(self.name))


def shown(words: Sequence[str]) -> str:
    """Return words as a person types them."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


# -- reading -------------------------------------------------------------------------------------------------------


def read(words: Sequence[str]) -> Line:
    """Take a line apart. An option that no worker knows takes the next word, unless that begins with a hyphen, as in Celery."""
    known = _known()
    line, rest = Line(), [word for word in words if word]
    while rest:
        word = rest.pop(0)
        if word == "--":
            line.rest = [word, *rest]
            break
        if word.startswith("-") and word != "-":
            line.options.append(_option(word, rest, known))
        elif _looks_like_file(word):
            if line.file is not None:
                usage(f"Both {line.file!r} and {word!r} look like a file of tasks; give one.")
            line.file = word
        else:
            line.names.append(word)
    return line


def _known() -> dict[str, bool]:
    """Return the spellings of a worker's options, and whether they take a value."""
    from litetq.cli import worker

    return {**arity(worker.command.params), **dict.fromkeys(OF_NODES, True)}


def _looks_like_file(word: str) -> bool:
    """As elsewhere FILE does, except that a node may be called as a file in this directory is."""
    separators = ["/", *filter(None, [os.sep, os.altsep])]
    named_so = any(separator in word for separator in separators) or word.lower().endswith(FILE_ENDINGS)
    return named_so and "@" not in word


def _option(word: str, rest: list[str], known: Mapping[str, bool]) -> Option:
    """Read an option; its value is taken from the rest, where it is not in the word."""
    value: str | None = None
    if word.startswith("--"):
        flag, is_given, value = word.partition("=")
        flag, _, whose = flag.partition(":")
        if is_given:
            return Option(whose, flag, value)
    else:
        flag, _, whose = word.partition(":")
        if len(flag) > 2 and known.get(flag[:2]):  # -c4
            return Option(_ALL, word[:2], word[2:])
    takes_value = known.get(flag)
    if takes_value and not rest:
        usage(f"{word} wants a value behind it, and the line ends there.")
    if takes_value or (takes_value is None and rest and not rest[0].startswith("-")):
        return Option(whose, flag, rest.pop(0))
    return Option(whose, flag, None)


# -- understanding -------------------------------------------------------------------------------------------------


def nodes(line: Line, note: Callable[[str], object]) -> list[Node]:
    """Return the nodes that a line names; what it says of nodes that it does not name is noted."""
    if not line.names:
        usage("Which nodes? Give how many, or their names:  litetq multi start 3 -A tasks")
    said = {option.flag: option.value or "" for option in line.options if option.flag in OF_NODES}
    is_count = len(line.names) == 1 and line.names[0].isdecimal()
    names = [str(number + 1) for number in range(int(line.names[0]))] if is_count else line.names
    if not names:
        usage("0 nodes are none; give how many, or their names:  litetq multi start 3 -A tasks")
    prefix = (said.get("--range-prefix") or "celery") if is_count else said.get("--prefix", "")
    suffix = said.get("--suffix") or said.get("--hostname") or said.get("-n")
    suffix = None if suffix in ('""', "''") else suffix
    full = [_full_name(name, prefix, suffix) for name in names]
    chosen: list[list[Option]] = [[option for option in line.options if option.whose == _ALL] for _ in names]
    for option in line.options:
        if option.whose != _ALL:
            for place in _places(option, names, full, note):
                chosen[place].append(option)
    return [_node(name, options, line, said) for name, options in zip(full, chosen, strict=True)]


def _full_name(name: str, prefix: str, suffix: str | None) -> str:
    if "@" in name:
        return node_name(name)
    return node_name(f"{prefix}{name}" if suffix is None else f"{prefix}{name}@{suffix}")


def _places(option: Option, names: list[str], full: list[str], note: Callable[[str], object]) -> Iterator[int]:
    """Yield the places of the nodes that an option is for."""
    written = f"{option.flag}:{option.whose}"
    for part in option.whose.split(","):
        short = [name.partition("@")[0] for name in full]
        named = [place for place, each in enumerate(names) if part in (each, short[place], full[place])]
        found = _RANGE.fullmatch(part)
        if named:
            yield from named
        elif part.isdecimal():
            if not 1 <= int(part) <= len(names):
                usage(f"{written}: there is no node {part}; they are counted from 1 to {len(names)}.")
            yield int(part) - 1
        elif found is not None:
            yield from range(max(1, int(found[1])) - 1, min(int(found[2]), len(names)))
        else:
            note(f"note: {written} is for no node of this line ({', '.join(names)})")


def _node(name: str, options: list[Option], line: Line, said: Mapping[str, str]) -> Node:
    letters = _letters(name)
    values = {option.flag: option.value for option in options if option.flag not in (*OF_NODES, "-D", "--detach")}
    values = {flag: None if value is None else _fill(value, letters) for flag, value in values.items()}
    pid_file = values.pop("-p", None) or values.pop("--pidfile", None) or _fill("%n.pid", letters)
    log_file = values.pop("-f", None) or values.pop("--logfile", None) or _fill("%n%I.log", letters)
    executable = values.pop("--executable", None) or sys.executable
    folder = os.path.expanduser(values.get("--workdir") or "")
    if folder:
        values["--workdir"] = folder
    own = {**values, "-n": name, "--pidfile": pid_file, "--logfile": log_file, "--executable": executable}
    words = [
        *_command(_fill(said.get("--cmd", ""), letters), values),
        *_spelled((flag, value) for flag, value in own.items() if flag not in _shared()),
        *_words(_fill(said.get("--append", ""), letters)),
        *([line.file] if line.file is not None else []),
        *line.rest,
    ]
    return Node(
        name,
        executable,
        tuple(words),
        Path(folder, fill_path(pid_file, name)).absolute(),
        Path(folder, fill_path(log_file, name)).absolute(),
        Path(folder).absolute(),
        (values.get("--uid"), values.get("--gid")),
    )


def _letters(name: str) -> dict[str, str]:
    short, _, host = name.partition("@")
    return {"n": short, "N": short, "h": name, "d": host, "p": name}


def _fill(text: str, letters: Mapping[str, str]) -> str:
    """Fill in these letters; others, and %%, are left to the worker."""
    return re.sub(r"%(.)", lambda found: letters.get(found[1], found[0]), text)


def _command(given: str, values: Mapping[str, str | None]) -> list[str]:
    """Return the words up to the worker's own options, with the shared ones behind the program's name."""
    module = [] if getattr(sys, "frozen", False) else ["-m", "litetq"]
    words = _words(given) or [*module, "worker", "--detach"]
    place = next((place + 1 for place, word in enumerate(words) if word in ("litetq", "celery")), 0)
    shared = _spelled((flag, value) for flag, value in values.items() if flag in _shared())
    return [*words[:place], *shared, *words[place:]]


def _words(text: str) -> list[str]:
    return shlex.split(text, posix=sys.platform != "win32")


@functools.cache
def _shared() -> frozenset[str]:
    """Return the spellings of the options that every command has."""
    return frozenset(arity(shared_options()))


def _spelled(options: Iterator[tuple[str, str | None]]) -> list[str]:
    words: list[str] = []
    for flag, value in options:
        if value is None:
            words.append(flag)
        else:
            words += [f"{flag}={value}"] if flag.startswith("--") else [flag, value]
    return words
