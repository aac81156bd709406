"""Things of the operating system."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal as _signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = [
    "EX_FAILURE", "EX_OK", "EX_UNAVAILABLE", "EX_USAGE", "IS_WINDOWS", "SYSTEM", "IS_macOS", "close_open_fds", "get_fdmax",
    "ignore_errno", "isatty", "pyimplementation", "set_mp_process_title", "set_process_title", "signal_name", "signals",
]  # fmt: skip

EX_OK, EX_FAILURE, EX_USAGE, EX_UNAVAILABLE, EX_CANTCREAT = 0, 1, 64, 69, 73
SYSTEM = "Windows" if os.name == "nt" else "Darwin" if sys.platform == "darwin" else "Linux"
IS_macOS = sys.platform == "darwin"
IS_WINDOWS = os.name == "nt"


def pyimplementation() -> str:
    """Return which Python this is."""
    import platform

    return platform.python_implementation()


def get_fdmax(default: int | None = None) -> int | None:
    """Return how many files a process may have open."""
    with contextlib.suppress(ValueError, OSError):
        return int(os.sysconf("SC_OPEN_MAX")) if hasattr(os, "sysconf") else default
    return default


def _number(file: Any) -> int | None:
    try:
        return int(file if isinstance(file, int) else file.fileno())
    except (AttributeError, OSError, ValueError):
        return None


def close_open_fds(keep: Iterable[Any] | None = None) -> None:
    """Close every file descriptor but these.

    Not while this process has a file of tasks open: closing its descriptors gives its locks away. Nothing of litetq calls it.
    """
    kept = sorted(number for number in map(_number, keep or ()) if number is not None)
    low = 0
    for number in kept:
        os.closerange(low, number)
        low = number + 1
    os.closerange(low, get_fdmax(2048) or 2048)


def set_process_title(progname: str, info: str | None = None) -> str:
    """Show this as the title of the process, where `setproctitle` is installed; return it."""
    title = f"[{progname}]" if info is None else f"[{progname}] {info}"
    with contextlib.suppress(ImportError):
        importlib.import_module("setproctitle").setproctitle(title)
    return title


def set_mp_process_title(progname: str, info: str | None = None, hostname: str | None = None) -> str:
    """Do the same with the name of the process within its program."""
    import multiprocessing

    name = f"{progname}: {hostname.split('.')[0]}" if hostname else progname
    return set_process_title(f"{name}:{multiprocessing.current_process().name}", info=info)


def isatty(fh: Any) -> bool:
    """Return whether this is a terminal."""
    try:
        return bool(fh.isatty())
    except AttributeError:
        return False


def signal_name(signum: int) -> str:
    """Return the name of a signal, without SIG."""
    return _signal.Signals(signum).name[3:]


@contextlib.contextmanager
def ignore_errno(*errnos: Any, types: Any = Exception) -> Iterator[None]:
    """Swallow errors with these numbers within the block."""
    import errno

    numbers = [getattr(errno, number) if isinstance(number, str) else number for number in errnos]
    try:
        yield
    except types as error:
        if getattr(error, "errno", None) not in numbers:
            raise


class Signals:
    """Handlers of signals by name: `signals["INT"] = handler`."""

    ignored = _signal.SIG_IGN
    default = _signal.SIG_DFL

    def supported(self, name: str) -> bool:
        """Return whether there is such a signal here."""
        return hasattr(_signal, self._full(name))

    def signum(self, name: Any) -> int:
        """Return the number of a signal."""
        number: int = name if isinstance(name, int) else getattr(_signal, self._full(name))
        return number

    def reset(self, *names: str) -> None:
        """Give signals their own effect again."""
        self.update(dict.fromkeys(names, self.default))

    def ignore(self, *names: str) -> None:
        """Have signals ignored."""
        self.update(dict.fromkeys(names, self.ignored))

    def __getitem__(self, name: str) -> Any:
        return _signal.getsignal(self.signum(name))

    def __setitem__(self, name: str, handler: Any) -> None:
        with contextlib.suppress(AttributeError, ValueError):  # not here, or not in the main thread
            _signal.signal(self.signum(name), handler)

    def update(self, handlers: dict[str, Any]) -> None:
        """Set handlers by name."""
        for name, handler in handlers.items():
            self[name] = handler

    def arm_alarm(self, seconds: float) -> None:
        """Have SIGALRM sent after so many seconds, where there is one."""
        if sys.platform != "win32":
            _signal.setitimer(_signal.ITIMER_REAL, seconds)

    def reset_alarm(self) -> None:
        """Have it not sent."""
        self.arm_alarm(0)

    def _full(self, name: str) -> str:
        return name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"


signals = Signals()
EX_NOUSER = 67
