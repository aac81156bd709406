"""Find the app that a command works on, and import its module.

In this order, the first that says something counts:

1. `-A` / `--app`, by Celery's rules (`load`);
2. `$LITETQ_APP`, then `$CELERY_APP`, read as `-A` is;
3. `app = "..."` under `[tool.litetq]` in the `pyproject.toml` of the working directory, read as `-A` is;
4. the app that the file of tasks names, if it may be trusted (`check_recorded`);
5. the one module of the working directory that defines an app, found by reading source (`apps_in_directory`).

A module is imported only once it is chosen, and chosen only by one of these. Every dead end raises
`ImproperlyConfigured`: one sentence saying what was looked for and what to do.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from litetq import context, platforms
from litetq.app import LiteTQ
from litetq.exceptions import ImproperlyConfigured, LiteTQError

_PREFERRED: Final = ("tasks", "app", "celery", "main")  # of several modules with an app, the first of these is taken
_VARIABLES: Final = ("LITETQ_APP", "CELERY_APP")
_INSIDE_PACKAGE: Final = ("__init__", "celery", "app", "tasks")  # where a package of the directory may define one
_NOT_PROGRAMS: Final = re.compile(r"(setup|conftest|test_.*|.*_test)$")
_LARGEST_SOURCE: Final = 1_000_000  # bytes; arbitrary: nobody writes a longer module by hand


class Found(NamedTuple):
    """An app, how a child process can load it again, and who named it."""

    app: LiteTQ
    reference: str  # "module:attribute", for `load`
    source: str  # in words, for the banner and `litetq report`


class RecordedApp(NamedTuple):
    """The app that a file of tasks names, checked and not yet imported."""

    reference: str  # "module" or "module:attribute"
    path: Path  # the module's source
    root: Path  # the folder that its name counts from


def find_app(
    name: str | None,
    *,
    database: Path | None = None,
    recorded: Callable[[], Mapping[str, Any] | None] | None = None,
    notify: Callable[[str], None] = lambda text: None,
) -> Found:
    """Return the app, importing its module.

    Args:
        name: What `-A` said; None: not given.
        database: The file of tasks, None where there is none on this machine.
        recorded: Reads the app that the file names; None: do not look.
        notify: Gets one line before a module is imported that the user did not name.
    """
    directory = Path.cwd()
    given = [(name, "-A"), *((os.environ.get(variable), f"${variable}") for variable in _VARIABLES)]
    for named, source in (*given, *_from_pyproject(directory)):
        if named is not None:
            return _load_as_named(named, source)
    record = recorded() if recorded is not None else None
    if record is not None and database is not None:
        return _load_recorded(record, database, directory, notify)
    return _load_only_app(directory, notify)


def names_app(directory: Path) -> bool:
    """Say whether the environment, or the pyproject.toml of a directory, names an app."""
    return any(map(os.environ.get, _VARIABLES)) or any(True for _ in _from_pyproject(directory))


def _load_as_named(name: str, source: str) -> Found:
    try:
        app, reference = load(name)
    except ImproperlyConfigured as error:
        if source == "-A":
            raise
        raise ImproperlyConfigured(f"{source} names an app that cannot be used: {error}") from error
    return Found(app, reference, source)


# -- Celery's search rules -----------------------------------------------------------------------------------------


def load(reference: str) -> tuple[LiteTQ, str]:
    """Import what `-A` names and return the app with its full `module:attribute`.

    `module:attribute` is taken as it stands. `module` may be a module or a dotted attribute of one; in a module the app
    is looked for as `app`, as `celery`, in a package's submodule `celery` by the same rules, and last as any app at all.
    (Celery 5.7's order; unlike Celery, an `app` that is no LiteTQ app, say FastAPI's, is passed over.)

    The working directory comes first on `sys.path` afterwards, as if the program had been started there.
    """
    put_first_on_path(Path.cwd())
    name, colon, attribute = reference.partition(":")
    _check_module_name(name, reference)
    tried: list[str] = []
    if colon:
        target: object = import_module(name)
        where = name
        for part in attribute.split("."):
            if not hasattr(target, part):
                raise ImproperlyConfigured(_no_such_attribute(sys.modules[name], attribute))
            target = getattr(target, part)
        where = f"{name}:{attribute}"
        if isinstance(target, ModuleType):
            raise ImproperlyConfigured(f"{where!r} is a module, not an app; write -A {target.__name__}")
        found = (target, where) if isinstance(target, LiteTQ) else None
        if found is None:
            raise ImproperlyConfigured(f"{where!r} is {_a(target)}, not an app{_apps_of(sys.modules[name])}")
    else:
        target = _module_or_attribute(name)
        if isinstance(target, LiteTQ):
            parent, _, last = name.rpartition(".")
            found = target, f"{parent}:{last}"
        else:
            assert isinstance(target, ModuleType)
            found = _app_in(target, tried)
        if found is None:
            raise ImproperlyConfigured(
                f"module {name!r} defines no app; looked for {', '.join(tried)} and any other LiteTQ (or Celery) object in it"
            )
    module, _, attribute = found[1].partition(":")
    found[0].named_in[module] = attribute
    return found


def _module_or_attribute(name: str) -> LiteTQ | ModuleType:
    parent, dot, last = name.rpartition(".")
    if dot:
        try:
            holder = import_module(parent)
        except ModuleMissing as error:
            raise ModuleMissing(name, error.missing) from error
        value = getattr(holder, last, None)
        if isinstance(value, LiteTQ | ModuleType):
            return value
        try:
            return import_module(name)
        except ModuleMissing as error:
            if value is not None:
                raise ImproperlyConfigured(f"{name!r} is {_a(value)}, not an app{_apps_of(holder)}") from error
            raise
    return import_module(name)


def _app_in(module: ModuleType, tried: list[str]) -> tuple[LiteTQ, str] | None:
    name = module.__name__
    for attribute in ("app", "celery"):
        tried.append(f"{name}.{attribute}")
        value = getattr(module, attribute, None)
        if isinstance(value, LiteTQ):
            return value, f"{name}:{attribute}"
    if hasattr(module, "__path__"):
        try:
            inner = import_module(f"{name}.celery")
        except ModuleMissing:
            tried.append(f"{name}.celery (a module)")
        else:
            found = _app_in(inner, tried)
            if found is not None:
                return found
    for attribute, value in list(vars(module).items()):
        if isinstance(value, LiteTQ):
            return value, f"{name}:{attribute}"
    return None


def _no_such_attribute(module: ModuleType, attribute: str) -> str:
    return f"module {module.__name__!r} has no attribute {attribute!r}{_apps_of(module)}"


def _apps_of(module: ModuleType) -> str:
    names = [f"{module.__name__}:{key}" for key, value in vars(module).items() if isinstance(value, LiteTQ)]
    return f"; the module has {', '.join(names)}" if names else ""


def _a(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


# -- importing -----------------------------------------------------------------------------------------------------


class ModuleMissing(ImproperlyConfigured):
    """The module that was asked for does not exist (not: something it imports)."""

    def __init__(self, name: str, missing: str) -> None:
        self.name, self.missing = name, missing
        here = Path.cwd()
        what = f"module {name!r} was not found" if missing == name else f"module {name!r} was not found: no {missing!r}"
        near = get_close_matches(missing, sorted({*modules_in(here), *_without_plural(here, missing)}), n=3)
        hint = f"; did you mean {' or '.join(repr(name.replace(missing, n, 1)) for n in near)}?" if near else ""
        super().__init__(f"{what} (looked in {here} and on sys.path){hint}")


def _without_plural(directory: Path, name: str) -> Iterator[str]:
    """Yield what `get_close_matches` may rate too low among short names: `task` for `tasks`."""
    yield from (module for module in modules_in(directory) if module.startswith(name) or name.startswith(module))


def modules_in(directory: Path) -> list[str]:
    """Return the names of modules and packages that can be imported from `directory`, none of them imported."""
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return []
    files = [entry.stem for entry in entries if entry.suffix == ".py" and entry.is_file()]
    return files + [entry.name for entry in entries if (entry / "__init__.py").is_file()]


def put_first_on_path(directory: Path) -> None:
    """Make modules of `directory` win over installed ones, as for a program started there."""
    text = str(directory)
    if not sys.path or sys.path[0] != text:
        sys.path.insert(0, text)
        importlib.invalidate_caches()


def import_module(name: str) -> ModuleType:
    """Import a user's module; what goes wrong in it ends as one sentence with its place.

    While it runs, starting a worker and waiting for a result at the module's top level are refused
    (`context.refuse_while_importing`).
    """
    try:
        with context.importing_module(name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModuleMissing(name, error.name) from error
        raise ImproperlyConfigured(import_failed(name, error)) from error
    except ImproperlyConfigured:
        raise
    except SystemExit as error:
        raise ImproperlyConfigured(
            f"module {name!r} ended the program while it was imported (exit code {error.code!r}); "
            f'move what only a script should do below  if __name__ == "__main__":  in that module'
        ) from error
    except Exception as error:
        raise ImproperlyConfigured(import_failed(name, error)) from error


def import_included(app: LiteTQ) -> None:
    """Import the modules that the app lists (`include`, `imports`, `autodiscover_tasks`), with the same care."""
    try:
        with context.importing_module("included by the app"):
            app.import_default_modules()
    except LiteTQError:
        raise
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else None
        listed = {*_listed(app.conf.include), *_listed(app.conf.imports)}
        if missing is not None and any(f"{name}.".startswith(f"{missing}.") for name in listed):
            raise ModuleMissing(missing, missing) from error
        culprit = next((name for name in sorted(listed) if name not in sys.modules), "included by the app")
        raise ImproperlyConfigured(import_failed(culprit, error)) from error


def _listed(names: object) -> list[str]:
    if isinstance(names, str):
        return [names]
    return [str(name) for name in names] if isinstance(names, list | tuple | set | frozenset) else []


def import_failed(name: str, error: BaseException) -> str:
    """Return the sentence about what a module of the user raised while it was imported."""
    if isinstance(error, SyntaxError):
        place, text = f"{error.filename}, line {error.lineno}", f"SyntaxError: {error.msg}"
    else:
        frame = _last_frame_of_user(error)
        place = f"{frame.filename}, line {frame.lineno}" if frame else "place unknown"
        text = f"{type(error).__name__}: {error}"
        if "relative import" in str(error):
            text += "; import by the full name (from tasks import app), and list the module in the app's include"
        if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == "celery":
            text += "; code written for Celery is run with  litetq --as-celery  or below  litetq exec"
    # An object of a module, as Django's settings, may show its error only when it is looked at.
    module, _, part = name.partition(":")
    look = f"from {module} import {part}; dir({part})" if part else f"import {module}"
    return f'module {name!r} cannot be imported: {text} ({place}); see all of it with  python -c "{look}"'


def _last_frame_of_user(error: BaseException) -> traceback.FrameSummary | None:
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parent)
    outside = [f for f in frames if not f.filename.startswith(("<frozen", ours)) and "importlib" not in f.filename]
    return outside[-1] if outside else None


def _check_module_name(name: str, reference: str) -> None:
    if name.endswith(".py") or "/" in name or "\\" in name:
        module = re.sub(r"\.py$", "", name).replace("\\", "/").strip("./").replace("/", ".")
        raise ImproperlyConfigured(f"-A takes the name of a module, not of a file; write  -A {module}  for {name!r}")
    if not name or not all(part and not re.search(r"[\s:\0]", part) for part in name.split(".")):
        raise ImproperlyConfigured(
            f"{reference!r} is not the name of an app; write  -A module  or  -A module:attribute, for example  -A tasks"
        )


# -- pyproject.toml ------------------------------------------------------------------------------------------------


def _from_pyproject(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield the name under `[tool.litetq]`, if the project file has one."""
    path = directory / "pyproject.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{path} cannot be read: {error}; give the app with -A") from error
    if not re.search(r"litetq", text):
        return  # a project file that does not speak of us is not ours to judge
    app = _read_toml_table(text, path).get("app")
    if app is None:
        return
    if not isinstance(app, str):
        raise ImproperlyConfigured(f'app in [tool.litetq] of {path} is {app!r}; write  app = "module:attribute"')
    yield app, "pyproject.toml"


