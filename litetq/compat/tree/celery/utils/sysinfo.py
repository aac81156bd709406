"""The load of the machine."""

from __future__ import annotations

from litetq.events import load_average as _load

__all__ = ["load_average"]


def load_average() -> tuple[float, ...]:
    """Return the load of the last 1, 5 and 15 minutes; zeros where there is none."""
    return tuple(_load())
