"""What sends `worker_ready`: here the worker itself, which claims rows. There is no consumer of messages to subclass."""

from __future__ import annotations

from litetq.worker import Worker as Consumer

__all__ = ["Consumer"]
