"""Errors of lost and stopped tasks."""

from __future__ import annotations

from litetq.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded, WorkerLostError

__all__ = ["SoftTimeLimitExceeded", "Terminated", "TimeLimitExceeded", "WorkerLostError"]
