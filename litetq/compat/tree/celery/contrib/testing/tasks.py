"""The task with which a test finds out that its worker works."""

from __future__ import annotations

from litetq.app import shared_task

__all__ = ["ping"]


@shared_task(name="celery.ping")
def ping() -> str:
    """Answer."""
    return "pong"
