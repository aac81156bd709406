"""What the window of window.py does, without a window: pack files with gzip, and tell how far each one is."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any, NamedTuple

from litetq import AsyncResult, LiteTQ

QUEUE = "pack.sqlite"
BLOCK = 1 << 20  # bytes
PACKED = (".gz", ".part")

app = LiteTQ("pack", broker=QUEUE)


# acks_late: the packed file gets its name when it is whole, so packing again does no harm after a kill.
@app.task(bind=True, acks_late=True)
def pack(self: Any, path: str) -> dict[str, int]:
    """Write path.gz beside the file; return both sizes in bytes."""
    size = os.path.getsize(path)
    done = 0
    with open(path, "rb") as file, gzip.open(path + ".part", "wb") as packed:
        while block := file.read(BLOCK):
            packed.write(block)
            done += len(block)
            self.update_state(state="PACKING", meta={"done": done, "size": size})
    os.replace(path + ".part", path + ".gz")
    return {"before": size, "after": os.path.getsize(path + ".gz")}


class Row(NamedTuple):
    """One line of the window."""

    path: str
    words: str
    ended: bool


class Packing:
    """The files that the window shows. All calls are short: none waits for a task."""

    def __init__(self) -> None:
        self._results: dict[str, AsyncResult[dict[str, int]]] = {}

    def add(self, folder: Path) -> int:
        """Enqueue the files of the folder that are not packed yet; return how many there are. Raises OSError."""
        files = [path for path in sorted(folder.iterdir()) if self._is_to_be_packed(path)]
        for path in files:
            self._results[str(path)] = self._enqueue(path)
        return len(files)

    @staticmethod
    def _is_to_be_packed(path: Path) -> bool:
        if path.name.startswith(QUEUE) or path.suffix in PACKED or not path.is_file():
            return False
        return not path.with_name(path.name + ".gz").exists()

    @staticmethod
    def _enqueue(path: Path) -> AsyncResult[dict[str, int]]:
        # The id names the file as it is now: a file that waits since the last time is found, not enqueued again.
        id = f"{path.resolve()}|{path.stat().st_mtime_ns}"
        known = pack.AsyncResult(id)
        if known.exists() and not known.ready():
            return known
        return pack.apply_async((str(path.resolve()),), task_id=id)

    def look(self) -> list[Row]:
        """Return how far each file is."""
        return [row(path, result) for path, result in self._results.items()]


def row(path: str, result: AsyncResult[dict[str, int]]) -> Row:
    """Return what one file's line says."""
    state, info = result.state, result.info
    if state == "SUCCESS":
        return Row(path, f"{info['before']:,} -> {info['after']:,} bytes", True)
    if state == "FAILURE":
        return Row(path, f"failed: {info}", True)
    if state == "PACKING" and "done" in info:
        return Row(path, f"packing, {info['done'] * 100 // max(info['size'], 1)} %", False)
    return Row(path, "waiting", False)
