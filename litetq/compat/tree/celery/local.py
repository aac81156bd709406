"""Objects that stand for another one, which is looked up at each use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from litetq.task import Forward

__all__ = ["PromiseProxy", "Proxy", "class_property", "maybe_evaluate", "try_import"]


class Proxy(Forward):
    """Stands for what a function returns, asked each time."""

    def __init__(
        self,
        local: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        name: str | None = None,
        __doc__: str | None = None,
    ) -> None:
        super().__init__(lambda: local(*(args or ()), **(kwargs or {})))

    # Looked up by Python on the class, so that each must stand here.
    def __getitem__(self, key: Any) -> Any:
        return self._find()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._find()[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._find()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._find()

    def __iter__(self) -> Any:
        return iter(self._find())

    def __len__(self) -> int:
        return len(self._find())

    def __str__(self) -> str:
        return str(self._find())

    def __enter__(self) -> Any:
        return self._find().__enter__()

    def __exit__(self, *exc: object) -> Any:
        return self._find().__exit__(*exc)


class PromiseProxy(Proxy):
    """Stands for what a function returns, asked once."""

    def __init__(self, local: Callable[..., Any], args: Any = None, kwargs: Any = None, **more: Any) -> None:
        then: list[Callable[[Any], Any]] = []
        kept: list[Any] = []

        def once() -> Any:
            if not kept:
                kept.append(local(*(args or ()), **(kwargs or {})))
                for callback in then:
                    callback(kept[0])
            return kept[0]

        super().__init__(once, **more)
        object.__setattr__(self, "_then", then)
        object.__setattr__(self, "_is_evaluated", lambda: bool(kept))

    def __evaluated__(self) -> bool:
        return bool(self._is_evaluated())

    def __maybe_evaluate__(self) -> Any:
        return self._find()

    def __then__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self.__evaluated__():
            fun(*args, **kwargs)
        else:
            self._then.append(lambda value: fun(*args, **kwargs))


def maybe_evaluate(obj: Any) -> Any:
    """Return what a promise stands for; anything else as it is."""
    return obj.__maybe_evaluate__() if isinstance(obj, PromiseProxy) else obj


def try_import(module: str, default: Any = None) -> Any:
    """Return a module, or the default where it cannot be imported."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return default


class class_property:
    """A property of the class."""

    def __init__(self, getter: Any = None, setter: Any = None) -> None:
        self._get = getter.__func__ if isinstance(getter, classmethod) else getter
        self._set = setter.__func__ if isinstance(setter, classmethod) else setter

    def __get__(self, obj: Any, type: Any = None) -> Any:
        return self._get(obj.__class__ if type is None else type)

    def __set__(self, obj: Any, value: Any) -> Any:
        return self if obj is None or self._set is None else self._set(type(obj), value)

    def setter(self, setter: Any) -> class_property:
        """Return one that can be assigned to, too."""
        return class_property(self._get, setter)
