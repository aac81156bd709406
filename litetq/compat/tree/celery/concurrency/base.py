"""What pools have in common."""

from __future__ import annotations

from litetq.pool import Pool as BasePool

__all__ = ["BasePool"]
