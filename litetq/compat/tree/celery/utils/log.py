"""Loggers, under Celery's names."""

from __future__ import annotations

import logging
import numbers
import sys
from typing import Any

from litetq.log import ColorFormatter, Redirected, TaskFormatter, get_task_logger
from litetq.parts import Logging as Logging

__all__ = [
    "LOG_LEVELS", "ColorFormatter", "LoggingProxy", "base_logger", "get_logger", "get_multiprocessing_logger",
    "get_task_logger", "mlevel", "task_logger", "TaskFormatter",
]  # fmt: skip

LOG_LEVELS: dict[Any, Any] = {
    **{logging.getLevelName(number): number for number in (10, 20, 30, 40, 50)},
    "FATAL": logging.FATAL,
    logging.FATAL: "FATAL",
}
base_logger = logger = logging.getLogger("celery")
task_logger = logging.getLogger("celery.task")
worker_logger = logging.getLogger("celery.worker")


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name; one within a package comes below `celery`."""
    logger = logging.getLogger(name)
    if logging.root in (logger, logger.parent) or logger is base_logger:
        return logger
    above: logging.Logger | None = logger
    while above is not None and above is not base_logger:
        above = above.parent
    if above is None:
        logger.parent = base_logger
    return logger


def mlevel(level: Any) -> Any:
    """Return the number of a level given by name; numbers and 0 as they are."""
    return LOG_LEVELS[level.upper()] if level and not isinstance(level, numbers.Integral) else level


def get_multiprocessing_logger() -> logging.Logger:
    """Return the logger of `multiprocessing`."""
    return logging.getLogger("multiprocessing")


class LoggingProxy(Redirected):
    """A stream whose lines go to a logger."""

    mode = "w"
    name = None

    def __init__(self, logger: logging.Logger, loglevel: Any = None) -> None:
        super().__init__(logger, mlevel(loglevel or logger.level or logging.ERROR))
        self.loglevel = self.level

    def fileno(self) -> int:
        """Return that of the real stderr, for who insists on one."""
        return sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
