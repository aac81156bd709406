"""Stands in for billiard where it is not installed: the names that tools look at; children are processes of litetq's own."""

from __future__ import annotations

VERSION = (4, 2, 0)
__version__ = "4.2.0"
