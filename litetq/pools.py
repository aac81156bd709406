"""Which pool is meant: one of ours by its name, by Celery's path of it, or a class that somebody else has written."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from litetq import green, platforms
from litetq.exceptions import ImproperlyConfigured
from litetq.pool import Pool

POOLS: Final = {  # as they are called here
    "prefork": "processes",
    "processes": "processes",
    "threads": "threads",
    "solo": "solo",
    "asyncio": "asyncio",
    "gevent": "gevent",
    "eventlet": "eventlet",
    # Celery's own paths, as settings of long ago have them:
    "celery.concurrency.prefork:taskpool": "processes",
    "celery.concurrency.thread:taskpool": "threads",
    "celery.concurrency.solo:taskpool": "solo",
    "celery.concurrency.gevent:taskpool": "gevent",
    "celery.concurrency.eventlet:taskpool": "eventlet",
}
NAMES: Final = ("prefork", "processes", "threads", "solo", "asyncio", "gevent", "eventlet", "custom")
USUAL: Final = {"solo": 1, "asyncio": 1000, "gevent": 100, "eventlet": 100}  # tasks at once; arbitrary, but for solo
VARIABLE: Final = "CELERY_CUSTOM_WORKER_POOL"


class Found(NamedTuple):
    name: str
    make: Callable[..., Pool] | None = None  # of a class that is not ours


def find(pool: str | type[Any]) -> Found:
    """Return the pool that is meant by a name, by `module:Class`, by "custom" (see VARIABLE), or by a class itself.

    Raises ImproperlyConfigured when there is none, when a class is not one of a pool, and for gevent and eventlet in a
    program that they have not patched (to do that now would be too late), as for processes in one that they have.
    """
    if not isinstance(pool, str):
        return _own(pool, repr(pool))
    name = POOLS.get(pool.lower())
    if name in green.LIBRARIES and platforms.green() != name:
        raise ImproperlyConfigured(_not_patched(name))
    if name == "processes" and platforms.is_green():
        raise ImproperlyConfigured(_no_children(platforms.green()))
    if name is not None:
        return Found(name)
    if pool.lower() == "custom":
        pool = os.environ.get(VARIABLE, "")
        if not pool:
            raise ImproperlyConfigured(
                f"pool custom: {VARIABLE} is not set; set it to module:Class, or use  -P module:Class"
            )
    if "." not in pool and ":" not in pool:
        raise ImproperlyConfigured(
            f"pool={pool!r}: there is no such pool; choose one of {', '.join(NAMES)}, or give module:Class"
        )
    try:
        made = pkgutil.resolve_name(pool)
    except Exception as error:
        raise ImproperlyConfigured(f"pool {pool}: it cannot be imported: {type(error).__name__}: {error}") from error
    return _own(made, pool)


def _own(made: Any, shown: str) -> Found:
    if not isinstance(made, type):
        raise ImproperlyConfigured(f"pool {shown}: this is no class; a pool is one, like litetq.pool.SimplePool")
    wanted = [name for name in vars(Pool) if not name.startswith("_")]
    missing = [f"{name}()" for name in wanted if not callable(getattr(made, name, None))]
    if missing:
        raise ImproperlyConfigured(
            f"pool {shown}: it has no {', '.join(missing)}; a pool has the methods of litetq.pool.Pool, "
            f"and most of them when it is a subclass of litetq.pool.SimplePool"
        )
    return Found(str(getattr(made, "name", made.__name__)), made)


def _not_patched(name: str) -> str:
    """Say why it is too late, and what to do; that the package is missing is said by whoever patches."""
    begin = (
        "from gevent import monkey; monkey.patch_all()"
        if name == "gevent"
        else "import eventlet; eventlet.monkey_patch()"
    )
    return (
        f"pool {name}: {name} has not patched this program, and now, with the app imported, it is too late; start the "
        f"worker with  -P {name}  on its command line, or begin the program with  {begin}"
    )


def _no_children(library: str) -> str:
    return (
        f"pool processes: {library} has patched this program, perhaps in the app's own module, and from such a program no child "
        f"processes can be served; use  -P {library}  or  -P threads , or patch in the program that needs it, not in the app's module"
    )


def concurrency_of(name: str) -> int:
    """Return how many tasks a pool runs at once where nobody says a number."""
    return USUAL.get(name) or platforms.processors()


def make(found: Found, *parts: Any) -> Pool:
    """Return a pool of a class that is not ours, made of `run`, `begin`, `wake` and the concurrency.

    Raises ImproperlyConfigured when it cannot be made of them.
    """
    assert found.make is not None
    try:
        pool = found.make(*parts)
    except Exception as error:
        raise ImproperlyConfigured(
            f"pool {found.name}: it cannot be made with (run, begin, wake, concurrency): {type(error).__name__}: {error}"
        ) from error
    missing = [name for name in Pool.__annotations__ if not hasattr(pool, name)]
    if missing:
        raise ImproperlyConfigured(
            f"pool {found.name}: it has no {', '.join(missing)}; litetq.pool.Pool says what they mean"
        )
    return pool
