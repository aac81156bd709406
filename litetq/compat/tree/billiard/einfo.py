"""An exception with its traceback."""

from __future__ import annotations

import traceback
from types import TracebackType

from litetq.execution import ExceptionInfo

__all__ = ["ExceptionInfo", "ExceptionWithTraceback"]


class ExceptionWithTraceback(Exception):
    """An exception that has its traceback with it, as text, where that would get lost on the way."""

    def __init__(self, exc: BaseException, tb: TracebackType | None = None) -> None:
        super().__init__(exc)
        self.exc = exc
        self.tb = "".join(traceback.format_exception(type(exc), exc, tb or exc.__traceback__))

    def __str__(self) -> str:
        return self.tb
