"""Tasks and their requests: `litetq.task`."""

from __future__ import annotations

from litetq import task
from litetq.compat.mirror import mirror

mirror(__name__, task)
