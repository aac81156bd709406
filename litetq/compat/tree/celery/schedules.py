"""Schedules: those of `litetq.schedules`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

from litetq import schedules
from litetq.compat.mirror import mirror

cronfield = Union[int, str, Iterable[int]]  # noqa: UP007  # a value, which `int | str` is not for all that read it

mirror(__name__, schedules)
