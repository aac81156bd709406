"""Canvas: calls as values (signatures), and the workflows that are put together from them.

A signature is a dict that survives JSON. Sending one compiles the whole tree to one plan, which is committed in one
transaction; nothing about a workflow lies inside a message. `compile_into` of each kind says what it adds to a plan.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, NoReturn, TypeVar, cast

from litetq import calling, context
from litetq.draft import NOW, Draft, Exit, Repeated, Start, combined, with_successors
from litetq.eager import EagerDraft, extend_chord, is_member_of_chord, playing
from litetq.exceptions import Ignore, ImproperlyConfigured, NotRegistered
from litetq.hanging import VIEWS, views_of
from litetq.message import SELF, Disposition, Join, Plan, uuid
from litetq.result import AsyncResult, GroupResult, ResultBase

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.context import Context
    from litetq.task import Task

logger = logging.getLogger("celery.app.trace")

S = TypeVar("S", bound="Signature")

REPR_LIMIT: Final = 100  # characters of the sequence that a map shows


class _Item:
    """An attribute that stands for an item of the dict, or for one below an item (`options.task_id`)."""

    def __init__(self, path: str, doc: str) -> None:
        self._above, _, self._key = path.rpartition(".")
        self.__doc__ = doc

    def _mapping(self, signature: Signature) -> dict[str, Any]:
        return signature[self._above] if self._above else signature

    def __get__(self, signature: Signature | None, owner: type | None = None) -> Any:
        return self if signature is None else self._mapping(signature).get(self._key)

    def __set__(self, signature: Signature, value: Any) -> None:
        self._mapping(signature)[self._key] = value


class Call(NamedTuple):
    """What a signature is given beside its own, when it is made part of a plan."""

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    links: Sequence[Signature] = ()  # to be called with its value, beside its own
    errbacks: Sequence[Signature] = ()  # likewise, of its failure


NOTHING_MORE: Final = Call()


class Compiled(NamedTuple):
    """What a signature added to a plan."""

    exit: Exit  # where its value comes from
    result: ResultBase
    first: ResultBase  # the result of what it begins with: what a task before it has for a child


class StampingVisitor(ABC):
    """Says which headers each part of a workflow is stamped with (`Signature.stamp`). Only `on_signature` must be written.

    Each hook is given the signature and the headers that are known so far, and returns further ones.
    """

    def on_group_start(self, group: group, **headers: Any) -> dict[str, Any]:
        return {}

    def on_group_end(self, group: group, **headers: Any) -> None:
        return None

    def on_chain_start(self, chain: chain, **headers: Any) -> dict[str, Any]:
        return {}

    def on_chain_end(self, chain: chain, **headers: Any) -> None:
        return None

    @abstractmethod
    def on_signature(self, sig: Signature, **headers: Any) -> dict[str, Any] | None: ...

    def on_chord_header_start(self, sig: chord, **header: Any) -> dict[str, Any]:
        if not isinstance(sig.tasks, group):
            sig.tasks = group(sig.tasks)
        return self.on_group_start(sig.tasks, **header)

    def on_chord_header_end(self, sig: chord, **header: Any) -> None:
        self.on_group_end(sig.tasks, **header)

    def on_chord_body(self, sig: chord, **header: Any) -> dict[str, Any]:
        return {}

    def on_callback(self, callback: Signature, **header: Any) -> dict[str, Any]:
        return {}

    def on_errback(self, errback: Signature, **header: Any) -> dict[str, Any]:
        return {}


class Signature(dict[str, Any]):
    """A call that has not been made yet: the task's name, arguments and options.

    Args:
        task: a task or its name; a dict becomes the signature that it describes.
        args, kwargs: what the call is given; what comes later is put before `args` and over `kwargs`.
        options, further keywords: options of `apply_async`.
        immutable: takes no arguments from elsewhere, only options.
    """

    TYPES: ClassVar[dict[str, type[Signature]]] = {}
    _NEVER_CHANGED: ClassVar[frozenset[str]] = frozenset(("group_id", "stamped_headers"))
    _app: LiteTQ | None = None
    _type: Any = None

    task = _Item("task", "The name of the task.")
    args = _Item("args", "Positional arguments.")
    kwargs = _Item("kwargs", "Keyword arguments.")
    options = _Item("options", "Options of the call.")
    subtask_type = _Item("subtask_type", "The kind of canvas; None for a plain task.")
    immutable = _Item("immutable", "Whether it takes no arguments from elsewhere.")
    id = _Item("options.task_id", "The id of the task, once it is frozen.")
    parent_id = _Item("options.parent_id", "The id of the task that calls it.")
    root_id = _Item("options.root_id", "The id of the first task of the workflow.")

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: LiteTQ | None = None,
        **further: Any,
    ) -> None:
        self._app = app
        if isinstance(task, dict):
            super().__init__(task)
            return
        name = getattr(task, "name", None)
        if name is not None:
            self._type = task
        super().__init__(
            task=task if name is None else name,
            args=tuple(args or ()),
            kwargs=kwargs or {},
            options={**(options or {}), **further},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # -- kinds --------------------------------------------------------------------------------------------------------

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[type[S]], type[S]]:
        """Make a subclass known, so that `from_dict` finds it by `subtask_type`."""

        def register(subclass: type[S]) -> type[S]:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: LiteTQ | None = None) -> Signature:
        """Return the signature that a dict describes, of the right class."""
        kind = d.get("subtask_type")
        if kind:
            if kind not in cls.TYPES:
                known = ", ".join(sorted(cls.TYPES))
                raise ImproperlyConfigured(f"a signature of the unknown kind {kind!r}; known are {known}")
            wanted = cls.TYPES[kind]
            if wanted is not cls:
                return wanted.from_dict(d, app=app)
        return Signature({"task": None, **_EMPTY_FIELDS, **d}, app=app)

    @property
    def app(self) -> LiteTQ:
        """The app that it was made for; else its task's; else the current one."""
        if self._app is not None:
            return self._app
        found = self._type.app if self._type is not None else context.get_current_app()
        if found is None:
            raise RuntimeError(f"the signature {self!r} belongs to no app, and there is no current one")
        return cast("LiteTQ", found)

    @property
    def type(self) -> Any:
        """The task; NotRegistered where this program has none of this name."""
        return self._type if self._type is not None else self.app.tasks[self["task"]]

    def _registered(self) -> Task[..., Any] | None:
        try:
            return cast("Task[..., Any]", self.type)
        except NotRegistered:
            return None

    @property
    def name(self) -> str:
        """The task's name, as tasks have it."""
        return cast(str, self.task)

    # -- calling ------------------------------------------------------------------------------------------------------

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Call the task itself, here and now."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs)
        return self.type(*args, **kwargs)

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Enqueue it, with these arguments before its own."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Enqueue it. When this returns, all of the workflow is in the file; when it raises, nothing of it is.

        `args` are put before its own, `kwargs` and options over them. Raises as `Task.apply_async` does.
        """
        call = Call(args or (), kwargs or {}, _given(options))
        app = self.app
        if app.conf.task_always_eager:
            with context.join_block(True):
                return _play(self, app, call, as_sent=True)
        return _commit(self, app, call)

    async def adelay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Do as `delay` does, without holding the event loop."""
        return await self.aapply_async(partial_args, partial_kwargs)

    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Do as `apply_async` does, without holding the event loop; cancelled, the workflow may be in the file or not."""
        from litetq import aio

        return await aio.sent(self.app, functools.partial(self.apply_async, args, kwargs, **options))

    def apply(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here and now, all steps of it, and return its result. Nothing is written to the file."""
        return _play(self, self.app, Call(args or (), kwargs or {}, _given(options)), as_sent=False)

    def __invert__(self) -> Any:
        """Enqueue it, and wait for its value: `~sig`."""
        return self.apply_async().get()

    def compile_into(self, draft: Draft, start: Start, call: Call = NOTHING_MORE) -> Compiled | None:
        """Add to a plan what this signature stands for; None when that is nothing at all."""
        args, kwargs, options = self._merge(call.args, call.kwargs, call.options)
        task = self._registered()
        place = draft.add(self.task, task, args, kwargs, options, start, immutable=bool(self.immutable))
        return _with_links(self, task, draft, place, start, options, call)

    # -- changing -----------------------------------------------------------------------------------------------------

    def _merge(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Return arguments and options of a call that is given these ones, too.

        `args` come before its own; `kwargs` and options win. A group's id and stamps are never changed. An immutable
        signature takes options only, unless `force`.
        """
        own: dict[str, Any] = self.options
        if options and not own:
            own = dict(options)
        elif options:
            fixed = self._NEVER_CHANGED.union(own.get("stamped_headers") or ())
            own = {**own, **{name: value for name, value in options.items() if name not in fixed or name not in own}}
        if self.immutable and not force:
            return self.args, self.kwargs, own
        return (
            (*args, *self.args) if args else self.args,
            {**self.kwargs, **kwargs} if kwargs else self.kwargs,
            own,
        )

    def clone(self: S, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> S:
        """Return a copy, merged with these arguments and options."""
        new_args, new_kwargs, new_options = self._merge(args, kwargs, options)
        fields = {
            "task": self.task,
            "args": tuple(new_args),
            "kwargs": dict(new_kwargs),
            "options": deepcopy(new_options) if new_options else {},
            "subtask_type": self.subtask_type,
            "immutable": self.immutable,
        }
        # By far the most are plain: 10,000 members of a chord are copied, too.
        copied = (
            Signature(fields, app=self._app) if type(self) is Signature else Signature.from_dict(fields, app=self._app)
        )
        copied._type = self._type
        return cast(S, copied)

    partial = clone

    def replace(self: S, args: Any = None, kwargs: Any = None, options: Any = None) -> S:
        """Return a copy with other arguments or options instead of its own."""
        copied = self.clone()
        if args is not None:
            copied.args = args
        if kwargs is not None:
            copied.kwargs = kwargs
        if options is not None:
            copied.options = options
        return copied

    def set(self: S, immutable: bool | None = None, **options: Any) -> S:
        """Set options, and return the signature."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        self.immutable = immutable

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> ResultBase:
        """Give it an id, unless it has one, and return its result. Sent twice, it is two tasks under one id."""
        options = self.options
        id = options.setdefault("task_id", _id or uuid())
        for name, value in (
            ("root_id", root_id),
            ("parent_id", parent_id),
            ("chord", chord),
            ("group_index", group_index),
        ):
            if value is not None:
                options[name] = value
        if group_id is not None:
            options.setdefault("group_id", group_id)
        return AsyncResult(id, task_name=self.task, app=self.app)

    _freeze = freeze

    @property
    def AsyncResult(self) -> Callable[..., AsyncResult[Any]]:
        """What makes a result object of an id."""
        task = self._registered()
        return self.app.AsyncResult if task is None else task.AsyncResult

    # -- callbacks ----------------------------------------------------------------------------------------------------

    def link(self, callback: Any) -> Any:
        """Let `callback` be called with the value, once the task has succeeded; return `callback`."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Let `errback` be called if the task fails; return `errback`."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self: S, errback: Any) -> S:
        """Do what `link_error` does, and return the signature."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add a value to an option that is a list, unless it is there; return the value."""
        items = self._list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add a value, or several, to an option that is a list."""
        self._list_option(key).extend(_listed(value))

    def _list_option(self, key: str) -> list[Any]:
        items = self.options.get(key)
        if not isinstance(items, list):
            items = self.options[key] = _listed(items)
        return items

    def flatten_links(self) -> list[Signature]:
        """Return the signature and all its callbacks, theirs included."""
        below = (maybe_signature(link, self._app).flatten_links() for link in _listed(self.options.get("link")))
        return [self, *itertools.chain.from_iterable(below)]

    # -- stamps -------------------------------------------------------------------------------------------------------

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Mark the task, its callbacks and errbacks with headers; with a visitor, with what it says."""
        self.stamp_links(visitor, append_stamps, **headers)
        said = None if visitor is None else visitor.on_signature(self, **headers) or {}
        return self.set(**self._stamps(said, append_stamps, **headers))

    def stamp_links(self, visitor: StampingVisitor | None, append_stamps: bool = False, **headers: Any) -> None:
        """Mark the callbacks and errbacks."""
        for option, hook in (("link", "on_callback"), ("link_error", "on_errback")):
            known = deepcopy(headers)
            for place, link in enumerate(self._list_option(option) if self.options.get(option) else ()):
                linked = self.options[option][place] = maybe_signature(link, self._app)
                said = None if visitor is None else getattr(visitor, hook)(linked, **known) or {}
                known = self._stamps(said, append_stamps, self_headers=False, **known)
                linked.stamp(visitor, append_stamps, **known)

    def _stamps(
        self, said: dict[str, Any] | None, append_stamps: bool, self_headers: bool = True, **headers: Any
    ) -> dict[str, Any]:
        """Return given headers, what the visitor said, and those it has, with the names of all in `stamped_headers`."""
        merged = {"stamped_headers": list(headers), **headers}
        if said is not None:
            _merge_stamps(merged, {"stamped_headers": list(said), **said}, append_stamps)
        if self_headers:
            names = {*merged["stamped_headers"], *(self.options.get("stamped_headers") or ())}
            own = {name: value for name, value in self.options.items() if name in names}
            _merge_stamps(merged, {**own, "stamped_headers": list(names)}, append_stamps)
        merged["stamped_headers"] = list(dict.fromkeys(merged["stamped_headers"]))
        return merged

    # -- operators and forms ------------------------------------------------------------------------------------------

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        if isinstance(other, chain):
            return chain.as_given([self, *other.unchain_tasks()], self._app)
        return chain.of([self, _unrolled(other)], self._app)

    def __ior__(self, other: Any) -> Any:
        # For dicts |= is a merge.
        return self.__or__(other)

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return the call as text, with these arguments merged in."""
        merged, named, _ = self._merge(args, kwargs, force=True)
        parts = [*map(repr, merged), *(f"{name}={value!r}" for name, value in named.items())]
        return f"{self['task']}({', '.join(parts)})"

    def __repr__(self) -> str:
        return self.reprcall()

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> Any:
        return signature, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = Signature.from_dict({**self, "options": deepcopy(self.options, memo)}, app=self._app)
        copied._type = self._type
        memo[id(self)] = copied
        return copied


_EMPTY_FIELDS: Final[dict[str, Any]] = {
    "args": (),
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}


def _with_links(
    signature: Signature,
    task: Task[..., Any] | None,
    draft: Draft,
    place: int,
    start: Start,
    options: Mapping[str, Any],
    call: Call,
) -> Compiled:
    """Add what hangs on a task that was added: its callbacks and errbacks."""
    ignored = options.get("ignore_result")
    if ignored is None:
        ignored = task is not None and task.ignore_result
    result = draft.result(place, start.result, bool(ignored))
    callbacks = [*_signatures(options.get("link"), draft.app), *call.links]
    own_errbacks = _signatures(options.get("link_error"), draft.app)
    if isinstance(draft, EagerDraft) and (callbacks or own_errbacks or call.errbacks):
        draft.linked[place] = (callbacks, [*own_errbacks, *call.errbacks])
    _add_callbacks(draft, place, callbacks)
    for errback in own_errbacks:
        errback.compile_into(draft, draft.on_failure_of((place, *start.watched), start.outside))
    for errback in call.errbacks:
        errback.compile_into(draft, draft.on_failure_of((place,), start.outside))
    return Compiled(place, result, result)


def _add_callbacks(draft: Draft, place: int, callbacks: Sequence[Signature]) -> None:
    """Add the callbacks of a task; several plain ones are one group, as Celery sends them."""
    together: list[Signature] = list(callbacks)
    if len(callbacks) > 1:
        groups: list[Signature] = [callback for callback in callbacks if isinstance(callback, group)]
        others = [callback for callback in callbacks if not isinstance(callback, group)]
        together = [*groups, *([group(others, app=draft.app)] if others else [])]
    first_link = len(draft.links)
    for callback in together:
        added = callback.compile_into(draft, draft.after(place))
        if added is not None:
            draft.note_child(place, added.first)
    if callbacks:
        draft.note_callbacks(place, first_link)


class _Step(NamedTuple):
    """A piece of a chain: a task, or a group, which is a chord's header when something follows it."""

    signature: Signature
    is_header: bool
    call: Call
    errbacks: Sequence[Signature] = ()  # of the chains around it


@Signature.register_type("chain")
class chain(Signature):
    """Tasks one after another, each called with the value of the one before: `chain(a, b, c)` or `a | b | c`.

    A group in front of a task becomes a chord. The result is the last task's; `parent` leads to the ones before it.
    """

    tasks = _Item("kwargs.tasks", "The steps.")

    _steps: list[Signature] | None = None

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        # chain(a, b) means the same as a | b, which may be a chord.
        made = super().__new__(cls)
        if tasks and not options and (len(tasks) > 1 or _is_sequence(tasks[0])):
            steps = _folded(list(tasks[0] if len(tasks) == 1 else tasks))
            if isinstance(steps, list):
                made._steps = steps
            elif cls is chain:
                return steps
            else:
                made._steps = [steps]
        return made

    def __init__(self, *tasks: Any, **options: Any) -> None:
        steps, self._steps = self._steps, None
        if steps is None:
            steps = list(tasks[0]) if len(tasks) == 1 and _is_sequence(tasks[0]) else list(tasks)
        super().__init__("celery.chain", (), {"tasks": steps}, **options)
        self.subtask_type = "chain"

    @classmethod
    def of(cls, tasks: Sequence[Any], app: LiteTQ | None = None) -> Any:
        """Return `tasks[0] | tasks[1] | …`."""
        made = cls(list(tasks))
        made._app = app
        return made

    @classmethod
    def as_given(cls, tasks: Sequence[Signature], app: LiteTQ | None = None) -> chain:
        """Return a chain of exactly these steps."""
        made: chain = cls(app=app)
        made.tasks = list(tasks)
        return made

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: LiteTQ | None = None) -> Signature:
        made = cls(app=app)
        made.update(d)
        made["kwargs"] = {**d["kwargs"], "tasks": [maybe_signature(task, app) for task in d["kwargs"]["tasks"]]}
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply_async(args, kwargs) if self.tasks else None

    def clone(self: S, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> S:
        copied = super().clone(args, kwargs, **options)
        copied.kwargs["tasks"] = [maybe_signature(task, clone=True) for task in copied.kwargs["tasks"]]
        return copied

    def unchain_tasks(self) -> list[Signature]:
        """Return copies of the steps: the chain's callbacks are on the last one, its errbacks on each."""
        tasks: list[Signature] = [task.clone() for task in self.tasks]
        for callback in _listed(self.options.get("link")):
            tasks[-1].link(callback)
        for errback in _listed(self.options.get("link_error")):
            for task in tasks:
                task.link_error(errback)
        return tasks

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> ResultBase:
        result: Any = None
        self.tasks = [maybe_signature(task, self._app) for task in self.tasks]
        for task in self.tasks:
            if task is self.tasks[-1]:
                frozen: Any = task.freeze(_id, group_id, chord, root_id, parent_id, group_index)
            else:
                frozen = task.freeze(root_id=root_id)
            _oldest(frozen).parent = result
            result = frozen
        if result is not None:
            self.id = result.id
        return cast(ResultBase, result)

    _freeze = freeze

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        said = None if visitor is None else visitor.on_chain_start(self, **headers) or {}
        headers = self._stamps(said, append_stamps, **headers)
        self.stamp_links(visitor, append_stamps, **headers)
        self.tasks = [maybe_signature(task, self._app) for task in self.tasks]
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chain_end(self, **headers)

    def compile_into(self, draft: Draft, start: Start, call: Call = NOTHING_MORE) -> Compiled | None:
        return _compile_steps(_flattened(self, call, draft.app), draft, start, call)

    @property
    def app(self) -> LiteTQ:
        return _app_among(self, self.tasks)

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        if _is_empty_group(other):
            return self
        return chain.of([*self.unchain_tasks(), other], self._app)

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        return _without_repeated_module(self.tasks[0]["task"], " | ".join(map(repr, self.tasks)))


def _folded(tasks: list[Any]) -> list[Signature] | Signature:
    """Return the steps of `a | b | c`, upgraded as the operator does; or the one canvas that they are."""
    steps: list[Signature] = []
    for task in tasks:
        if not isinstance(task, Signature):
            if not isinstance(task, dict):
                raise TypeError(f"a chain is made of signatures, found {task!r}; use task.s(...)")
            task = signature(task)
        _append_step(steps, task)
    if len(steps) == 1 and len(tasks) > 1 and isinstance(steps[0], (group, chord)):
        return steps[0]
    return steps


def _append_step(steps: list[Signature], other: Signature) -> None:
    """Add a step by the rules of the operator `|`; the steps are changed in place, so that n of them cost n."""
    if _is_empty_group(other) and steps:
        return
    last = steps[-1] if steps else None
    if isinstance(last, group) and len(steps) == 1 and isinstance(other, group):
        steps[-1] = last | other  # the body of a chord: a group of one is one there, too
        return
    other = _unrolled(other)
    if isinstance(other, chain):
        for task in other.unchain_tasks():
            _append_step(steps, task)
    elif isinstance(last, chord) and (isinstance(other, group) or not isinstance(other, chord)):
        if isinstance(other, group) and len(steps) == 1:
            steps.append(other)  # as a chord on its own does: chord | group is a chain
        else:
            steps[-1] = _appended(last, other)
    elif isinstance(last, group) and (len(steps) == 1 or not isinstance(other, group)):
        steps[-1] = chord(last, other, app=last._app)
    else:
        steps.append(other)


def _appended(sig: Signature, other: Signature) -> Any:
    """Return `sig | other` for the body of a chord. What it has in common with `sig` is not copied: bodies nest deeply."""
    if isinstance(sig, chord) and not isinstance(other, (group, chain)):
        copied = _shallow(sig)
        copied.body = _appended(sig.body, other)
        return copied
    if isinstance(sig, chain) and not sig.options:
        steps = list(sig.tasks)
        _append_step(steps, other)
        return chain.as_given(steps, sig._app)
    return sig | other


def _shallow(sig: S) -> S:
    """Return a signature with the same parts."""
    copied = type(sig).__new__(type(sig))
    copied.update(sig)
    copied["kwargs"], copied["options"] = dict(sig.kwargs), dict(sig.options)
    copied._app, copied._type = sig._app, sig._type
    return copied


def _flattened(whole: Signature, call: Call, app: LiteTQ) -> list[_Step]:
    """Return a chain or chord as a list of tasks, groups and headers, in order. No recursion: bodies may nest deeply."""
    steps: list[_Step] = []
    pending: deque[tuple[Signature, Call]] = deque([(whole, call)])
    after_header = False  # the next one is the body of a chord, and where it is a group of one, so is its result
    while pending:
        sig, given = pending.popleft()
        is_body, after_header = after_header, False
        if isinstance(sig, chunks):
            sig = sig.group()
        if isinstance(sig, chain):
            pending.extendleft(reversed(_steps_of_chain(sig, given, app)))
        elif isinstance(sig, chord):
            header, body = _parts_of_chord(sig, given, app)
            steps.append(header)
            pending.appendleft(body)
            after_header = True
        elif isinstance(sig, group):
            if len(sig.tasks) == 1 and (pending or not is_body):
                pending.appendleft((maybe_signature(sig.tasks[0], app), _of_only_member(sig, given, app)))
            else:
                # Where it is the body of a chord, its own errbacks, too, are told when the header fails.
                errbacks = (*_signatures(sig.options.get("link_error"), app), *given.errbacks)
                steps.append(_Step(sig, False, given, errbacks))
        else:
            steps.append(_Step(sig, False, given._replace(errbacks=()), given.errbacks))
    full = [step for step in steps if step.is_header or not _is_empty_group(step.signature)] or steps[:1]
    if not app.conf.task_allow_error_cb_on_chord_header:
        # A group that something follows is a header, too: what follows is told of a failure, not the members one by one.
        full[:-1] = [step._replace(call=step.call._replace(errbacks=())) for step in full[:-1]]
    return full


def _of_only_member(sig: group, given: Call, app: LiteTQ) -> Call:
    """Return what the one member of a group is called with: what the group is, and its own options."""
    own = {name: value for name, value in sig.options.items() if name not in _OF_THE_GROUP}
    return given._replace(
        options={**own, **given.options},
        links=(*_signatures(sig.options.get("link"), app), *given.links),
        errbacks=(*_signatures(sig.options.get("link_error"), app), *given.errbacks),
    )


def _is_like(sig: Signature, first: Signature) -> bool:
    """Return whether a member of a group differs from the first one in its arguments at most; both have no options."""
    return (
        type(sig) is Signature
        and not sig["options"]
        and sig["task"] == first["task"]
        and sig._type is first._type
        and sig["immutable"] == first["immutable"]
    )


_OF_THE_GROUP: Final = ("task_id", "group_id", "link", "link_error")  # options that its members do not have from it
# Options of a chain that are its last task's; the others are its first one's.
_OF_THE_LAST: Final[tuple[str, ...]] = ("task_id", "group_id", "group_index", "chord")
_OF_EACH: Final = ("root_id", "parent_id", "link", "link_error")


def _steps_of_chain(sig: chain, given: Call, app: LiteTQ) -> list[tuple[Signature, Call]]:
    tasks = [maybe_signature(task, app) for task in sig.tasks]
    if not tasks:
        return []
    # What the chain is given is for its first task.
    tasks = tasks[next((place for place, task in enumerate(tasks) if not _is_empty(task)), 0) :]
    _, _, options = sig._merge(options=given.options)
    last = {name: options[name] for name in _OF_THE_LAST if name in options}
    first = {name: value for name, value in options.items() if name not in _OF_THE_LAST and name not in _OF_EACH}
    links = (*_signatures(options.get("link"), app), *given.links)
    errbacks = (*_signatures(options.get("link_error"), app), *given.errbacks)
    calls = [Call(errbacks=errbacks) for _ in tasks]
    args = () if sig.immutable else (*given.args, *sig.args)
    calls[0] = calls[0]._replace(args=args, kwargs=given.kwargs, options=first)
    calls[-1] = calls[-1]._replace(options={**calls[-1].options, **last}, links=links)
    return list(zip(tasks, calls, strict=True))


def _is_empty(sig: Signature) -> bool:
    return isinstance(sig, (group, chain)) and all(_is_empty(maybe_signature(each)) for each in sig.tasks)


# Options of a chord that neither its header nor its body has.
_OF_THE_CHORD: Final = ("interval", "max_retries", "link", "link_error", "chord")


def _parts_of_chord(sig: chord, given: Call, app: LiteTQ) -> tuple[_Step, tuple[Signature, Call]]:
    _, _, options = sig._merge(options=given.options)
    kwargs = dict(given.kwargs)
    body = maybe_signature(kwargs.pop("body", None) or sig.body, app)
    if body is None:
        raise ValueError(f"a chord needs a body to hand its values to, {sig!r} has none; give one: chord(header)(body)")
    shared = {name: value for name, value in options.items() if name not in _OF_THE_CHORD}
    identity = {name: shared.pop(name) for name in _OF_THE_LAST if name in shared}
    links = (*_signatures(options.get("link"), app), *given.links)
    errbacks = (*_signatures(options.get("link_error"), app), *given.errbacks)
    header = sig.tasks if isinstance(sig.tasks, group) else group(sig.tasks, app=sig._app)
    of_header = Call(
        given.args if sig.immutable else (*given.args, *sig.args),
        {**sig.kwargs.get("kwargs", {}), **kwargs},
        shared,
        errbacks=errbacks if app.conf.task_allow_error_cb_on_chord_header else (),
    )
    not_of_body = ("countdown", "eta", "parent_id")
    of_body = {**{name: value for name, value in shared.items() if name not in not_of_body}, **identity}
    return _Step(header, True, of_header, given.errbacks), (body, Call(options=of_body, links=links, errbacks=errbacks))


def _compile_steps(steps: Sequence[_Step], draft: Draft, start: Start, call: Call) -> Compiled | None:
    """Add one step after another; each waits for the one before it."""
    last: Compiled | None = None
    first: ResultBase | None = None
    shared: dict[int, _Shared] = {}
    for step in steps:
        is_body = start.join is not None
        before = start.sources or start.outside
        watching = []
        for each in step.errbacks:
            is_given = any(each is given for given in call.errbacks)
            outside = start.outside if start.watched and not is_given else before
            watching.append(shared.setdefault(id(each), _Shared(each, [], outside, is_body)))
        for errback in watching:
            if all(errback.signature is not given for given in call.errbacks):
                errback.places.extend(start.watched)
        added: Compiled | None
        if isinstance(step.signature, group):
            if start.join is not None:
                start = draft.gathered(start)
                for errback in watching:
                    errback.places.extend(start.sources)
            added = step.signature.compile_members(draft, start, step.call)
        else:
            added = step.signature.compile_into(draft, start, step.call)
        if added is None:
            continue
        if isinstance(added.exit, int):
            for errback in watching:
                errback.places.append(added.exit)
        if last is not None and isinstance(last.exit, int):
            draft.note_child(last.exit, added.first)
        first = first or added.first
        last = added
        before = start.sources or start.outside
        start = draft.after(added.exit, added.result)
        if start.join is not None:
            start = start._replace(outside=before)
    for errback in shared.values():
        if errback.places:
            places = list(dict.fromkeys(errback.places))
            first_link = len(draft.links)
            errback.signature.compile_into(draft, draft.on_failure_of(places, errback.outside))
            if errback.is_of_chord and len(places) > 1:
                for called in {link.target for link in draft.links[first_link:] if link.source == places[-1]}:
                    draft.note_chord(called, places[-1])
    return None if last is None or first is None else Compiled(last.exit, last.result, first)


class _Shared(NamedTuple):
    """The errback of a chain: one task watches all its steps, because at most one of them fails by itself."""

    signature: Signature
    places: list[int]
    outside: tuple[int, ...]  # before the chain
    is_of_chord: (
        bool  # the chain is the body of a chord: of a member's failure it is told as if the whole body had failed
    )


@Signature.register_type("group")
class group(Signature):
    """Tasks side by side: `group(a, b)`, or of an iterable. The result is a GroupResult, its value a list in this order."""

    tasks = _Item("kwargs.tasks", "The members.")

    def __init__(self, *tasks: Any, **options: Any) -> None:
        members: Any = tasks
        if len(tasks) == 1:
            members = tasks[0]
            if isinstance(members, group):
                members = members.tasks
            if isinstance(members, Signature):
                members = [members.clone()]
        if not isinstance(members, (list, tuple)):
            members = list(members)
        super().__init__("celery.group", (), {"tasks": members}, **options)
        self.subtask_type = "group"

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: LiteTQ | None = None) -> Signature:
        made = cls(app=app)
        made.update(d)
        made["kwargs"] = {**d["kwargs"], "tasks": [maybe_signature(task, app) for task in d["kwargs"]["tasks"]]}
        return made

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        return self.apply_async(partial_args, **options)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> Any:
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord")
        if link_error is not None:
            raise TypeError("Cannot add link to group: do that on individual tasks")
        return super().apply_async(args, kwargs, **options)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Give the members countdowns of start, start + step, … (not beyond `stop`); return the group."""
        countdown = start
        for task in self.tasks:
            task.set(countdown=countdown)
            if stop is None or countdown + step <= stop:
                countdown += step
        return self

    def set_immutable(self, immutable: bool) -> None:
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, callback: Any) -> Any:
        """Link to the first member alone, without its value, as Celery does; a chord is what waits for all."""
        return self.tasks[0].link(maybe_signature(callback, clone=True).set(immutable=True))

    def link_error(self, errback: Any) -> Any:
        """Link to each member; each that fails calls it."""
        return tuple(task.link_error(maybe_signature(errback, clone=True)) for task in self.tasks)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> ResultBase:
        id = self.options.setdefault("task_id", _id or uuid())
        self.tasks = [task.clone() for task in self._members(self.app)]
        results = [
            task.freeze(group_id=group_id or id, chord=chord, root_id=root_id, parent_id=parent_id, group_index=index)
            for index, task in enumerate(self.tasks)
        ]
        return GroupResult(id, results, app=self.app)

    _freeze = freeze

    def _members(self, app: LiteTQ | None) -> Iterator[Signature]:
        """Yield the members, those of groups within the group among them, in order."""
        for task in self.tasks:
            task = maybe_signature(task, app)
            if isinstance(task, chunks):
                task = task.group()
            if isinstance(task, group):
                yield from task._members(app)
            elif not (isinstance(task, chain) and not task.tasks):
                yield task

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        said = None if visitor is None else visitor.on_group_start(self, **headers) or {}
        headers = self._stamps(said, append_stamps, **headers)
        self.stamp_links(visitor, append_stamps, **headers)
        self.tasks = [maybe_signature(task, self._app) for task in self.tasks]
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_group_end(self, **headers)

    def compile_into(self, draft: Draft, start: Start, call: Call = NOTHING_MORE) -> Compiled | None:
        added = self.compile_members(draft, start, call)
        results = cast(GroupResult, added.result).results
        if len(results) == 1 and isinstance(results[0], GroupResult):
            # A chain that ends in a group, alone in a group: nobody means a list of one list.
            return Compiled(cast("list[Exit]", added.exit)[0], results[0], added.first)
        return added

    def compile_members(self, draft: Draft, start: Start, call: Call = NOTHING_MORE) -> Compiled:
        """Add the members to a plan; its end is a list of theirs, also where there is one."""
        _, _, options = self._merge(options=call.options)
        options = {name: value for name, value in options.items() if name not in ("link", "link_error", "group_id")}
        id = options.pop("task_id", None) or uuid()
        links = (*_signatures(self.options.get("link"), draft.app), *call.links)
        errbacks = (*_signatures(self.options.get("link_error"), draft.app), *call.errbacks)
        tasks = list(self._members(draft.app))
        parent, start = start.result, start._replace(result=None)
        options["group_id"] = id
        exits: list[Exit] = []
        results: list[ResultBase] = []
        is_final = not call.args and not call.kwargs
        repeated: Repeated | None = None  # adds members that are like the first one
        for index, task in enumerate(tasks):
            if repeated is not None and _is_like(task, tasks[0]):
                args, kwargs = (task["args"], task["kwargs"]) if is_final else task._merge(call.args, call.kwargs)[:2]
                place = repeated.add(args, kwargs, index)
                exits.append(place)
                results.append(draft.result(place, None, cast("AsyncResult[Any]", results[0]).ignored))
                continue
            given = Call(call.args, call.kwargs, {**options, "group_index": index}, links, errbacks)
            added = task.compile_into(draft, start, given)
            if added is None:
                continue
            exits.append(added.exit)
            results.append(added.result)
            if index == 0 and len(tasks) > 1 and _is_like(task, task) and not links and not errbacks:
                repeated = draft.repeated(cast(int, added.exit), given.options, bool(task.immutable))
        result = GroupResult(id, results, parent=parent, app=draft.app)
        return Compiled(exits, result, result)

    @property
    def app(self) -> LiteTQ:
        return _app_among(self, self.tasks)

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        return self if _is_empty_group(other) else chord(self, other, app=self._app)

    def __len__(self) -> int:
        return len(self.tasks)

    def __repr__(self) -> str:
        if not self.tasks:
            return "group(<empty>)"
        return _without_repeated_module(self.tasks[0]["task"], f"group({self.tasks!r})")


@Signature.register_type("chord")
class chord(Signature):
    """A group with a body, which is called with the list of its values: `chord([a, b], body)`, or `group(a, b) | body`."""

    tasks = _Item("kwargs.header", "The members.")
    body = _Item("kwargs.body", "What is called with their values.")

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: LiteTQ | None = None,
        **options: Any,
    ) -> None:
        own = {"kwargs": {}, **(kwargs or {}), "header": _header(header, app), "body": maybe_signature(body, app)}
        super().__init__(task, args, own, app=app, **options)
        self.subtask_type = "chord"

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: LiteTQ | None = None) -> Signature:
        own = d["kwargs"]
        made = cls(own["header"], own.get("body"), app=app)
        kwargs = made["kwargs"]
        made.update(d)
        made["kwargs"] = {**own, **kwargs, "kwargs": own.get("kwargs") or {}}
        return made

    def __call__(self, body: Any = None, **options: Any) -> Any:
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def clone(self: S, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> S:
        copied = super().clone(args, kwargs, **options)
        copied.kwargs["body"] = maybe_signature(copied.kwargs["body"], clone=True)
        return copied

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> ResultBase:
        if not isinstance(self.tasks, group):
            self.tasks = group(self.tasks, app=self._app)
        header = self.tasks.freeze(root_id=root_id, parent_id=parent_id)
        if self.body is None:
            return cast(ResultBase, header)
        result: Any = self.body.freeze(_id, group_id, chord, root_id, group_index=group_index)
        _oldest(result).parent = header
        self.id = result.id
        return cast(ResultBase, result)

    _freeze = freeze

    def _header_tasks(self) -> list[Any]:
        """Return the members, whether they are given as a list or, once frozen, as a group."""
        header: Any = self.tasks.tasks if isinstance(self.tasks, group) else self.tasks
        return cast("list[Any]", header)

    def stamp(self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any) -> Any:
        said = None if visitor is None else visitor.on_chord_header_start(self, **headers) or {}
        headers = self._stamps(said, append_stamps, **headers)
        self.stamp_links(visitor, append_stamps, **headers)
        for task in self._header_tasks():
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chord_header_end(self, **headers)
            if self.body is not None:
                said = visitor.on_chord_body(self, **headers) or {}
                headers = self._stamps(said, append_stamps, **headers)
                self.body.stamp(visitor, append_stamps, **headers)

    def link(self, callback: Any) -> Any:
        """Link to the body."""
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Link to the body, which fails when a member does; with task_allow_error_cb_on_chord_header to each member, too."""
        errback = maybe_signature(errback)
        for task in self._header_tasks():
            if self.app.conf.task_allow_error_cb_on_chord_header or isinstance(task, chord):
                task.link_error(errback.clone())
        self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        for task in self._header_tasks():
            task.set_immutable(immutable)

    def compile_into(self, draft: Draft, start: Start, call: Call = NOTHING_MORE) -> Compiled | None:
        return _compile_steps(_flattened(self, call, draft.app), draft, start, call)

    @property
    def app(self) -> LiteTQ:
        return _app_among(self, [*self._header_tasks()[:1], *([self.body] if self.body is not None else [])])

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Signature):
            return NotImplemented
        other = _unrolled(other)
        if isinstance(other, (group, chain)):
            return super().__or__(other)
        copied = self.clone()
        copied.body = copied.body | other
        return copied

    def __length_hint__(self) -> int:
        return sum(map(_leaves, self._header_tasks()))

    def __repr__(self) -> str:
        body = self.body
        if body is None:
            return f"<chord without body: {self.tasks!r}>"
        if isinstance(body, chain) and body.tasks:
            first = body.tasks[0]
            rest = " | ".join(map(repr, body.tasks[1:]))
            return _without_repeated_module(first["task"], f"%({first.reprcall(self.tasks)} | {rest})")
        return "%" + _without_repeated_module(body["task"], body.reprcall(self.tasks))


