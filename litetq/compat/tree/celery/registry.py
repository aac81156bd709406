"""The tasks of the current app."""

from __future__ import annotations

from typing import Any

from litetq.app import current_app

from .local import Proxy

__all__ = ["tasks"]

tasks: Any = Proxy(lambda: current_app.tasks)
