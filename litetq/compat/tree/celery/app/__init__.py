"""The application."""

from __future__ import annotations

from typing import Any

from litetq.app import LiteTQ as Celery
from litetq.app import bugreport, current_app, current_or_default_app, shared_task
from litetq.compat.below import modules_below

__all__ = ["Celery", "app_or_default", "bugreport", "current_app", "default_app", "shared_task"]

__getattr__ = modules_below(__name__, __path__)

default_app = current_app


def app_or_default(app: Any = None) -> Any:
    """Return the app, or the current one for None."""
    return current_or_default_app() if app is None else app
