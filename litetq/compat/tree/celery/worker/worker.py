"""The worker."""

from __future__ import annotations

from litetq.worker import Worker as WorkController

__all__ = ["WorkController"]
