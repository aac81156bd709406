"""What a command prints."""

from __future__ import annotations

import sys
from typing import TextIO


def say(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print a line at once; a reader who has gone away is no reason to stop."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, end=end, flush=True)
    except (BrokenPipeError, ValueError):
        pass  # the pipe's reader ended, or the stream was closed: nobody is there to be told


def tell(text: str) -> None:
    """Print a line of a list without end. Raises BrokenPipeError when its reader has gone: then it is to end."""
    print(text, flush=True)
