"""Imports go downwards only, as the table of floors in docs/architecture.md says.

The table is the source: a new room is entered there, and this guard reads it. A room imports what stands on a floor below;
on its own floor it imports nothing, except on the floors that the table's introduction calls ordered, where it may import
what stands to its left. Imports inside functions count; those under `if TYPE_CHECKING` do not.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "litetq"
TABLE = ROOT / "docs" / "architecture.md"
ABOVE_ALL = {"__init__", "__main__"}
FACTS = {"__version__"}  # what any room may take from the package itself
# Upwards, inside a function only: `worker_main` and `start` are Celery's way to the command line, and `--as-celery` and
# `exec` turn the alias on, `monitor` starts the page.
DOORS = {("app", "cli"), ("cli", "compat"), ("cli", "dashboard")}


class Floors(NamedTuple):
    rooms: dict[str, tuple[int, int]]  # name -> (floor, place on it)
    ordered: set[int]


class Import(NamedTuple):
    room: str  # the room of ours that is imported; "__init__" is the package itself
    line: int
    inside_function: bool


def read_floors(text: str) -> Floors:
    """Return what the Markdown table of floors says; what stands in brackets in its second column is no room."""
    rooms = {}
    for floor, names in re.findall(r"^\| *(\d)[^|]*\|([^|]*)\|", text, re.MULTILINE):
        for place, name in enumerate(re.findall(r"`([\w/.]+)`", re.sub(r"\([^)]*\)", "", names))):
            rooms[name.rstrip("/").removesuffix(".py")] = (int(floor), place)
    sentence = re.search(r"\(within floors? ([^)]*?)leftwards only\)", text)
    return Floors(rooms, {int(digit) for digit in re.findall(r"\d", sentence.group(1))} if sentence else set())


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(source: str, path: Path, rooms: Container[str]) -> Iterator[Import]:
    """Yield what a file imports of this package, as rooms, also through `importlib.import_module("litetq.…")`."""
    package = ["litetq", *path.relative_to(PACKAGE).parts[:-1]]
    for node, inside in walk(ast.parse(source)):
        for module, name in modules_named_by(node, package):
            line = getattr(node, "lineno", 0)
            if "." in module:
                yield Import(module.split(".")[1], line, inside)
            elif name not in FACTS:
                yield Import(name if name and name in rooms else "__init__", line, inside)


def walk(tree: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node that runs, and whether a function holds it; leaves out what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in {
            getattr(node.test, "id", ""),
            getattr(node.test, "attr", ""),
        }:
            for branch in node.orelse:
                yield branch, inside
                yield from walk(branch, inside)
            continue
        yield node, inside
        yield from walk(node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def modules_named_by(node: ast.AST, package: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield (module of ours, name taken from it or None)."""
    found: list[tuple[Any, str | None]]
    if isinstance(node, ast.Import):
        found = [(alias.name, None) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*above, *filter(None, [node.module])])
        found = [(module, alias.name) for alias in node.names]
    elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
        found = [(argument.value, None) for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    else:
        return
    yield from (pair for pair in found if isinstance(pair[0], str) and pair[0].split(".")[0] == "litetq")


def called_name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def wrong_imports(source: str, path: Path, floors: Floors) -> list[str]:
    """Return a sentence for every import that does not go downwards."""
    room = room_of(path)
    if room in ABOVE_ALL:
        return []
    place = path.relative_to(ROOT).as_posix()
    if room not in floors.rooms:
        return [f"{place} has no floor: enter `{room}` in the table of docs/architecture.md"]
    floor, column = floors.rooms[room]
    wrong = []
    for found in imports_of(source, path, floors.rooms.keys() | ROOMS):
        where = f"{place}:{found.line}: {room} (floor {floor}) imports {found.room}"
        if found.room == room or ((room, found.room) in DOORS and found.inside_function):
            continue
        if found.room in ABOVE_ALL:
            wrong.append(f"{where}, which stands above all floors: import the room that defines the name")
        elif found.room not in floors.rooms:
            wrong.append(f"{where}, which has no floor: enter it in the table of docs/architecture.md")
        elif floors.rooms[found.room][0] > floor:
            wrong.append(f"{where} (floor {floors.rooms[found.room][0]}): imports go downwards; take it as an argument")
        elif floors.rooms[found.room][0] == floor and floor not in floors.ordered:
            wrong.append(
                f"{where} on the same floor: take it as an argument, or move one of them in docs/architecture.md"
            )
        elif floors.rooms[found.room] > (floor, column):
            wrong.append(f"{where} to its right: floor {floor} imports leftwards only; take it as an argument")
    return list(dict.fromkeys(wrong))  # a statement with three names is wrong once


FLOORS = read_floors(TABLE.read_text(encoding="utf-8"))
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {room_of(path) for path in FILES}


def test_the_table_of_floors_is_found() -> None:
    assert {floor for floor, _ in FLOORS.rooms.values()} == set(range(7))
    assert {3, 4} <= FLOORS.ordered
    assert "sql" not in FLOORS.rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_downwards_only(path: Path) -> None:
    wrong = wrong_imports(path.read_text(encoding="utf-8"), path, FLOORS)
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("room", [name for name, (floor, _) in FLOORS.rooms.items() if floor == 0])
def test_the_facts_import_the_standard_library_only(room: str) -> None:
    for path in [path for path in FILES if room_of(path) == room]:
        for node, _ in walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in imported_tops(node):
                assert name in sys.stdlib_module_names, f"{path.name}:{node.lineno} imports {name}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_engines_speak_to_sqlite_and_only_through_apsw(path: Path) -> None:
    """A second SQLite library in the process drops all of its file locks when it closes the file."""
    floor = FLOORS.rooms.get(room_of(path), (None, 0))[0]
    for node, _ in walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in imported_tops(node):
            assert name not in ("sqlite3", "_sqlite3"), f"{path.name} imports {name}: use apsw, in an engine"
            assert name != "apsw" or floor == 2, f"{path.name} imports apsw: only the engines (floor 2) speak SQL"


def imported_tops(node: ast.AST) -> list[str]:
    """Return the top-level names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level and node.module:
        return [node.module.split(".")[0]]
    return []


@pytest.mark.parametrize(
    ("room", "source", "said"),
    [
        ("message", "from litetq.states import SUCCESS", None),
        ("message", "def f():\n    from litetq.task import Task", "imports go downwards"),
        ("message", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from litetq.task import Task", None),
        ("message", "from .task import Task", "imports go downwards"),
        ("message", "from . import task", "imports go downwards"),
        ("message", "import importlib\nimportlib.import_module('litetq.task')", "imports go downwards"),
        ("message", "from litetq import LiteTQ", "above all floors"),
        ("message", "from litetq import __version__", None),
        ("conf", "from litetq.message import Plan", "on the same floor"),
        ("task", "from litetq.context import current_task", None),
        ("context", "from litetq.task import Task", "leftwards only"),
        ("app", "from litetq.cli import main", "imports go downwards"),
        ("app", "def worker_main():\n    from litetq.cli import main", None),
        ("brand_new", "x = 1", "has no floor"),
        ("app", "from litetq.brand_new import x", "has no floor"),
        ("__main__", "from litetq.cli import main", None),
    ],
)
def test_the_guard_tells_right_from_wrong(room: str, source: str, said: str | None) -> None:
    floors = Floors(
        {
            "states": (0, 0),
            "message": (1, 0),
            "conf": (1, 1),
            "context": (3, 0),
            "task": (3, 1),
            "app": (5, 0),
            "cli": (6, 0),
        },
        {3, 4},
    )
    wrong = wrong_imports(source, PACKAGE / f"{room}.py", floors)
    assert len(wrong) == (1 if said else 0)
    assert all(said and said in sentence for sentence in wrong)
