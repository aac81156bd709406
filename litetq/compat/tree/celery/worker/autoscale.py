"""How large a pool should be."""

from __future__ import annotations

from litetq.autoscale import Autoscaler

__all__ = ["Autoscaler"]
