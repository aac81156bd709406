"""The task of `litetq bench`: it does nothing, so that what is measured is the queue."""

from __future__ import annotations

from litetq.app import LiteTQ

app = LiteTQ("bench", set_as_current=False)


@app.task(name="bench.nothing")
def nothing(n: int) -> int:
    """Return the argument."""
    return n
