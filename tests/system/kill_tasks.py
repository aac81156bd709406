"""The program of the kill tests: tasks that write a ledger outside of the file, and a process that dies where it is told.

`KILL_AT` names a moment of `litetq.probes`, a colon, and how often it is survived first. Only one process of a test dies so:
whoever makes the marker file.
"""

import os
import signal
import time
from pathlib import Path

from litetq import LiteTQ, probes

HERE = Path(__file__).parent
app = LiteTQ("kill_tasks", broker=HERE / "jobs.sqlite")


def note(text: str) -> None:
    """Append a line to the ledger: one write with O_APPEND is whole, also when the process is killed after it."""
    ledger = os.open(HERE / "ledger", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(ledger, f"{text}\n".encode())
    os.close(ledger)


@app.task
def early(n: int) -> int:
    note(f"early {n}")
    return n


@app.task(acks_late=True)
def late(n: int) -> int:
    note(f"late {n}")
    return n


@app.task
def quick() -> None:
    """Do nothing."""


@app.task
def brief(n: int) -> int:
    """Take a moment, so that a stop comes in the middle of it."""
    note(f"brief {n}")
    time.sleep(0.02)
    return n


@app.task
def hold(n: int) -> int:
    """Run until the test says go."""
    note(f"hold {n}")
    while not (HERE / "go").exists():
        time.sleep(0.005)
    return n


@app.task(acks_late=True)
def hold_late(n: int) -> int:
    note(f"hold_late {n}")
    while not (HERE / "go").exists():
        time.sleep(0.005)
    return n


def die() -> None:
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(9)


def kill_at(wanted: str) -> None:
    moment, _, survived = wanted.partition(":")
    left = int(survived or 0)

    def hook(reached: str) -> None:
        nonlocal left
        if reached != moment:
            return
        if left > 0:
            left -= 1
            return
        try:
            os.close(os.open(HERE / "killed", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        die()

    probes.hook = hook


if os.environ.get("KILL_AT"):
    kill_at(os.environ["KILL_AT"])
