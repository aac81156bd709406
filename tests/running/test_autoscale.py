"""Autoscaling: the rule, and one of a program's own in its place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, worker
from litetq.autoscale import Autoscaler, Load
from litetq.exceptions import ImproperlyConfigured
from tests.waiting import eventually


@pytest.fixture
def app(db: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiteTQ]:
    monkeypatch.setattr(worker, "RESCALE_S", 0.01)
    with LiteTQ("tests", broker=db) as app:
        yield app


def load(size: int, held: int, at: float = 0.0, *, more: bool = False) -> Load:
    return Load(size, held, lambda: more, at, 10, 1)


def test_the_rule_grows_twofold_and_shrinks_to_what_is_used() -> None:
    scaler = Autoscaler(keepalive=30.0)
    assert scaler.wanted(load(2, 2, at=100.0, more=True)) == 4
    assert scaler.wanted(load(4, 4, at=101.0)) == 4  # nothing more waits
    assert scaler.wanted(load(4, 1, at=131.0)) == 4
    assert scaler.wanted(load(4, 1, at=131.1)) == 1


class Steps(Autoscaler):
    """Wants what a test says."""

    says: Any = 1
    seen: list[Load] = []

    def wanted(self, load: Load) -> int:
        self.seen.append(load)
        if isinstance(self.says, Exception):
            raise self.says
        answer: int = self.says
        return answer


def test_a_class_of_ones_own_decides_between_the_bounds(app: LiteTQ, caplog: pytest.LogCaptureFixture) -> None:
    Steps.says, Steps.seen = 3, []
    app.conf.worker_autoscaler = Steps
    with app.run_embedded(autoscale=(5, 2)) as running:
        assert eventually(lambda: running.statistics().concurrency == 3)
        Steps.says = 100
        running._wake()
        assert eventually(lambda: running._wake() or running.statistics().concurrency == 5)  # type: ignore[func-returns-value]
        Steps.says = ValueError("no idea")
        assert eventually(lambda: running._wake() or "its autoscaler raised" in caplog.text)  # type: ignore[func-returns-value]
        assert running.is_running
    assert (Steps.seen[0].largest, Steps.seen[0].smallest) == (5, 2)


def test_it_sees_what_waits(app: LiteTQ) -> None:
    release = threading.Event()

    @app.task
    def hold() -> None:
        release.wait(20)

    Steps.says, Steps.seen = 1, []
    app.conf.worker_autoscaler = Steps
    with app.run_embedded(autoscale=(5, 1)) as running:
        for _ in range(3):
            hold.delay()
        assert eventually(lambda: running._wake() or any(load.held == 1 and load.more() for load in list(Steps.seen)))  # type: ignore[func-returns-value]
        release.set()


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nowhere.at:All", "it cannot be imported"),
        ("litetq.worker:Statistics", r"a class with a method wanted\(load\)"),
        (42, r"a class with a method wanted\(load\)"),
    ],
)
def test_a_wrong_class_is_said_at_the_start_where_it_is_wanted(app: LiteTQ, named: Any, said: str) -> None:
    app.conf.worker_autoscaler = named
    with pytest.raises(ImproperlyConfigured, match=f"worker_autoscaler=.*{said}"):
        app.run_embedded(autoscale=(3, 1))
    app.run_embedded(concurrency=1).stop()
