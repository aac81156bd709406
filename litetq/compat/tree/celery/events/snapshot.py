"""Pictures of what events have told, now and then."""

from __future__ import annotations

from litetq.camera import Polaroid

__all__ = ["Polaroid"]
