"""What fits an app into Django: `litetq.contrib.django`."""

from __future__ import annotations

from litetq.contrib.django import DjangoFixup, fixup

__all__ = ["DjangoFixup", "fixup"]
