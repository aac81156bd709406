"""Results: those of `litetq.result`."""

from __future__ import annotations

from litetq import result
from litetq.compat.mirror import mirror

mirror(__name__, result)
