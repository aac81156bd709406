"""Warnings of what will go."""

from __future__ import annotations

import warnings
from typing import Any

from litetq.exceptions import CDeprecationWarning, CPendingDeprecationWarning

__all__ = ["warn"]


def warn(
    description: str | None = None,
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    stacklevel: int = 2,
) -> None:
    """Warn that something goes: with a removal as deprecated, else as pending."""
    text = f"{description} is deprecated and scheduled for removal in version {removal}. {alternative or ''}".strip()
    if deprecation is not None:
        text = f"{description} is scheduled for deprecation in version {deprecation} and removal in version {removal}."
    kind: Any = CPendingDeprecationWarning if deprecation is not None else CDeprecationWarning
    warnings.warn(kind(text), stacklevel=stacklevel + 1)
