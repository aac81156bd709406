"""A workflow run here and now, in this thread: what `apply` and `task_always_eager` do with a canvas.

The same draft that would be committed is played in memory, by the rules by which the file releases and fails what waits.
Nothing is written. Arguments stay the objects they are; with `as_sent` they go through the serializer, as if they travelled.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from litetq import states
from litetq.context import Context
from litetq.draft import Draft, Exit
from litetq.exceptions import ChordError, Ignore, NotRegistered, TaskError
from litetq.message import Kind, Link, Message, uuid
from litetq.result import EagerResult, ResultBase

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.task import Task

# Options of a call that `Task.apply` knows, too.
_OF_APPLY = frozenset(
    (
        "headers",
        "ignore_result",
        "priority",
        "exchange",
        "routing_key",
        "time_limit",
        "soft_time_limit",
        "stamped_headers",
    )
)


_BY_ITSELF, _WITH_ANOTHER, _OF_CHORD = range(3)  # why a task ends: of a failure with another nobody is told


class _Call(NamedTuple):
    task: Task[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]


class EagerDraft(Draft):
    """A draft whose tasks can be run at once."""

    def __init__(self, app: LiteTQ, parent: Context | None, *, as_sent: bool = False) -> None:
        super().__init__(app, parent)
        self._as_sent = as_sent
        self._eager_calls: list[_Call] = []
        self._results: dict[int, EagerResult[Any]] = {}
        self._called: dict[int, list[ResultBase]] = {}  # place -> results that are its children
        self.linked: dict[int, tuple[list[Any], list[Any]]] = {}  # place -> its callbacks and errbacks, as signatures

    # -- drafting

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
            raise NotRegistered(name)
        args, kwargs = task.checked_call(args, kwargs, options, awaited)
        self._eager_calls.append(_Call(task, args, kwargs, options))
        parent = self.parent
        id = options.get("task_id") or uuid()
        root_id = options.get("root_id") or (None if parent is None else parent.root_id or parent.id)
        parent_id = options.get("parent_id") or (None if parent is None else parent.id)
        return Message(id, name, b"", root_id=root_id, parent_id=parent_id)

    def _message_of(
        self,
        name: str,
        task: Task[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: dict[str, Any],
        awaited: int,
    ) -> Message:
        return self._message(name, task, args, kwargs, options, awaited)

    def repeated(self, place: int, options: Mapping[str, Any], immutable: bool) -> None:
        """Return None: each is run with arguments of its own."""

    def note_child(self, place: int, first: ResultBase) -> None:
        self._called.setdefault(place, []).append(first)

    def result(self, place: int, parent: ResultBase | None, ignored: bool = False) -> ResultBase:
        message = self.messages[place]
        result: EagerResult[Any] = EagerResult(message.id, None, states.PENDING, name=message.name, children=[])
        result.parent = parent
        self._results[place] = result
        return result

    # -- running

    def run(self) -> BaseException | None:
        """Run all tasks in their order; return the first failure."""
        play = _Play(self)
        while play.ready:
            place = play.ready.popleft()
            token = _playing.set((play, place))
            try:
                ended = self._run_one(place, play.inputs.get(place, ()))
            finally:
                _playing.reset(token)
            self.record(place, ended.state, ended.result, ended.traceback, ended.children or [])
            play.after_end(place, ended.state == states.SUCCESS, ended.result)
        return play.first_failure

    def _run_one(self, place: int, inputs: Sequence[Any]) -> EagerResult[Any]:
        task, args, kwargs, options = self._eager_calls[place]
        message = self.messages[place]
        stamps = options.get("stamped_headers") or ()
        given = {name: value for name, value in options.items() if name in _OF_APPLY or name in stamps}
        given.update(
            task_id=message.id, root_id=message.root_id or message.id, parent_id=message.parent_id, throw=False
        )
        # What an errback is told never travels: it is made where the errback runs.
        is_told = any(isinstance(value, Context) for value in inputs)
        run = task.apply_as_if_sent if self._as_sent and not is_told else task.apply
        return run([*inputs, *args], kwargs, **given)

    def record(
        self, place: int, state: str, value: Any, traceback: str | None, children: Sequence[ResultBase] = ()
    ) -> None:
        result = self._results.get(place)
        if result is not None:
            called = self._called.get(place, []) if state == states.SUCCESS else []
            result.settle(value, state, traceback, [*children, *called])

    def failure_arguments(self, place: int, failed: int, *, of_chord: bool) -> list[Any]:
        """Return what the errback at `place` is called with; of a chord's failed member it is told as the body's end."""
        if place in self._immutable_errbacks:
            return []
        message = self.messages[self._tells_of.get(place, failed) if of_chord else failed]
        task, args, kwargs, _ = self._eager_calls[place]
        if not task.takes_failure(args, kwargs):
            return [message.id]
        result = self._results.get(failed)
        request = Context(id=message.id, task=message.name, called_directly=False, is_eager=True)
        return [request, None if result is None else result.result, None if result is None else result.traceback]


class _Play:
    """Who waits for whom while a draft is run; the rules are those of the store."""

    def __init__(self, draft: EagerDraft) -> None:
        self.draft = draft
        self.ready: deque[int] = deque()
        self.inputs: dict[int, list[Any]] = {}
        self.first_failure: BaseException | None = None
        self._ended: set[int] = set()
        self._blockers: Counter[int] = Counter()
        self._errbacks: set[int] = set()
        self._following: dict[int, list[Link]] = {}
        self._joins_of: dict[int, list[int]] = {}  # member (-2 - n for a join within) -> joins
        self._members: list[list[int]] = []  # of each join
        self._missing: list[int] = []  # of each join: how many members have not succeeded
        self._values: dict[int, Any] = {}  # of members
        self._known = 0
        self._known_links = 0
        self.take_in()

    def take_in(self) -> None:
        """Look at what was added to the draft since the last time."""
        draft = self.draft
        for link in draft.links[self._known_links :]:
            self._following.setdefault(link.source, []).append(link)
            if link.kind != Kind.ERRBACK:
                self._blockers[link.target] += 1
            elif link.target not in self._errbacks:
                # The first failure releases it, however many tasks it watches.
                self._errbacks.add(link.target)
                self._blockers[link.target] += 1
        first = len(self._members)
        for number, join in enumerate(draft.joins[first:], first):
            self._members.append([])
            self._missing.append(0)
            for member in join.members:
                self._add_member(number, member)
            if join.body is not None:
                self._blockers[join.body] += 1
        self.ready += [place for place in range(self._known, len(draft.messages)) if not self._blockers[place]]
        self._known, self._known_links = len(draft.messages), len(draft.links)
        for number in range(first, len(self._members)):
            if not self._members[number]:
                self._complete(number)

    def _add_member(self, number: int, member: int) -> None:
        self._members[number].append(member)
        self._missing[number] += 1
        self._joins_of.setdefault(member, []).append(number)

    def is_member(self, place: int) -> bool:
        return place in self._joins_of

    def extend(self, place: int, exit: Exit) -> None:
        """Add what was drafted meanwhile, with this end, to the chord of which `place` is a member."""
        for number in list(self._joins_of[place]):
            self._add_member(number, exit if isinstance(exit, int) else -2 - self.draft.join(exit))
        self.take_in()

    def after_end(self, place: int, succeeded: bool, value: Any) -> None:
        work = [(place, succeeded, value, _BY_ITSELF)]
        while work:
            place, succeeded, value, why = work.pop()
            self._ended.add(place)
            if not succeeded and self.first_failure is None and _is_failure(value):
                self.first_failure = value
            for link in self._following.get(place, ()):
                if link.kind == Kind.ERRBACK:
                    is_called = not succeeded and why != _WITH_ANOTHER
                    if is_called and self._blockers[link.target] and link.target not in self._ended:
                        self.inputs[link.target] = self.draft.failure_arguments(
                            link.target, place, of_chord=why == _OF_CHORD
                        )
                        self._release(link.target)
                elif succeeded:
                    if link.kind == Kind.VALUE:
                        self.inputs[link.target] = [value]
                    self._release(link.target)
                else:
                    work += self._fail(link.target, value, _WITH_ANOTHER)
            for number in self._joins_of.get(place, ()):
                if succeeded:
                    self._values[place] = value
                    self._arrived(number)
                else:
                    id = self.draft.messages[place].id
                    error = value if isinstance(value, ChordError) else ChordError(f"Dependency {id} raised {value!r}")
                    work += self._fail_body(number, error)

    def _release(self, place: int) -> None:
        self._blockers[place] -= 1
        if not self._blockers[place] and place not in self._ended:
            self.ready.append(place)

    def _fail(self, place: int, error: Any, why: int) -> list[tuple[int, bool, Any, int]]:
        if place in self._ended:
            return []
        if place in self._errbacks:
            self._ended.add(place)  # it would have been told of failures after a success
            return []
        failure = error if isinstance(error, BaseException) else TaskError(str(error))
        self.draft.record(place, states.FAILURE if _is_failure(failure) else states.IGNORED, failure, None)
        return [(place, False, failure, why)]

    def _fail_body(self, number: int, error: BaseException) -> list[tuple[int, bool, Any, int]]:
        """The first failure of a member fails the body, be it that of a join around this one."""
        body = self.draft.joins[number].body
        if body is not None:
            return self._fail(body, error, _OF_CHORD)
        return [work for outer in self._joins_of.get(-2 - number, ()) for work in self._fail_body(outer, error)]

    def _arrived(self, number: int) -> None:
        self._missing[number] -= 1
        if not self._missing[number]:
            self._complete(number)

    def _complete(self, number: int) -> None:
        """All members have succeeded: release the body, or fill the place in the outer join."""
        join = self.draft.joins[number]
        if join.body is not None:
            if not join.immutable:
                self.inputs[join.body] = [self._gather(number)]
            self._release(join.body)
        for outer in self._joins_of.get(-2 - number, ()):
            self._arrived(outer)

    def _gather(self, number: int) -> list[Any]:
        return [self._values[member] if member >= 0 else self._gather(-2 - member) for member in self._members[number]]


def _is_failure(value: Any) -> bool:
    """Return whether a task that did not succeed has failed; what it ignored, and what waited for that, has not."""
    return isinstance(value, BaseException) and not isinstance(value, Ignore)


_playing: ContextVar[tuple[_Play, int] | None] = ContextVar("litetq_playing", default=None)


def playing() -> tuple[EagerDraft, int] | None:
    """Return the draft that is run here, and the place of the task that runs; None outside of a run."""
    now = _playing.get()
    return None if now is None else (now[0].draft, now[1])


def links_of(id: str) -> dict[str, Any]:
    """Return callbacks and errbacks for the request of the task that runs here and now under this id, as Celery's has them."""
    now = playing()
    if now is None or now[0].messages[now[1]].id != id or now[1] not in now[0].linked:
        return {}
    callbacks, errbacks = now[0].linked[now[1]]
    return {name: links for name, links in (("callbacks", callbacks), ("errbacks", errbacks)) if links}


def is_member_of_chord() -> bool:
    """Return whether the task that runs here and now belongs to a chord."""
    now = _playing.get()
    return now is not None and now[0].is_member(now[1])


def extend_chord(exit: Exit) -> None:
    """Add what was just drafted to the chord of the task that runs here and now."""
    play, place = cast("tuple[_Play, int]", _playing.get())
    play.extend(place, exit)
