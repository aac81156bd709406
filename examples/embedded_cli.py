"""A command-line tool with a worker inside: Ctrl-C leaves the rest in the file, and the next start goes on with it.

    python embedded_cli.py FOLDER > SHA256SUMS

Prints what `sha256sum -c` reads. The queue is checksums.sqlite in the working directory.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from litetq import AsyncResult, LiteTQ, ResultSet

QUEUE = "checksums.sqlite"
BLOCK = 1 << 20  # bytes

app = LiteTQ("checksums", broker=QUEUE)


@app.task(acks_late=True)  # reading a file twice does no harm: what a kill cut off is done again
def checksum(path: str) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Return the files to be read. Not our own queue: only litetq may open that, or SQLite loses its locks on it."""
    own = Path(QUEUE).resolve()
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not str(path.resolve()).startswith(str(own))]


def enqueue(path: Path) -> AsyncResult[str]:
    """Enqueue the file once: the id names it as it is now, so a second start finds the task of the first."""
    about = path.stat()
    id = f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}"
    return checksum.apply_async((str(path.resolve()),), task_id=id, if_new=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the SHA-256 of every file below a folder.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    screen = Console(stderr=True)

    results = {path: enqueue(path) for path in files_below(folder)}
    before = sum(result.ready() for result in results.values())
    if before:
        screen.print(f"{before} of {len(results)} were done before.")
    bar = Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=screen)
    try:
        with bar, app.run_embedded():
            task = bar.add_task("checksums", total=len(results))
            for _ in ResultSet(results.values()).iter_native():
                bar.advance(task)
    except KeyboardInterrupt:
        done = sum(result.ready() for result in results.values())
        screen.print(f"Interrupted: {done} of {len(results)} are done. Start again to go on.")
        return 130

    failed = 0
    for path, result in results.items():
        if result.successful():
            print(f"{result.result}  {path.relative_to(folder).as_posix()}")
        else:
            failed += 1
            screen.print(f"{path}: {result.result}", markup=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
