"""What the number of a priority means on a wire, as pure functions; here, everywhere, more is sooner.

Redis reads it the other way: of 0 to 9, 0 comes first, and no number is 0. There a priority p is sent as 9 - p, in the message and
in all that waits for it, and read back so. Workers of Celery beside these then run what is urgent first, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

_REDIS_MAX: Final = 9  # kombu's lists are numbered 0 to 9
_CANVASES: Final = ("celery.chain", "celery.group", "celery.chord")
_WITHIN: Final = ("tasks", "header", "body")  # arguments of a canvas that hold signatures
_HANGING: Final = ("link", "link_error", "chain", "chord")  # options that do


class Scale(NamedTuple):
    """How priorities are written on one kind of wire."""

    to_wire: Callable[[int], int]
    from_wire: Callable[[int], int]
    is_turned: bool

    def sigs_to_wire(self, sigs: Any) -> Any:
        """Return signatures, as deep as they lie, with their priorities as the wire has them.

        One without a number gets one: what no number means differs.
        """
        return _turned(sigs, self.to_wire) if self.is_turned else sigs

    def sigs_from_wire(self, sigs: Any) -> Any:
        return _turned(sigs, self.from_wire) if self.is_turned else sigs


def _turned(sig: Any, turn: Callable[[int], int]) -> Any:
    if isinstance(sig, (list, tuple)):
        return [_turned(one, turn) for one in sig]
    if not isinstance(sig, dict) or "task" not in sig:
        return sig
    options = dict(sig.get("options") or {})
    kwargs = sig.get("kwargs") or {}
    if sig["task"] not in _CANVASES:
        options["priority"] = turn(options.get("priority") or 0)
    else:
        kwargs = {**kwargs, **{name: _turned(kwargs[name], turn) for name in _WITHIN if name in kwargs}}
        if options.get("priority") is not None:
            options["priority"] = turn(options["priority"])
    options.update((name, _turned(options[name], turn)) for name in _HANGING if options.get(name))
    return {**sig, "kwargs": kwargs, "options": options}


def _same(priority: int) -> int:
    return priority


def _reversed(priority: int) -> int:
    return _REDIS_MAX - max(0, min(priority, _REDIS_MAX))


AS_GIVEN: Final = Scale(_same, _same, False)
REDIS: Final = Scale(_reversed, _reversed, True)
