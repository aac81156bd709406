"""`python -m benchmarks [NAMES] [--quick] [--peers] [--big] [--repeats N] [--json FILE]`"""

from __future__ import annotations

import argparse
import sys
from statistics import median
from typing import Final

from benchmarks.backlog import BACKLOG, HISTORY
from benchmarks.claims import CLAIM
from benchmarks.crowd import CROWD
from benchmarks.drain import DRAINS
from benchmarks.enqueue import ENQUEUE
from benchmarks.figures import OURS, Benchmark, Figure, Scale, as_json, machine, measure, say, shares, table
from benchmarks.idle import IDLES
from benchmarks.imports import IMPORT
from benchmarks.roundtrip import ROUNDTRIPS
from benchmarks.sides import available_peers, peer_versions
from benchmarks.workflows import WORKFLOWS

ALL: Final[tuple[Benchmark, ...]] = (
    ENQUEUE,
    *DRAINS,
    *ROUNDTRIPS,
    *WORKFLOWS,
    *IDLES,
    IMPORT,
    CLAIM,
    BACKLOG,
    CROWD,
    HISTORY,
)
ONLY_BIG: Final = frozenset({HISTORY.name})


def main() -> int:
    said = arguments().parse_args()
    unknown = [name for name in said.names if not any(b.name.startswith(name) for b in ALL)]
    if unknown:
        say(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(b.name for b in ALL)}")
        return 2
    scale = Scale(said.quick, said.big, said.repeats or (2 if said.quick else 5))
    chosen = [b for b in ALL if any(b.name.startswith(name) for name in said.names)] or [
        b for b in ALL if said.big or b.name not in ONLY_BIG
    ]
    peers = available_peers() if said.peers else []
    conditions = machine() | ({"peers": peer_versions()} if peers else {})
    figures: list[Figure] = []
    for benchmark in chosen:
        say(f"{benchmark.name}: {benchmark.conditions}")
        figures += measure(benchmark, scale, [OURS, *peers])
    conditions["share of a core before each sample"] = f"median {median(shares):.2f}, least {min(shares):.2f}"
    show(figures, chosen, peers, conditions, scale)
    if said.json:
        with open(said.json, "w", encoding="utf-8") as file:
            file.write(
                as_json(figures, {**conditions, **scale._asdict(), "each": {b.name: b.conditions for b in chosen}})
            )
    return 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Take the figures of litetq.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, or those that begin so: " + names())
    parser.add_argument("--quick", action="store_true", help="fewer tasks and repeats: to see that it works")
    parser.add_argument(
        "--peers", action="store_true", help="measure Celery on Redis and huey on SQLite in the same run"
    )
    parser.add_argument("--big", action="store_true", help="with 5 million finished tasks: minutes, 2 GB of disk")
    parser.add_argument("--repeats", type=int, metavar="N", help="samples per figure (5; --quick: 2)")
    parser.add_argument("--json", metavar="FILE", help="write conditions and all samples")
    return parser


def names() -> str:
    return ", ".join(benchmark.name for benchmark in ALL)


def show(
    figures: list[Figure], chosen: list[Benchmark], peers: list[str], conditions: dict[str, object], scale: Scale
) -> None:
    """Print conditions and table; each figure is the median and, in brackets, the smallest and largest sample."""
    print("\n".join(f"{name}: {value}" for name, value in conditions.items()))
    print(f"repeats: {scale.repeats}{' (quick)' if scale.quick else ''}\n")
    print(table(figures, [OURS, *peers]))
    print("\n" + "\n".join(f"{benchmark.name}: {benchmark.conditions}" for benchmark in chosen))


if __name__ == "__main__":
    sys.exit(main())