class _basemap(Signature):
    """One task that calls another task for each item, one after another."""

    _task_name = ""

    def __init__(self, task: Any, it: Iterable[Any], **options: Any) -> None:
        super().__init__(self._task_name, (), {"task": task, "it": _listed_items(it)}, immutable=True, **options)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: LiteTQ | None = None) -> Signature:
        return cls(d["kwargs"]["task"], d["kwargs"]["it"], app=app, **d["options"])

    def _shown(self, star: str) -> str:
        items = repr(self.kwargs["it"])
        if len(items) > REPR_LIMIT:
            items = items[:REPR_LIMIT].rsplit(" ", 1)[0] + "..."
        return f"[{self.kwargs['task']['task']}({star}x) for x in {items}]"

    @property
    def app(self) -> LiteTQ:
        return _app_among(self, [self.kwargs["task"]])

    def clone(self: S, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> S:
        return type(self)(**self.kwargs, app=self._app, **self._merge(options=options)[2])


@Signature.register_type()
class xmap(_basemap):
    """`task.map(items)`: one task that calls the task with each item."""

    _task_name = "celery.map"

    def __repr__(self) -> str:
        return self._shown("")


@Signature.register_type()
class xstarmap(_basemap):
    """`task.starmap(items)`: the same, each item being the arguments of a call."""

    _task_name = "celery.starmap"

    def __repr__(self) -> str:
        return self._shown("*")


@Signature.register_type()
class chunks(Signature):
    """`task.chunks(items, n)`: a group of tasks, each of which calls the task for n of the items."""

    def __init__(self, task: Any, it: Iterable[Any], n: int, **options: Any) -> None:
        super().__init__(
            "celery.chunks", (), {"task": task, "it": _listed_items(it), "n": n}, immutable=True, **options
        )

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: LiteTQ | None = None) -> Signature:
        kwargs = d["kwargs"]
        return cls(kwargs["task"], kwargs["it"], kwargs["n"], app=app, **d["options"])

    def __call__(self, **options: Any) -> Any:
        return self.apply_async(**options)

    def group(self) -> group:
        """Return the group of maps that it stands for."""
        task, items, n = self.kwargs["task"], self.kwargs["it"], self.kwargs["n"]
        if n < 1:
            raise ValueError(f"chunks need a size of at least 1, found {n!r}")
        app = self._app or task.app
        parts = [xstarmap(task, items[place : place + n], app=app) for place in range(0, len(items), n)]
        return group(parts, app=app, **self.options)

    def compile_into(self, draft: Draft, start: Start, call: Call = NOTHING_MORE) -> Compiled | None:
        return self.group().compile_into(draft, start, call)

    @property
    def app(self) -> LiteTQ:
        return _app_among(self, [self.kwargs["task"]])

    def clone(self: S, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> S:
        return type(self)(**self.kwargs, app=self._app, **self._merge(options=options)[2])

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: LiteTQ | None = None) -> Any:
        """Enqueue the chunks and return their result."""
        return cls(task, it, n, app=app)()


