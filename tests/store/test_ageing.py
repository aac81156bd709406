"""Priorities that rise with the time a task has waited, where a setting asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.factories import Queue, message, release, retry
from tests.store.test_plans import assert_searched, plans_of

STEP = 10.0


@pytest.fixture
def ageing(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "jobs.sqlite", ageing=STEP)
    yield queue
    queue.close()


def test_a_waiting_task_rises_by_one_priority_with_each_step(ageing: Queue) -> None:
    ageing.send(message("low", priority=0))
    ageing.now += 2 * STEP
    ageing.send(
        message("lower than it has become", priority=1), message("equal", priority=2), message("high", priority=3)
    )
    assert [ageing.run() for _ in range(4)] == ["high", "low", "equal", "lower than it has become"]


def test_however_much_of_a_higher_priority_comes_a_task_is_passed_by_for_a_bounded_time(ageing: Queue) -> None:
    ageing.send(message("patient", priority=0))
    passed = 0
    while True:
        ageing.send(message(priority=255))
        if ageing.run() == "patient":
            break
        passed += 1
        assert passed < 300
        ageing.now += STEP
    assert passed == 255


def test_without_the_setting_it_never_rises(queue: Queue) -> None:
    queue.send(message("low", priority=0))
    queue.now += 1_000_000
    queue.send(message("high", priority=1))
    assert [queue.run(), queue.run()] == ["high", "low"]


def test_a_task_does_not_age_before_it_is_due(ageing: Queue) -> None:
    ageing.send(message("later", priority=0, due_at=ageing.now + 1_000))
    ageing.now += 1_000
    ageing.send(message("now", priority=1))
    assert [ageing.run(), ageing.run()] == ["now", "later"]


def test_a_retry_waits_anew_and_what_was_given_back_does_not(ageing: Queue) -> None:
    ageing.send(message("tried", priority=0), message("given back", priority=0))
    tried, given_back = ageing.claim(2)
    ageing.now += 5 * STEP
    ageing.settle(retry(tried, due_at=ageing.now), release(given_back))
    ageing.send(message("new", priority=3))
    # "tried" has the older commit number of the two: within one priority that alone decides, and it holds the other up.
    assert [delivery.id for delivery in ageing.claim(3)] == ["new", "tried", "given back"]


def test_queues_are_merged_by_what_their_tasks_have_risen_to(ageing: Queue) -> None:
    ageing.send(message("old", queue="a", priority=0))
    ageing.now += 4 * STEP
    ageing.send(message("mid", queue="b", priority=4), message("new", queue="a", priority=3))
    ageing.send(message("top", queue="b", priority=9))
    assert [delivery.id for delivery in ageing.claim(10)] == ["top", "old", "mid", "new"]


def test_limits_hold_where_priorities_age(ageing: Queue) -> None:
    ageing.store.lanes.set_max_running({"tasks.narrow": 1})
    for queue in ("a", "b"):
        ageing.send(
            message(f"narrow {queue}", name="tasks.narrow", queue=queue, priority=9),
            message(f"wide {queue}", queue=queue),
        )
    assert [delivery.id for delivery in ageing.claim(10)] == ["narrow a", "wide a", "wide b"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["a", "b"])), max_size=4),  # sent
            st.integers(0, 35),  # seconds later
            st.integers(0, 4),  # claimed
        ),
        min_size=2,
        max_size=12,
    )
)
def test_claims_come_as_a_plain_list_of_all_that_waits_would_be_sorted(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[tuple[list[tuple[int, str]], int, int]]
) -> None:
    queue = Queue(tmp_path_factory.mktemp("model") / "jobs.sqlite", ageing=STEP)
    waiting: list[tuple[int, float, str]] = []  # priority, since, id; in commit order
    for sent, seconds, claimed in rounds:
        for priority, name in sent:
            sent_message = message(priority=priority, queue=name)
            queue.send(sent_message)
            waiting.append((priority, queue.now, sent_message.id))
        queue.now += seconds
        risen = [(-(p + int((queue.now - since) // STEP)), at, id) for at, (p, since, id) in enumerate(waiting)]
        expected = [id for _, _, id in sorted(risen)[:claimed]]
        assert [delivery.id for delivery in queue.claim(claimed)] == expected
        waiting = [task for task in waiting if task[2] not in expected]
    queue.close()


def test_a_claim_by_age_costs_the_same_however_much_waits(ageing: Queue) -> None:
    def steps() -> int:
        """How many instructions SQLite's machine takes for a claim of three and its settles."""
        connection = ageing.database._writer
        assert connection is not None
        count = 0

        def tick() -> bool:
            nonlocal count
            count += 1
            return False

        connection.set_progress_handler(tick, 1)
        ageing.settle(*(release(delivery) for delivery in ageing.claim(3)))
        connection.set_progress_handler(None)
        return count

    ageing.send(*(message(priority=n) for n in range(10)))
    few = steps()
    ageing.send(*(message(priority=n % 10) for n in range(20_000)))
    assert steps() < few * 1.5


def test_no_statement_of_a_claim_by_age_goes_through_a_whole_table(ageing: Queue) -> None:
    ageing.send(*(message(priority=n % 5, queue=f"q{n % 2}") for n in range(20)))
    assert_searched(plans_of(ageing, lambda q: q.claim(7)))
