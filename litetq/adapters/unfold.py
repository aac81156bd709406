"""A plan, which is a graph, as Celery's messages, which are trees: what waits for a task is embedded in it.

`unfold` returns the messages that can start now, each with its embed, and the chords whose members are among them or come after
them in a chain: those are counted from now on, so their size must be known before the first member is published.

A group within the header of a chord is taken apart, as in Celery: the body gets one flat list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from litetq.adapters.protocol import Embed
from litetq.message import Hanging, Kind, Message, Plan, Role, Waiting


class Program(NamedTuple):
    """What the program gives to a wire: how a workflow is written down, and what a signature means."""

    views: Callable[
        [Hanging, int], dict[str, Any]
    ]  # of a task: chain, callbacks, errbacks, chord, as dicts of signatures
    headers: Callable[[Message], dict[str, Any]]  # of protocol 2
    # A signature, the arguments it is given, (root_id, parent_id) -> the plan of the call.
    expand: Callable[[Any, Sequence[Any], tuple[str | None, str | None]], Plan]
    acks_late: Callable[[str], bool]  # of the task of this name
    takes_failure: Callable[
        [Mapping[str, Any]], bool
    ]  # whether an errback wants (request, exc, traceback); its signature
    reply_to: Callable[[str], str | None]  # where the results of the task of this id go, that runs in this thread


class Chord(NamedTuple):
    """A chord whose members are on their way."""

    group: str
    members: tuple[str, ...]  # ids of the tasks whose values the body gets, in their order
    body: dict[str, Any]  # a signature


class Unfolded(NamedTuple):
    parcels: list[tuple[Message, Embed]]
    chords: list[Chord]


def unfold(plan: Plan, views: Callable[[Hanging, int], dict[str, Any]]) -> Unfolded:
    """Return what of a plan is to be published now."""
    if not plan.links and not plan.joins:
        return Unfolded([(message, Embed()) for message in plan.messages], [])
    messages, waiting = _numbered(plan)
    hanging = _hanging(plan, messages)
    blocked = {link.target for link in plan.links} | {join.body for join in plan.joins if join.body is not None}
    parcels = []
    chords: dict[str, Chord] = {}
    for place, message in enumerate(messages):
        if place in blocked:
            continue
        found = views(hanging, place)
        parcels.append((message, Embed(*(found[name] for name in Embed._fields))))
        for body in (found["chord"], _chord_of(found["chain"][0]) if found["chain"] else None):
            if body:
                group, members = waiting[body["options"]["task_id"]]
                chords[group] = Chord(group, members, body)
    return Unfolded(parcels, list(chords.values()))


def _chord_of(step: dict[str, Any]) -> dict[str, Any] | None:
    """Return the body of the chord in whose header a chain stands that ends in this step."""
    while step["task"] in ("celery.chord", "celery.chain"):
        step = step["kwargs"]["body"] if step["task"] == "celery.chord" else step["kwargs"]["tasks"][-1]
    found: dict[str, Any] | None = step["options"].get("chord")
    return found


def _numbered(plan: Plan) -> tuple[list[Message], dict[str, tuple[str, tuple[str, ...]]]]:
    """Return the messages with the group and index by which their chord counts them; of each body (by id) group and members."""
    messages = list(plan.messages)
    waiting = {}
    for join in plan.joins:
        if join.body is None or join.body < 0:
            continue
        if join.immutable:
            messages[join.body] = _with(messages[join.body], immutable=True)
        leaves = leaves_of(plan, join.members)
        groups = {_group(messages[leaf]) for leaf in leaves}
        group = groups.pop() if len(groups) == 1 else None
        if group is None:
            group = plan.messages[join.body].id
        waiting[plan.messages[join.body].id] = (group, tuple(messages[leaf].id for leaf in leaves))
        for index, leaf in enumerate(leaves):
            messages[leaf] = _with(messages[leaf], group=group, group_index=index)
    return messages, waiting


def _group(message: Message) -> str | None:
    found: str | None = json.loads(message.headers).get("group") if message.headers else None
    return found


def _with(message: Message, **headers: Any) -> Message:
    return message._replace(headers=json.dumps({**(json.loads(message.headers) if message.headers else {}), **headers}))


def leaves_of(plan: Plan, members: Sequence[int]) -> list[int]:
    """Return the places of the tasks whose values a join gets, those of nested groups in their place."""
    found: list[int] = []
    for member in members:
        found += [member] if member >= 0 else leaves_of(plan, plan.joins[-2 - member].members)
    return found


def _hanging(plan: Plan, messages: Sequence[Message]) -> Hanging:
    """Return a plan in the form in which the file says what waits for a task; numbers are places."""
    errbacks = {link.target for link in plan.links if link.kind == Kind.ERRBACK}
    links: dict[int, list[tuple[int, int]]] = {}
    for link in dict.fromkeys(plan.links):
        if link.kind == Kind.ERRBACK or link.target not in errbacks:
            links.setdefault(link.source, []).append((link.target, link.kind))
    joins: dict[int, tuple[int | None, int | None, int]] = {}
    member_of: dict[int, int] = {}
    for number, join in enumerate(plan.joins):
        if join.body is None or join.body < 0:
            continue
        leaves = leaves_of(plan, join.members)
        joins[number] = (join.body, None, len(leaves))
        member_of.update(dict.fromkeys(leaves, number))
    tasks = {
        place: Waiting(
            place, m.id, m.name, m.body, m.content_type, m.queue, m.priority, m.headers, m.delay, m.lifetime,
            Role.ERRBACK if place in errbacks else Role.TASK,
        )
        for place, m in enumerate(messages)
    }  # fmt: skip
    return Hanging(tasks, links, joins, member_of)
