"""Signals: those of `litetq.signals`."""

from __future__ import annotations

from litetq import signals
from litetq.compat.mirror import mirror

mirror(__name__, signals)
