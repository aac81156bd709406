"""What `tests.compat.suite` adds to a run of pytest over Celery's tests: the alias, and the list of what is left out."""

from __future__ import annotations

import ast
import importlib
import json
import os
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import litetq

litetq.install_as_celery()
pytest_plugins = ("celery.contrib.pytest",)

LEFT_OUT = json.loads(os.environ["SUITE_LEFT_OUT"])  # patterns of test names
COUNTS = Path(os.environ["SUITE_COUNTS"])  # where the counts go
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef)
counts: dict[str, int] = {"passed": 0, "failed": 0, "skipped": 0, "left out": 0}


class NotOurs:
    """A name of Celery's that litetq lacks: a file of tests can import it, and a test that uses it fails."""

    is_needed = False  # while files are imported, they may call it: what comes of it is no more than this

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> NotOurs:
        if NotOurs.is_needed:
            raise NotImplementedError(f"litetq has no {self._name}")
        return self

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type]:
        return (Lacking,)  # a test may have a class of its own made from it

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"litetq has no {self._name}")


class Lacking:
    """What a class of a test's has in the place of a base that litetq lacks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"litetq lacks a base of {type(self).__name__}")


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """Before a file of tests is imported: give Celery's modules the names that it takes from them and that they lack."""
    tree = ast.parse(module_path.read_text(encoding="utf-8"))
    inside = {id(node) for scope in ast.walk(tree) if isinstance(scope, _SCOPES) for node in ast.walk(scope)}
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] == "celery":
            _lend(str(statement.module), [alias.name for alias in statement.names], whole=id(statement) not in inside)


def _lend(module: str, names: list[str], *, whole: bool) -> None:
    """Lend names to a module; one that there is not is lent itself, where the file could not be imported without it."""
    for name in names:
        try:
            exec(f"from {module} import {name}")  # a name may be a module of its own
        except ModuleNotFoundError:
            if whole:
                lent = sys.modules[module] = ModuleType(module)
                for each in names:
                    setattr(lent, each, NotOurs(f"{module}.{each}"))
            return
        except ImportError:
            setattr(importlib.import_module(module), name, NotOurs(f"{module}.{name}"))


def pytest_collection_finish() -> None:
    NotOurs.is_needed = True


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out what is listed."""
    out = [item for item in items if any(fnmatchcase(name_of(item), pattern) for pattern in LEFT_OUT)]
    counts["left out"] = len(out)
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in set(out)]


def name_of(item: Any) -> str:
    """Return the name by which a test is listed: its file, class and function, without a path."""
    return f"{item.path.stem}::{item.nodeid.partition('::')[2]}"


def pytest_runtest_logreport(report: Any) -> None:
    """Count by tests, not by their subtests."""
    if type(report).__name__ != "TestReport":
        return
    if report.when == "call" and report.outcome in counts:
        counts[report.outcome] += 1
    elif report.outcome == "skipped":
        counts["skipped"] += 1
    elif report.outcome == "failed":
        counts["failed"] += 1


def pytest_sessionfinish() -> None:
    COUNTS.write_text(json.dumps(counts), encoding="utf-8")
