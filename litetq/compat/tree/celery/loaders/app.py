"""What imports the modules of a worker."""

from __future__ import annotations

from litetq.parts import Loader as AppLoader

__all__ = ["AppLoader"]
