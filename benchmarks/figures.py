"""What a benchmark returns, and how it is shown: a plain table and JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

OURS: Final = "litetq"


class Target(NamedTuple):
    """What a figure ought to reach."""

    value: float
    is_floor: bool  # True: at least this much, False: at most

    def __str__(self) -> str:
        return f"{'>=' if self.is_floor else '<='} {shown(self.value)}"

    def met_by(self, value: float) -> float:
        """Return how often the target is reached: 1 and more is good, whichever way the figure counts."""
        if self.is_floor:
            return value / self.value
        return self.value / value if value else float("inf")


def at_least(value: float) -> Target:
    return Target(value, True)


def at_most(value: float) -> Target:
    return Target(value, False)


class Row(NamedTuple):
    """One figure of a benchmark, before it is measured."""

    what: str  # its key in a sample, and its words in the table
    unit: str
    target: Target | None = None
    best: bool = False  # show the smallest of all repeats instead of the median: times of start-up only ever get longer


class Scale(NamedTuple):
    """How much is measured."""

    quick: bool
    big: bool
    repeats: int

    def pick(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole


Sample = Mapping[str, float]


class Benchmark(NamedTuple):
    """One file of this package: what it measures, under which conditions, and a function per side that takes one sample."""

    name: str
    conditions: str
    rows: Sequence[Row]
    sides: Mapping[str, Callable[[Scale], Sample]]
    repeats: int | None = None  # None: as many as asked for
    peer_repeats: int | None = None  # slow ones are asked less often


class Figure(NamedTuple):
    """One measured figure: for each side all its samples."""

    benchmark: str
    row: Row
    samples: Mapping[str, Sequence[float]]

    def value(self, side: str) -> float | None:
        values = self.samples.get(side)
        if not values:
            return None
        return min(values) if self.row.best else statistics.median(values)


def measure(benchmark: Benchmark, scale: Scale, sides: Sequence[str]) -> list[Figure]:
    """Take all samples of a benchmark, the sides in turn, so that a disturbance of the machine meets all of them."""
    chosen = [side for side in benchmark.sides if side in sides]
    samples: dict[str, dict[str, list[float]]] = {row.what: {side: [] for side in chosen} for row in benchmark.rows}
    repeats = benchmark.repeats or scale.repeats
    for turn in range(repeats):
        for side in chosen:
            if side != OURS and turn >= (benchmark.peer_repeats or repeats):
                continue
            share = core_share()
            began = time.perf_counter()
            for what, value in benchmark.sides[side](scale).items():
                samples[what][side].append(value)
            say(
                f"  {benchmark.name} {turn + 1}/{repeats} {side}: {time.perf_counter() - began:.1f} s, had {share:.0%} of a core"
            )
            shares.append(share)
    return [Figure(benchmark.name, row, samples[row.what]) for row in benchmark.rows]


shares: Final[list[float]] = []  # of a core, before each sample of this run


def core_share(seconds: float = 0.1) -> float:
    """Spin, and return how much of a core this process got: below 1, other programs take part in the figures."""
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        pass
    return (time.process_time() - cpu) / (time.perf_counter() - began)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def shown(value: float | None) -> str:
    """Return a number with three figures that count: 0.123, 12.3, 1,230."""
    if value is None:
        return "-"
    if value == 0 or value != value:
        return "0" if value == 0 else "?"
    digits = max(0, 2 - int(f"{abs(value):e}".split("e")[1]))
    return f"{value:,.{min(digits, 4)}f}"


def spread(values: Sequence[float] | None) -> str:
    if not values or len(values) < 2:
        return ""
    return f" [{shown(min(values))}..{shown(max(values))}]"


def table(figures: Sequence[Figure], sides: Sequence[str]) -> str:
    """Return the figures as text: median [smallest..largest], target and how often it is met, and the best peer's ratio."""
    peers = [side for side in sides if side != OURS]
    head = ["what", "unit", OURS, *peers, "target", "met", *(["x best peer"] if peers else [])]
    lines = []
    for figure in figures:
        ours = figure.value(OURS)
        line = [f"{figure.benchmark}: {figure.row.what}", figure.row.unit]
        line += [shown(figure.value(side)) + spread(figure.samples.get(side)) for side in (OURS, *peers)]
        target = figure.row.target
        line += [str(target), f"{target.met_by(ours):.2f}"] if target and ours is not None else ["", ""]
        if peers:
            line.append(against_peers(figure, peers))
        lines.append(line)
    widths = [max(len(line[place]) for line in (head, *lines)) for place in range(len(head))]
    rows = [head, ["-" * width for width in widths], *lines]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def against_peers(figure: Figure, peers: Sequence[str]) -> str:
    """Return how many times better ours is than the best peer."""
    ours = figure.value(OURS)
    theirs = [value for peer in peers if (value := figure.value(peer)) is not None]
    if ours is None or not theirs:
        return ""
    more_is_better = figure.row.unit.endswith("/s")
    if more_is_better:
        return f"{ours / max(theirs):.1f}"
    return f"{min(theirs) / ours:.1f}" if ours else ""


def machine() -> dict[str, Any]:
    """Return the conditions that all figures share."""
    import apsw

    return {
        "at": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "cpus": os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "apsw": apsw.apsw_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "directory": tempfile.gettempdir(),
    }


def as_json(figures: Sequence[Figure], conditions: Mapping[str, Any]) -> str:
    found = []
    for figure in figures:
        target = figure.row.target
        found.append(
            {
                "benchmark": figure.benchmark,
                "what": figure.row.what,
                "unit": figure.row.unit,
                "target": str(target) if target else None,
                "values": {side: figure.value(side) for side in figure.samples},
                "samples": {side: list(values) for side, values in figure.samples.items()},
            }
        )
    return json.dumps({"conditions": conditions, "figures": found}, indent=1)
