"""Waiting for results in tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from litetq.exceptions import TimeoutError
from litetq.result import ResultSet

__all__ = ["Manager", "ManagerMixin", "Sentinel"]


class Sentinel(Exception):
    """Somebody has seen enough."""


class Manager:
    """Asks until something is so."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.app = app

    ResultSet = ResultSet

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **kwargs: Any) -> Any:
        """Return the values of a result, or of several; TimeoutError after 10 seconds."""
        return r.get(propagate=propagate, timeout=kwargs.pop("timeout", 10), **kwargs)

    def wait_for(
        self, fun: Callable[[], Any], catch: Iterable[Any] = (), timeout: float = 10.0, desc: str = "thing", **_: Any
    ) -> Any:
        """Call until it returns something true without raising what is to be caught, and return that."""
        until = time.monotonic() + timeout
        caught = tuple(catch) if isinstance(catch, Iterable) else (catch,)
        while time.monotonic() < until:
            try:
                found = fun()
                if found:
                    return found
            except caught:
                pass
            time.sleep(0.02)
        raise TimeoutError(f"waited {timeout} seconds for {desc}")

    def inspect(self, timeout: float = 3.0) -> Any:
        """Return what asks the workers."""
        return self.app.control.inspect(timeout=timeout)

    def assert_accepted(
        self, ids: Iterable[str], interval: float = 0.5, desc: str = "waiting for tasks to be accepted", **_: Any
    ) -> Any:
        """Wait until a worker runs each of these tasks."""
        return self.wait_for(partial(self.is_accepted, ids), timeout=interval * 40, desc=desc)

    def assert_received(
        self, ids: Iterable[str], interval: float = 0.5, desc: str = "waiting for tasks to be received", **_: Any
    ) -> Any:
        """Wait until workers hold each of these tasks; here, what is held runs."""
        return self.assert_accepted(ids, interval, desc)

    def is_accepted(self, ids: Iterable[str], **_: Any) -> bool:
        """Return whether a worker runs each of these tasks."""
        running = {task["id"] for tasks in (self.inspect().active() or {}).values() for task in tasks}
        return set(ids) <= running

    def wait_until_idle(self) -> None:
        """Wait until no worker runs anything, and nothing waits for one."""
        self.wait_for(self._is_idle, timeout=30, desc="workers to be idle")

    def _is_idle(self) -> bool:
        inspect = self.inspect()
        answers = [*(inspect.active() or {}).values(), *(inspect.reserved() or {}).values()]
        return not any(answers)

    def assert_result_tasks_in_progress_or_completed(self, async_results: Iterable[Any], **_: Any) -> None:
        """Wait until each has been taken by a worker or has ended."""
        for result in async_results:
            self.wait_for(partial(_has_begun, result), desc=str(result))

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what a function returns; Sentinel when that is false."""
        found = fun(*args, **kwargs)
        if not found:
            raise Sentinel
        return found


def _has_begun(result: Any) -> bool:
    return result.state in ("STARTED", "SUCCESS", "FAILURE", "RETRY")


ManagerMixin = Manager
