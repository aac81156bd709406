"""The alias: who answers `import celery`, and what goes on and off with that.

One finder stands first on `sys.meta_path`. It answers the name `celery` with the package in `tree/`; the modules below it are
found as those of any package. So the alias wins over an installed Celery, over a stray `celery.py` in the working directory,
and costs nothing until somebody imports `celery`. `proj.celery` is not its business.

It also lets tools find a distribution called celery, with the version whose interface this is. While the alias is on, the
error classes of `kombu` and `billiard`, if these are installed, are litetq's own, so that `except` clauses fit.

An environment variable carries the alias to child processes: `import litetq` turns it on where it is set.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from litetq import context, exceptions, execution, serialization, signals
from litetq.exceptions import ImproperlyConfigured

VARIABLE: Final = "LITETQ_AS_CELERY"  # set: `import litetq` turns the alias on
VERSION: Final = "5.7.0"  # of Celery, whose interface this is
TREE: Final = Path(__file__).resolve().parent / "tree"
ALIAS: Final = "celery"
STAND_INS: Final = ("kombu", "billiard", "vine")  # answered only where they are not installed

# What becomes ours in modules of real packages: name there -> the object here.
_ERRORS_OF_KOMBU: Final = (
    "KombuError", "OperationalError", "SerializationError", "EncodeError", "DecodeError", "ContentDisallowed",
    "SerializerNotInstalled",
)  # fmt: skip
_ERRORS_OF_BILLIARD: Final = ("SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated")
OURS: Final[dict[str, dict[str, Any]]] = {
    "kombu.exceptions": {name: getattr(exceptions, name) for name in _ERRORS_OF_KOMBU},
    "billiard.exceptions": {name: getattr(exceptions, name) for name in _ERRORS_OF_BILLIARD},
    "billiard.einfo": {"ExceptionInfo": execution.ExceptionInfo},
}

# Tools wait for the import of these and patch them then; with Celery every worker, or beat, imports them.
_OF_A_WORKER: Final = (
    "celery.app.trace", "celery.local", "celery.worker", "celery.concurrency.prefork", "celery.loaders.base",
)  # fmt: skip

_lock: Final = threading.RLock()
workers: Final[weakref.WeakSet[Any]] = weakref.WeakSet()  # those of this process
_replaced: Final[list[tuple[Any, str, Any]]] = []  # module or other holder, name, what stood there


class Finder(importlib.abc.MetaPathFinder):
    """Finds `celery`, the stand-ins where they are needed, and celery's metadata."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is; None for all that is none of ours, which the finders behind this one answer."""
        if fullname == ALIAS:
            return PathFinder.find_spec(fullname, [str(TREE)])
        if fullname in _ADAPTED or fullname in STAND_INS:
            return self._real(fullname, path) or (
                PathFinder.find_spec(fullname, [str(TREE)]) if fullname in STAND_INS else None
            )
        return None

    def _real(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """Return the spec that the other finders have; a folder without code is no package."""
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if finder is self or find is None else find(name, path)
            if spec is not None and spec.loader is not None:
                if name in _ADAPTED and not _is_in_tree(spec.origin):
                    spec.loader = _Then(spec.loader, _ADAPTED[name])
                return spec
        return None

    # Called on an instance by `importlib.metadata`, whatever the class of finders it goes through.
    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        """Yield the distribution `celery`, if it is asked for, or all are."""
        wanted = getattr(context, "name", None)
        if wanted is None or wanted.lower() == ALIAS:
            yield AliasDistribution()


class AliasDistribution(Distribution):
    """What `importlib.metadata` tells of celery while the alias is on."""

    def read_text(self, filename: str) -> str | None:
        """Return one of the metadata files."""
        return {
            "METADATA": f"Metadata-Version: 2.1\nName: {ALIAS}\nVersion: {VERSION}\nSummary: litetq under Celery's name\n",
            # Of distributions with one name only the first counts; the script of an installed Celery must not vanish.
            "entry_points.txt": "[console_scripts]\ncelery = celery.__main__:main\n",
        }.get(filename)

    def locate_file(self, path: Any) -> Any:
        """Return where a file of the distribution would be."""
        return TREE / path


class _Then(importlib.abc.Loader):
    """Loads a module as its own loader does, and then does one thing more."""

    def __init__(self, loader: Any, then: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then(module)


def _put_ours(module: ModuleType) -> None:
    for key, value in OURS[module.__name__].items():
        _replace(module, key, value)


def _replace(holder: Any, key: str, value: Any) -> None:
    there = getattr(holder, key, None)
    if there is not value:
        _replaced.append((holder, key, there))
        setattr(holder, key, value)


def _share_serializers(module: Any) -> None:
    """Let litetq know what is, and will be, registered with kombu; what both have already stays as each has it."""
    registry = module.registry
    own_register = registry.register
    shared: set[str] = set()  # content types: what kombu's programs register anew is registered anew

    def register(name: str, encoder: Any, decoder: Any, content_type: str, content_encoding: str = "utf-8") -> None:
        own_register(name, encoder, decoder, content_type, content_encoding)
        if serialization.is_known(content_type) and content_type not in shared:
            serialization.turn_down(name, content_type)
        else:
            shared.add(content_type)
            register_serializer(name, encoder, decoder, content_type, content_encoding)

    for name, codec in list(registry._encoders.items()):
        register(
            name, codec.encoder, registry._decoders.get(codec.content_type), codec.content_type, codec.content_encoding
        )
    _replace(registry, "register", register)
    _replace(module, "register", register)


def register_serializer(
    name: str, encoder: Any, decoder: Any, content_type: str, content_encoding: str = "utf-8"
) -> None:
    """Make a format known as kombu does: what decodes a text is given the text, not its bytes."""
    is_text = decoder is not None and content_encoding not in ("binary", "ascii-8bit")
    decode = (lambda data: decoder(data.decode(content_encoding))) if is_text else decoder
    serialization.register(name, encoder, decode, content_type, content_encoding)


def _share_compressions(module: Any) -> None:
    """Let litetq know what is, and will be, registered with kombu's compressions; what both have stays as each has it."""
    own_register = module.register

    def register(encoder: Any, decoder: Any, content_type: str, aliases: Sequence[str] | None = None) -> None:
        own_register(encoder, decoder, content_type, aliases)
        if not serialization.is_compression(content_type):
            register_compression(encoder, decoder, content_type, aliases)

    for content_type, encoder in list(module._encoders.items()):
        names = [alias for alias, meant in module._aliases.items() if meant == content_type]
        register(encoder, module._decoders[content_type], content_type, names)
    _replace(module, "register", register)


def register_compression(encoder: Any, decoder: Any, content_type: str, aliases: Sequence[str] | None = None) -> None:
    """Make a way to compress known, as kombu does."""
    serialization.register_compression(encoder, decoder, content_type, aliases or ())


# Modules that are there, as attributes, once Celery is imported: `import kombu` is enough for `kombu.exceptions`.
_ALONG: Final = {
    "kombu": (
        "common",
        "compression",
        "connection",
        "entity",
        "exceptions",
        "message",
        "pools",
        "serialization",
        "utils",
    ),
    "billiard": ("einfo", "exceptions"),
}


def _bring_along(module: ModuleType) -> None:
    for name in _ALONG[module.__name__]:
        with suppress(ModuleNotFoundError):  # another version has it elsewhere
            importlib.import_module(f"{module.__name__}.{name}")


def _adapt_billiard(module: ModuleType) -> None:
    _bring_along(module)
    _number_child(module)


def _number_child(billiard: Any) -> None:
    """Let billiard's `current_process()` in a child of a pool say which of them it is, as that of multiprocessing does."""
    here: Any = sys.modules["multiprocessing"].current_process() if "multiprocessing" in sys.modules else None
    if hasattr(here, "index"):
        there = billiard.current_process()
        there.name, there.index = here.name, here.index


# What is done to modules of real packages when they are imported.
_ADAPTED: Final[dict[str, Callable[[ModuleType], None]]] = {
    "billiard": _adapt_billiard,
    "kombu": _bring_along,
    **dict.fromkeys(OURS, _put_ours),
    "kombu.serialization": _share_serializers,
    "kombu.compression": _share_compressions,
}


_finder: Final = Finder()


def is_installed() -> bool:
    """Return whether `import celery` means litetq in this process."""
    return _finder in sys.meta_path


def install() -> None:
    """Turn the alias on, here and for processes that start from now on; once is enough, more does nothing.

    Raises ImproperlyConfigured when modules of a real Celery are loaded: part of the program would hold the old classes.
    """
    with _lock:
        if is_installed():
            return
        loaded = sorted(name for name in sys.modules if _is_celerys(name))
        if loaded:
            shown = ", ".join(loaded[:8]) + (f" and {len(loaded) - 8} more" if len(loaded) > 8 else "")
            raise ImproperlyConfigured(
                f"install_as_celery() came too late: Celery itself is loaded already ({shown}). Call it before anything "
                "imports celery: at the top of the first module of the program (manage.py, conftest.py, wsgi.py), or start "
                "the program with  litetq exec -- ..."
            )
        sys.meta_path.insert(0, _finder)
        os.environ[VARIABLE] = "1"
        for name, adapt in _ADAPTED.items():
            if name in sys.modules:
                adapt(sys.modules[name])
        for signal, receiver in _RECEIVERS:
            signal.connect(receiver, weak=False)
        execution.build_tracer = _first_tracer


def uninstall() -> None:
    """Turn the alias off and forget its modules; who holds something of them keeps it. Without the alias nothing happens."""
    with _lock:
        if not is_installed():
            return
        sys.meta_path.remove(_finder)
        os.environ.pop(VARIABLE, None)
        for signal, receiver in _RECEIVERS:
            signal.disconnect(receiver)
        for name, module in list(sys.modules.items()):
            if _is_celerys(name) or (
                name.partition(".")[0] in STAND_INS and _is_in_tree(getattr(module, "__file__", None))
            ):
                del sys.modules[name]
        while _replaced:
            module, key, before = _replaced.pop()
            setattr(module, key, before) if before is not None else delattr(module, key)
        execution.build_tracer = execution.Tracer


def _is_celerys(name: str) -> bool:
    return name == ALIAS or name.startswith(f"{ALIAS}.")


def _is_in_tree(file: str | None) -> bool:
    return file is not None and TREE in Path(file).parents


# -- what workers and beats do more while the alias is on


def _first_tracer(name: str, task: Any, **options: Any) -> execution.Trace:
    """Make a tracer once all is imported that tools wait for, in whichever process runs the first task: they may replace it."""
    _import(_OF_A_WORKER)  # celery.app.trace puts what it has into the slot
    if execution.build_tracer is _first_tracer:
        execution.build_tracer = execution.Tracer
    return execution.build_tracer(name, task, **options)


def _on_worker_init(sender: Any, **_: Any) -> None:
    _import(_OF_A_WORKER)
    sender.app.loader.init_worker()


def _on_worker_ready(sender: Any, **_: Any) -> None:
    _import(_OF_A_WORKER)
    workers.add(sender)


def _on_child_init(sender: Any, **_: Any) -> None:
    _import(_OF_A_WORKER)
    if "billiard" in sys.modules:
        _number_child(sys.modules["billiard"])
    _call_in_prefork("process_initializer", context.get_current_app(), sender)


def _on_child_shutdown(pid: int, exitcode: int, **_: Any) -> None:
    _call_in_prefork("process_destructor", pid, exitcode)


def _call_in_prefork(name: str, *args: Any) -> None:
    module = sys.modules.get("celery.concurrency.prefork")
    if module is not None:
        getattr(module, name)(*args)  # looked up now: tools replace it


def _on_beat_init(**_: Any) -> None:
    _import(("celery.beat",))


def _import(names: Iterable[str]) -> None:
    with _lock:  # an alias that goes meanwhile must not come back with them
        if is_installed():
            for name in names:
                importlib.import_module(name)


_RECEIVERS: Final = (
    (signals.worker_init, _on_worker_init),
    (signals.worker_ready, _on_worker_ready),
    (signals.worker_process_init, _on_child_init),
    (signals.worker_process_shutdown, _on_child_shutdown),
    (signals.beat_init, _on_beat_init),
)
