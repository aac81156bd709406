"""Errors: those of `litetq.exceptions`."""

from __future__ import annotations

from litetq import exceptions
from litetq.compat.mirror import mirror

mirror(__name__, exceptions)
