"""`worker -P gevent`: this process is monkey-patched before the app, or anything that it imports, is imported.

So the line is looked at before it is read: without click, which is one of the things to be patched first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from litetq import green

# `-P gevent`, `-Pgevent` and `-P=gevent`; flags that take no value may share the dash (`-EPgevent`).
_SHORT = re.compile(r"-[BCDEhq]*P=?(.*)", re.DOTALL)
_LONG = re.compile(r"--pool(?:=(.*))?", re.DOTALL)


def patch_for(words: Sequence[str]) -> None:
    """Patch this process when the words start a worker with a pool of greenlets.

    Raises ImproperlyConfigured when the package is missing.
    """
    if "worker" in words:
        pool = pool_of(words)
        if pool in green.LIBRARIES:
            green.patch(pool)


def pool_of(words: Sequence[str]) -> str | None:
    """Return the pool that a line names, in small letters; of several the last one; None where it names none."""
    named = None
    for place, word in enumerate(words):
        found = _LONG.fullmatch(word) if word.startswith("--") else _SHORT.fullmatch(word)
        if found:
            named = found[1] or (words[place + 1] if place + 1 < len(words) else None)
    return None if named is None else named.lower()
