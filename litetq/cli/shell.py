"""`litetq shell`: Python with the app and its tasks at hand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from litetq import cli
from litetq.cli import asking
from litetq.cli.commands import Command, Invocation, usage

if TYPE_CHECKING:
    from litetq.app import LiteTQ


@click.command(cls=Command, short_help="Start Python with the app at hand.")
@click.argument("file", required=False, metavar="[FILE]")
@click.option("-I", "--ipython", is_flag=True, help="IPython; an error where it is not installed.")
@click.option("-B", "--bpython", is_flag=True, help="bpython; an error where it is not installed.")
@click.option("--python", is_flag=True, help="Python's own.")
@click.option("-T", "--without-tasks", is_flag=True, help="Do not put the tasks at hand by their names.")
@click.option("--eventlet", is_flag=True, help="Monkey-patched by eventlet.")
@click.option("--gevent", is_flag=True, help="Monkey-patched by gevent.")
@click.pass_obj
def command(
    invocation: Invocation,
    file: str | None,
    ipython: bool,
    bpython: bool,
    python: bool,
    without_tasks: bool,
    eventlet: bool,
    gevent: bool,
) -> int:
    """Start Python with `app` (and `celery`, the same), the workflow functions and the app's tasks at hand.

    Without an option it is IPython, bpython or Python's own, the first that is installed.
    """
    chosen = [name for name, wanted in (("ipython", ipython), ("bpython", bpython), ("python", python)) if wanted]
    if len(chosen) > 1:
        usage(f"Both --{chosen[0]} and --{chosen[1]} name a shell; give one.")
    for library, wanted in (("eventlet", eventlet), ("gevent", gevent)):
        if wanted:
            from litetq import green

            green.patch(library)
    names = _at_hand(asking.reach(invocation, file), with_tasks=not without_tasks)
    for name in chosen or ("ipython", "bpython", "python"):
        try:
            start = _SHELLS[name]()
        except ImportError:
            if chosen:
                raise click.ClickException(
                    f"{name} is not installed; install it (pip install {name}), or leave the option out."
                ) from None
            continue
        start(names)
        break
    return cli.OK


def _at_hand(app: LiteTQ, *, with_tasks: bool) -> dict[str, Any]:
    from litetq import canvas
    from litetq.task import Task

    names: dict[str, Any] = {"app": app, "celery": app, "Task": Task}
    for name in ("chord", "group", "chain", "chunks", "xmap", "xstarmap", "signature", "subtask"):
        names[name] = getattr(canvas, name)
    if with_tasks:
        names.update({_short(name, task): task for name, task in app.tasks.items() if not name.startswith("celery.")})
    return names


def _short(name: str, task: Any) -> str:
    return str(getattr(task, "__name__", None) or name.rpartition(".")[2])


def _ipython() -> Callable[[dict[str, Any]], Any]:
    module = importlib.import_module("IPython")
    return lambda names: module.start_ipython(argv=[], user_ns=names)


def _bpython() -> Callable[[dict[str, Any]], Any]:
    module = importlib.import_module("bpython")
    return lambda names: module.embed(names)


def _python() -> Callable[[dict[str, Any]], Any]:
    import code

    try:
        readline: Any = importlib.import_module("readline")
    except ImportError:  # Windows
        return lambda names: code.interact(local=names)
    import rlcompleter

    def start(names: dict[str, Any]) -> None:
        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab:complete")
        code.interact(local=names)

    return start


_SHELLS = {"ipython": _ipython, "bpython": _bpython, "python": _python}
