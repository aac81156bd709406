"""What sends `worker_ready`."""

from __future__ import annotations

from litetq.worker import Worker as Consumer

__all__ = ["Consumer"]
