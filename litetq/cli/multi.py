"""`litetq multi start|restart|stop|…`: many workers in the background, each known by its pid file, as `celery multi`.

Nothing is kept between two calls: which nodes there are, and where their pid files lie, the line says each time.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli, platforms
from litetq.cli import cluster, console, pidfile
from litetq.cli.cluster import Node
from litetq.cli.commands import Actions, Command, Invocation, usage
from litetq.log import has_colour

if TYPE_CHECKING:
    import psutil

_LOOK_S: Final = 0.1  # between two looks whether nodes have ended
_DOT_S: Final = 2.0  # between two dots meanwhile
_RESERVED: Final = {"--nosplash": "nosplash", "--verbose": "verbose", "--quiet": "quiet", "-q": "quiet",
                    "--no-color": "no_color", "-C": "no_color"}  # fmt: skip
_KILL: Final = 9
_OF_WINDOWS: Final = ("INT", "TERM", "QUIT", "HUP")  # what a worker is told there by a word beside its pid file


class _Verb(Command):
    """A verb with a line that click cannot read: options for single nodes, and those of programs that are not imported."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = _options()
        self.own_params = [*self.own_params, *own]
        self.params = [*own, *self.params]

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        if not {"--help", "-h"}.isdisjoint(args[:end]) and not context.resilient_parsing:
            console.say(context.get_help())
            context.exit()
        context.params = {"words": (*args[:end], *_outer(context, len(args)), *args[end:])}
        return []


def _outer(context: click.Context, count: int) -> list[str]:
    """Return the words before the verb and its `count` words, but for `multi`: `litetq -A tasks multi -q start 3`."""
    words = list(context.ensure_object(Invocation).words)
    outer = words[: len(words) - count - 1]
    if "multi" in outer:
        outer.remove("multi")
    return outer


def _options() -> list[click.Parameter]:
    """Return what `multi` itself takes, made anew for each verb."""
    return [
        click.Option(["--range-prefix"], metavar="NAME", help="Name of nodes that are counted, before the number (celery)."),
        click.Option(["--prefix"], metavar="TEXT", help="Put before the names of nodes."),
        click.Option(["--suffix"], metavar="HOST", help="Host in the names of nodes; by default this one."),
        click.Option(["-n", "--hostname"], metavar="HOST", help="The same."),
        click.Option(["--append"], metavar="TEXT", help="Put behind each worker's command."),
        click.Option(["--cmd"], metavar="TEXT", help="Start this instead of  -m litetq worker --detach."),
        click.Option(["--verbose"], is_flag=True, help="Show the commands, too."),
        click.Option(["--nosplash"], is_flag=True, help="Do not say what this is."),
    ]  # fmt: skip


@click.group(cls=Actions, aliases={"stop_verify": "stopwait"})
def command() -> None:
    """Start and stop many workers in the background.

    \b
    litetq multi start 3 -A tasks -c 2                        celery1, celery2 and celery3
    litetq multi start mail video -A tasks -Q:mail mail       by names, with an option for one
    litetq multi start 3 jobs.sqlite --pidfile=run/%n.pid --logfile=log/%n%I.log
    litetq multi restart 3 -A tasks -c 2
    litetq multi stopwait 3

    Options of litetq worker follow the nodes; -c:2 8 or --concurrency:1,3=8 is for those nodes only. Pid and log files are
    %n.pid and %n%I.log in this directory, unless the line says otherwise. By its pid file a node is found again, so say the same
    each time.
    """


def _verb(name: str, usage_text: str) -> Callable[[Callable[..., int]], click.Command]:
    """Make a function the command of this name."""

    def make(function: Callable[..., int]) -> click.Command:
        with_words = click.argument("words", nargs=-1, metavar=usage_text)(function)
        return command.command(name, cls=_Verb)(with_words)

    return make


_NODES: Final = "N|NAME..."
_WITH_OPTIONS: Final = f"{_NODES} [FILE] [WORKER OPTIONS]"


@_verb("start", _WITH_OPTIONS)
def start(words: tuple[str, ...]) -> int:
    """Start nodes. Ends with 0 when all run, with 1 when one does not."""
    crew = _Crew(words)
    crew.splash()
    crew.say("> Starting nodes...")
    for node in crew.nodes:
        crew.say(f"\t> {node.name}: ", end="")
        crew.start(node)
    return crew.code


@_verb("restart", f"{_NODES} [-SIGNAL] [FILE] [WORKER OPTIONS]")
def restart(words: tuple[str, ...]) -> int:
    """Stop nodes warmly, and start each again as this line says. Those that are down are started, too."""
    crew = _Crew(words, takes_signal=True)

    def start_again(node: Node) -> None:
        crew.say(crew.paint(f"> Restarting node {node.name}: ", "blue"), end="")
        crew.start(node)

    crew.splash()
    crew.stop(start_again, is_awaited=True)
    return crew.code


