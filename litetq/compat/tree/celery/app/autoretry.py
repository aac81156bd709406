"""Retrying by itself, which every task does that has `autoretry_for`."""

from __future__ import annotations

from typing import Any

__all__ = ["add_autoretry_behaviour"]


def add_autoretry_behaviour(task: Any, **options: Any) -> None:
    """Set the options of automatic retries on a task: `autoretry_for`, `retry_kwargs`, `retry_backoff` and so on."""
    for name in (
        "autoretry_for", "dont_autoretry_for", "retry_kwargs", "retry_backoff", "retry_backoff_max", "retry_jitter",
    ):  # fmt: skip
        if name in options:
            setattr(task, name, options[name])
