"""`litetq upgrade`, `logtool`, `graph`, `shell`, `amqp`; options from the environment; commands of other packages."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from litetq import LiteTQ, cli, conf, platforms
from litetq.cli import plugins
from litetq.cli.amqp import INSTEAD
from tests.conftest import NeedTool, RunPython

LONG = 20.0  # seconds

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command line in this process, in the test's directory, as if it were a new one."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        for name in ("LITETQ_BROKER", "LITETQ_RESULT_BACKEND"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


# -- upgrade settings

OLD = """\
# BROKER_URL and others\r
BROKER_URL = "sqlite"\r
CELERY_TASK_SERIALIZER = 'json'  # CELERY_RESULT_SERIALIZER too\r
CELERYBEAT_SCHEDULE = {"x": {"task": "x"}}\r
MY_BROKER_URL = BROKER_TRANSPORT_OPTIONS = {}\r
"""


@pytest.mark.row("13.upgrade settings")
def test_upgrade_writes_the_new_names_and_keeps_the_file_as_it_was(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "celeryconfig.py"
    path.write_bytes(OLD.encode())
    code, out, err = say("upgrade", "settings", "celeryconfig.py")
    assert (code, out) == (cli.OK, "Changes to your setting have been made!\n")
    assert err == "processing celeryconfig.py...\nwriting backup to celeryconfig.py.orig...\n"
    assert path.read_bytes().decode() == (
        "# broker_url and others\r\n"
        'broker_url = "sqlite"\r\n'
        "task_serializer = 'json'  # result_serializer too\r\n"
        'beat_schedule = {"x": {"task": "x"}}\r\n'
        "MY_BROKER_URL = broker_transport_options = {}\r\n"
    )
    assert (tmp_path / "celeryconfig.py.orig").read_bytes() == OLD.encode()
    again = say("-q", "upgrade", "settings", "celeryconfig.py")
    assert again == (cli.OK, "Does not seem to require any changes :-)\n", "")


@pytest.mark.parametrize("option", ["--django", "--compat"])
def test_upgrade_for_django_writes_upper_case_with_a_prefix(say: Say, tmp_path: Path, option: str) -> None:
    path = tmp_path / "settings.py"
    path.write_text("BROKER_URL = 1\nCELERY_RESULT_BACKEND = 2\nCELERYD_CONCURRENCY = 3\n")
    assert say("upgrade", "settings", "settings.py", option, "--no-backup")[0] == cli.OK
    assert path.read_text() == "CELERY_BROKER_URL = 1\nCELERY_RESULT_BACKEND = 2\nCELERY_WORKER_CONCURRENCY = 3\n"
    assert os.listdir(tmp_path) == ["settings.py"]


def test_upgrade_knows_every_old_name(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "all.py"
    path.write_text("".join(f"{old} = None\n" for old in conf.TO_NEW))
    assert say("upgrade", "settings", "all.py")[0] == cli.OK
    assert path.read_text() == "".join(f"{new} = None\n" for new in conf.TO_NEW.values())


def test_upgrade_never_writes_over_an_older_backup(say: Say, tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text("BROKER_URL = 1\n")
    (tmp_path / "c.py.orig").write_text("precious")
    code, _, err = say("upgrade", "settings", "c.py")
    assert code == cli.FAILED and "c.py.orig is there already; move it away, or give --no-backup." in err
    assert (path.read_text(), (tmp_path / "c.py.orig").read_text()) == ("BROKER_URL = 1\n", "precious")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "No such file or directory"), (b"\xff\xfe\x00", "is no Python source"), ("folder", "cannot be read")],
)
def test_upgrade_of_what_is_no_source_is_one_sentence(
    say: Say, tmp_path: Path, content: bytes | str | None, sentence: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "x.py").write_bytes(content)
    elif content == "folder":
        (tmp_path / "x.py").mkdir()
    code, out, err = say("-q", "upgrade", "settings", "x.py")
    assert (code, out) == (cli.FAILED, "") and sentence in err and err.count("\n") == 1


def test_a_command_below_another_finds_its_neighbour(say: Say) -> None:
    assert "No such command 'setings'. Did you mean 'settings'?" in say("upgrade", "setings", "x")[2]
    assert "No such command 'x'. There are: stats, traces, errors, incomplete, debug." in say("logtool", "x")[2]


# -- logtool

LOG = """\
 -------------- w@here v0.1.0 (litetq)
