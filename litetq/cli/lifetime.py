"""What commands share that run until they are told to stop: the level of their log, and the word to end.

A signal handler may interrupt its thread anywhere, so it does one thing: it puts a word into a SimpleQueue, whose `put` is
reentrant (its documentation promises this; a threading.Event would dead-lock).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import click

from litetq import green, platforms
from litetq.cli import console, pidfile

_HEAR_SURELY: Final = 5.0  # seconds; arbitrary: how late a signal may be heard that came at an unlucky instant
_HEAR_EVERY: Final = 0.5  # seconds; arbitrary: how late a Windows console's Ctrl-C may be heard
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")


def level(context: click.Context, option: click.Parameter, value: str) -> str:
    """Read a level of the log, in any case of letters."""
    name = value.upper()
    if name not in LEVELS:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(LEVELS)}.", context, option)
    return name


class Words(Protocol):
    """What a command hears, word by word."""

    def put(self, word: str, /) -> None: ...

    def get(self, *, timeout: float) -> str:
        """Return the next word; raises queue.Empty when there was none for so many seconds."""


def new_words() -> Words:
    return _GreenWords() if platforms.is_green() else queue.SimpleQueue()


class _GreenWords:
    """For a worker with greenlets, whose queues neither signal handlers nor native threads may touch."""

    def __init__(self) -> None:
        self._words: deque[str] = deque()
        self._gate = green.gate()

    def put(self, word: str, /) -> None:
        self._words.append(word)
        self._gate.open()

    def get(self, *, timeout: float) -> str:
        if not self._words:
            self._gate.wait(timeout)
        try:
            return self._words.popleft()
        except IndexError:
            raise queue.Empty from None


_replaced: Final[dict[signal.Signals, Any]] = {}  # whose handlers stand aside while a command hears


@contextmanager
def handled(words: Words) -> Iterator[None]:
    """Put the names of the signals that a command heeds into `words` while the block runs, where this is the main thread."""
    # Elsewhere the first one raises ValueError. (Which thread is the main one cannot be asked under eventlet.)
    with contextlib.suppress(ValueError):
        for which in _signals():
            _replaced[which] = signal.signal(which, lambda number, frame: words.put(signal.Signals(number).name))
    try:
        yield
    finally:
        _give_back()


def _give_back() -> None:
    while _replaced:
        which, handler = _replaced.popitem()
        signal.signal(which, handler if handler is not None else signal.SIG_DFL)


if sys.platform != "win32":
    _forking = threading.local()  # `mask`: which signals this thread had blocked before it forked

    def _before_fork() -> None:
        """Hold signals back: one that came to the new process before it has its own handlers would be swallowed by ours."""
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _replaced) if _replaced else None

    def _hear_again() -> None:
        if _forking.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)

    def _after_fork_in_child() -> None:
        """What a task forks off in this process hears nothing for it: it is to die of a SIGTERM (`multiprocessing` counts on it).

        But not of a Ctrl-C, which goes to all who belong to the terminal: the worker decides what that means.
        """
        if _replaced:
            _give_back()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        _hear_again()  # what has come meanwhile comes now

    os.register_at_fork(before=_before_fork, after_in_parent=_hear_again, after_in_child=_after_fork_in_child)


def next_word(words: Words, was_asked: bool, held: Path | None = None) -> str:
    """Return what happened next: the name of a signal that asks for an end, or a word of the command's own.

    At SIGUSR1 it shows meanwhile where all threads are, for whoever asks why a worker hangs.

    Args:
        held: the pid file, beside which a word may be left (`pidfile.leave_word`).
    """
    # A blocked wait hears no Ctrl-C on Windows. Elsewhere a signal interrupts it, but not one that came in the instant
    # before: that is heard at the next turn. Signals come close together when somebody wants an end.
    pause = _HEAR_EVERY if platforms.PORTABLE or was_asked else _HEAR_SURELY
    while True:
        if platforms.PORTABLE and held is not None and (asked := pidfile.take_word(held)) is not None:
            return asked
        with contextlib.suppress(queue.Empty):
            word = words.get(timeout=pause)
            if word != "SIGUSR1":
                return word
            console.say(stacks(), sys.__stderr__)


def stacks() -> str:
    """Return where each thread of this process is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        title = names.get(ident, f"thread {ident}")
        parts.append(f"{title}\n{'=' * len(title)}\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)


def _signals() -> list[signal.Signals]:
    """Return the signals that ask a worker to stop (Ctrl-C, TERM, a closed terminal; QUIT: a cold stop), and USR1."""
    names = ["SIGINT", "SIGTERM", "SIGBREAK"]
    if not platforms.PORTABLE:
        names += ["SIGHUP", "SIGQUIT", "SIGUSR1"]
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
