"""What a worker costs that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale, at_most
from benchmarks.sides import CELERY, HUEY, Side, cpu_of, family, on_each

SETTLE = 3.0  # seconds after its last task until the worker counts as idle; arbitrary


def sample(make: Callable[[], Side], scale: Scale, pool: str, concurrency: int) -> Sample:
    seconds = scale.pick(20, 5)
    with make() as side, side.worker(pool, concurrency) as worker:
        side.tell("roundtrip", 20, 0.01)
        time.sleep(SETTLE)
        processes = family(worker.pid)
        memory = sum(process.memory_info().rss for process in processes)
        cpu, writes, files = cpu_of(processes), writes_of(processes), sizes(side.folder)
        time.sleep(seconds)
        found = {
            "CPU": (cpu_of(processes) - cpu) / seconds * 100,
            "write calls": (writes_of(processes) - writes) / seconds * 10,
            "resident": memory / 1e6,
        }
        if side.name != CELERY:
            changed = [path.name for path, was in sizes(side.folder).items() if files.get(path) != was]
            found["files changed"] = len(changed)
    return found


def writes_of(processes: list[psutil.Process]) -> float:
    """Return how many write calls were made, of any kind: also those that wake threads through a socket or pipe."""
    return float(sum(process.io_counters().write_count for process in processes if hasattr(process, "io_counters")))


def sizes(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of change of what lies in a folder, logs aside."""
    found = {path: path.stat() for path in folder.iterdir() if path.suffix != ".log" and path.is_file()}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def idle(pool: str, concurrency: int, megabytes: float | None) -> Benchmark:
    return Benchmark(
        f"idle-{pool}",
        f"one worker, {pool} -c {concurrency}, {SETTLE:g} s after its last task, 20 s long (--quick: 5); CPU in steps of "
        "10 ms, children included, Redis not; a heartbeat is written every 10 s",
        (
            Row("CPU", "% of a core", at_most(0.2)),
            Row("write calls", "in 10 s"),
            Row("files changed", "files"),
            Row("resident", "MB", at_most(megabytes) if megabytes else None),
        ),
        on_each((OURS, CELERY, HUEY), sample, pool, concurrency),
        repeats=2,
        peer_repeats=1,
    )


IDLES = (idle("threads", 4, 45), idle("processes", 2, None))
