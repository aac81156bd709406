"""Set up litetq's development environment and run its commands: `python3 dev.py` lists them (`py dev.py` on Windows).

Needs the standard library only. The first run makes a virtual environment (`.venv` beside this file, or the directory that
LITETQ_DEV_VENV names) and installs litetq into it; later runs start at once and work offline, until pyproject.toml changes.
What goes wrong on the way is said in one sentence, exit code 2; other exit codes are those of the program that was run.

Python 3.6 must be able to read this file, because its first act is to say that such a Python is too old. So: no newer
syntax, nothing newer imported at the top.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from typing import Callable, Dict, List, Optional, Tuple

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, os.environ.get("LITETQ_DEV_VENV") or ".venv")
MARKER = os.path.join(VENV, "made-by-dev.py")  # who made the environment; without it nothing is ever deleted
STAMP = os.path.join(VENV, "litetq-installed")  # what was installed into it; absent until that is complete
OLDEST = (3, 10)
SETUP_FAILED = 2

# What pip prints when it could not talk to the index; it then also claims that no version exists.
NETWORK_SIGNS = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "SSLError",
    "Temporary failure in name resolution",
    "getaddrinfo failed",
    "Network is unreachable",
    "Connection refused",
    "Connection reset",
)


class Problem(Exception):
    """Set-up cannot go on; the message is one sentence with what to do."""


# --- commands ---------------------------------------------------------------------------------------------------------


def demo(arguments: List[str]) -> int:
    python = prepare(tools=False)
    # What it tells its user to type next must work where the environment is not activated.
    return run([python, "-m", "litetq", "demo"] + arguments, cwd=os.getcwd(), activated=False)


def test(arguments: List[str]) -> int:
    """Run as many tests at once as there are cores, and up to four more: about half of their time they wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = str(cores + min(cores, 4))
    return run([prepare(), "-m", "pytest", "-n", at_once, "--dist", "worksteal"] + arguments)


def check(arguments: List[str]) -> int:
    """Run every step, also after one failed; return the first code that is not 0."""
    unknown = [name for name in arguments if name not in CHECKS]
    if unknown:
        raise Problem("check has no step {!r}; its steps are {}".format(unknown[0], ", ".join(CHECKS)))
    python = prepare()
    failed: Dict[str, int] = {}
    for name in arguments or CHECKS:
        print("== {}".format(name), flush=True)
        code = run([python, "-m"] + CHECKS[name])
        if code:
            failed[name] = code
    print("== failed: {}".format(", ".join(failed)) if failed else "== all good", flush=True)
    return next(iter(failed.values()), 0)


def bench(arguments: List[str]) -> int:
    return run([prepare(), "-m", "benchmarks"] + arguments)


def chaos(arguments: List[str]) -> int:
    return run([prepare(), "-m", "pytest", "-m", "chaos", "tests/chaos"] + arguments)


def celery_suite(arguments: List[str]) -> int:
    return run([prepare(), "-m", "tests.compat.suite"] + arguments)


CHECKS = {  # what is kept of the types of one platform is no good for another
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types-linux": ["mypy", "--platform", "linux", "--cache-dir", ".mypy_cache/linux"],
    "types-win32": ["mypy", "--platform", "win32", "--cache-dir", ".mypy_cache/win32"],
    "types-darwin": ["mypy", "--platform", "darwin", "--cache-dir", ".mypy_cache/darwin"],
    "guard": ["pytest", "-q", "tests/guard"],
}

COMMANDS: Dict[str, Tuple[Callable[[List[str]], int], str]] = {
    "demo": (demo, "see litetq at work on a real tree of files (arguments: those of `litetq demo`)"),
    "test": (test, "run the tests (arguments: pytest's, such as tests/unit -k name)"),
    "check": (check, "format, lint, strict types for three platforms, guards (arguments: only these steps)"),
    "bench": (bench, "take the figures (arguments: those of `python -m benchmarks`)"),
    "chaos": (chaos, "run the tests that break things on purpose (arguments: pytest's)"),
    "celery-suite": (celery_suite, "run Celery's own tests over litetq (arguments: parts of tests/compat/suite.txt)"),
}


