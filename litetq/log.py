"""Loggers of tasks, under the names that Celery's users configure: all lie below `celery.task`."""

from __future__ import annotations

import logging
from typing import Final

from litetq import context

BASE_LOGGER: Final = "celery"
TASK_LOGGER: Final = "celery.task"

logging.getLogger(BASE_LOGGER).addHandler(logging.NullHandler())


def get_task_logger(name: str) -> logging.Logger:
    """Return the logger of this name, below `celery.task`, so that its lines carry the task's name and id.

    Raises RuntimeError for the names of the loggers above it.
    """
    if name in (BASE_LOGGER, TASK_LOGGER):
        raise RuntimeError(f"Logger name {name!r} is reserved!")
    logger = logging.getLogger(name)
    tasks = logging.getLogger(TASK_LOGGER)
    above: logging.Logger | None = logger
    while above is not None and above is not tasks:
        above = above.parent
    if above is None:
        logger.parent = tasks
    return logger


class TaskFormatter(logging.Formatter):
    """Formats with `%(task_name)s` and `%(task_id)s`: those of the task that runs here, else ???."""

    def format(self, record: logging.LogRecord) -> str:
        task, request = context.get_current_task(), context.get_current_request()
        if task is not None and request is not None:
            record.task_name, record.task_id = task.name, request.id
        else:
            record.__dict__.setdefault("task_name", "???")
            record.__dict__.setdefault("task_id", "???")
        return super().format(record)
