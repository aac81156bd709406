"""A module under a second name: what it does not define itself is read from, and assigned to, the module it mirrors.

`mock.patch("celery.beat.Scheduler")` and tracing tools assign to modules; what they assign must reach the code that runs.
The module object itself stays a module of its own, so that nothing of the import system's is shared between the two.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class Mirror(ModuleType):
    """The class of a module that mirrors another one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return getattr(self.__dict__["_mirrored"], name)
        except AttributeError:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_mirrored(name):
            self._remember(name, value)
            setattr(self.__dict__["_mirrored"], name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Undo the last assignment of a mirrored name; delete one that was never assigned.

        pytest's `monkeypatch` and `mock.patch` look into `__dict__`, find nothing, and take a deletion for the way back.
        """
        if not self._is_mirrored(name):
            super().__delattr__(name)
        elif before := self.__dict__["_before"].get(name):
            setattr(self.__dict__["_mirrored"], name, before.pop())
        else:
            delattr(self.__dict__["_mirrored"], name)

    def _remember(self, name: str, value: Any) -> None:
        """Note what is there before `value` is; what was there before already comes back with it, and what came after is gone."""
        before: list[Any] = self.__dict__["_before"].setdefault(name, [])
        places = [place for place, earlier in enumerate(before) if earlier is value]
        if places:
            del before[places[0] :]
        elif hasattr(self.__dict__["_mirrored"], name):
            before.append(getattr(self.__dict__["_mirrored"], name))

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self.__dict__["_names"]})

    def _is_mirrored(self, name: str) -> bool:
        # By the names at the beginning: `mock.patch` deletes an attribute and then sets it again.
        own = self.__dict__
        return name in own["_names"] and name not in own


def mirror(name: str, target: ModuleType) -> None:
    """Make the module of this name, which is being imported, a mirror of `target`; what it defines itself counts first."""
    module = sys.modules[name]
    names = frozenset(key for key in vars(target) if not key.startswith("__"))
    public = {key for key in names if not key.startswith("_") and not isinstance(getattr(target, key), ModuleType)}
    module.__dict__.update(_mirrored=target, _names=names, _before={})
    module.__dict__.setdefault("__all__", sorted(public - {"annotations"}))
    module.__class__ = Mirror