def main(arguments: List[str]) -> int:
    try:
        if sys.version_info < OLDEST:
            raise Problem(too_old())
        if not arguments or arguments[0] in ("help", "-h", "--help"):
            print(listing())
            return 0
        if arguments[0] not in COMMANDS:
            raise Problem("there is no command {!r}; the commands are {}".format(arguments[0], ", ".join(COMMANDS)))
        return COMMANDS[arguments[0]][0](arguments[1:])
    except Problem as problem:
        say(str(problem))
        return SETUP_FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def listing() -> str:
    lines = ["Usage: {} dev.py COMMAND [ARGUMENTS]".format("py" if os.name == "nt" else "python3"), ""]
    lines += ["  {:<13} {}".format(name, text) for name, (_, text) in COMMANDS.items()]
    return "\n".join(lines)


def say(text: str) -> None:
    print("dev.py: " + text, file=sys.stderr, flush=True)


def run(command: List[str], cwd: str = ROOT, activated: bool = True) -> int:
    """Run a program to its end and return its exit code, 128 + n when signal n killed it.

    Activated, it finds the tools of the environment by their names, as in a shell where that is activated.
    Ctrl-C reaches the program too, which decides when to end; nothing else is started after it. SIGTERM is passed on.
    """
    environment = dict(os.environ)
    if activated:
        environment["VIRTUAL_ENV"] = VENV
        environment["PATH"] = os.path.dirname(command[0]) + os.pathsep + environment.get("PATH", os.defpath)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each of the many programs would compile all of litetq again
    # A handler, no KeyboardInterrupt: raised in wait() just when the program has ended, that would lose its exit code.
    interrupts = []  # type: List[int]
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        process = subprocess.Popen(command, cwd=cwd, env=environment)
        signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    code = code if code >= 0 else 128 - code
    if interrupts:
        sys.exit(code)
    return code


# --- the environment --------------------------------------------------------------------------------------------------


def prepare(tools: bool = True) -> str:
    """Return the Python of an environment that has litetq installed, with the developers' tools or without.

    Interrupted at any point, the next call goes on: an environment without MARKER is never deleted, one without STAMP is
    installed into again.
    """
    if not os.path.isdir(VENV) or not os.listdir(VENV):
        make_environment()
    else:
        trouble = trouble_with_environment()
        if trouble and not os.path.exists(MARKER):
            raise Problem(
                "{} {}, and dev.py did not make it: move it away, or set LITETQ_DEV_VENV to another directory".format(
                    VENV, trouble
                )
            )
        if trouble:
            say("{} {}: making it anew".format(VENV, trouble))
            remove_environment()
            make_environment()
    mark = fingerprint()
    if installed() not in [mark + " tools"] + ([] if tools else [mark + " plain"]):
        install(tools)
        with open(STAMP, "w") as file:
            file.write(mark + (" tools" if tools else " plain"))
    return python_of_environment()


