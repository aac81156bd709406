"""Set-up of logging."""

from __future__ import annotations

from litetq.log import TaskFormatter
from litetq.parts import Logging

__all__ = ["Logging", "TaskFormatter"]
