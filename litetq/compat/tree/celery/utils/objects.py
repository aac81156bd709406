"""Small objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["Bunch", "FallbackContext", "getitem_property", "mro_lookup"]


class Bunch:
    """Attributes by keyword."""

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)


class FallbackContext:
    """What was provided; or what the fallback makes, which is closed at the end of the block."""

    def __init__(self, provided: Any, fallback: Callable[..., Any], *fb_args: Any, **fb_kwargs: Any) -> None:
        self.provided = provided
        self._fallback = partial(fallback, *fb_args, **fb_kwargs)
        self._made: Any = None

    def __enter__(self) -> Any:
        if self.provided is not None:
            return self.provided
        self._made = self._fallback()
        return self._made.__enter__()

    def __exit__(self, *exc_info: object) -> Any:
        return self._made.__exit__(*exc_info) if self._made is not None else None


class getitem_property:
    """An attribute that is an item of a dictionary within the object: "a.b" is `obj["a"]["b"]`, or of the object itself."""

    def __init__(self, keypath: str, doc: str | None = None) -> None:
        self.path, _, self.key = keypath.rpartition(".")
        self.__doc__ = doc

    def _holder(self, obj: Any) -> Any:
        for part in filter(None, self.path.split(".")):
            obj = obj[part]
        return obj

    def __get__(self, obj: Any, type: Any = None) -> Any:
        return type if obj is None else self._holder(obj).get(self.key)

    def __set__(self, obj: Any, value: Any) -> None:
        self._holder(obj)[self.key] = value


def mro_lookup(cls: type, attr: str, stop: Any = None, monkey_patched: Any = None) -> type | None:
    """Return the first class of the order that defines an attribute, None from one of `stop` on."""
    for kind in cls.mro():
        if kind in (stop or ()):
            patched = getattr(kind.__dict__.get(attr), "__module__", None) not in (monkey_patched or ())
            return kind if monkey_patched is not None and attr in kind.__dict__ and patched else None
        if attr in kind.__dict__:
            return kind
    return None
