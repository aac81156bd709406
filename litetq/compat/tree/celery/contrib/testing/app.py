"""An app within a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from litetq.testing import DEFAULT_TEST_CONFIG, Trap, UnitLogging, temporary_app, trapped_current_app
from litetq.testing import visiting_app as setup_default_app

from . import tasks  # the one that a worker is tried with

__all__ = ["DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitLogging", "set_trap", "setup_default_app", "tasks"]

TestApp = temporary_app


@contextmanager
def set_trap(app: Any) -> Iterator[None]:
    """Make every use of `current_app` within the block an error."""
    with trapped_current_app():
        yield
