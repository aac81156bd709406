"""An exception with its traceback."""

from __future__ import annotations

from litetq.execution import ExceptionInfo

__all__ = ["ExceptionInfo"]
