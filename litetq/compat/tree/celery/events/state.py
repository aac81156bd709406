"""What events have told: workers and tasks."""

from __future__ import annotations

from litetq import states
from litetq.events import EXPIRE_FACTOR, State
from litetq.events import SeenTask as Task
from litetq.events import SeenWorker as Worker

__all__ = ["State", "TASK_EVENT_TO_STATE", "Task", "Worker", "heartbeat_expires"]

HEARTBEAT_EXPIRE_WINDOW = 100 * EXPIRE_FACTOR  # per cent
TASK_EVENT_TO_STATE = {
    "sent": states.PENDING, "received": states.RECEIVED, "started": states.STARTED, "failed": states.FAILURE,
    "retried": states.RETRY, "succeeded": states.SUCCESS, "revoked": states.REVOKED, "rejected": states.REJECTED,
}  # fmt: skip


def heartbeat_expires(timestamp: float, freq: float = 60, expire_window: float = HEARTBEAT_EXPIRE_WINDOW) -> float:
    """Return until when a worker counts as alive that was heard of then."""
    return float(timestamp) + float(freq) * (expire_window / 100)
