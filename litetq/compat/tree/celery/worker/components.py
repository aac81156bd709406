"""Parts of a worker."""

from __future__ import annotations

from litetq.steps import Timer

__all__ = ["Timer"]
