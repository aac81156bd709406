"""Loggers of tasks, under the names that Celery's users configure, and what a worker writes to its log.

Loggers of tasks lie below `celery.task`. A worker's log has Celery's formats, one handler, colours only on a terminal, and
what tasks print. The same settings count in the main process and in each pool child, so they are a value that is sent there.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

from litetq import context, signals
from litetq.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from litetq.conf import Settings

BASE_LOGGER: Final = "celery"
TASK_LOGGER: Final = "celery.task"

_RED, _YELLOW, _MAGENTA, _BLUE, _END = "\x1b[1;31m", "\x1b[1;33m", "\x1b[1;35m", "\x1b[1;34m", "\x1b[0m"
_COLOURS: Final = {
    "DEBUG": _BLUE,
    "WARNING": _YELLOW,
    "ERROR": _RED,
    "CRITICAL": _MAGENTA,
}
REDIRECTED: Final = "celery.redirected"
NUMBER: Final = "\0"  # which is in no path
# Names, ids and errors in these lines come from whoever sends tasks: shown, never obeyed. What tasks log or print is theirs.
_TELLS_OF_TASKS: Final = ("celery.worker", "celery.app.trace", "litetq.")
OURS: Final = "litetq"  # the loggers of this package stand here; Celery's users configure "celery"

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


class ColorFormatter(logging.Formatter):
    """Formats with the whole line in the colour of its level, unless `use_color` is False."""

    def __init__(self, fmt: str | None = None, use_color: bool = True, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = super().format(record)
        start = _COLOURS.get(record.levelname) if self.use_color else None
        return f"{start}{line}{_END}" if start else line


class TaskFormatter(ColorFormatter):
    """Formats with `%(task_name)s` and `%(task_id)s`: those of the task that runs here, else ???."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        task, request = context.get_current_task(), context.get_current_request()
        if task is not None and request is not None:
            record.task_name, record.task_id = task.name, request.id
        else:
            record.__dict__.setdefault("task_name", "???")
            record.__dict__.setdefault("task_id", "???")
        return super().format(record)


# -- a worker's log ---------------------------------------------------------------------------------------------------


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
    child_path: str | None = None  # of the pool's children, with NUMBER in place of theirs; None: `path`

    def of_child(self, number: int) -> LogSettings:
        """Return the settings of the child with this number."""
        return self if self.child_path is None else self._replace(path=self.child_path.replace(NUMBER, str(number)))


def settings_of(conf: Settings, level: int, path: str | None, colour: bool | None) -> LogSettings:
    """Return what an app's settings say about a worker's log, with what its caller says."""
    return LogSettings(
        level=level,
        path=path,
        colour=colour,
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
    """Make this process log as `settings` say; whoever connects to `signals.setup_logging` does it alone instead.

    Raises ImproperlyConfigured when that one raises: a process whose log nobody has set up would say nothing of what goes wrong.
    """
    told: dict[str, Any] = {
        "loglevel": settings.level,
        "logfile": settings.path,
        "format": settings.format,
        "colorize": settings.colour,
    }
    never_fail_to_print()
    if signals.setup_logging.receivers:
        for receiver, response in signals.setup_logging.send(sender=None, **told):
            if isinstance(response, Exception):
                raise ImproperlyConfigured(
                    f"logging is not set up: {receiver!r}, which is connected to setup_logging, raised "
                    f"{type(response).__name__}: {response}"
                ) from response
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
        root.addHandler(_handler(settings.path, stream, MainFormatter(settings.format, colour, settings.date_format)))
        root.setLevel(settings.level)
    for name in (BASE_LOGGER, OURS, TASK_LOGGER):
        logging.getLogger(name).setLevel(settings.level)
    _remove_handlers(tasks)
    tasks.addHandler(
        _handler(settings.path, stream, TaskFormatter(settings.task_format, colour, settings.task_date_format))
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
        from logging.handlers import WatchedFileHandler  # brings sockets along; a program without a worker needs none

        # Follows a log rotated away by somebody else; on Windows an open file cannot be renamed.
        kind = logging.FileHandler if os.name == "nt" else WatchedFileHandler
        handler = kind(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(formatter)
    return handler


def _remove_handlers(logger: logging.Logger) -> None:
    for handler in list(logger.handlers):
        if not isinstance(handler, logging.NullHandler):
            logger.removeHandler(handler)


class MainFormatter(ColorFormatter):
    """What this package tells of tasks has no control characters in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without what stands below it; a format of the user's own may hold escape sequences."""
        if record.name.startswith(_TELLS_OF_TASKS):
            record.message = "\n".join(visible_lines(_in_its_place(record)))
        return super().formatMessage(record)


def _in_its_place(record: logging.LogRecord) -> str:
    """Return the message of a record; no text in it begins a line, unless the message itself begins one there (a traceback).

    A name that a stranger has sent with a line break in it must not look like a line of the log.
    """
    given = record.args
    if not given or not isinstance(given, tuple):
        return record.getMessage()
    *before, last = given
    last = last if record.msg.endswith("\n%s") else _on_one_line(last)
    return str(record.msg % (*map(_on_one_line, before), last))


def _on_one_line(value: object) -> object:
    return visible(value) if isinstance(value, str) else value


def visible(text: str) -> str:
    """Return text on one line in which nothing is invisible: control, format and line characters are backslash escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def visible_lines(text: str) -> list[str]:
    """Return the lines of a text of several; tabs stay, all else that is invisible is seen."""
    return ["\t".join(map(visible, line.split("\t"))) for line in text.rstrip("\n").split("\n")]


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
        self._begun = threading.local()  # `print(a, b)` writes in pieces, and threads print at once

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Log each line that this text ends, if it is not blank; a line without an end waits for it, or for `flush`."""
        if getattr(self._inside, "now", False):
            return 0
        lines = (self._take() + text).splitlines(keepends=True)
        if lines and not lines[-1].endswith(("\n", "\r")):
            self._begun.line = lines.pop()
        self._log(lines)
        return len(text)

    def flush(self) -> None:
        """Log the line that this thread has begun."""
        if not self.closed and not getattr(self._inside, "now", False):
            self._log([self._take()])

    def _take(self) -> str:
        line: str = getattr(self._begun, "line", "")
        self._begun.line = ""
        return line

    def _log(self, lines: Iterable[str]) -> None:
        self._inside.now = True
        try:
            for line in lines:
                if line.strip():
                    self.logger.log(self.level, "%s", line.rstrip())
        finally:
            self._inside.now = False

    def writelines(self, lines: Iterable[Any]) -> None:
        """Log each."""
        for line in lines:
            self.write(line)


def has_colour(stream: TextIO, wanted: bool | None = None) -> bool:
    """Return whether to colour what goes to `stream`: as `wanted`, where None means only on a terminal."""
    if wanted is not None:
        return wanted
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def never_fail_to_print() -> None:
    """Make stdout and stderr replace what their encoding lacks by an escape (legacy code pages, redirected consoles)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
