"""Signatures and workflows: those of `litetq.canvas`."""

from __future__ import annotations

from litetq import canvas
from litetq.compat.mirror import mirror

_chain = canvas.chain
_chord = canvas.chord

mirror(__name__, canvas)
