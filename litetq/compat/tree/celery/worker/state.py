"""What the workers of this process hold, have done and were told; read at each look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from litetq import clock
from litetq.app import _apps
from litetq.compat.alias import workers
from litetq.parts import Request

from ..local import Proxy

__all__ = ["active_requests", "reserved_requests", "revoked", "total_count"]


class _Seen:
    """A set that is looked up each time."""

    def __init__(self, look: Callable[[], Iterable[Any]]) -> None:
        self._look = look

    def __contains__(self, item: object) -> bool:
        return item in list(self._look())

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._look()))

    def __len__(self) -> int:
        return len(list(self._look()))


def _revoked() -> Iterator[str]:
    for app in list(_apps):
        if app._engine is not None:
            yield from app._engine.mailbox.revoked(clock.now())


def _reserved() -> Iterator[Request]:
    for worker in list(workers):
        for delivery in worker.held():
            yield Request(delivery, task=worker.app.tasks.get(delivery.name), app=worker.app, hostname=worker.hostname)


def _active() -> Iterator[Request]:
    begun = {claim for worker in list(workers) for claim in worker.seat.begun() or ()}
    return (request for request in _reserved() if request.message.claim in begun)


def _total() -> Counter[str]:
    return sum((Counter(worker.statistics().total) for worker in list(workers)), Counter())


revoked = _Seen(_revoked)
reserved_requests = _Seen(_reserved)
active_requests = _Seen(_active)
total_count: Any = Proxy(_total)