def make_environment() -> None:
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise Problem(no_ensurepip(error.name or "ensurepip")) from None
    say("making {} with Python {}.{}.{}".format(VENV, *sys.version_info[:3]))
    try:
        os.makedirs(VENV, exist_ok=True)
        with open(MARKER, "w") as file:  # first, so that an interrupted attempt is recognised as ours
            file.write("dev.py made this directory and may delete it.\n")
    except OSError as error:
        raise Problem("cannot make {}: {}; LITETQ_DEV_VENV may name another directory".format(VENV, error)) from None
    made = subprocess.run(
        [sys.executable, "-m", "venv", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=pip_environment()
    )
    if made.returncode:
        text = made.stdout.decode("utf-8", "replace").strip()
        raise Problem("python -m venv {} failed: {}".format(VENV, text.splitlines()[-1] if text else made.returncode))


def remove_environment() -> None:
    try:
        shutil.rmtree(VENV)
    except OSError as error:
        raise Problem("cannot delete {}: {}; delete it yourself and try again".format(VENV, error)) from None


def trouble_with_environment() -> Optional[str]:
    """Return what is wrong with the environment that is there, None when its Python runs and is new enough."""
    made_for = version_in_config()
    if made_for is None:
        return "is not a complete virtual environment"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        ran = subprocess.run([python_of_environment(), "-I", "-S", "-c", code], stdout=subprocess.PIPE, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "was made by a Python {} that is gone".format(made_for)
    runs = ran.stdout.decode("ascii", "replace").strip()
    if runs != made_for:
        return "was made by a Python {} that is gone".format(made_for)
    if tuple(map(int, runs.split("."))) < OLDEST:
        return "holds Python {}, which is older than {}.{}".format(runs, *OLDEST)
    return None


def version_in_config() -> Optional[str]:
    """Return major.minor of the Python that the environment was made for, None when that is not on record."""
    try:
        with open(os.path.join(VENV, "pyvenv.cfg"), encoding="utf-8") as file:
            found = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+)", file.read(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return found.group(1) if found else None


def python_of_environment() -> str:
    return os.path.join(VENV, *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"]))


def fingerprint() -> str:
    """Return a name for what ought to be installed: it changes with pyproject.toml, the Python and the place."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        content = file.read()
    return hashlib.sha256(content + "\0{}\0{}".format(version_in_config(), ROOT).encode()).hexdigest()


def installed() -> str:
    try:
        with open(STAMP) as file:
            return file.read().strip()
    except OSError:
        return ""


def install(tools: bool) -> None:
    """Install litetq from this directory, from wheels only: compiling what lacks one fails in a hundred lines."""
    say("installing litetq{} (once; needs the network)".format(" and the developers' tools" if tools else ""))
    command = [python_of_environment(), "-m", "pip", "install", "--editable", ".[dev]" if tools else "."]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=pip_environment())
    if ran.returncode:
        raise Problem(why_pip_failed(ran.stdout.decode("utf-8", "replace")))


def pip_environment() -> Dict[str, str]:
    """Return the environment with defaults for pip; what the user set himself counts more."""
    environment = dict(os.environ)
    environment.pop("PYTHONHOME", None)
    environment.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    environment.setdefault("PIP_RETRIES", "1")  # without a network, five tries take half a minute
    if "PIP_NO_BINARY" not in environment:
        environment.setdefault("PIP_ONLY_BINARY", ":all:")
    return environment


# --- what to say ------------------------------------------------------------------------------------------------------


def too_old() -> str:
    newer = newer_python()
    way_out = "run it with " + newer if newer else "install one from https://www.python.org/downloads/"
    return (
        "litetq needs Python {}.{} or newer, and this is Python {}.{}.{}: ".format(*(OLDEST + sys.version_info[:3]))
        + way_out
    )


def newer_python() -> Optional[str]:
    """Return the name of a Python on PATH that is new enough and really starts."""
    for minor in range(20, OLDEST[1] - 1, -1):
        name = "python3.{}".format(minor)
        if shutil.which(name):
            quiet = subprocess.DEVNULL
            if subprocess.call([name, "-c", ""], stdout=quiet, stderr=quiet) == 0:
                return name
    return None


def no_ensurepip(what: str) -> str:
    version = "{}.{}".format(*sys.version_info[:2])
    text = "this Python {} lacks the module {}, which makes virtual environments: ".format(version, what)
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            family = re.findall(r'^ID(?:_LIKE)?="?([^"\n]*)', file.read(), re.MULTILINE)
    except OSError:
        family = []
    if {"debian", "ubuntu"} & set(" ".join(family).split()):
        return text + "sudo apt install python{}-venv (or python3-venv)".format(version)
    return text + "install your system's package for it, often python3-venv, or Python from https://www.python.org/"


def why_pip_failed(output: str) -> str:
    """Return the one sentence that a failed pip means; print all it said where no known reason is found."""
    signs = [sign for sign in NETWORK_SIGNS if sign in output]
    absent = re.search(r"No matching distribution found for (\S+)", output)
    if signs:
        return (
            "pip cannot reach the package index: connect to the network for this first run, or set PIP_INDEX_URL to an "
            "index that you can reach (pip said: {})".format(", ".join(signs))
        )
    if absent:
        name = re.split(r"[^\w.-]", absent.group(1))[0]
        return (
            "there is no wheel of {} for Python {} on {}: use another Python (3.10 to 3.14 have most), or with a C compiler "
            "set PIP_NO_BINARY={} to build it".format(name, version_in_config(), sysconfig.get_platform(), name)
        )
    if "No module named pip" in output:
        return "{} holds no pip: run {} -m ensurepip".format(VENV, python_of_environment())
    sys.stderr.write(output)
    errors = [line for line in output.splitlines() if line.lower().startswith("error:")]
    return "pip failed, as printed above ({:.200})".format(errors[-1] if errors else "it names no error")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
