"""Wait for a fact, with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE = 0.005  # seconds between two looks


def eventually(predicate: Callable[[], T], within: float = 10.0) -> T:
    """Return the first true value of `predicate`; fail with the last one when none came within so many seconds.

    Looks at least once, also after the deadline, so that a machine that stood still does not fail a test.
    """
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() >= deadline
        seen = predicate()
        if seen:
            return seen
        if late:
            raise AssertionError(f"{_name(predicate)} was still {seen!r} after {within:g} s")
        time.sleep(PAUSE)


def _name(predicate: Callable[[], object]) -> str:
    code = getattr(predicate, "__code__", None)
    name = getattr(predicate, "__qualname__", repr(predicate))
    return f"{name} (line {code.co_firstlineno})" if code else name