[2026-11-20 13:00:00,000: INFO/MainProcess] w@here ready.
[2026-11-20 13:00:01,000: INFO/MainProcess] Task tasks.add[id-1] received
[2026-11-20 13:00:01,100: INFO/PoolWorker-1] Task tasks.add[id-1] succeeded in 0.1s: 3
[2026-11-20 13:00:02,000: INFO/MainProcess] Task tasks.fail[id-2] received
[2026-11-20 13:00:02,100: INFO/PoolWorker-1] Task tasks.fail[id-2] retry: Retry in 1s
[2026-11-20 13:00:03,000: INFO/MainProcess] Task tasks.fail[id-2] received
[2026-11-20 13:00:03,100: ERROR/PoolWorker-1] Task tasks.fail[id-2] raised unexpected: KeyError('x\x1b[31m')
Traceback (most recent call last):
  File "tasks.py", line 1, in fail
KeyError: 'x'
[2026-11-20 13:00:04,000: INFO/MainProcess] Task tasks.slow[id-3] received
[2026-11-20 13:00:05,000: INFO/MainProcess] Received task: tasks.old[id-4]
[2026-11-20 13:00:05,100: INFO/MainProcess] Task tasks.old[id-4] succeeded in 0.1s: None
[2026-11-20 13:00:06,000: INFO/MainProcess] Task tasks.slow[id-5] received
[2026-11-20 13:00:07,000: ERROR/MainProcess] Hard time limit (1s) exceeded for tasks.slow[id-5]
"""

SHOWN = {
    "stats": "\nReport\n======\nTask total: 5\nTask errors: 2\nTask success: 2\nTask completed: 4\nTasks\n=====\n"
    "tasks.slow: 2\ntasks.add: 1\ntasks.fail: 1\ntasks.old: 1\n",
    "errors": "[2026-11-20 13:00:03,100: ERROR/PoolWorker-1] Task tasks.fail[id-2] raised unexpected: KeyError('x\\x1b[31m')\n"
    "[2026-11-20 13:00:07,000: ERROR/MainProcess] Hard time limit (1s) exceeded for tasks.slow[id-5]\n",
    "traces": "[2026-11-20 13:00:03,100: ERROR/PoolWorker-1] Task tasks.fail[id-2] raised unexpected: KeyError('x\\x1b[31m')\n"
    "Traceback (most recent call last):\n  File \"tasks.py\", line 1, in fail\nKeyError: 'x'\n",
    "incomplete": "Did not complete: id-3\n",
    "debug": "[2026-11-20 13:00:00,000: INFO/MainProcess] w@here ready.\n",
}


@pytest.mark.row("13.logtool")
@pytest.mark.parametrize("what", SHOWN)
def test_logtool_reads_the_log_of_a_worker(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    (tmp_path / "w.log").write_text(LOG, encoding="utf-8")
    assert say("logtool", what, "w.log") == (cli.OK, SHOWN[what], "")
    monkeypatch.setattr(sys, "stdin", io.StringIO(LOG))
    assert say("logtool", what) == (cli.OK, SHOWN[what], "")
    code, _, err = say("logtool", what, "nothing.log")
    assert code == cli.FAILED and err == "Error: nothing.log cannot be read: No such file or directory.\n"


def test_logtool_counts_as_json_and_reads_standard_input_among_files(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = LOG.split("[2026-11-20 13:00:03,000", 1)
    (tmp_path / "first.log").write_text(first, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"[2026-11-20 13:00:03,000{second}"))
    told = json.loads(say("logtool", "stats", "first.log", "-", "-j")[1])
    tasks = {"tasks.slow": 2, "tasks.add": 1, "tasks.fail": 1, "tasks.old": 1}
    assert told == {"total": 5, "errors": 2, "success": 2, "completed": 4, "tasks": tasks}


@pytest.mark.system
def test_logtool_reads_what_a_real_worker_writes(run_python: RunPython, tmp_path: Path, say: Say) -> None:
    (tmp_path / "tasks.py").write_text(
        "from litetq import LiteTQ\napp = LiteTQ('tasks', broker='jobs.sqlite')\n"
        "@app.task\ndef add(x, y):\n    return x + y\n"
        "@app.task(bind=True)\ndef again(self):\n    raise self.retry(countdown=0, max_retries=1)\n"
    )
    script = "from tasks import *; add.delay(1, 2); add.delay(1, 'x'); again.delay()"
    assert run_python(script).wait(LONG) == 0
    worker = run_python(
        *("-m", "litetq", "worker", "jobs.sqlite", "--drain", "-l", "INFO", "-f", "w.log", "-P", "threads")
    )
    assert worker.wait(LONG) == cli.OK
    _, out, _ = say("logtool", "stats", "w.log")
    assert out.splitlines()[3:7] == ["Task total: 3", "Task errors: 2", "Task success: 1", "Task completed: 3"]
    assert "TypeError" in say("logtool", "traces", "w.log")[1]


# -- graph


@pytest.mark.row("13.graph")
def test_graph_draws_the_workers_that_answer(say: Say, db: Path) -> None:
    with LiteTQ("tasks", broker=db, set_as_current=False) as app, app.run_embedded(hostname="w@here", concurrency=2):
        code, out, _ = say("-b", db, "graph", "workers")
    file, results = f'"{db}"', f'"{db} (results)"'
    assert code == cli.OK and out.splitlines() == [
        "digraph dependencies {",
        '    graph [fontname="Helvetica"]',
        f'    {file} [shape="cylinder", style="filled", fillcolor="cadetblue3"]',
        f'    {results} [shape="folder", style="filled", fillcolor="peachpuff3"]',
        '    "w@here" [shape="box", style="filled", fillcolor="palegreen3"]',
        f'    "w@here" -> {file}',
        f'    "w@here" -> {results}',
        '    "w@here/0" [shape="oval", label="0"]',
        '    "w@here/0" -> "w@here" [arrowhead="none", arrowtail="tee"]',
        '    "w@here/1" [shape="oval", label="1"]',
        '    "w@here/1" -> "w@here" [arrowhead="none", arrowtail="tee"]',
        "}",
    ]


def test_graph_takes_celerys_words(say: Say, db: Path) -> None:
    LiteTQ("tasks", broker=db, set_as_current=False).engine.store.set_meta("some", "thing")
    words = [
        "nodes:a,b,c",
        "threads:9,0,0",
        "wmax:2",
        "tmax:2",
        "generic",
        "enumerate",
        "broker:redis://x",
        "backend:y",
    ]
    _, out, _ = say("-b", db, "graph", "workers", *words)
    assert '"Broker (redis)"' in out and '"Backend (file)"' in out and '"Worker 2" [shape="box"' in out
    assert "Worker 3" not in out
    code, _, err = say("-b", db, "graph", "workers", "wmax:x")
    assert code == cli.USAGE and "wmax:x must be a whole number, like wmax:4." in err
    code, _, err = say("-b", db, "graph", "workers", "what")
    assert code == cli.USAGE and "'what' says nothing here; there are: nodes (" in err


def test_graph_bootsteps_says_why_not(say: Say) -> None:
    code, out, err = say("graph", "bootsteps", "worker")
    assert (code, out) == (cli.USAGE, "") and "Workers here have no bootsteps" in err


# -- shell


@pytest.fixture
def program(tmp_path: Path) -> Iterator[None]:
    """An app in tasks.py of the test's directory; what was imported of it is forgotten."""
    (tmp_path / "tasks.py").write_text(
        "from litetq import LiteTQ\napp = LiteTQ('tasks', broker='jobs.sqlite')\n@app.task\ndef add(x, y):\n    return x + y\n"
    )
    sys.modules.pop("tasks", None)
    yield
    sys.modules.pop("tasks", None)