# -- making signatures -------------------------------------------------------------------------------------------------


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature:
    """Return a signature: of a task or its name, of a dict that describes one, or a copy of one."""
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, Mapping):
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


subtask = signature


def maybe_signature(d: Any, app: LiteTQ | None = None, clone: bool = False) -> Any:
    """Return the signature that `d` is or describes; None for None. With `clone`, a copy."""
    if isinstance(d, Signature):
        if clone:
            d = d.clone()
    elif isinstance(d, Mapping):
        d = Signature.from_dict(d, app=app)
    elif d is not None and hasattr(d, "s") and hasattr(d, "apply_async"):
        d = d.s()  # a task where a signature of it is meant
    elif d is not None:
        raise TypeError(f"a signature was expected, found {d!r}; make one with task.s(...)")
    if app is not None and d is not None and d._app is None:
        d._app = app
    return d


maybe_subtask = maybe_signature


# -- sending and running -----------------------------------------------------------------------------------------------

# Options that concern the call as a whole.
_OF_THE_CALL: Final = ("durability", "retry", "retry_policy")


def _commit(sig: Signature, app: LiteTQ, call: Call, place: Callable[[Draft], Compiled | None] | None = None) -> Any:
    """Send all of a workflow in one transaction; return its result, None where there is nothing to send."""
    if calling_is_plain(sig, call):
        args, kwargs, options = sig._merge(call.args, call.kwargs, call.options)
        task = sig._registered()
        if task is None:
            return app.send_task(sig.task, args, kwargs, **options)
        return task.apply_async(args, kwargs, **options)
    parent = calling.parent_request()
    draft = Draft(app, parent)
    compiled = sig.compile_into(draft, NOW, call) if place is None else place(draft)
    if compiled is None:
        return None
    replaced = _replacing.get()
    if replaced is not None and replaced.takes(draft, compiled):
        return compiled.result
    options = {**sig.options, **call.options}
    if draft.messages:
        draft.send({name: options[name] for name in _OF_THE_CALL if name in options})
    if parent is not None and options.get("add_to_parent", True):
        running = context.get_current_task()
        if running is not None and running.trail:
            parent.children.append(compiled.first)
    if options.get("callback") is not None:
        cast(Any, compiled.result).then(options["callback"])
    return compiled.result


