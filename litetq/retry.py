"""From "the n-th attempt failed" to "wait so long": pure arithmetic, shared by tasks that retry and by sending.

Knows no clock and no task. `rng` is a parameter, so tests can decide what chance says.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple, Protocol

from litetq.exceptions import ImproperlyConfigured


class Chance(Protocol):
    """What jitter needs of `random` or a `random.Random`."""

    def randrange(self, stop: int, /) -> int: ...


def get_exponential_backoff_interval(
    factor: int, retries: int, maximum: int, full_jitter: bool = False, rng: Chance = random
) -> int:
    """Return the seconds to wait before retry number `retries` (0 is the first): `factor * 2**retries`, at most `maximum`.

    With `full_jitter` it is a random whole number from 0 to that, both included. Never negative.
    """
    # A float factor is allowed, and 2**1024 is no float: past 2**64 any factor is beyond any maximum.
    interval: int = min(maximum, factor * 2 ** min(retries, 64))
    if full_jitter:
        interval = rng.randrange(int(max(0, interval)) + 1)
    return max(0, interval)


class RetryPolicy(NamedTuple):
    """How often, and after which waits, sending is tried again (`task_publish_retry_policy`).

    `max_retries` None means for ever; all other fields are seconds. `interval_max` bounds each single wait.
    """

    max_retries: int | None = 3
    interval_start: float = 0
    interval_step: float = 0.2
    interval_max: float = 1

    @classmethod
    def from_mapping(cls, policy: Mapping[str, Any]) -> RetryPolicy:
        """Return the policy that a setting or `retry_policy=` describes; keys left out have their defaults.

        Raises ImproperlyConfigured for a value that is no number, or a negative one. Keys that only a connection to a
        server understands (`retry_errors`, `timeout`) are left to it.
        """
        known = {name: policy[name] for name in cls._fields if name in policy}
        for name, value in known.items():
            if value is None and name == "max_retries":
                continue
            if not isinstance(value, (int, float)) or not value >= 0:
                raise ImproperlyConfigured(
                    f"The retry policy has {name}={value!r}; it must be a number, 0 or more"
                    f"{', or None for no end' if name == 'max_retries' else ''}."
                )
        return cls(**known)

    def delays(self) -> Iterator[float]:
        """Yield the seconds to wait before each further attempt, the first one first; ends when no attempt is left."""
        for n in count():
            if self.max_retries is not None and n >= self.max_retries:
                return
            yield min(self.interval_start + n * self.interval_step, float(self.interval_max))
