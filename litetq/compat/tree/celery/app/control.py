"""Orders and questions to workers: `litetq.control`."""

from __future__ import annotations

from litetq import control
from litetq.compat.mirror import mirror

mirror(__name__, control)
