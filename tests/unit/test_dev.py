"""dev.py sets up by itself, says in one sentence what keeps it from that, and gets out of the way afterwards.

Each test runs the real dev.py in a small project of its own, whose build backend lies in the project: pip needs no network.
"""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RunPython
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

BACKEND = """
import os, zipfile

REQUIRES = ""

def build_editable(directory, config_settings=None, metadata_directory=None):
    info = "litetq-0.dist-info/"
    with zipfile.ZipFile(os.path.join(directory, "litetq-0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("litetq.pth", os.getcwd())
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: litetq\\nVersion: 0\\nProvides-Extra: dev\\n" + REQUIRES)
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return "litetq-0-py3-none-any.whl"
"""

# What `dev.py demo` and `dev.py bench` run here: says its arguments, does as the first one says.
PROGRAM = """
import os, sys, time

try:
    print("ran in", sys.prefix, "with", sys.argv[1:], flush=True)
    print("looks for programs in", os.environ["PATH"].split(os.pathsep)[0], flush=True)
    if "wait" in sys.argv:
        time.sleep(600)
except KeyboardInterrupt:
    sys.exit(7)
sys.exit(int(sys.argv[-1]) if sys.argv[-1].isdigit() else 0)
"""

OFFLINE = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A project with the environment that its first run made, and that run."""
    project = make_project(tmp_path_factory.mktemp("first"))
    return project, dev(project, "demo", "--resume", "x y", "5")


def make_project(folder: Path) -> Path:
    """Return a directory with dev.py, a package litetq that can be demonstrated, benchmarks, and no environment."""
    project = folder / "a project"
    for package in ("litetq", "benchmarks"):
        (project / package).mkdir(parents=True)
        (project / package / "__init__.py").touch()
        (project / package / "__main__.py").write_text(PROGRAM)
    shutil.copy(ROOT / "dev.py", project)
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "backend.py").write_text(BACKEND)
    return project


def dev(project: Path, *arguments: str, python: str = sys.executable, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return subprocess.run(
        [python, str(project / "dev.py"), *arguments],
        cwd=project,
        env={**clean, **OFFLINE, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=110,
    )


def one_sentence(ran: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that dev.py said, after asserting that it failed in set-up and spilled nothing."""
    assert ran.returncode == 2, ran.stdout + ran.stderr
    lines = ran.stderr.splitlines()
    assert all(line.startswith("dev.py: ") for line in lines), ran.stderr
    return lines[-1]


def pythons_at_hand(minors: range) -> list[str]:
    """Return the interpreters 3.x found on PATH and under ~/.pyenv that really start."""
    found = []
    for minor in minors:
        names = [f"python3.{minor}", *map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))]
        for name in filter(None, map(shutil.which, names)):
            if subprocess.run([name, "-c", ""], capture_output=True).returncode == 0:
                found.append(name)
                break
    return found


def test_called_alone_it_lists_its_commands_and_sets_nothing_up(project: Path) -> None:
    ran = dev(project)
    assert ran.returncode == 0
    for name in ("demo", "test", "check", "bench", "chaos", "celery-suite"):
        assert f"\n  {name} " in ran.stdout
    assert not (project / ".venv").exists()


def test_an_unknown_command_or_step_is_named_with_those_there_are(project: Path) -> None:
    assert "'tset'; the commands are demo, test" in one_sentence(dev(project, "tset"))
    assert "no step 'lynt'; its steps are format, lint" in one_sentence(dev(project, "check", "lynt"))
    assert not (project / ".venv").exists()


