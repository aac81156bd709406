"""Parts that a program adds to its workers: `litetq.steps`."""

from __future__ import annotations

from litetq import steps
from litetq.compat.mirror import mirror

RUN, CLOSE, TERMINATE = 0x1, 0x2, 0x3

mirror(__name__, steps)
