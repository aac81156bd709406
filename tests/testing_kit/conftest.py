"""An app on a file of its own, as a program that is to be tested has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from litetq import LiteTQ, context


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
