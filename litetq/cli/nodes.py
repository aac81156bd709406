"""Node names: `celery@host`, and the % letters in node names, log files and pid files."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping


def node_name(text: str | None, host: str | None = None) -> str:
    """Return the worker's name: `text` with %h (host), %n (host without domain) and %d (domain) filled in.

    Without a text it is `celery@host`; a text without @ gets the host.
    """
    host = host or socket.gethostname() or "localhost"
    short, _, domain = host.partition(".")
    name = _fill(text or "celery@%h", {"h": host, "n": short, "d": domain})
    return name if "@" in name else f"{name}@{host}"


def fill_path(text: str, node: str, child: str | None = None) -> str:
    """Return a log or pid file's path: %n is the name before the @, %h the host, %d its domain, %p the whole node name.

    %i is the number of a pool's child, %I the same after a hyphen; in the main process 0 and nothing.
    """
    name, _, host = node.partition("@")
    letters = {"n": name, "h": host, "d": host.partition(".")[2], "p": node}
    letters |= {"i": "0", "I": ""} if child is None else {"i": child, "I": f"-{child}"}
    return os.path.expanduser(_fill(text, letters))


def _fill(text: str, letters: Mapping[str, str]) -> str:
    return re.sub(r"%(.)", lambda found: letters.get(found[1], "%" if found[1] == "%" else found[0]), text)
