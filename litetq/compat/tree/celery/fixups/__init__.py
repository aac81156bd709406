"""What fits an app into a framework."""

from __future__ import annotations

from litetq.compat.below import modules_below

__getattr__ = modules_below(__name__, __path__)
