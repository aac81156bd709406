"""An app on a file of its own, and a way to run what waits in it without a worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litetq import LiteTQ, context
from litetq.execution import tracer_for


@pytest.fixture(autouse=True)
def _no_app_is_left_current() -> Iterator[None]:
    context.set_current_app(None)
    context.set_default_app(None)
    yield
    context.set_current_app(None)
    context.set_default_app(None)


@pytest.fixture
def app(db: Path) -> Iterator[LiteTQ]:
    with LiteTQ("tests", broker=db) as app:
        yield app


RunWaiting = Callable[[LiteTQ], list[str]]


@pytest.fixture
def run_waiting() -> RunWaiting:
    """Run what may start now, and what that calls, in this thread; return the ids in the order of their runs.

    This is the claim, the pipeline and the settle of a worker, without its loop.
    """

    def run(app: LiteTQ) -> list[str]:
        ran: list[str] = []
        seat = app.engine.seat("tests@here")
        try:
            taken = seat.take(10)
            while taken.deliveries:
                ran += [delivery.id for delivery in taken.deliveries]
                taken = seat.take(10, [tracer_for(app, each.name, "tests@here")(each) for each in taken.deliveries])
            return ran
        finally:
            seat.leave()

    return run
