"""A workflow in the making: the messages, links and joins that one call will commit as one plan.

A canvas adds its tasks one after another, each with what it waits for (`Start`). Nothing is written here, and no task runs:
a draft is a value that `plan()` finishes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, Union

from litetq import calling, signals
from litetq.hanging import CALLBACK
from litetq.message import Join, Kind, Link, Message, Plan
from litetq.result import AsyncResult, GroupResult, ResultBase

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.context import Context
    from litetq.task import Task

GATHER: Final = "celery.accumulate"  # the task that hands the values of a group to several tasks

# Where a workflow, or a part of it, ends: the place of a task, or of each member of a group.
Exit: TypeAlias = Union[int, "list[Exit]"]

BODY_OF: Final = "body_of"  # a header of the body of a chord: the id of the group whose values it gets
TELLS_OF: Final = "tells_of"  # a header of a chord's errback: the id of what failed, when it was a member

ONLY_SUCCESSORS: Final = '{"successors":'  # how headers begin that hold nothing but these

# What canvases say to each other in options, and what concerns the call as a whole: no message has it.
_NOT_OF_A_MESSAGE: Final = frozenset(
    (
        "link",
        "link_error",
        "chord",
        "chain",
        "add_to_parent",
        "callback",
        "result_cls",
        "durability",
        "retry",
        "retry_policy",
    )
)


class Start(NamedTuple):
    """What a task of a workflow waits for, and what it is told of the task before it."""

    sources: tuple[int, ...] = ()  # places of tasks; message.SELF is the task that the plan ends
    join: Exit | None = None  # the members of a chord, whose values it waits for
    is_error: bool = False  # it waits for a failure of one of the sources
    watched: tuple[int, ...] = ()  # places whose failure its errbacks are told of, too
    outside: tuple[int, ...] = ()  # places before the chord that it is the body of: if one fails, errbacks stay silent
    root_id: str | None = None
    parent_id: str | None = None
    priority: int | None = None  # of the task before it
    result: ResultBase | None = None  # becomes the parent of its result
    group_id: str | None = None  # of the members, where it waits for a group

    @property
    def waits(self) -> bool:
        return bool(self.sources) or self.join is not None


NOW: Final = Start()


class Draft:
    """The plan of one call, as far as it is known."""

    def __init__(self, app: LiteTQ, parent: Context | None) -> None:
        self.app = app
        self.parent = parent
        self.messages: list[Message] = []
        self.links: list[Link] = []
        self.joins: list[Join] = []
        self.children: dict[int, list[Any]] = {}  # place -> what a task will have called when it has succeeded
        self._calls: list[tuple[Sequence[Any], Mapping[str, Any]]] = []  # for the publish signal
        self._immutable_errbacks: set[int] = set()
        self._callbacks: set[int] = set()
        self._body_of: dict[int, str] = {}  # place -> id of the group
        self._tells_of: dict[int, int] = {}  # place of an errback -> place of the end of the chord's body

    # -- adding -------------------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        task: Task[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
        start: Start,
        *,
        immutable: bool = False,
        by_own_method: bool = True,
    ) -> int:
        """Add a task that waits for `start`; return its place.

        Raises TypeError for wrong options or arguments, EncodeError for arguments that cannot be written. A task class
        that overrides `apply_async` is asked through it, unless `by_own_method` is False.
        """
        own = {key: value for key, value in options.items() if key not in _NOT_OF_A_MESSAGE and value is not None}
        self._inherit(own, start)
        awaited = 0
        if start.is_error:
            awaited = calling.UNCHECKED
        elif start.waits and not immutable:
            awaited = 1
        if by_own_method and (self.app.has_own_send_task() if task is None else task.has_own_apply_async()):
            message = self._message_of(name, task, args, kwargs, own, awaited)
        else:
            message = self._message(name, task, args, kwargs, own, awaited)
        if start.waits:
            message = _relative(message, own, task)
        place = len(self.messages)
        self.messages.append(message)
        self._calls.append((args, kwargs))
        kind = Kind.ERRBACK if start.is_error else Kind.AFTER if immutable else Kind.VALUE
        self.links += [Link(source, place, kind) for source in start.sources]
        if start.is_error:
            self.links += [Link(source, place, Kind.AFTER) for source in start.outside]
        if start.is_error and immutable:
            self._immutable_errbacks.add(place)
        if start.join is not None:
            self.join(start.join, place, immutable)
            if start.group_id is not None:
                self._body_of[place] = start.group_id
        return place

    def repeated(self, place: int, options: Mapping[str, Any], immutable: bool) -> Repeated | None:
        """Return what adds further members of a group that are like the one at this place but for their arguments.

        None where each must be asked for: by its class, a route, or a receiver of a signal.
        """
        message = self.messages[place]
        task = self.app.tasks.get(message.name)
        if task is None or task.has_own_apply_async() or task.has_own_shadow_name():
            return None
        another = calling.maker_of_more(self.app, message, task, options)
        before, found, after = (message.headers or "").partition('"group_index":0')
        links = [(link.source, link.kind) for link in self.links if link.target == place]
        if another is None or not found or any(kind == Kind.ERRBACK for _, kind in links):
            return None
        return Repeated(
            self, task, another, before + '"group_index":', after, links, int(bool(links) and not immutable)
        )

    def _inherit(self, options: dict[str, Any], start: Start) -> None:
        if start.root_id is not None:
            options.setdefault("root_id", start.root_id)
            options.setdefault("parent_id", start.parent_id)
        if start.priority is not None and self.app.conf.task_inherit_parent_priority:
            options.setdefault("priority", start.priority)

    def _message(
        self,
        name: str,
        task: Task[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
        awaited: int,
    ) -> Message:
        if task is None:
            args, kwargs = calling.checked_arguments(name, args, kwargs)
            calling.refuse_unknown(options, name)
        else:
            args, kwargs = task.checked_call(args, kwargs, options, awaited)
        if options.get("if_new"):
            raise ValueError(
                f"call of task {name!r}: if_new is for a task by itself; in a workflow it would leave others waiting"
            )
        return calling.message_for(self.app, name, task, args, kwargs, options, self.parent)

    def _message_of(
        self,
        name: str,
        task: Task[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
        awaited: int,
    ) -> Message:
        """Let the task's own `apply_async`, or the app's `send_task`, make the message; whatever else it sends goes along."""
        with calling.captured(awaited) as plans:
            if task is None:
                self.app.send_task(name, tuple(args), dict(kwargs), **options)
            else:
                task.apply_async(tuple(args), dict(kwargs), **options)
        if not plans:
            raise RuntimeError(
                f"apply_async of task {name!r}, or send_task of its app, sent nothing, so it cannot be part of a workflow; let it "
                "call super().apply_async(...), or super().send_task(...)"
            )
        for plan in plans[:-1]:
            self._append(plan)
        *others, message = plans[-1].messages
        self._append(Plan(tuple(others)))
        return message

    def _append(self, plan: Plan) -> None:
        """Add a plan that nothing here waits for."""
        whole = combined(Plan(tuple(self.messages), tuple(self.links), tuple(self.joins)), plan)
        self.messages, self.links, self.joins = list(whole.messages), list(whole.links), list(whole.joins)
        self._calls += [((), {})] * len(plan.messages)

    def join(self, members: Exit, body: int | None = None, immutable: bool = False) -> int:
        """Add a join of these members, and one for each group among them; return its number."""
        listed = members if isinstance(members, list) else [members]
        places = tuple(
            member if isinstance(member, int) else -2 - self.join(member, None, immutable) for member in listed
        )
        self.joins.append(Join(places, body, immutable))
        return len(self.joins) - 1

    # -- what comes after ---------------------------------------------------------------------------------------------

    def after(self, exit: Exit, result: ResultBase | None = None) -> Start:
        """Return the start of what follows a task or, with a list of places, all of a group."""
        last = exit
        group_id = result.id if isinstance(result, GroupResult) else None
        while isinstance(last, list):
            if not last:
                return Start(join=exit, result=result, group_id=group_id)
            last = last[-1]
        before = self.messages[last]
        known = {"root_id": before.root_id or before.id, "parent_id": before.id, "priority": before.priority}
        if isinstance(exit, list):
            return Start(join=exit, result=result, group_id=group_id, **known)  # type: ignore[arg-type]
        return Start((exit,), result=result, **known)  # type: ignore[arg-type]

    def on_failure_of(self, places: Sequence[int], outside: tuple[int, ...] = ()) -> Start:
        """Return the start of what is to run when one of these tasks fails, after those outside have succeeded."""
        before = self.messages[places[0]]
        root_id = before.root_id or before.id
        return Start(tuple(places), is_error=True, outside=outside, root_id=root_id, parent_id=before.id)

    def gathered(self, start: Start) -> Start:
        """Return a start that several tasks may have, where `start` is the values of a group: a task hands them on."""
        task = self.app.tasks[GATHER]
        place = self.add(GATHER, task, (), {"index": 0}, {"ignore_result": True}, start._replace(result=None))
        return self.after(place, start.result)._replace(watched=(place,), outside=start.outside)

    def note_child(self, place: int, first: ResultBase) -> None:
        """Remember that the task at this place, when it has succeeded, has called what begins with `first`."""
        self.children.setdefault(place, []).append(description(first))

    def note_callbacks(self, place: int, first_link: int) -> None:
        """Remember that what was linked to the task at this place since link `first_link` is no step of its chain."""
        self._callbacks.update(link.target for link in self.links[first_link:] if link.source == place)

    def note_chord(self, errback: int, last: int) -> None:
        """Remember that the errback at this place belongs to a chord whose body ends at `last`."""
        self._tells_of[errback] = last

    def result(self, place: int, parent: ResultBase | None, ignored: bool = False) -> ResultBase:
        """Return the result object of the task at this place."""
        message = self.messages[place]
        result: AsyncResult[Any] = AsyncResult(message.id, task_name=message.name, app=self.app, parent=parent)
        if ignored:
            result.ignored = True
        return result

    # -- the end ------------------------------------------------------------------------------------------------------

    def plan(self, last: int | None = None) -> Plan:
        """Return the plan; the task at place `last` is its last message."""
        messages = list(self.messages)
        noted = self._immutable_errbacks.union(self.children, self._callbacks, self._body_of, self._tells_of)
        for place in noted:
            messages[place] = self._with_headers(place, messages[place])
        links, joins = self.links, self.joins
        if last is not None and last != len(messages) - 1:
            order = [place for place in range(len(messages)) if place != last] + [last]
            to = {old: new for new, old in enumerate(order)}
            messages = [messages[old] for old in order]
            links = [Link(to.get(link.source, link.source), to[link.target], link.kind) for link in links]
            joins = [
                Join(tuple(to.get(m, m) for m in join.members), None if join.body is None else to.get(join.body, join.body), join.immutable)
                for join in joins
            ]  # fmt: skip
        return Plan(tuple(messages), tuple(links), tuple(joins))

    def _with_headers(self, place: int, message: Message) -> Message:
        children = self.children.get(place)
        if children is not None:
            message = with_successors(message, children)
        if place in self._immutable_errbacks:
            message = _with_header(message, "immutable", True)
        if place in self._callbacks:
            message = _with_header(message, CALLBACK, True)
        if place in self._body_of:
            message = _with_header(message, BODY_OF, self._body_of[place])
        if place in self._tells_of:
            message = _with_header(message, TELLS_OF, self.messages[self._tells_of[place]].id)
        return message

    def send(self, options: Mapping[str, Any]) -> None:
        """Commit the plan. When this returns, all of it is in the file; when it raises, nothing is."""
        calling.publish(self.app, self.plan(), options)
        if signals.after_task_publish.receivers:
            for message, (args, kwargs) in zip(self.messages, self._calls, strict=True):
                calling.tell_published(message, args, kwargs)


class Repeated(NamedTuple):
    """A member of a group, to be added again with other arguments: what they have in common was worked out once."""

    draft: Draft
    task: Task[..., Any]
    another: Callable[[Sequence[Any], Mapping[str, Any], str | None], Message]
    before: str  # the index in the headers
    after: str
    links: list[tuple[int, int]]  # source, kind
    awaited: int

    def add(self, args: Sequence[Any], kwargs: Mapping[str, Any], index: int) -> int:
        """Add a member; return its place. Raises as `Draft.add`."""
        draft = self.draft
        args, kwargs = self.task.checked_call(args, kwargs, {}, self.awaited)
        place = len(draft.messages)
        draft.messages.append(self.another(args, kwargs, f"{self.before}{index}{self.after}"))
        draft._calls.append((args, kwargs))
        for source, kind in self.links:
            draft.links.append(Link(source, place, kind))
        return place


def combined(one: Plan | None, other: Plan) -> Plan:
    """Return one plan that does what both do; the last message is that of `other`."""
    if one is None:
        return other
    first, joined = len(one.messages), len(one.joins)

    def moved(place: int) -> int:
        return place + first if place >= 0 else place

    links = [Link(moved(link.source), moved(link.target), link.kind) for link in other.links]
    joins = [
        Join(
            tuple(member + first if member >= 0 else member - joined for member in join.members),
            None if join.body is None else moved(join.body),
            join.immutable,
        )
        for join in other.joins
    ]
    return Plan(
        (*one.messages, *other.messages),
        (*one.links, *links),
        (*one.joins, *joins),
        cuts=(*one.cuts, *other.cuts),
    )


def description(result: ResultBase) -> Any:
    """Return a result as `AsyncResult.as_tuple` does, without its parents."""
    if isinstance(result, GroupResult):
        return [[result.id, None], [description(member) for member in result.results]]
    return [[result.id, None], None]  # type: ignore[attr-defined]


def with_successors(message: Message, children: list[Any]) -> Message:
    """Return a message that says what the task, when it has succeeded, has called: its children, beside its own calls."""
    if not children:
        return message
    known = json.loads(message.headers).get("successors", []) if message.headers else []
    return _with_header(message, "successors", [*known, *children])


def _with_header(message: Message, name: str, value: Any) -> Message:
    headers = json.loads(message.headers) if message.headers else {}
    return message._replace(headers=calling.write_headers({**headers, name: value}))


def _relative(message: Message, options: Mapping[str, Any], task: Task[..., Any] | None) -> Message:
    """Count countdown and lifetime of a task that waits from its release, not from now."""
    countdown = options.get("countdown")
    if countdown is not None:
        message = message._replace(due_at=None, delay=max(0.0, calling.seconds(countdown, "countdown")))
    expires = options["expires"] if "expires" in options else None if task is None else task.expires
    if message.expires_at is not None and isinstance(expires, (int, float)):
        message = message._replace(expires_at=None, lifetime=float(expires))
    return message
