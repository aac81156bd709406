"""Stands in for vine where it is not installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["promise"]


class promise:
    """A call that is to be made once what it waits for is there; `then` calls further."""

    def __init__(
        self,
        fun: Callable[..., Any] | None = None,
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        **_: Any,
    ) -> None:
        self.fun = fun
        self.args = tuple(args or ())
        self.kwargs = dict(kwargs or {})
        self.ready = False
        self.value: Any = None
        self._then: list[Any] = [] if callback is None else [callback]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.ready:
            return self.value
        values = (*self.args, *args)
        self.value = self.fun(*values, **{**self.kwargs, **kwargs}) if self.fun is not None else values
        self.ready = True
        for callback in self._then:
            self._tell(callback)
        return self.value

    def then(self, callback: Any, on_error: Any = None) -> Any:
        """Call this with the value once it is there; return it."""
        if self.ready:
            self._tell(callback)
        else:
            self._then.append(callback)
        return callback

    def _tell(self, callback: Any) -> None:
        values = self.value if self.fun is None else (self.value,)
        callback(*values)
