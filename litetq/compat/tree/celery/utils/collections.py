"""Dictionaries and sets with a rule of their own."""

from __future__ import annotations

import time
from collections import ChainMap as _ChainMap
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

__all__ = [
    "AttributeDict",
    "ChainMap",
    "ConfigurationView",
    "DictAttribute",
    "LimitedSet",
    "OrderedDict",
    "force_mapping",
]


class AttributeDict(dict[Any, Any]):
    """A dictionary whose items are attributes too."""

    def __getattr__(self, k: str) -> Any:
        try:
            return self[k]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {k!r}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


class DictAttribute:
    """An object whose attributes are items too."""

    def __init__(self, obj: Any) -> None:
        object.__setattr__(self, "obj", obj)

    def __getattr__(self, key: str) -> Any:
        return getattr(self.obj, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self.obj, key)
        except AttributeError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __contains__(self, key: str) -> bool:
        return hasattr(self.obj, key)

    def __iter__(self) -> Iterator[str]:
        return iter(dir(self.obj))

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or the default."""
        return getattr(self.obj, key, default)


def force_mapping(m: Any) -> Any:
    """Return a mapping over the attributes of what is none."""
    return m if isinstance(m, Mapping) else DictAttribute(m)


class ChainMap(_ChainMap[Any, Any]):
    """Dictionaries one behind the other; what is written goes into the first."""

    def __init__(self, *maps: Any, key_t: Callable[[Any], Any] | None = None) -> None:
        super().__init__(*maps)
        self.key_t = key_t

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.key_t(key) if self.key_t else key)

    @property
    def changes(self) -> Any:
        """The first of them."""
        return self.maps[0]

    def add_defaults(self, d: Any) -> None:
        """Put a dictionary behind the first."""
        self.maps.insert(1, force_mapping(d))


class ConfigurationView(ChainMap):
    """Settings: what was changed, before the defaults."""

    def __init__(self, changes: Any, defaults: Iterable[Any] = (), keys: Any = None, prefix: str | None = None) -> None:
        super().__init__(changes, *defaults)

    def __getattr__(self, k: str) -> Any:
        try:
            return self[k]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {k!r}") from None

    def first(self, *keys: str) -> Any:
        """Return the first value that is not None."""
        return next((value for value in map(self.get, keys) if value is not None), None)


class LimitedSet:
    """A set of at most `maxlen` elements, each for `expires` seconds; 0 is without a limit."""

    def __init__(self, maxlen: int = 0, expires: float = 0, data: Any = None, minlen: int = 0) -> None:
        self.maxlen = maxlen or 0
        self.minlen = minlen or 0
        self.expires = expires or 0
        self._data: dict[Any, float] = {}
        self.update(data or ())

    def add(self, item: Any, now: float | None = None) -> None:
        """Put an element in, as the youngest."""
        self._data.pop(item, None)
        self._data[item] = now or time.time()
        if self.maxlen and len(self._data) > self.maxlen:
            self.purge()

    def update(self, other: Any) -> None:
        """Put in the elements of a set, or of a dictionary with their times."""
        if isinstance(other, LimitedSet):
            other = other._data
        for item in other:
            self.add(item, other[item] if isinstance(other, Mapping) else None)
        self.purge()

    def discard(self, item: Any) -> None:
        """Take an element out, if it is in."""
        self._data.pop(item, None)

    pop_value = discard

    def purge(self, now: float | None = None) -> None:
        """Take out what is too much, and what is too old beyond the first `minlen`."""
        now = now or time.time()
        for item in list(self._data):
            too_many = bool(self.maxlen) and len(self._data) > self.maxlen
            too_old = bool(self.expires) and len(self._data) > self.minlen and self._data[item] + self.expires < now
            if not (too_many or too_old):
                break
            del self._data[item]

    def pop(self, default: Any = None) -> Any:
        """Take out the oldest element and return it."""
        for item in self._data:
            del self._data[item]
            return item
        return default

    def as_dict(self) -> dict[Any, float]:
        """Return the elements with their times, oldest first."""
        return dict(self._data)

    def clear(self) -> None:
        """Empty it."""
        self._data.clear()

    def __contains__(self, item: object) -> bool:
        return item in self._data

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._data))

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitedSet) and self._data == other._data

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<LimitedSet: maxlen={self.maxlen}, expires={self.expires}, minlen={self.minlen}, {len(self)} elements>"
