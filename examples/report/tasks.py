"""The task of report.py: add up one file of sales."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

from litetq import LiteTQ

# Results are kept for a year and a bit: a file that was added up need not be read again for the next report.
app = LiteTQ("report", broker="report.sqlite", result_expires=400 * 86400)


class BadFile(Exception):
    """A file of sales that cannot be read."""


@app.task(acks_late=True, throws=(BadFile,))
def add_up(path: str) -> dict[str, Decimal]:
    """Return the sum of the column `amount` for each `region`."""
    sums: dict[str, Decimal] = {}
    with open(path, encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.DictReader(file), start=2):
            try:
                sums[line["region"]] = sums.get(line["region"], Decimal(0)) + Decimal(line["amount"])
            except (KeyError, TypeError, ArithmeticError) as error:
                raise BadFile(f"{Path(path).name}, line {number}: {line} ({type(error).__name__})") from error
    return sums
