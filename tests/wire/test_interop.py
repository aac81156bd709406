"""Real Celery on either side of the wire: what one sends, the other runs, and both read the same results."""

from __future__ import annotations

import pytest

from tests.waiting import eventually
from tests.wire.conftest import Programs

EXPECTED = {
    "call": 3,
    "keywords": 3,
    "countdown": 3,
    "failure": ["ValueError", "no"],
    "retries": 2,
    "late": "seen",
    "expired": ["TaskRevokedError"],
    "request": [0, True, "celery", []],
    "request in a chain": [0, True, "celery", ["quiet", "quiet"]],
    "chain": 10,
    "long chain": 41,
    "group": [0, 2, 4, 6],
    "chord": 12,
    "chord in a chain": 107,
    "chord and steps": 8,
    "chord after chord": 15,
    "chord in a chord": 8,
    "chain in a chord": 7,
    "chord that fails": "ValueError",
    "chain that fails": ["ValueError", "no"],
    "replaced": 1001,
    "replaced in a chain": 1002,
    "replaced by a chain": 1003,
    "added to a chord": 7,
    "link": 2,
    "link_error": ["ValueError", "no"],
}


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_a_program_and_a_worker_of_ours_do_everything_over_a_broker(programs: Programs, pool: str) -> None:
    programs.worker("litetq", "-P", pool)
    assert programs.ask("litetq", "answer(workflows())") == EXPECTED
    eventually(lambda: sorted(programs.noted()) == ["quiet-0", "quiet-1", "quiet-2", "seen", "told"])


def test_a_program_of_celery_has_a_worker_of_ours_do_everything(programs: Programs) -> None:
    programs.worker("litetq", "-P", "threads")
    assert programs.ask("celery", "answer(workflows())") == EXPECTED
    eventually(lambda: sorted(programs.noted()) == ["quiet-0", "quiet-1", "quiet-2", "seen", "told"])


def test_a_program_of_ours_has_a_worker_of_celery_do_everything(programs: Programs) -> None:
    programs.worker("celery", "-P", "threads")
    assert programs.ask("litetq", "answer(workflows())") == EXPECTED
    eventually(lambda: sorted(programs.noted()) == ["quiet-0", "quiet-1", "quiet-2", "seen", "told"])


@pytest.mark.parametrize("whose", ["litetq", "celery"])
def test_workflows_go_from_worker_to_worker_of_both(programs: Programs, whose: str) -> None:
    programs.worker("litetq", "-P", "threads")
    programs.worker("celery", "-P", "threads")
    code = "answer([workflows() for _ in range(3)])"
    assert programs.ask(whose, code) == [EXPECTED] * 3
    assert "succeeded" in programs.log("litetq")
    assert "succeeded" in programs.log("celery")


def test_a_task_that_was_routed_by_another_key_than_its_queue_runs(programs: Programs) -> None:
    programs.worker("litetq", "-P", "threads", "-Q", "first,second")
    code = (
        "from kombu import Exchange, Queue\n"
        "queue = Queue('second', Exchange('things', 'topic'), routing_key='thing')\n"
        "answer(end(add.apply_async((1, 2), queue=queue)))"
    )
    assert programs.ask("celery", code) == 3