def calling_is_plain(sig: Signature, call: Call) -> bool:
    """Return whether a signature is one task with nothing around it, which then goes the way of every task."""
    return (
        type(sig) is Signature
        and not sig.options.get("link")
        and not sig.options.get("link_error")
        and not call.options.get("link")
        and not call.options.get("link_error")
        and "chord" not in sig.options
        and _replacing.get() is None
    )


def send_linked(
    task: Task[..., Any] | None,
    app: LiteTQ,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: dict[str, Any],
) -> Any:
    """Send one task with its callbacks and errbacks: what `apply_async(link=…, link_error=…)` does."""
    sig = Signature(task if task is not None else name, args, kwargs, app=app)

    def place(draft: Draft) -> Compiled:
        # Not by the task's own `apply_async`, which may be what is calling.
        added = draft.add(name, task, args, kwargs, options, NOW, by_own_method=False)
        return _with_links(sig, task, draft, added, NOW, options, NOTHING_MORE)

    return _commit(sig, app, Call(options=options), place)


def _play(sig: Signature, app: LiteTQ, call: Call, *, as_sent: bool) -> Any:
    """Run all of a workflow here and now; return its result, None where there is nothing to run."""
    options = dict(call.options)
    throw = options.pop("throw", None)
    draft = EagerDraft(app, calling.parent_request(), as_sent=as_sent)
    compiled = sig.compile_into(draft, NOW, call._replace(options=options))
    if compiled is None:
        return None
    with context.join_block(context.is_join_blocked()):
        failure = draft.run()
    if failure is not None and (app.conf.task_eager_propagates if throw is None else throw):
        raise failure
    return compiled.result


