"""The tasks of `litetq demo`: measure one source file, and add up what the others measured.

They are ordinary tasks of an ordinary app; the worker processes of the demo are ordinary `litetq worker` processes.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any, Final, TypedDict

from litetq.app import LiteTQ

LARGEST: Final = 10  # modules that the report names

app = LiteTQ("demo", set_as_current=False)


class Measured(TypedDict):
    """What one task found out about one file."""

    path: str  # below the directory that was walked
    bytes: int
    lines: int
    functions: int
    classes: int
    sha256: str
    problem: str | None  # why it could not be read or parsed; the counts of functions and classes are 0 then


class Summary(TypedDict):
    """What the last task makes of all of them."""

    files: int
    bytes: int
    lines: int
    functions: int
    classes: int
    not_parsed: int
    sha256: str  # over all files, in the order of their paths
    largest: list[Measured]


# acks_late: a file whose task was cut off by a kill is measured again; measuring twice does no harm.
@app.task(name="demo.measure", acks_late=True, reject_on_worker_lost=True)
def measure(root: str, path: str) -> Measured:
    """Parse a file, count what is in it, hash its bytes."""
    functions = classes = 0
    problem, source = None, b""
    try:
        source = (Path(root) / path).read_bytes()
        for node in ast.walk(ast.parse(source)):
            functions += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            classes += isinstance(node, ast.ClassDef)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
    return {
        "path": path,
        "bytes": len(source),
        "lines": source.count(b"\n") + (not source.endswith(b"\n") and bool(source)),
        "functions": functions,
        "classes": classes,
        "sha256": hashlib.sha256(source).hexdigest(),
        "problem": problem,
    }


@app.task(name="demo.summarize", acks_late=True, reject_on_worker_lost=True)
def summarize(measured: list[Measured], **about: Any) -> Summary:
    """Add up what was measured. `about` (directory, number of files) is for the reader of the file."""
    whole = hashlib.sha256()
    for one in sorted(measured, key=lambda one: one["path"]):
        whole.update(one["sha256"].encode())
    return {
        "files": len(measured),
        "bytes": sum(one["bytes"] for one in measured),
        "lines": sum(one["lines"] for one in measured),
        "functions": sum(one["functions"] for one in measured),
        "classes": sum(one["classes"] for one in measured),
        "not_parsed": sum(one["problem"] is not None for one in measured),
        "sha256": whole.hexdigest(),
        "largest": sorted(measured, key=lambda one: one["lines"], reverse=True)[:LARGEST],
    }
