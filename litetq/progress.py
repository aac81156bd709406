"""How far a workflow is: counted from its results, and drawn as a line in the terminal while it runs."""

from __future__ import annotations

import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

from litetq import states

if TYPE_CHECKING:
    from types import TracebackType

    from litetq.message import Record

BAR: Final = 30  # characters
FEWEST: Final = 5  # characters of a bar that still says something; arbitrary
EVERY: Final = 0.2  # seconds between two looks; arbitrary, as often as an eye follows
_EAGER: Final = object()  # stands for what a result that was run here and now does not have
_AT_ONCE: Final = 500  # arbitrary: ids read with one statement


class Progress(NamedTuple):
    """How many tasks of a workflow are where. `total` is the sum of the others."""

    total: int
    done: int  # ended with a value
    failed: int  # ended with a failure, or revoked
    running: int
    waiting: int  # for a worker, for their time, or for another task

    @property
    def ended(self) -> int:
        return self.done + self.failed

    @property
    def fraction(self) -> float:
        """From 0.0 to 1.0; a workflow without tasks is done."""
        return self.ended / self.total if self.total else 1.0

    def __str__(self) -> str:
        return f"{self.done} of {self.total} done, {self.failed} failed, {self.running} running, {self.waiting} waiting"


def tasks_of(result: Any) -> Iterator[Any]:
    """Yield the results of all tasks that led to this one: it, its members, and its parents, each once."""
    seen: set[str] = set()
    pending = [result]
    while pending:
        node = pending.pop()
        if node is None:
            continue
        pending.append(node.parent)
        if hasattr(node, "results"):
            pending.extend(node.results)
        elif node.id not in seen:
            seen.add(node.id)
            yield node


def progress_of(result: Any) -> Progress:
    """Count the tasks of a workflow by their states, with few reads of the file.

    Tasks that replaced others, were added on the way or linked to them are not counted: the result does not know them.
    """
    counts = {"done": 0, "failed": 0, "running": 0, "waiting": 0}
    open_ones = []
    for task in tasks_of(result):
        final: Any = getattr(task, "_final", _EAGER)
        if final is _EAGER:
            counts["done" if task.state == states.SUCCESS else "failed"] += 1
        elif final is not None:
            counts[_kind_of(final)] += 1
        else:
            open_ones.append(task)
    for place in range(0, len(open_ones), _AT_ONCE):
        some = open_ones[place : place + _AT_ONCE]
        known = some[0].app.results.read_many([task.id for task in some])
        for task in some:
            record = known.get(task.id)
            counts[_kind_of(record)] += 1
            if record is not None and record.state in states.READY_STATES:
                task._final = record
    return Progress(sum(counts.values()), **counts)


def count(records: Iterable[Record]) -> Progress:
    """Count tasks by what the file knows of them."""
    kinds = Counter(map(_kind_of, records))
    return Progress(kinds.total(), kinds["done"], kinds["failed"], kinds["running"], kinds["waiting"])


def _kind_of(record: Record | None) -> str:
    if record is None:
        return "waiting"
    if record.place == "DONE":
        return "done" if record.state == states.SUCCESS else "failed"
    return "running" if record.place == "CLAIMED" else "waiting"


class progress:
    """Show how far a workflow is, as long as the block lasts or until it has ended: `with progress(result): ...`.

    One line, drawn over itself in a terminal; elsewhere one line at the end. The value of the block is a callable that
    returns the present `Progress`.
    """

    def __init__(self, result: Any, file: TextIO | None = None, label: str = "") -> None:
        self.result = result
        self.label = label
        self._file = file
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Any:
        file = self._file or sys.stderr
        if file.isatty():
            self._thread = threading.Thread(target=self._draw, args=(file,), name="litetq-progress", daemon=True)
            self._thread.start()
        return lambda: progress_of(self.result)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left.set()
        if self._thread is not None:
            self._thread.join()
        file = self._file or sys.stderr
        now = progress_of(self.result)
        file.write(f"{in_place(now, self.label) if file.isatty() else line(now, self.label)}\n")
        file.flush()

    def _draw(self, file: TextIO) -> None:
        while not self._left.wait(EVERY):
            now = progress_of(self.result)
            file.write(in_place(now, self.label))
            file.flush()
            if now.ended == now.total:
                return


def line(now: Progress, label: str = "", columns: int | None = None) -> str:
    """Return progress as one line of text; the bar is as long as fits into so many columns, and left out below FEWEST."""
    text = f"{now.ended}/{now.total}"
    if now.failed:
        text += f", {now.failed} failed"
    if now.running:
        text += f", {now.running} running"
    room = BAR if columns is None else min(BAR, columns - len(f"{label} [] {text}".strip()))
    if room >= FEWEST:
        filled = int(room * now.fraction)
        text = f"[{'#' * filled}{'-' * (room - filled)}] {text}"
    return f"{label} {text}".strip()


def in_place(now: Progress, label: str = "") -> str:
    """Return what draws progress over the line of a terminal that the cursor is in, to its end: a line may get shorter."""
    columns = max(1, shutil.get_terminal_size().columns - 1)  # a letter in the last column would begin a new line
    return f"\r{line(now, label, columns)[:columns]:<{columns}}"
