"""Tasks in child processes of the worker."""

from __future__ import annotations

from typing import Any

from litetq.pool import ProcessPool as TaskPool

__all__ = ["TaskPool", "process_destructor", "process_initializer"]


def process_initializer(app: Any, hostname: str) -> None:
    """Called in each child when it has its program, before its first task; for tools that wrap it."""


def process_destructor(pid: int, exitcode: int) -> None:
    """Called in each child when it ends; for tools that wrap it."""
