"""What a worker writes to its log: Celery's formats, one handler, colours only on a terminal, prints of tasks included.

The same settings are applied in the main process and in each pool child, so they are a value that can be sent there.
"""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

from litetq import signals
from litetq.cli.console import has_colour
from litetq.exceptions import ImproperlyConfigured
from litetq.log import BASE_LOGGER, TASK_LOGGER, TaskFormatter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litetq.app import LiteTQ

_RED, _YELLOW, _MAGENTA, _BLUE, _END = "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;35m", "\x1b[1;34m", "\x1b[0m"
_COLOURS: Final = {
    logging.DEBUG: _BLUE,
    logging.WARNING: _YELLOW,
    logging.ERROR: _RED,
    logging.CRITICAL: _MAGENTA,
}
REDIRECTED: Final = "celery.redirected"
OURS: Final = "litetq"  # the loggers of this package stand here; Celery's users configure "celery"


class LogSettings(NamedTuple):
    """How a worker and its children log."""

    level: int
    path: str | None  # None: stderr
    colour: bool | None  # None: on a terminal
    format: str
    date_format: str | None
    task_format: str
    task_date_format: str | None
    hijack_root: bool  # take the handlers of the root logger away first
    redirect_level: int | None  # what `print` in tasks is logged as; None: left alone


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


def set_up(settings: LogSettings) -> None:
    """Make this process log as `settings` say; whoever connects to `signals.setup_logging` does it alone instead."""
    told: dict[str, Any] = {
        "loglevel": settings.level,
        "logfile": settings.path,
        "format": settings.format,
        "colorize": settings.colour,
    }
    if signals.setup_logging.receivers:
        signals.setup_logging.send(sender=None, **told)
    else:
        _set_up_loggers(settings, told)
    if settings.redirect_level is not None:
        redirect_prints(settings.redirect_level)


def _set_up_loggers(settings: LogSettings, told: dict[str, Any]) -> None:
    root, tasks = logging.getLogger(), logging.getLogger(TASK_LOGGER)
    stream = _stream()
    colour = settings.path is None and has_colour(stream, settings.colour)
    if settings.hijack_root:
        _remove_handlers(root)
    if not root.handlers:
        root.addHandler(_handler(settings.path, stream, Coloured(settings.format, settings.date_format, colour)))
        root.setLevel(settings.level)
    for name in (BASE_LOGGER, OURS, TASK_LOGGER):
        logging.getLogger(name).setLevel(settings.level)
    _remove_handlers(tasks)
    tasks.addHandler(
        _handler(settings.path, stream, ColouredForTasks(settings.task_format, settings.task_date_format, colour))
    )
    tasks.propagate = False
    signals.after_setup_logger.send(sender=None, logger=root, **told)
    signals.after_setup_task_logger.send(sender=None, logger=tasks, **{**told, "format": settings.task_format})


def _stream() -> TextIO:
    """Return the real stderr, which prints that are redirected into the log must not lead back to."""
    return sys.__stderr__ if sys.__stderr__ is not None else io.StringIO()


def _handler(path: str | None, stream: TextIO, formatter: logging.Formatter) -> logging.Handler:
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(stream)
    else:
        # Follows a log rotated away by somebody else; on Windows an open file cannot be renamed.
        kind = logging.FileHandler if os.name == "nt" else logging.handlers.WatchedFileHandler
        handler = kind(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(formatter)
    return handler


def _remove_handlers(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        if not isinstance(handler, logging.NullHandler):
            logger.removeHandler(handler)


class Coloured(logging.Formatter):
    """Celery's main format; the whole line in the colour of its level where colours are on."""

    def __init__(self, text: str, date_format: str | None, colour: bool) -> None:
        super().__init__(text, date_format)
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return _paint(super().format(record), record.levelno, self.colour)


class ColouredForTasks(TaskFormatter):
    """The format of the tasks' own loggers, with name and id of the task."""

    def __init__(self, text: str, date_format: str | None, colour: bool) -> None:
        super().__init__(text, date_format)
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return _paint(super().format(record), record.levelno, self.colour)


def _paint(line: str, level: int, colour: bool) -> str:
    start = _COLOURS.get(level) if colour else None
    return f"{start}{line}{_END}" if start else line


def redirect_prints(level: int) -> None:
    """Make what is printed to stdout and stderr from now on a line of the log."""
    logger = logging.getLogger(REDIRECTED)
    logger.setLevel(logging.NOTSET)
    sys.stdout = Redirected(logger, level)
    sys.stderr = Redirected(logger, level)


class Redirected(io.TextIOBase):
    """A stream whose lines go to a logger; never to a terminal, never into itself."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, logger: logging.Logger, level: int) -> None:
        self.logger = logger
        self.level = level
        self._inside = threading.local()  # a handler that fails prints its traceback: that must not come back here

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Log each line of the text that is not blank."""
        if getattr(self._inside, "now", False):
            return 0
        self._inside.now = True
        try:
            for line in text.rstrip().splitlines():
                if line.strip():
                    self.logger.log(self.level, "%s", line)
        finally:
            self._inside.now = False
        return len(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        """Log each."""
        for line in lines:
            self.write(line)