# -- within an attempt -------------------------------------------------------------------------------------------------


class _Replacement:
    """What stands in for a task that replaces itself, once it is sent."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.plan: Plan | None = None

    def takes(self, draft: Draft, compiled: Compiled) -> bool:
        """Keep the plan of what takes over the task's id instead of committing it; return whether this is it."""
        if not isinstance(compiled.exit, int) or draft.messages[compiled.exit].id != self.id:
            return False
        self.plan = draft.plan(last=compiled.exit)
        return True


_replacing: ContextVar[_Replacement | None] = ContextVar("litetq_replacing", default=None)


def replacement_of(request: Context, sig: Any, app: LiteTQ) -> Signature:
    """Return the signature that takes over the id, the place and what waits for the task of this request.

    Raises ImproperlyConfigured for an empty chain and for what belongs to a chord already.
    """
    sig = maybe_signature(sig, app, clone=True)
    if "chord" in sig.options:
        raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
    if isinstance(sig, chain) and not sig.tasks:
        raise ImproperlyConfigured("Cannot replace with an empty chain")
    if _ends_in_group(sig):
        sig = sig | Signature(app.tasks["celery.accumulate"], kwargs={"index": 0}, app=app)
    if request.stamps:
        names = request.stamped_headers or list(request.stamps)
        sig.stamp(**{name: request.stamps[name] for name in names if name in request.stamps})
    options: dict[str, Any] = {"replaced_task_nesting": (request.replaced_task_nesting or 0) + 1}
    for name, value in (
        ("group_id", request.group),
        ("group_index", request.group_index),
        ("root_id", request.root_id),
    ):
        if value is not None:
            options[name] = value
    _forget_id(sig)
    sig.freeze(request.id)
    return cast(Signature, sig.set(**options))


