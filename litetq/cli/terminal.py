"""A terminal as a screen with keys: on POSIX by termios, on Windows by the console; no curses.

Frames are written whole, from the upper left corner. At the end, however it comes, the terminal is as it was before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # the other screen, without a cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_SEQUENCES: Final = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down", b"\x1b[5~": "page up", b"\x1b[6~": "page down",
    b"\x1b[H": "home", b"\x1b[F": "end", b"\r": "enter", b"\n": "enter", b"\x1b": "escape", b"\x7f": "delete", b"\x08": "delete",
    b"\x03": "interrupt",
}  # fmt: skip
_CONSOLE_KEYS: Final = {"H": "up", "P": "down", "I": "page up", "Q": "page down", "G": "home", "O": "end"}
_LOOK_S: Final = 0.05  # between two looks at a Windows console, which cannot be waited for


def is_there() -> bool:
    """Return whether keys can be read and a screen be drawn."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout is not None and sys.stdout.isatty()


class Terminal:
    """The terminal of this process while a `with` block runs."""

    def __init__(self) -> None:
        self._before: Any = None
        self._shown: list[str] | None = None
        self._size = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        found = shutil.get_terminal_size()
        return max(20, found.columns), max(8, found.lines)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines and nothing else; those that do not fit are left out."""
        size = self.size
        frame = list(lines[: size[1]])
        if frame == self._shown and size == self._size:
            return
        self._shown, self._size = frame, size
        self._write(_HOME + "\r\n".join(f"{line}\x1b[K" for line in frame) + "\x1b[J")

    def bell(self) -> None:
        self._write("\a")

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:
            # The terminal is gone, which the next look for a key finds, too. What is buffered must not fail at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    if sys.platform == "win32":

        def __enter__(self) -> Terminal:
            import ctypes

            kernel = ctypes.windll.kernel32
            self._before = ctypes.c_ulong()
            handle = kernel.GetStdHandle(-11)
            kernel.GetConsoleMode(handle, ctypes.byref(self._before))
            kernel.SetConsoleMode(handle, self._before.value | 4)  # ENABLE_VIRTUAL_TERMINAL_PROCESSING
            self._write(_ENTER)
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            import ctypes

            self._write(_LEAVE)
            kernel = ctypes.windll.kernel32
            kernel.SetConsoleMode(kernel.GetStdHandle(-11), self._before.value)

        def key(self, timeout: float) -> str | None:
            """Return the next key, None when none came within so many seconds."""
            import msvcrt
            import time

            deadline = time.monotonic() + timeout
            while not msvcrt.kbhit():
                if time.monotonic() >= deadline:
                    return None
                time.sleep(_LOOK_S)
            letter = msvcrt.getwch()
            if letter in ("\x00", "\xe0"):
                return _CONSOLE_KEYS.get(msvcrt.getwch(), "")
            return _SEQUENCES.get(letter.encode("utf-8", "replace"), letter)

    else:

        def __enter__(self) -> Terminal:
            import termios
            import tty

            self._input = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._input)
            tty.setcbreak(self._input)
            self._write(_ENTER)
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            import termios

            self._write(_LEAVE)
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

        def key(self, timeout: float) -> str | None:
            """Return the next key, None when none came within so many seconds; "interrupt" when the terminal is gone."""
            import select

            try:
                if not select.select([self._input], [], [], timeout)[0]:
                    return None
                typed = os.read(self._input, 1)
                if typed == b"\x1b" and select.select([self._input], [], [], _LOOK_S)[0]:
                    typed += os.read(self._input, 7)  # the rest of what one key sends
                while typed[-1:] >= b"\xc0" and select.select([self._input], [], [], 0)[0]:
                    typed += os.read(self._input, 3)  # the rest of a letter beyond ASCII
            except OSError:
                return "interrupt"
            if not typed:
                return "interrupt"
            return _SEQUENCES.get(typed, typed.decode("utf-8", "replace"))
