"""Workers."""

from __future__ import annotations

from litetq.compat.below import modules_below
from litetq.worker import Worker as WorkController

__all__ = ["WorkController"]

__getattr__ = modules_below(__name__, __path__)
