"""The process that this is."""

from __future__ import annotations

from multiprocessing.process import active_children, current_process

__all__ = ["active_children", "current_process"]
