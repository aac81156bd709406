"""Real Celery on either side of the wire: what one sends, the other runs, and both read the same results."""

from __future__ import annotations

from typing import Any

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


NOTES = ["quiet-0", "quiet-1", "quiet-2", "seen", "told"]
SIDES = [("litetq", "litetq"), ("celery", "litetq"), ("litetq", "celery")]


def expected(queue: str) -> dict[str, Any]:
    """Return what becomes of each workflow that is sent to this queue."""
    return {
        **EXPECTED,
        "request": [0, True, queue, []],
        "request in a chain": [0, True, queue, ["quiet", "quiet"]],
    }


def test_a_program_and_a_worker_of_ours_do_everything_over_a_broker(programs: Programs) -> None:
    programs.worker("litetq", "-P", "threads")
    assert programs.ask("litetq", "answer(workflows())") == EXPECTED
    eventually(lambda: sorted(programs.noted()) == NOTES)


@pytest.mark.slow
def test_a_worker_of_ours_with_processes_does_everything_too(anywhere: Programs) -> None:
    anywhere.worker("litetq", "-P", "processes")
    assert anywhere.ask("litetq", "answer(workflows())") == EXPECTED
    eventually(lambda: sorted(anywhere.noted()) == NOTES)


@pytest.mark.slow
@pytest.mark.parametrize(("calls", "runs"), SIDES)
def test_what_one_sends_the_other_runs(town: Programs, calls: str, runs: str) -> None:
    before = len(town.noted())
    code = f"app.conf.task_default_queue = {runs!r}\nanswer(workflows())"
    assert town.ask(calls, code) == expected(runs)
    eventually(lambda: sorted(town.noted()[before:]) == NOTES)


@pytest.mark.slow
@pytest.mark.parametrize("calls", ["litetq", "celery"])
def test_workflows_go_from_worker_to_worker_of_both(town: Programs, calls: str) -> None:
    ran = {whose: town.log(whose).count("succeeded") for whose in ("litetq", "celery")}
    code = "app.conf.task_default_queue = 'shared'\nanswer([workflows() for _ in range(3)])"
    alike = [{name: end for name, end in ends.items() if "request" not in name} for ends in town.ask(calls, code)]
    assert alike == [{name: end for name, end in EXPECTED.items() if "request" not in name}] * 3
    for whose, before in ran.items():
        assert town.log(whose).count("succeeded") > before


# Steps that take turns: each is sent to the worker of the other one by the one who ran the step before.
ALTERNATING = """
def of(whose, sig):
    return sig.set(queue=whose)

ours, theirs = 'litetq', 'celery'
turns = [ours, theirs]
steps = [of(turns[n % 2], add.s(1)) for n in range(12)]
members = [of(turns[n % 2], add.s(n, n)) for n in range(6)]
first = {'chain': end(chain(of(ours, add.s(0, 1)), *steps[1:]).apply_async())}
answer({
    **first,
    'group': end(group(members).apply_async()),
    'chord of ours': end(chord(members, of(ours, total.s())).apply_async()),
    'chord of theirs': end(chord(members, of(theirs, total.s())).apply_async()),
    'chord and steps': end(chain(chord(members, of(theirs, total.s())), of(ours, add.s(1)), of(theirs, add.s(1))).apply_async()),
    'chords in turn': end(chain(
        of(theirs, add.s(1, 1)),
        group(of(ours, add.s(1)), of(theirs, add.s(2))), of(ours, total.s()),
        group(of(theirs, add.s(1)), of(ours, add.s(2))), of(theirs, total.s()),
    ).apply_async()),
    'retries': end(chain(of(ours, third_time.s()), of(theirs, add.s(1)), of(ours, add.s(1))).apply_async()),
    'retries there': end(chain(of(theirs, third_time.s()), of(ours, add.s(1))).apply_async()),
    'failure of ours': end(chain(of(theirs, add.s(1, 1)), of(ours, fail.s()), of(theirs, add.s(1))).apply_async()),
    'failure of theirs': end(chain(of(ours, add.s(1, 1)), of(theirs, fail.s()), of(ours, add.s(1))).apply_async()),
    'replaced': end(chain(of(theirs, add.s(1, 1)), of(ours, swap.s()), of(theirs, add.s(1))).apply_async()),
    'replaced there': end(chain(of(ours, add.s(1, 1)), of(theirs, swap.s()), of(ours, add.s(1))).apply_async()),
    'link': end(add.apply_async((1, 1), queue=ours, link=of(theirs, quiet.s()))),
    'link there': end(add.apply_async((1, 1), queue=theirs, link=of(ours, quiet.s()))),
    'link_error': end(fail.apply_async((), queue=ours, link_error=of(theirs, told.s()))),
    'link_error there': end(fail.apply_async((), queue=theirs, link_error=of(ours, told.s()))),
})
"""


@pytest.mark.slow
@pytest.mark.parametrize("calls", ["litetq", "celery"])
def test_the_steps_of_a_workflow_take_turns(town: Programs, calls: str) -> None:
    before = len(town.noted())
    failure = ["ValueError", "no"]
    assert town.ask(calls, ALTERNATING) == {
        "chain": 12,
        "group": [0, 2, 4, 6, 8, 10],
        "chord of ours": 30,
        "chord of theirs": 30,
        "chord and steps": 32,
        "chords in turn": 17,
        "retries": 4,
        "retries there": 3,
        "failure of ours": failure,
        "failure of theirs": failure,
        "replaced": 1003,
        "replaced there": 1003,
        "link": 2,
        "link there": 2,
        "link_error": failure,
        "link_error there": failure,
    }
    eventually(lambda: sorted(town.noted()[before:]) == ["quiet-2", "quiet-2", "told", "told"], within=30)


@pytest.mark.slow
def test_a_task_that_was_routed_by_another_key_than_its_queue_runs(anywhere: Programs) -> None:
    anywhere.worker("litetq", "-P", "threads", "-Q", "first,second")
    code = (
        "from kombu import Exchange, Queue\n"
        "queue = Queue('second', Exchange('things', 'topic'), routing_key='thing')\n"
        "answer(end(add.apply_async((1, 2), queue=queue)))"
    )
    assert anywhere.ask("celery", code) == 3
