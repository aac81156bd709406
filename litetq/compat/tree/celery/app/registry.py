"""The register of tasks."""

from __future__ import annotations

from litetq.app import TaskRegistry
from litetq.exceptions import NotRegistered

__all__ = ["NotRegistered", "TaskRegistry"]