def _read_toml_table(text: str, path: Path) -> Mapping[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        table = tomllib.loads(text).get("tool", {}).get("litetq", {})
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        raise ImproperlyConfigured(f"{path} is not valid TOML: {error}; give the app with -A") from error
    return table if isinstance(table, dict) else {}


# -- the app that the file names -----------------------------------------------------------------------------------


def _load_recorded(record: Mapping[str, Any], database: Path, directory: Path, notify: Callable[[str], None]) -> Found:
    checked = check_recorded(record, database, directory)
    notify(f"importing the app {checked.reference!r} that {database} names, from {checked.path}")
    put_first_on_path(directory)
    if checked.root != directory:
        put_first_on_path(checked.root)
    module = import_module(checked.reference.partition(":")[0])
    if not _is_same_file(module, checked.path):
        raise ImproperlyConfigured(
            f"{database} names the app {checked.reference!r}, but importing it did not bring {checked.path}; "
            "give the app with -A"
        )
    app, reference = load(checked.reference)
    return Found(app, reference, f"recorded in {database.name}")


def check_recorded(record: Mapping[str, Any], database: Path, directory: Path) -> RecordedApp:
    """Return what the file names if it may be imported; imports and runs nothing.

    Raises ImproperlyConfigured unless the file (with its journal) is owned by this user and not writable by others, and
    the module is a source file below `directory`.
    """
    module, attribute = record.get("module"), record.get("attribute")
    way_out = "give the app with -A, or pass --no-recorded-app to look for it in this directory"
    if not isinstance(module, str) or not isinstance(attribute, str | None):
        raise ImproperlyConfigured(f"{database} names an app in a form that this version cannot read; {way_out}")
    for path in (database, *(database.with_name(database.name + end) for end in ("-wal", "-journal"))):
        if path.exists() and not platforms.owned_and_private(path):
            raise ImproperlyConfigured(
                f"{database} names the app {module!r}, but {path} belongs to another user or is writable by others, "
                f"so the name is not trusted; {way_out}"
            )
    for root in _roots(record, directory):
        path_found = _source_below(root, module, directory)
        if path_found is not None:
            return RecordedApp(f"{module}:{attribute}" if attribute else module, path_found, root)
    raise ImproperlyConfigured(
        f"{database} names the app {module!r}, but no such module lies below {directory}; "
        f"start the command where the module is, {way_out}"
    )


def _roots(record: Mapping[str, Any], directory: Path) -> Iterator[Path]:
    """Yield the folders that the module's name may count from: here, or where the script that made it lies."""
    yield directory
    file, module = record.get("file"), record.get("module")
    if isinstance(file, str) and isinstance(module, str):
        path = Path(file)
        up = module.count(".") + (1 if path.name == "__init__.py" else 0)
        if path.is_absolute() and up < len(path.parents):
            yield path.parents[up]


def _source_below(root: Path, module: str, directory: Path) -> Path | None:
    """Return the source file that importing `module` would run, if it lies below `directory` under its real name."""
    if not all(part and not re.search(r"[\s/\\:\0]", part) for part in module.split(".")):
        return None
    top = module.partition(".")[0]
    folders, spec = [str(root)], None
    for part in module.split("."):
        spec = importlib.machinery.PathFinder.find_spec(part, folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or [])
        if spec.origin and not _is_below(Path(spec.origin), directory):
            return None
    if spec is None or not spec.origin or not spec.has_location or not spec.origin.endswith(".py"):
        return None
    if top in sys.builtin_module_names or (top in sys.modules and not _comes_from(sys.modules[top], root)):
        return None  # importing it would bring another module of the same name
    return Path(spec.origin)


def _is_below(path: Path, directory: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(directory.resolve(strict=True))
    except OSError:
        return False


def _comes_from(module: ModuleType, root: Path) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and _is_below(Path(str(file)), root)


def _is_same_file(module: ModuleType, path: Path) -> bool:
    try:
        return os.path.samefile(getattr(module, "__file__", None) or "", path)
    except OSError:
        return False


# -- the one app of the directory ----------------------------------------------------------------------------------


def _load_only_app(directory: Path, notify: Callable[[str], None]) -> Found:
    candidates = apps_in_directory(directory)
    preferred: list[str] = [name for name in _PREFERRED if name in candidates]
    names = preferred[:1] or list(candidates)
    if not names:
        raise ImproperlyConfigured(
            f"no app was named, and no module in {directory} defines one; "
            "give it with -A, for example  -A tasks  for tasks.py"
        )
    if len(names) > 1:
        raise ImproperlyConfigured(
            f"several modules in {directory} define an app: {', '.join(names)}; "
            f"say which with -A, for example  -A {names[0]}"
        )
    notify(f"importing the app {names[0]!r}, {'the only one' if len(candidates) == 1 else 'chosen'} in {directory}")
    app, reference = load(names[0])
    return Found(app, reference, "found in the working directory")


def apps_in_directory(directory: Path) -> dict[str, list[str]]:
    """Return the modules of `directory` whose source makes an app at top level, each with the names it gets.

    Packages are looked into one level deep and listed under the package's own name where Celery's rules lead from it to
    the app. Nothing is imported; files that cannot be read or parsed are passed over, tests too.
    """
    found: dict[str, list[str]] = {}
    for module in modules_in(directory):
        if _NOT_PROGRAMS.match(module):
            continue
        single = directory / f"{module}.py"
        if single.is_file():
            names = apps_defined_in(single)
            if names:
                found[module] = names
            continue
        for part in _INSIDE_PACKAGE:
            names = apps_defined_in(directory / module / f"{part}.py")
            if names:
                found[module if part in ("__init__", "celery") else f"{module}.{part}"] = names
                break
    return found


def apps_defined_in(path: Path) -> list[str]:
    """Return the top-level names that the source at `path` binds to a new app."""
    try:
        if path.stat().st_size > _LARGEST_SOURCE:
            return []
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    classes, modules = set[str](), set[str]()
    names: list[str] = []
    for statement in _top_level(tree.body):
        if isinstance(statement, ast.ImportFrom):
            if statement.module in ("litetq", "celery", "litetq.app", "celery.app", "celery.app.base"):
                classes |= {a.asname or a.name for a in statement.names if a.name in ("LiteTQ", "Celery")}
        elif isinstance(statement, ast.Import):
            modules |= {a.asname or a.name for a in statement.names if a.name in ("litetq", "celery")}
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and _makes_app(statement.value, classes, modules):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements that run when the module is imported, those inside `try`, `with` and `if` included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If) and "__main__" in ast.dump(statement.test):
            yield from _top_level(statement.orelse)
            continue
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for field in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from _top_level(handler.body)


def _makes_app(value: ast.expr | None, classes: set[str], modules: set[str]) -> bool:
    if not isinstance(value, ast.Call):
        return False
    called = value.func
    if isinstance(called, ast.Name):
        return called.id in classes
    return (
        isinstance(called, ast.Attribute)
        and called.attr in ("LiteTQ", "Celery")
        and isinstance(called.value, ast.Name)
        and called.value.id in modules
    )
