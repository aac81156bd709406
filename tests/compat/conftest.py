"""The alias, on for one test and off again afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import litetq
from litetq import signals


@pytest.fixture(autouse=True)
def _nobody_listens_afterwards() -> Iterator[None]:
    """What a test, or a package, connects to signals is gone with it."""
    known = [signal for signal in vars(signals).values() if isinstance(signal, signals.Signal)]
    before = [signal.receivers for signal in known]
    yield
    for signal, receivers in zip(known, before, strict=True):
        signal.receivers = receivers


@pytest.fixture
def alias() -> Iterator[None]:
    """`import celery` brings litetq within the test."""
    litetq.install_as_celery()
    yield
    litetq.uninstall_celery_alias()
