"""States: those of `litetq.states`."""

from __future__ import annotations

from litetq import states
from litetq.compat.mirror import mirror

PRECEDENCE_LOOKUP = {name: rank for rank, name in enumerate(states.PRECEDENCE)}
NONE_PRECEDENCE = PRECEDENCE_LOOKUP[None]

mirror(__name__, states)