def test_python_3_6_can_read_it() -> None:
    source = (ROOT / "dev.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__ import annotations" not in source  # 3.7


@pytest.mark.slow
def test_a_python_that_is_too_old_is_told_so(project: Path) -> None:
    old = pythons_at_hand(range(6, 10))
    if not old:
        pytest.skip("no Python 3.6 to 3.9 at hand; the test above stands in for them")
    for python in old:
        assert "needs Python 3.10 or newer, and this is Python 3." in one_sentence(dev(project, "test", python=python))


def test_a_python_without_ensurepip_is_told_what_to_install(project: Path, tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ModuleNotFoundError('cut out by Debian', name='ensurepip')")
    said = one_sentence(dev(project, "demo", PYTHONPATH=str(tmp_path)))
    assert "lacks the module ensurepip" in said
    assert "-venv" in said
    assert not (project / ".venv").exists()


def test_the_first_run_sets_up_and_the_next_ones_do_not_need_pip(
    first: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    project, ran = first
    assert ran.returncode == 5, ran.stderr
    assert f"ran in {project / '.venv'} with ['demo', '--resume', 'x y', '5']" in ran.stdout
    # What it says to type next must be right in a shell where the environment is not activated, as here.
    assert f"looks for programs in {project / '.venv'}" not in ran.stdout
    assert "making" in ran.stderr

    (pip,) = (project / ".venv").glob("**/site-packages/pip")
    aside = pip.rename(project / "pip aside")  # where Python does not find it
    try:
        second = dev(project, "demo")
        assert (second.returncode, second.stderr) == (0, "")

        with (project / "pyproject.toml").open("a") as file:
            file.write("# changed")
        assert "holds no pip" in one_sentence(dev(project, "demo"))
    finally:
        (project / "pyproject.toml").write_text(PYPROJECT)
        aside.rename(pip)


@pytest.mark.slow
def test_the_tools_are_added_to_an_environment_made_for_the_demo_and_serve_the_demo_too(project: Path) -> None:
    dev(project, "demo")
    ran = dev(project, "bench", "quick")
    assert "installing litetq and the developers' tools" in ran.stderr
    assert "with ['quick']" in ran.stdout
    assert dev(project, "demo").stderr == ""


@pytest.mark.slow
def test_an_index_out_of_reach_is_one_sentence_and_the_next_run_goes_on(project: Path) -> None:
    (project / "backend.py").write_text(BACKEND.replace('REQUIRES = ""', 'REQUIRES = "Requires-Dist: apsw\\n"'))
    ran = dev(project, "demo", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert "cannot reach the package index: connect to the network" in one_sentence(ran)
    ran = dev(project, "demo", PIP_NO_INDEX="1")
    assert "no wheel of apsw for Python 3." in one_sentence(ran)
    (project / "backend.py").write_text(BACKEND)
    assert dev(project, "demo").returncode == 0


@pytest.mark.slow
def test_an_environment_whose_python_is_gone_is_made_anew(project: Path) -> None:
    assert dev(project, "demo").returncode == 0
    bin = project / ".venv" / ("Scripts" if os.name == "nt" else "bin")
    for python in bin.glob("python*"):
        python.unlink()
    ran = dev(project, "demo")
    assert ran.returncode == 0
    assert "that is gone: making it anew" in ran.stderr


@pytest.mark.slow
def test_what_it_did_not_make_is_used_when_sound_and_never_deleted(project: Path) -> None:
    precious = project / "mine" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    said = one_sentence(dev(project, "demo", LITETQ_DEV_VENV="mine"))
    assert "dev.py did not make it: move it away" in said
    assert precious.read_text() == "years of work"

    subprocess.run([sys.executable, "-m", "venv", str(project / "by hand")], check=True)
    ran = dev(project, "demo", LITETQ_DEV_VENV="by hand")
    assert ran.returncode == 0
    assert "making" not in ran.stderr
    assert not (project / "by hand" / "made-by-dev.py").exists()


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C goes to a whole console on Windows, this test's own included")
def test_ctrl_c_and_sigterm_reach_the_program_whose_code_is_returned(
    first: tuple[Path, subprocess.CompletedProcess[str]], run_python: RunPython
) -> None:
    project, _ = first
    log = project / "log"
    for number, expected in ((signal.SIGINT, 7), (signal.SIGTERM, 128 + signal.SIGTERM)):
        with log.open("w") as file:
            process = run_python(
                *(project / "dev.py", "demo", "wait"), cwd=project, stdout=file, stderr=file, start_new_session=True
            )
        eventually(lambda: "ran in" in log.read_text())
        # A terminal tells the whole group of Ctrl-C; `kill` tells dev.py alone.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        assert process.wait(timeout=30) == expected
        assert "Traceback" not in log.read_text()
