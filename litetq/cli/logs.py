"""What the command line and an app's settings say together about a worker's log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from litetq.exceptions import ImproperlyConfigured
from litetq.log import LogSettings

if TYPE_CHECKING:
    from litetq.app import LiteTQ


def settings_of(app: LiteTQ, level: str, path: str | None, no_colour: bool) -> LogSettings:
    """Return what the command line and the app's configuration say together.

    Raises ImproperlyConfigured when the log file cannot be written.
    """
    conf = app.conf
    if path is not None:
        path = str(Path(path).absolute())
        try:
            open(path, "ab").close()
        except OSError as error:
            raise ImproperlyConfigured(
                f"the log file {path} cannot be written: {error.strerror}; give another one with -f"
            ) from error
    return LogSettings(
        level=level_number(level),
        path=path,
        colour=False if no_colour else conf.worker_log_color,
        format=conf.worker_log_format,
        date_format=conf.worker_log_datefmt,
        task_format=conf.worker_task_log_format,
        task_date_format=conf.worker_task_log_datefmt,
        hijack_root=bool(conf.worker_hijack_root_logger),
        redirect_level=level_number(conf.worker_redirect_stdouts_level) if conf.worker_redirect_stdouts else None,
    )


def level_number(level: str | int) -> int:
    """Return the number of a level's name; FATAL is CRITICAL."""
    if isinstance(level, int):
        return level
    number = logging.getLevelName(level.upper())
    if not isinstance(number, int):
        raise ImproperlyConfigured(f"{level!r} is no level of the log; take DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return number
