"""Which ports of a host are open: an `async def` task for each, hundreds of them at once in one worker.

    python ports.py localhost 1-1024

The program has an event loop of its own, as a web server has one; the worker, which could be another process, has the other.
The queue is ports.sqlite in the working directory.
"""

from __future__ import annotations

import argparse
import asyncio

from litetq import LiteTQ

ANSWER_TIMEOUT = 3  # seconds; a silent firewall lets one wait for ever

app = LiteTQ("ports", broker="ports.sqlite")


@app.task(soft_time_limit=ANSWER_TIMEOUT)
async def is_open(host: str, port: int) -> bool:
    """Return whether something listens there. One that does not answer in time ends as SoftTimeLimitExceeded."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def look(host: str, port: int) -> str | None:
    """Enqueue one question and await its answer; None: closed."""
    result = await is_open.adelay(host, port)
    answer = await result.aget(propagate=False)
    if answer is True:
        return f"{port} open"
    return f"{port} no answer" if isinstance(answer, Exception) else None


async def scan(host: str, ports: range) -> None:
    found = [line for line in await asyncio.gather(*(look(host, port) for port in ports)) if line]
    print(*found, f"{len(ports)} ports of {host}: {len(found)} open or silent", sep="\n")


def port_range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Show which ports of a host are open.")
    parser.add_argument("host")
    parser.add_argument("ports", type=port_range, help="one port, or first-last")
    asked = parser.parse_args()
    with app.run_embedded(pool="asyncio", concurrency=500):
        asyncio.run(scan(asked.host, asked.ports))
