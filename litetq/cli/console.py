"""What is printed, and where: never an exception because of a character, never a colour in a file."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def never_fail_to_print() -> None:
    """Make stdout and stderr replace what their encoding lacks by an escape (legacy code pages, redirected consoles)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def has_colour(stream: TextIO, wanted: bool | None = None) -> bool:
    """Return whether to colour what goes to `stream`: as `wanted`, where None means only on a terminal."""
    if wanted is not None:
        return wanted
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line at once; a reader who has gone away is no reason to stop."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except (BrokenPipeError, ValueError):
        pass  # the pipe's reader ended, or the stream was closed: nobody is there to be told
