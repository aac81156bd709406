"""Settings and their defaults."""

from __future__ import annotations

from litetq.conf import OPTIONS

__all__ = ["DEFAULTS", "DEFAULT_PROCESS_LOG_FMT", "DEFAULT_TASK_LOG_FMT"]

DEFAULTS = {name: option.default for name, option in OPTIONS.items()}
DEFAULT_PROCESS_LOG_FMT = DEFAULTS["worker_log_format"]
DEFAULT_TASK_LOG_FMT = DEFAULTS["worker_task_log_format"]