@_verb("stop", f"{_NODES} [-SIGNAL]")
def stop(words: tuple[str, ...]) -> int:
    """Ask nodes to stop. Does not wait: what they run ends first. -QUIT and the like send that signal instead of SIGTERM."""
    crew = _Crew(words, takes_signal=True)
    crew.splash()
    crew.stop(crew.say_down, is_awaited=False)
    return crew.code


@_verb("stopwait", f"{_NODES} [-SIGNAL]")
def stopwait(words: tuple[str, ...]) -> int:
    """Stop nodes and wait. What they run ends first; Ctrl-C ends the waiting only."""
    crew = _Crew(words, takes_signal=True)
    crew.splash()
    crew.stop(crew.say_down, is_awaited=True)
    return crew.code


@_verb("kill", _NODES)
def kill(words: tuple[str, ...]) -> int:
    """End nodes on the spot. The next worker says of what they ran how it ended."""
    crew = _Crew(words)
    crew.splash()
    crew.kill()
    return crew.code


@_verb("show", _WITH_OPTIONS)
def show(words: tuple[str, ...]) -> int:
    """Print the command that would start each node."""
    for node in _Crew(words).nodes:
        console.say(node.shown)
    return cli.OK


@_verb("names", _NODES)
def names(words: tuple[str, ...]) -> int:
    """Print the full names of nodes."""
    for node in _Crew(words).nodes:
        console.say(node.name)
    return cli.OK


@_verb("expand", f"TEMPLATE {_NODES}")
def expand(words: tuple[str, ...]) -> int:
    """Print a text for each node. %n is its name, %h the whole name, %d the host; %I and %i are left to the worker."""
    template, *rest = words or usage("Which text? Write for example  litetq multi expand /var/run/%n.pid 3")
    for node in _Crew(rest).nodes:
        console.say(node.filled(template))
    return cli.OK


@_verb("get", f"NAME {_WITH_OPTIONS}")
def get(words: tuple[str, ...]) -> int:
    """Print the words that start one node. Ends with 1 when there is no such node."""
    name, *rest = words or usage("Which node? Write for example  litetq multi get celery1 3 -A tasks")
    nodes = _Crew(rest).nodes
    for node in nodes:
        if name in (node.name, node.short_name):
            console.say(cluster.shown(node.words))
            return cli.OK
    console.say(f"Error: there is no node {name!r}; there are: {', '.join(node.name for node in nodes)}", sys.stderr)
    return cli.FAILED


@command.command("help", cls=Command)
def help_() -> int:
    """Print what `litetq multi --help` prints."""
    context = click.get_current_context()
    assert context.parent is not None
    console.say(context.parent.get_help())
    return cli.OK


# -- what is done --------------------------------------------------------------------------------------------------