@pytest.mark.row("13.shell")
@pytest.mark.system
@pytest.mark.usefixtures("program")
def test_the_shell_has_app_tasks_and_workflows_at_hand(run_python: RunPython) -> None:
    shell = run_python("-m", "litetq", "-A", "tasks", "shell", "--python", stdin=-1)
    lines = "print(add.delay(1, 2).state, app is celery, app.main)\nprint(chain, group, chord, chunks, Task)\n"
    out, _ = shell.communicate(lines, timeout=LONG)
    assert shell.returncode == cli.OK
    assert "PENDING True tasks" in out and "litetq.canvas.chain" in out and "litetq.task.Task" in out
    bare = run_python("-m", "litetq", "-A", "tasks", "shell", "--python", "-T", stdin=-1)
    _, err = bare.communicate("add\n", timeout=LONG)
    assert "NameError: name 'add' is not defined" in err


@pytest.mark.system
@pytest.mark.usefixtures("program")
def test_the_shell_can_be_patched_by_gevent(run_python: RunPython) -> None:
    pytest.importorskip("gevent")
    shell = run_python("-m", "litetq", "-A", "tasks", "shell", "--python", "--gevent", stdin=-1)
    out, _ = shell.communicate("import time; print(time.sleep.__module__)\n", timeout=LONG)
    assert "gevent.hub" in out


