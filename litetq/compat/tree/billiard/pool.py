"""What tools wrap in children of a pool."""

from __future__ import annotations

from typing import Any

__all__ = ["Worker"]


class Worker:
    """A child of a pool; litetq's children are not made of it, so what is assigned here changes nothing."""

    def workloop(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: nobody calls it."""
