"""Parts that a program adds to its workers: `litetq.steps`; and `Blueprint`, for programs that start parts of their own by it."""

from __future__ import annotations

import logging
import pkgutil
import threading
from collections.abc import Callable, Iterable
from typing import Any

from litetq import steps
from litetq.compat.mirror import mirror

RUN, CLOSE, TERMINATE = 0x1, 0x2, 0x3

logger = logging.getLogger("celery.bootsteps")


class Blueprint:
    """Steps that are started and stopped together, on behalf of a parent: `Blueprint(...).apply(parent)`, `.start(parent)`.

    A worker's own parts are none of them: what is to start with a worker goes into `app.steps`.
    """

    GraphFormatter = None
    name: str | None = None
    default_steps: Iterable[Any] = ()
    started = 0
    state: int | None = None
    state_to_name = {0: "initializing", RUN: "running", CLOSE: "closing", TERMINATE: "terminating"}

    def __init__(
        self,
        steps: Iterable[Any] | None = None,
        name: str | None = None,
        on_start: Callable[[], object] | None = None,
        on_close: Callable[[], object] | None = None,
        on_stopped: Callable[[], object] | None = None,
    ) -> None:
        self.name = name or self.name or type(self).__name__
        self.types = {_class_of(each) for each in (*self.default_steps, *(steps or ()))}
        self.on_start, self.on_close, self.on_stopped = on_start, on_close, on_stopped
        self.steps: dict[str, Any] = {}
        self.order: list[Any] = []
        self.shutdown_complete = threading.Event()

    @property
    def alias(self) -> str | None:
        """Its name for people."""
        return self.name

    def apply(self, parent: Any, **kwargs: Any) -> Blueprint:
        """Make the steps, in an order in which each comes after those it requires; those that want in are `parent.steps`."""
        self.order = [kind(parent, **kwargs) for kind in steps.in_order(self.types)]
        self.steps = {step.name or type(step).__qualname__: step for step in self.order}
        parent.steps = [step for step in self.order if step.include(parent) and hasattr(step, "start")]
        return self

    def start(self, parent: Any) -> None:
        """Start them in order."""
        self.state = RUN
        _call(self.on_start)
        for number, step in enumerate(parent.steps):
            self.started = number + 1
            step.start(parent)

    def close(self, parent: Any) -> None:
        """Tell them all that they will be stopped."""
        _call(self.on_close)
        self.send_all(parent, "close", reverse=False)

    def restart(
        self, parent: Any, method: str = "stop", description: str = "restarting", propagate: bool = False
    ) -> None:
        """Stop them; what starts them again is the parent."""
        self.send_all(parent, method, description, propagate=propagate)

    def stop(self, parent: Any, close: bool = True, terminate: bool = False) -> None:
        """Stop them in reverse, once; a part that raises is logged, and the others are stopped all the same."""
        if self.state in (CLOSE, TERMINATE) or self.state is None:
            return
        if close:
            self.close(parent)
        self.state = TERMINATE if terminate else CLOSE
        self.restart(parent, "terminate" if terminate else "stop", "terminating" if terminate else "stopping")
        _call(self.on_stopped)
        self.shutdown_complete.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until they have been stopped."""
        self.shutdown_complete.wait(timeout)

    def send_all(
        self,
        parent: Any,
        method: str,
        description: str | None = None,
        reverse: bool = True,
        propagate: bool = True,
        args: tuple[Any, ...] = (),
    ) -> None:
        """Call a method of each step that has it; with `propagate` the first error ends that, else errors are logged."""
        for step in reversed(parent.steps) if reverse else parent.steps:
            function = getattr(step, method, None)
            if function is None:
                continue
            try:
                function(parent, *args)
            except Exception:
                if propagate:
                    raise
                logger.exception("%s of %r raised", description or method, step)

    def info(self, parent: Any) -> dict[str, Any]:
        """Return what the steps tell of themselves."""
        told: dict[str, Any] = {}
        for step in parent.steps:
            told.update(step.info(parent) or {})
        return told

    def human_state(self) -> str:
        """Return how it stands, in a word."""
        return self.state_to_name[self.state or 0]

    def __getitem__(self, name: str) -> Any:
        return self.steps[name]


def _class_of(step: Any) -> Any:
    return pkgutil.resolve_name(step) if isinstance(step, str) else step


def _call(hook: Callable[[], object] | None) -> None:
    if hook is not None:
        hook()


mirror(__name__, steps)
