"""What a user installs: light to import, whole in the wheel, nothing undeclared, every file introduced."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunPython, missing
from tests.guard.test_layers import walk

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "litetq"
FILES = sorted(PACKAGE.rglob("*.py"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Each of these costs milliseconds or more, or promises to be loaded only where it is asked for.
NOT_AT_START = {
    *("redis", "kombu", "amqp", "django", "click", "rich", "psutil", "croniter"),
    *("asyncio", "multiprocessing", "sqlite3"),
}
NEWER_STANDARD = {"tomllib"}  # standard library of a later Python than the oldest we support
ON_DEMAND = {"adapters", "compat", "contrib", "dashboard"}
MODULES_OF = {"pyyaml": "yaml", "litetq": "litetq"}  # where a distribution is not called as its module


def test_importing_litetq_stays_light(run_python: RunPython) -> None:
    """The time is not asserted (machines differ); what costs it is."""
    process = run_python("import sys; old = set(sys.modules); import litetq; print(*sorted(set(sys.modules) - old))")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    loaded = {name.split(".")[0] for name in out.split()}
    print("import litetq loads:", *sorted(loaded))
    assert not loaded & NOT_AT_START, f"import litetq loads {sorted(loaded & NOT_AT_START)}: import it where it is used"


def test_the_wheel_holds_the_sql_files_and_the_type_marker(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        missing("hatchling is not installed, so no wheel can be built: pip install hatchling")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        (entry_points,) = [archive.read(name).decode() for name in inside if name.endswith("entry_points.txt")]
    wanted = {path.relative_to(ROOT).as_posix() for path in [*FILES, *PACKAGE.rglob("*.sql"), PACKAGE / "py.typed"]}
    assert wanted <= inside, f"not in the wheel: {sorted(wanted - inside)}"
    # The plugin of pytest stands outside of the package: whoever runs pytest loads it.
    assert {name.split("/")[0].split("-")[0] for name in inside} == {"litetq", "pytest_litetq.py"}
    assert "litetq = litetq.cli:main" in entry_points


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_file_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no module docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_what_is_imported_is_declared(path: Path) -> None:
    """At the top of a file only what every installation has; inside functions, and in rooms that are loaded only when asked
    for, also what an extra brings."""
    always = {"litetq"} | modules(PROJECT["dependencies"])
    optional = modules([line for lines in PROJECT["optional-dependencies"].values() for line in lines])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    room = path.relative_to(PACKAGE).parts[0]
    at_top = set() if room in ON_DEMAND else {id(node) for node in tree.body}
    for node, _ in walk(tree):
        for name in third_party(node):
            allowed = always if id(node) in at_top else always | optional
            assert name in allowed, f"{path.name}:{node.lineno} imports {name}: declare it in pyproject.toml"  # type: ignore[attr-defined]


def third_party(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        names = [alias.name.split(".")[0] for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        names = [node.module.split(".")[0]]
    else:
        return []
    return [name for name in names if name not in sys.stdlib_module_names | NEWER_STANDARD]


def modules(requirements: list[str]) -> set[str]:
    names = [re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements]
    return {MODULES_OF.get(name, name.replace("-", "_")) for name in names}