def _ends_in_group(sig: Any) -> bool:
    """Return whether the value of a canvas is that of a group, which has no id of a task."""
    while isinstance(sig, (chain, chord)):
        sig = maybe_signature(sig.tasks[-1] if isinstance(sig, chain) else sig.body)
    return isinstance(sig, (group, chunks))


def _forget_id(sig: Signature | None) -> None:
    """Take away the id that the last task of a canvas was given."""
    while sig is not None:
        sig.options.pop("task_id", None)
        if isinstance(sig, chain):
            sig.tasks = [maybe_signature(task, sig._app) for task in sig.tasks]
            sig = sig.tasks[-1]
        else:
            sig = sig.body if isinstance(sig, chord) else None


class Replaced(Ignore):
    """Raised in a task that something else takes the place of: `plan` is what, or `result` how it ended already."""

    def __init__(self, result: Any = None) -> None:
        super().__init__("Replaced by new task")
        self.result = result


def replace_by(request: Context, send: Callable[[], Any]) -> NoReturn:
    """Call `send`; what it sends under the id of this request takes the task's place when the attempt is settled.

    Raises Replaced; what `send` raises if it sent no such thing.
    """
    assert request.id is not None
    replacement = _Replacement(request.id)
    token = _replacing.set(replacement)
    try:
        send()
    except Ignore:
        if replacement.plan is None:
            raise
    finally:
        _replacing.reset(token)
    if replacement.plan is None:
        raise ImproperlyConfigured(
            f"on_replace of task {request.task!r} sent nothing under its id, so nothing replaces it"
        )
    plan = combined(request.plan, replacement.plan)
    *others, heir = plan.messages
    heir = heir._replace(parent_id=request.parent_id)
    request.plan = plan._replace(messages=(*others, with_successors(heir, request.get("successors") or [])))
    raise Replaced()


