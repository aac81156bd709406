"""Stands in for billiard where it is not installed: the names that tools look at; children are processes of litetq's own."""

from __future__ import annotations

from litetq.compat.below import modules_below

VERSION = (4, 2, 0)
__version__ = "4.2.0"

__getattr__ = modules_below(__name__, __path__)
