"""A worker within a test."""

from __future__ import annotations

from litetq.testing import start_worker, test_worker_started, test_worker_starting, test_worker_stopped
from litetq.worker import Worker

__all__ = ["TestWorkController", "start_worker", "test_worker_started", "test_worker_starting", "test_worker_stopped"]

TestWorkController = Worker
