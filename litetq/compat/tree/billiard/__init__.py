"""Stands in for billiard where it is not installed: the names that tools look at, and those of multiprocessing, of which billiard
is a copy. Children of a pool are processes of litetq's own.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

from litetq.compat.below import modules_below

VERSION = (4, 2, 0)
__version__ = "4.2.0"

_below = modules_below(__name__, __path__)


def __getattr__(name: str) -> Any:
    try:
        return _below(name)
    except AttributeError:
        if name in multiprocessing.__all__:
            return getattr(multiprocessing, name)
        raise