@pytest.mark.usefixtures("program")
def test_a_shell_that_is_missing_says_so(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    for option, module in (("--ipython", "IPython"), ("-B", "bpython")):
        monkeypatch.setitem(sys.modules, module, None)
        code, _, err = say("-A", "tasks", "shell", option)
        assert code == cli.FAILED and "is not installed; install it (pip install " in err
    code, _, err = say("-A", "tasks", "shell", "-I", "-B")
    assert code == cli.USAGE and "Both --ipython and --bpython name a shell; give one." in err


@pytest.mark.usefixtures("program")
def test_ipython_and_bpython_get_the_names(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    class Module:
        @staticmethod
        def start_ipython(argv: list[str], user_ns: dict[str, Any]) -> None:
            given["ipython"] = user_ns

        @staticmethod
        def embed(names: dict[str, Any]) -> None:
            given["bpython"] = names

    monkeypatch.setitem(sys.modules, "IPython", Module)
    monkeypatch.setitem(sys.modules, "bpython", Module)
    for option in ("-I", "-B"):
        assert say("-A", "tasks", "shell", option)[0] == cli.OK
    assert all(names["add"].name == "tasks.add" for names in given.values()) and len(given) == 2


# -- amqp


@pytest.mark.row("13.amqp shell")
@pytest.mark.parametrize("name", INSTEAD)
def test_every_command_of_the_amqp_shell_says_what_to_do_instead(say: Say, name: str) -> None:
    code, out, err = say("amqp", name, "word", "--option")
    assert (code, out) == (cli.USAGE, "") and f"there is no {name}. {INSTEAD[name]}" in err


# -- the environment


@pytest.mark.row("13.global: env CELERY_*")
@pytest.mark.usefixtures("program")
def test_options_may_come_from_the_environment(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_APP", "tasks")
    monkeypatch.setenv("CELERY_CALL_QUEUE", "mail")
    code, out, err = say("call", "tasks.add", "-a", "[1, 2]")
    assert code == cli.OK, err
    from tasks import app  # type: ignore[import-not-found,unused-ignore]

    assert app.engine.read(out.strip()).queue == "mail"
    out = say("call", "tasks.add", "--queue", "post")[1]
    assert app.engine.read(out.strip()).queue == "post"  # the line stands over the environment
    monkeypatch.setenv("CELERY_CALL_COUNTDOWN", "soon")
    code, _, err = say("call", "tasks.add")
    assert code == cli.USAGE and "'soon' is not a valid float. ($CELERY_CALL_COUNTDOWN says so.)" in err
    monkeypatch.setenv("CELERY_QUIET", "1")
    (Path.cwd() / "c.py").write_text("")
    assert say("upgrade", "settings", "c.py")[2] == ""
    app.close()


@pytest.mark.usefixtures("program")
def test_the_app_is_named_by_litetqs_variable_before_celerys(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_APP", "nowhere")
    assert "$CELERY_APP names an app that cannot be used" in say("report")[2]
    monkeypatch.setenv("LITETQ_APP", "tasks")
    assert say("report")[0] == cli.OK


@pytest.mark.usefixtures("program")
def test_an_app_and_a_file_of_the_environment_count_together_and_a_file_of_the_line_alone(
    say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.sqlite"
    LiteTQ("x", broker=other, set_as_current=False).send_task("x", queue="mail")
    (tmp_path / "tasks.py").write_text(
        "from litetq import LiteTQ\napp = LiteTQ('t')\napp.conf.task_queues = ['declared']\n"
    )

    def queues(*words: str) -> list[str]:
        return say("list", "queues", *words)[1].splitlines()

    monkeypatch.setenv("LITETQ_APP", "tasks")
    assert queues(str(other)) == ["celery", "mail"]
    monkeypatch.setenv("CELERY_BROKER_URL", str(other))
    assert queues() == ["declared", "mail"]
    monkeypatch.delenv("LITETQ_APP")
    assert queues() == ["celery", "mail"]


# -- commands of other packages

PLUGIN = """
import click

@click.command()
@click.option("--loud", is_flag=True)
@click.pass_context
def hello(ctx, loud):
    "Say hello."
    ctx.obj.echo(f"{ctx.obj.OK} {ctx.obj.app.main} {loud} {ctx.obj.quiet}")

not_a_command = 3
"""


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: None) -> None:
    (tmp_path / "other_package.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    points = {
        "litetq.commands": [EntryPoint("hello", "other_package:hello", "litetq.commands")],
        "celery.commands": [
            EntryPoint("hello", "other_package:nothing", "celery.commands"),
            EntryPoint("broken", "missing_package:command", "celery.commands"),
            EntryPoint("number", "other_package:not_a_command", "celery.commands"),
            EntryPoint("report", "other_package:hello", "celery.commands"),
        ],
    }
    monkeypatch.setattr(plugins, "entry_points", lambda group: points[group])


@pytest.mark.row("13.plugins")
@pytest.mark.usefixtures("others")
def test_a_command_of_another_package_runs_with_the_app(say: Say) -> None:
    assert say("-A", "tasks", "-q", "hello", "--loud") == (cli.OK, "OK tasks True True\n", "")
    assert "software -> litetq" in say("-A", "tasks", "report")[1]  # ours counts


@pytest.mark.usefixtures("others")
def test_a_command_of_another_package_that_cannot_be_loaded_is_one_sentence(say: Say) -> None:
    code, _, err = say("broken")
    assert code == cli.FAILED
    assert err == (
        "Error: the command 'broken' of another package (missing_package:command) cannot be imported: "
        "ModuleNotFoundError: No module named 'missing_package'\n"
    )
    assert "is int, not a click command" in say("number")[2]
    code, out, _ = say("--help")
    assert code == cli.OK and "Say hello." in out and "cannot be imported" in " ".join(out.split())
    assert "Did you mean 'hello'?" in say("helo")[2]


# -- the order of words


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("-t 0.1 inspect ping", "inspect"),
        ("-d x@here -t 0.1 inspect -j ping", "inspect"),
        ("inspect -t 0.1 ping -d x@here", "inspect"),
        ("inspect ping -t 0.1", "inspect"),
    ],
)
def test_words_before_a_command_are_read_as_that_commands(say: Say, db: Path, line: str, asked: str) -> None:
    # -d takes a value for inspect and none for events.
    LiteTQ("tasks", broker=db, set_as_current=False).engine.store.set_meta("some", "thing")
    assert say("-b", db, *line.split())[0] == cli.UNAVAILABLE


# -- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_prints_a_script_for_each_shell(say: Say, shell: str) -> None:
    code, out, err = say("completion", shell)
    assert (code, err) == (cli.OK, "") and "_LITETQ_COMPLETE" in out and "litetq" in out


@pytest.mark.system
@pytest.mark.skipif(platforms.PORTABLE, reason="Windows' bash is another system's")
def test_bash_completes_commands_options_and_commands_for_workers(
    run_python: RunPython, tmp_path: Path, need_tool: NeedTool
) -> None:
    bash = need_tool("bash")
    program = tmp_path / "litetq"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m litetq "$@"\n')
    program.chmod(0o755)
    ask = 'COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=(); _litetq_completion litetq; echo "${{COMPREPLY[@]}}"'
    lines = ["litetq ins", "litetq control ra", "litetq -A tasks call --coun"]
    script = "\n".join(['eval "$(litetq completion bash)"', *(ask.format(words=line) for line in lines)])
    (tmp_path / "ask.sh").write_text(script)
    code = (
        "import os, subprocess, sys; os.environ['PATH'] = os.getcwd() + os.pathsep + os.environ['PATH'];"
        f"sys.exit(subprocess.call([{bash!r}, 'ask.sh']))"
    )
    out, err = run_python(code).communicate(timeout=LONG)
    assert out.splitlines() == ["inspect", "rate_limit", "--countdown"], err


@pytest.mark.system
def test_powershell_asks_by_a_protocol_of_its_own(run_python: RunPython) -> None:
    env = {"_LITETQ_COMPLETE": "powershell_complete", "COMP_WORDS": "litetq\ninspect\nre", "COMP_WORD": "re"}
    out, _ = run_python("-m", "litetq", env=env).communicate(timeout=LONG)
    assert [line.partition("\t")[0] for line in out.splitlines()] == ["registered", "report", "reserved", "revoked"]
    env |= {"COMP_WORDS": "litetq", "COMP_WORD": ""}
    out, _ = run_python("-m", "litetq", env=env).communicate(timeout=LONG)
    assert "worker\tRun the tasks in FILE." in out.splitlines()
    env |= {"COMP_WORDS": "litetq\nstatus\njo", "COMP_WORD": "jo"}
    assert run_python("-m", "litetq", env=env).communicate(timeout=LONG)[0].strip() == "", "files are the shell's"
