"""Build an HTML report of a folder of CSV files, by a worker that cron starts and that ends when the work is done.

    python report.py SALES
    litetq worker report.sqlite --drain
    python report.py SALES sales.html

The first line enqueues the files that are new or changed, the last one builds the page. Each file has the columns region
and amount; one that cannot be read is named in the report.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from decimal import Decimal
from html import escape
from pathlib import Path

from tasks import add_up

from litetq import AsyncResult

Part = AsyncResult[dict[str, Decimal]]


def part_of(path: Path) -> Part:
    """Return the result for the file as it is now, enqueued if that was never done: the id names the file's state."""
    about = path.stat()
    id = f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}"
    return add_up.apply_async((str(path.resolve()),), task_id=id, if_new=True)


def page(parts: dict[str, Part]) -> str:
    """Return the report as HTML."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    problems = []
    for name, part in parts.items():
        if part.failed():
            problems.append(f"{name} is not in the sums: {part.result}")
            continue
        for region, amount in part.get().items():
            sums[region] += amount
    rows = "\n".join(
        f"<tr><td>{escape(region)}<td align=right>{amount:,.2f}"
        for region, amount in sorted(sums.items(), key=lambda row: row[1], reverse=True)
    )
    notes = "\n".join(f"<p><b>{escape(problem)}</b>" for problem in problems)
    return f"""<!DOCTYPE html>
<meta charset=utf-8>
<title>Sales</title>
<h1>Sales by region</h1>
<table>
{rows}
<tr><th>all of {len(parts) - len(problems)} files<th align=right>{sum(sums.values()):,.2f}
</table>
{notes}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Report the sales in all CSV files of a folder.")
    parser.add_argument("sales", type=Path)
    parser.add_argument("target", type=Path, nargs="?", help="the page to build; without it, only enqueue")
    said = parser.parse_args()

    parts = {path.name: part_of(path) for path in sorted(said.sales.glob("*.csv"))}
    waiting = sum(not part.ready() for part in parts.values())
    print(f"{len(parts)} files, {waiting} of them wait to be added up.")
    if said.target is None:
        return 0
    if waiting:
        print("Run  litetq worker report.sqlite --drain  and call this again.", file=sys.stderr)
        return 1
    built = said.target.with_name(said.target.name + ".part")
    built.write_text(page(parts), encoding="utf-8")
    os.replace(built, said.target)  # whoever looks sees the old page or the new one
    return 0


if __name__ == "__main__":
    sys.exit(main())