def further_member(sig: Any, request: Context, app: LiteTQ) -> tuple[Plan, ResultBase]:
    """Return the plan that adds a signature to the chord of the task that runs, and the result of it."""
    draft = Draft(app, request)
    compiled = maybe_signature(sig, app).compile_into(draft, NOW, Call(options=_of_group(request)))
    if compiled is None:
        raise ImproperlyConfigured("an empty chain cannot be added to a chord")
    members = compiled.exit if isinstance(compiled.exit, list) else [compiled.exit]
    plan = draft.plan()
    inner = Join(tuple(members), SELF) if all(isinstance(member, int) for member in members) else None
    if inner is None:
        raise ImproperlyConfigured("a group of groups cannot be added to a chord; add its members one by one")
    return plan._replace(joins=(*plan.joins, inner)), compiled.first


def redirect(request: Context, app: LiteTQ, disposition: int) -> None:
    """Add to the request's plan what the task has assigned to `chain`, `callbacks` and `errbacks` of its request.

    Taken off is what is no longer in them: of the chain, the whole or nothing. What is new in callbacks or errbacks is added
    where it may still be called. Anything else cannot be done, and is logged.
    """
    delivery = request.delivery
    if delivery is None or disposition not in _MAY_REDIRECT:
        return
    now: dict[str, Any] = {view: request.__dict__[view] for view in VIEWS if view in request.__dict__}
    seen: dict[str, Any] = request.__dict__.get("_seen") or (
        views_of(app, delivery) if delivery.linked else dict.fromkeys(VIEWS)
    )
    cuts: list[str] = []
    draft = Draft(app, request)
    after = Start((SELF,), root_id=request.root_id, parent_id=request.id)
    for view, is_error, too_late in (
        ("callbacks", False, Disposition.FAIL),
        ("errbacks", True, Disposition.COMPLETE),
    ):
        before, wanted = _listed(seen[view]), _listed(now.get(view, seen[view]))
        cuts += [id for sig in before if sig not in wanted for id in _first_ids(sig, app)]
        for sig in wanted:
            if sig not in before and disposition != too_late:
                maybe_signature(sig, app, clone=True).compile_into(draft, after._replace(is_error=is_error))
    draft.note_callbacks(SELF, 0)
    if now.get("chain", seen["chain"]) != seen["chain"]:
        if now["chain"]:
            _cannot_redirect(request, "chain", "take all of it off with None, or use self.replace()")
        else:
            cuts += _first_ids(seen["chain"][-1], app)
    if now.get("chord", seen["chord"]) != seen["chord"]:
        _cannot_redirect(
            request, "chord", "its members are counted in the file; use self.replace() or self.add_to_chord()"
        )
    if cuts or draft.messages:
        request.plan = combined(request.plan, draft.plan()._replace(cuts=tuple(cuts)))


