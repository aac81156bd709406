"""The program of the canvas tests with whole processes: the model's tasks, with a ledger outside of the file."""

import os
from pathlib import Path

from canvas_model import register  # copied beside this file

from litetq import LiteTQ

HERE = Path(__file__).parent
app = LiteTQ("canvas_program", broker=HERE / "jobs.sqlite")


def note(number: int) -> None:
    """Append a line: one write with O_APPEND is whole, also when the process is killed after it."""
    ledger = os.open(HERE / "ledger", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(ledger, f"{number}\n".encode())
    os.close(ledger)


def is_mended() -> bool:
    return (HERE / "mended").exists()


tasks = register(app, note, is_mended)
