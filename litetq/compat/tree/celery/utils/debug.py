"""How much memory a process has taken while it ran."""

from __future__ import annotations

import os
from typing import Any

import psutil

__all__ = ["mem_rss", "memdump", "ps", "sample", "sample_mem"]

_samples: list[str] = []


def ps() -> Any:
    """Return this process."""
    return psutil.Process(os.getpid())


def mem_rss() -> str:
    """Return the resident memory in words."""
    size = float(ps().memory_info().rss)
    for unit in ("", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            break
        size /= 1024
    return f"{size:.3f}".rstrip("0").rstrip(".") + unit


def sample_mem() -> str:
    """Note the resident memory, for `memdump`, and return it."""
    _samples.append(mem_rss())
    return _samples[-1]


def sample(x: list[Any], n: int, k: int = 0) -> Any:
    """Yield about `n` elements, evenly spread."""
    step = max(1, len(x) // n)
    yield from x[k::step][:n]


def memdump(samples: int = 10, file: Any = None) -> None:
    """Print the memory noted so far, and forget it."""
    for line in sample(_samples, samples):
        print(f"- rss: {line}", file=file)
    print(f"- rss (end): {mem_rss()}.", file=file)
    _samples.clear()