_MAY_REDIRECT: Final = frozenset((Disposition.COMPLETE, Disposition.FAIL, Disposition.RETRY))


def _cannot_redirect(request: Context, view: str, instead: str) -> None:
    logger.warning(
        "Task %s[%s] has changed self.request.%s, which has no effect: what comes after it lies in the file; %s",
        request.task, request.id, view, instead,
    )  # fmt: skip


def _first_ids(sig: Any, app: LiteTQ) -> list[str]:
    """Return the ids of the tasks that a canvas begins with."""
    sig = maybe_signature(sig, app)
    if isinstance(sig, chain):
        return _first_ids(sig.tasks[0], app)
    if isinstance(sig, (group, chord)):
        tasks = sig._header_tasks() if isinstance(sig, chord) else sig.tasks
        return [id for task in tasks for id in _first_ids(task, app)]
    return [sig.id] if sig.id is not None else []


def add_member_here(sig: Any, request: Context, app: LiteTQ) -> ResultBase | None:
    """Add a signature to the chord of the task that is run eagerly; None when it belongs to none."""
    now = playing()
    if now is None or not is_member_of_chord():
        return None
    compiled = maybe_signature(sig, app).compile_into(now[0], NOW, Call(options=_of_group(request)))
    if compiled is None:
        return None
    extend_chord(compiled.exit)
    return cast(ResultBase, compiled.result)


def _of_group(request: Context) -> dict[str, Any]:
    return {} if request.group is None else {"group_id": request.group}


# -- tasks of every app ------------------------------------------------------------------------------------------------


# Of those of the built-in tasks that have any.
BUILTIN_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "celery.chord_unlock": {"max_retries": None, "ignore_result": True},
}


def builtin_tasks(app: LiteTQ) -> dict[str, Callable[..., Any]]:
    """Return the tasks that every app has, by name: what maps and groups are made of, and the one that tidies up."""

    def backend_cleanup() -> None:
        app.results.cleanup()

    def call_with_each(task: Any, it: Iterable[Any]) -> list[Any]:
        called = maybe_signature(task, app).type
        return [called(item) for item in it]

    def call_with_all_of_each(task: Any, it: Iterable[Any]) -> list[Any]:
        called = maybe_signature(task, app).type
        return [called(*items) for items in it]

    def accumulate(*args: Any, index: int | None = None) -> Any:
        return args if index is None else args[index]

    def chunks_of(task: Any, it: Iterable[Any], n: int) -> list[Any]:
        # A `chunks` that was read from JSON is sent as one task; it does the work of all.
        called = maybe_signature(task, app).type
        items = list(it)
        return [[called(*each) for each in items[place : place + n]] for place in range(0, len(items), n)]

    def unlock_chord(
        group_id: str,
        callback: Any,
        interval: float | None = None,
        max_retries: int | None = None,
        result: Any = (),
        **_: Any,
    ) -> None:
        # Where results are in a place that cannot count, as a database, this looks whether the members of a chord have ended.
        task: Any = context.get_current_task()
        if not app.engine.complete_chord(task.request, callback, result):
            wait = app.conf.result_chord_retry_interval if interval is None else interval
            raise task.retry(countdown=wait, max_retries=max_retries)

    return {
        "celery.chord_unlock": unlock_chord,
        "celery.map": call_with_each,
        "celery.starmap": call_with_all_of_each,
        "celery.chunks": chunks_of,
        "celery.accumulate": accumulate,
        "celery.backend_cleanup": backend_cleanup,
    }


# -- small things ------------------------------------------------------------------------------------------------------


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _listed_items(it: Iterable[Any]) -> list[Any]:
    return it if isinstance(it, list) else list(it)


def _signatures(value: Any, app: LiteTQ) -> list[Signature]:
    return [maybe_signature(each, app) for each in _listed(value)]


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (Mapping, str, bytes))


def _is_empty_group(sig: Any) -> bool:
    return isinstance(sig, group) and not sig.tasks


def _unrolled(sig: Signature) -> Signature:
    """Return the one member of a group that has one; anything else as it is."""
    while isinstance(sig, group) and len(sig.tasks) == 1:
        sig = maybe_signature(sig.tasks[0], sig._app)
    return sig


def _header(header: Any, app: LiteTQ | None) -> Any:
    if isinstance(header, Mapping) and not isinstance(header, Signature):
        header = signature(header, app=app)
    if isinstance(header, (group, chain)):
        return header.tasks
    if isinstance(header, Signature):
        return [header]
    return [maybe_signature(task, app, clone=True) for task in header]


def _leaves(sig: Any) -> int:
    sig = maybe_signature(sig)
    if isinstance(sig, group):
        return sum(map(_leaves, sig.tasks))
    if isinstance(sig, chain):
        return next((count for count in map(_leaves, reversed(sig.tasks)) if count), 0)
    return _leaves(sig.body) if isinstance(sig, chord) else 1


def _oldest(result: Any) -> Any:
    """Return the result that has no parent, going back from this one."""
    while result.parent is not None:
        result = result.parent
    return result


def _app_among(sig: Signature, tasks: Sequence[Any]) -> LiteTQ:
    """Return the app of a canvas: its own, else that of its first part that has one, else the current one."""
    if sig._app is not None:
        return sig._app
    for task in tasks[:2]:
        if not isinstance(task, Mapping) and getattr(task, "app", None) is not None:
            return cast("LiteTQ", task.app)  # a task itself
        if isinstance(task, Signature) and (
            task._type is not None or task._app is not None or type(task) is not Signature
        ):
            return task.app
    current = context.get_current_app()
    if current is None:
        raise RuntimeError(f"the canvas {sig!r} belongs to no app, and there is no current one")
    return current


def _without_repeated_module(first: str, text: str) -> str:
    """Shorten a canvas as text: the module of the first task is written once."""
    module = first.rpartition(".")[0]
    if not module:
        return text
    before, found, after = text.partition(f"{module}.")
    return before + found + re.sub(rf"(?<![\w.-]){re.escape(module)}\.", "", after)


def _merge_stamps(into: dict[str, Any], other: Mapping[str, Any], append: bool) -> None:
    """Add stamps; of one name that both have, the first one stays, or with `append` both do, as a list."""
    for name, value in other.items():
        if name not in into:
            into[name] = value
        elif name == "stamped_headers":
            into[name] = [*into[name], *value]
        elif isinstance(into[name], dict) and isinstance(value, Mapping):
            into[name] = dict(into[name])
            _merge_stamps(into[name], value, append)
        elif append:
            into[name] = [*_as_stamps(into[name]), *_as_stamps(value)]


def _as_stamps(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
