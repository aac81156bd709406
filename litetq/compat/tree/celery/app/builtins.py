"""Tasks that every app has."""

from __future__ import annotations

from typing import Any

__all__ = ["add_backend_cleanup_task"]


def add_backend_cleanup_task(app: Any) -> Any:
    """Return the task that removes what has expired, which every app has; workers do so by themselves."""
    return app.tasks["celery.backend_cleanup"]
