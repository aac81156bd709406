"""Names of nodes: name@host."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from litetq import calling
from litetq.routing import worker_direct

__all__ = [
    "anon_nodename", "default_nodename", "gethostname", "host_format", "node_format", "nodename", "nodesplit",
    "worker_direct",
]  # fmt: skip

NODENAME_DEFAULT = "celery"
NODENAME_SEP = "@"


@lru_cache(1)
def gethostname() -> str:
    """Return the name of this machine."""
    return calling.hostname()


def nodename(name: str, hostname: str) -> str:
    """Return name@host."""
    return f"{name}{NODENAME_SEP}{hostname}"


def anon_nodename(hostname: str | None = None, prefix: str = "gen") -> str:
    """Return a name for a process that is no worker."""
    return nodename(f"{prefix}{os.getpid()}", hostname or gethostname())


def nodesplit(name: str) -> Any:
    """Return name and host; without an @ it is the host, and the name None."""
    return name.split(NODENAME_SEP, 1) if NODENAME_SEP in name else (None, name)


def default_nodename(hostname: str | None) -> str:
    """Return a node's full name from what the user gave of it."""
    name, host = nodesplit(hostname or "")
    return nodename(name or NODENAME_DEFAULT, host or gethostname())


def node_format(s: str, name: str, **extra: Any) -> str:
    """Fill in the % letters of a text for this node."""
    short, host = nodesplit(name)
    return host_format(s, host, short or NODENAME_DEFAULT, p=name, **extra)


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: Any) -> str:
    """Fill in %n (name), %h (host with name), %d (domain) and what is given beside."""
    host = host or gethostname()
    short, _, domain = host.partition(".")
    letters = {"h": host, "n": name or short, "d": domain, "i": "", "I": "", "%": "%", **extra}
    parts = s.split("%")
    filled = [parts[0]]
    index = 1
    while index < len(parts):
        part = parts[index]
        if part == "" and index + 1 < len(parts):  # %%
            filled.append("%" + parts[index + 1])
            index += 2
            continue
        filled.append(str(letters.get(part[:1], "%" + part[:1])) + part[1:])
        index += 1
    return "".join(filled)
