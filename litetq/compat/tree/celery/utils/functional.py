"""Small functions over functions and lists."""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from itertools import islice
from typing import Any

from litetq.task import arguments_check

__all__ = [
    "LRUCache", "chunks", "dictfilter", "first", "fun_accepts_kwargs", "head_from_fun", "is_list", "lazy", "maybe_list",
    "memoize", "mlazy", "noop", "padlist", "regen", "uniq",
]  # fmt: skip


def noop(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


class LRUCache(OrderedDict[Any, Any]):
    """A dictionary that keeps the `limit` entries used last; None: all."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.mutex = threading.RLock()

    def __getitem__(self, key: Any) -> Any:
        with self.mutex:
            value = super().__getitem__(key)
            self.move_to_end(key)
            return value

    def __setitem__(self, key: Any, value: Any) -> None:
        with self.mutex:
            super().__setitem__(key, value)
            self.move_to_end(key)
            while self.limit and len(self) > self.limit:
                self.popitem(last=False)

    def incr(self, key: Any, delta: int = 1) -> int:
        """Add to a number and return it."""
        with self.mutex:
            self[key] = int(self.get(key, 0)) + delta
            return int(self[key])


def memoize(maxsize: int | None = None, keyfun: Callable[..., Any] | None = None, Cache: Any = LRUCache) -> Any:
    """Keep what a function returned for arguments it has seen; `keyfun` makes the key of them."""

    def decorate(function: Callable[..., Any]) -> Any:
        cache = Cache(limit=maxsize)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            key = keyfun(args, kwargs) if keyfun else (*args, *sorted(kwargs.items()))
            try:
                value = cache[key]
            except KeyError:
                value = cache[key] = function(*args, **kwargs)
                call.misses += 1  # type: ignore[attr-defined]
            else:
                call.hits += 1  # type: ignore[attr-defined]
            return value

        def clear() -> None:
            cache.clear()
            call.hits = call.misses = 0  # type: ignore[attr-defined]

        call.hits = call.misses = 0  # type: ignore[attr-defined]
        call.clear = clear  # type: ignore[attr-defined]
        call.original_func = function  # type: ignore[attr-defined]
        return call

    return decorate


class lazy:
    """A call that is made when it is asked for."""

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._fun = fun
        self._args = args
        self._kwargs = kwargs

    def __call__(self) -> Any:
        return self.evaluate()

    def evaluate(self) -> Any:
        """Make the call."""
        return self._fun(*self._args, **self._kwargs)

    def __repr__(self) -> str:
        return repr(self())

    def __eq__(self, other: object) -> bool:
        return bool(self() == other)

    def __hash__(self) -> int:
        return hash(self())


class mlazy(lazy):
    """A call that is made once, when it is first asked for."""

    evaluated = False
    _value: Any = None

    def evaluate(self) -> Any:
        """Return what the call returned the first time."""
        if not self.evaluated:
            self._value, self.evaluated = super().evaluate(), True
        return self._value


def first(predicate: Callable[[Any], Any] | None, it: Iterable[Any]) -> Any:
    """Return the first element for which the predicate is true (without one: that is not None), or None."""
    return next((each for each in it if (predicate(each) if predicate is not None else each is not None)), None)


def is_list(obj: Any, scalars: Any = (Mapping, str, bytes), iters: Any = (Iterable,)) -> bool:
    """Return whether something is a list in the wide sense: no text, no mapping."""
    return isinstance(obj, iters) and not isinstance(obj, scalars)


def maybe_list(obj: Any, scalars: Any = (Mapping, str, bytes)) -> Any:
    """Return a list of one element for what is no list; None stays."""
    return obj if obj is None or is_list(obj, scalars) else [obj]


def chunks(it: Iterable[Any], n: int) -> Iterator[list[Any]]:
    """Yield lists of `n` elements, the last one may be shorter."""
    rest = iter(it)
    while part := list(islice(rest, n)):
        yield part


def padlist(container: Iterable[Any], size: int, default: Any = None) -> list[Any]:
    """Return the first `size` elements, and `default` for those that are missing."""
    found = list(container)[:size]
    return found + [default] * (size - len(found))


def uniq(it: Iterable[Any]) -> Iterator[Any]:
    """Yield each element once."""
    return iter(dict.fromkeys(it))


def regen(it: Any) -> Any:
    """Return something that can be gone through more than once."""
    return it if isinstance(it, (list, tuple)) or it is None else list(it)


def dictfilter(d: Mapping[Any, Any] | None = None, **kw: Any) -> dict[Any, Any]:
    """Return the items whose value is not None."""
    return {key: value for key, value in {**(d or {}), **kw}.items() if value is not None}


def fun_accepts_kwargs(fun: Callable[..., Any]) -> bool:
    """Return whether a function takes any keyword."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(fun).parameters.values())


def head_from_fun(fun: Callable[..., Any], bound: bool = False) -> Callable[..., Any]:
    """Return a function of the same signature that does nothing: calling it checks arguments."""
    check = arguments_check(fun)
    return (lambda *args, **kwargs: check(None, *args, **kwargs)) if bound else check
