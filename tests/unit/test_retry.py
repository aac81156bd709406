"""From a failed attempt to the wait before the next one."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import pytest

from litetq.exceptions import ImproperlyConfigured
from litetq.retry import RetryPolicy, get_exponential_backoff_interval


@pytest.mark.row("4.backoff formula")
@pytest.mark.parametrize(
    ("factor", "retries", "maximum", "wanted"),
    [(1, 0, 600, 1), (1, 3, 600, 8), (5, 2, 600, 20), (1, 10, 600, 600), (0, 4, 600, 0), (-3, 1, 600, 0), (2, 1, 3, 3)],
)
def test_a_wait_doubles_with_each_retry_up_to_the_maximum(factor: int, retries: int, maximum: int, wanted: int) -> None:
    assert get_exponential_backoff_interval(factor, retries, maximum) == wanted


def test_a_wait_after_ever_so_many_retries_is_the_maximum() -> None:
    assert get_exponential_backoff_interval(1, 1_000_000, 600) == 600
    assert get_exponential_backoff_interval(0.5, 5_000, 600) == 600  # type: ignore[arg-type]


@pytest.mark.row("4.backoff formula")
def test_jitter_is_a_whole_number_from_zero_to_the_wait_both_included() -> None:
    rng = random.Random(1)
    seen = {get_exponential_backoff_interval(1, 2, 600, full_jitter=True, rng=rng) for _ in range(500)}
    assert seen == {0, 1, 2, 3, 4}


def test_jitter_uses_the_chance_it_is_given() -> None:
    class Highest:
        def randrange(self, stop: int, /) -> int:
            return stop - 1

    assert get_exponential_backoff_interval(1, 5, 20, full_jitter=True, rng=Highest()) == 20


def test_the_default_policy_tries_three_times_more_at_growing_distance() -> None:
    assert list(RetryPolicy().delays()) == [0, 0.2, 0.4]


def test_a_single_wait_of_a_policy_never_exceeds_its_maximum() -> None:
    policy = RetryPolicy(max_retries=6, interval_start=0.5, interval_step=0.5, interval_max=1)
    assert list(policy.delays()) == [0.5, 1, 1, 1, 1, 1]


def test_a_policy_without_a_number_of_retries_never_ends() -> None:
    assert list(islice(RetryPolicy(max_retries=None).delays(), 1000))[-1] == 1


def test_a_policy_is_read_from_what_settings_and_calls_say() -> None:
    assert RetryPolicy.from_mapping({"max_retries": 0}) == RetryPolicy(0)
    assert RetryPolicy.from_mapping(
        {"max_retries": None, "interval_max": 5, "retry_errors": (OSError,)}
    ) == RetryPolicy(None, interval_max=5)


@pytest.mark.parametrize("policy", [{"max_retries": "x"}, {"interval_max": -1}, {"interval_step": None}])
def test_a_policy_that_is_no_number_is_refused_by_name(policy: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match=next(iter(policy))):
        RetryPolicy.from_mapping(policy)