class _Crew:
    """The nodes of a line, and what is said and done about them.

    Args:
        takes_signal: whether a word like -QUIT or -9 is a signal.
    """

    def __init__(self, words: Sequence[str], *, takes_signal: bool = False) -> None:
        line = list(words)
        end = line.index("--") if "--" in line else len(line)
        self.said = {_RESERVED[word] for word in line[:end] if word in _RESERVED}
        line = [word for place, word in enumerate(line) if place >= end or word not in _RESERVED]
        self.signal = "TERM"
        if takes_signal:
            line = self._take_signal(line)
        self.code = cli.OK
        self.colour = has_colour(sys.stdout, False if "no_color" in self.said else None)
        self.nodes = cluster.nodes(cluster.read(line), lambda text: console.say(text, sys.stderr))

    def _take_signal(self, line: list[str]) -> list[str]:
        """Note the signal that the line names, and return the other words."""
        end = line.index("--") if "--" in line else len(line)
        for place, word in enumerate(line[:end]):
            name = _signal_name(word)
            if name is not None:
                self.signal = name
                return [*line[:place], *self._take_signal(line[place + 1 :])]
        return line

    # -- words

    def say(self, text: str = "", end: str = "\n") -> None:
        if "quiet" not in self.said:
            console.say(text, end=end)

    def paint(self, text: str, colour: str) -> str:
        return click.style(text, fg=colour) if self.colour else text

    def splash(self) -> None:
        from litetq import __version__

        if "nosplash" not in self.said:
            self.say(self.paint(f"litetq multi v{__version__}", "cyan"))

    def say_down(self, node: Node) -> None:
        self.say(f"> {node.name}: {self.paint('DOWN', 'magenta')}")

    # -- deeds

    def start(self, node: Node) -> None:
        """Start a node, and say whether it runs; what it says itself goes to stderr."""
        if "verbose" in self.said:
            self.say(f"  {node.shown}")
        if node.workdir.is_dir():  # where it is missing, the worker says so
            for path in (node.pid_path, node.log_path):
                _make_folder(path.parent, *node.owner)
        try:
            done = subprocess.run([node.executable, *node.words], stdin=subprocess.DEVNULL, capture_output=True)
            code, told = done.returncode, done.stderr
        except OSError as error:
            code, told = cli.FAILED, f"Error: {node.executable!r} cannot be started: {error.strerror}\n".encode()
        self.say(self.paint("FAILED", "red") if code else self.paint("OK", "green"))
        if code < 0:
            self.say(f"* Child was terminated by signal {-code}")
        elif code > 0:
            self.say(f"* Child terminated with exit code {code}")
        if told:
            console.say(told.decode("utf-8", "replace").rstrip(), sys.stderr)
        if code:
            self.code = cli.FAILED

    def stop(self, then: Callable[[Node], object], *, is_awaited: bool) -> None:
        """Ask the nodes to stop; `then` is done for each that is down, or has come down where that is awaited."""
        live: dict[Node, psutil.Process] = {}
        for node in self.nodes:
            process = node.process()
            if process is None:
                then(node)
            else:
                live[node] = process
        if live:
            self.say(self.paint("> Stopping nodes...", "blue"))
        for node, process in list(live.items()):
            self.say(f"\t> {node.name}: {self.signal} -> {process.pid}")
            reached = self._send(node, process)
            if reached is not True:
                del live[node]
            if reached is None:
                then(node)
        while live and is_awaited:
            for node in self._wait_for_some(live):
                self.say(f"\t> {node.name}: {self.paint('OK', 'green')}")
                then(node)
                del live[node]

    def _send(self, node: Node, process: psutil.Process) -> bool | None:
        """Send the signal, and return whether that was allowed; None where the process has gone meanwhile."""
        import psutil

        try:
            if self.signal == "KILL":
                process.kill()
            elif platforms.PORTABLE:
                pidfile.leave_word(node.pid_path, process.pid, f"SIG{self.signal}")
            else:
                process.send_signal(signal.Signals[f"SIG{self.signal}"])
        except psutil.NoSuchProcess:
            self.say(f"Could not signal {node.name} ({process.pid}): No such process")
            return None
        except (psutil.AccessDenied, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is another user's"
            console.say(f"Error: could not signal {node.name} ({process.pid}): {why}", sys.stderr)
            self.code = cli.FAILED
            return False
        return True

    def _wait_for_some(self, live: dict[Node, psutil.Process]) -> list[Node]:
        """Return those nodes that have ended, as soon as one has."""
        many = "1 node" if len(live) == 1 else f"{len(live)} nodes"
        pids = ", ".join(str(process.pid) for process in live.values())
        self.say(self.paint(f"> Waiting for {many} -> {pids}...", "blue"), end="")
        dot_at = time.monotonic() + _DOT_S
        while True:
            ended = [node for node, process in live.items() if _has_ended(process)]
            if ended:
                self.say()
                return ended
            if time.monotonic() >= dot_at:
                self.say(".", end="")
                dot_at += _DOT_S
            time.sleep(_LOOK_S)

    def kill(self) -> None:
        self.signal = "KILL"
        for node in self.nodes:
            process = node.process()
            if process is None:
                self.say_down(node)
            else:
                self.say(f"Sending KILL to node {node.name} ({process.pid})")
                self._send(node, process)


def _signal_name(word: str) -> str | None:
    """Return the name of the signal that a word stands for (-9, -KILL, -SIGKILL), None where it is no signal."""
    if word[1:].isdecimal() and word.startswith("-"):
        known = {int(which): which.name.removeprefix("SIG") for which in signal.Signals} | {_KILL: "KILL"}
        name = known.get(int(word[1:]))
        if name is None:
            usage(f"{word}: there is no signal {word[1:]}.")
    else:
        name = word[1:].removeprefix("SIG")
        if not word.startswith("-") or not (
            f"SIG{name}" in signal.Signals.__members__ or name in (*_OF_WINDOWS, "KILL")
        ):
            return None
    if platforms.PORTABLE and name not in (*_OF_WINDOWS, "KILL"):
        usage(f"{word}: a worker hears no such signal on this system; there are {', '.join((*_OF_WINDOWS, 'KILL'))}.")
    return name


def _has_ended(process: psutil.Process) -> bool:
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _make_folder(path: Path, user: str | None, group: str | None) -> None:
    """Make a folder where it is missing, for the user that the node will run as."""
    if path.is_dir():
        return
    try:
        os.makedirs(path, exist_ok=True)
        if (user or group) and sys.platform != "win32":
            shutil.chown(path, _number(user), _number(group))
    except (OSError, LookupError) as error:
        raise click.ClickException(f"cannot make the folder {path}: {error}") from error


def _number(name: str | None) -> Any:
    return int(name) if name is not None and name.isdecimal() else name
