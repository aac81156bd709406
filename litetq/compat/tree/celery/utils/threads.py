"""Threads, and what is local to one of them."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from threading import get_ident
from typing import Any

__all__ = ["Local", "LocalStack", "bgThread", "get_ident"]

Local = threading.local


class LocalStack:
    """A stack of its own for each thread, greenlet or coroutine."""

    def __init__(self) -> None:
        self._stack: ContextVar[tuple[Any, ...]] = ContextVar("local_stack", default=())

    def __call__(self) -> Any:
        from ..local import Proxy

        return Proxy(lambda: self.top)

    def push(self, obj: Any) -> Any:
        """Put an object on top; return the stack as a list."""
        self._stack.set((*self._stack.get(), obj))
        return self.stack

    def pop(self) -> Any:
        """Take the topmost object off and return it; None from an empty stack."""
        stack = self._stack.get()
        if not stack:
            return None
        self._stack.set(stack[:-1])
        return stack[-1]

    @property
    def stack(self) -> list[Any]:
        """The objects, the topmost last."""
        return list(self._stack.get())

    @property
    def top(self) -> Any:
        """The topmost object, or None."""
        stack = self._stack.get()
        return stack[-1] if stack else None

    def __len__(self) -> int:
        return len(self._stack.get())


_LocalStack = _FastLocalStack = LocalStack


class bgThread(threading.Thread):
    """A thread that calls `body` again and again until it is stopped."""

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or type(self).__name__, daemon=True)
        self._shutdown = threading.Event()

    def body(self) -> None:
        """One round; subclasses say what."""
        raise NotImplementedError

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Called when a round raised; the thread ends then."""
        import logging

        logging.getLogger("celery").exception(msg, *fmt)

    def run(self) -> None:
        while not self._shutdown.is_set():
            try:
                self.body()
            except Exception as error:
                self.on_crash("%r crashed: %r", self.name, error)
                return

    def stop(self) -> None:
        """End after the round that runs, and wait for that."""
        self._shutdown.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()
