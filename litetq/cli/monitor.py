"""`litetq monitor [FILE]`, or `flower`: what is in a file of tasks, as a page in a browser.

The page is `litetq/dashboard/`. Options that Flower's users type are taken: those that say where the page is and who may see it
work, those that say how to gather what is in the file anyway have no effect, and those that would protect it are refused rather
than ignored. Flower itself, where it is installed, runs where the tasks are in no file, or with `--installed`.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from litetq import cli
from litetq.cli import console, plugins
from litetq.cli.commands import Command, Invocation, shared_options, usage
from litetq.cli.opening import is_file, named_file, open_app, open_file
from litetq.cli.text import visible

if TYPE_CHECKING:
    from litetq.app import LiteTQ
    from litetq.dashboard.server import Access

PORT: Final = 5555
_NAME: Final = "flower"  # of the command of the package
_HANDED: Final = "litetq.monitor.handed"  # in the context's meta: the words for the package, with its command

# Options of Flower's: nothing is lost without them.
_NO_EFFECT: Final = {
    "--auto_refresh": "the page looks by itself",
    "--broker_api": "the file is read",
    "--cookie_secret": "nobody is remembered",
    "--db": "what has happened is in the file",
    "--debug": "there is nothing more to tell",
    "--enable_events": "the file is read",
    "--inspect_timeout": "nobody is asked",
    "--max_tasks": "all of the file is shown",
    "--max_workers": "all of the file is shown",
    "--natural_time": "times are relative, with the exact one beside",
    "--persistent": "what has happened is in the file",
    "--purge_offline_workers": "workers that are gone are removed by the others",
    "--state_save_interval": "what has happened is in the file",
    "--tasks_columns": "all are shown",
    "--xheaders": "nothing depends on who asks",
}
# Somebody relies on these (and on all of --oauth2_...): without them the page would be open, or not where it is looked for.
_REFUSED: Final = ("--auth", "--auth_provider", "--ca_certs", "--certfile", "--conf", "--keyfile", "--unix_socket")


def _without_flowers(words: Sequence[str], context: click.Context) -> list[str]:
    """Return the words without options of Flower's that have no effect here; says which. Others of them are refused."""
    left = []
    for word in words:
        name = "--" + word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else ""
        if name in _REFUSED or name.startswith("--oauth2_"):
            raise click.UsageError(
                f"{name} is an option of Flower's that is not here; --basic_auth asks for a password, and a web server in "
                "front of the page can do the rest.",
                context,
            )
        if name in _NO_EFFECT:
            console.say(f"note: no effect here of {name}: {_NO_EFFECT[name]}", sys.stderr)
        else:
            left.append(word)
    return left


def _prefix(context: click.Context, option: click.Parameter, value: str | None) -> str:
    """Return the prefix with one slash before it and none behind, empty where there is none."""
    words = (value or "").strip("/")
    if any(not (letter.isascii() and (letter.isalnum() or letter in "-_.~/")) for letter in words):
        raise click.BadParameter(f"{value!r} may hold letters, digits, and - _ . ~ /, like /monitor", context, option)
    return f"/{words}" if words else ""


def _accounts(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    accounts = tuple(filter(None, (value or "").split(",")))
    for number, account in enumerate(accounts, 1):
        if not all(account.partition(":")[::2]):
            raise click.BadParameter(
                f"account {number} is not of the form user:password", context, option
            )  # it may be a password: it is not shown
    return accounts


class Monitor(Command):
    """The command, or the one of the package Flower in its place."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        point = plugins.named().get(_NAME)
        is_wanted = "--installed" in args
        if point is None and is_wanted:
            raise click.UsageError("Flower is not installed here: pip install flower.", context)
        if point is not None:
            rest = _read_shared(context, [word for word in args if word != "--installed"])
            if is_wanted or _is_elsewhere(context.ensure_object(Invocation), rest):
                context.meta[_HANDED] = (plugins.load(point), rest)
                return []
        return super().parse_args(context, _without_flowers(args, context))

    def invoke(self, context: click.Context) -> Any:
        if _HANDED not in context.meta:
            return super().invoke(context)
        command, words = context.meta[_HANDED]
        surroundings = plugins.Surroundings(context.ensure_object(Invocation))
        # It looks at the options of the command above it.
        return command.main(list(words), _NAME, standalone_mode=False, parent=context.parent, obj=surroundings)


def _read_shared(context: click.Context, words: list[str]) -> list[str]:
    """Read the options of every command, and return the other words."""
    rest = click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)
    settings = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}
    reader = click.Command("flower", params=[*shared_options(), rest], context_settings=settings)
    with reader.make_context(context.info_name, list(words), parent=context.parent) as read:
        context.obj = read.ensure_object(Invocation)
        return list(read.params["rest"])


def _is_elsewhere(invocation: Invocation, words: Sequence[str]) -> bool:
    """Return whether the tasks are in no file, by what the line or the app says."""
    from litetq.address import parse

    if any(not word.startswith("-") and is_file(word) and parse(word).path is not None for word in words):
        return False
    if invocation.broker is not None:
        return parse(invocation.broker).path is None
    if invocation.app is None and invocation.given_app is None:
        return False
    invocation.enter()
    return open_app(invocation, None).app.broker_address.path is None


@click.command(cls=Monitor)
@click.argument("words", nargs=-1, metavar="[FILE]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, envvar="FLOWER_PORT",
    help="Listen at this port; 0 takes a free one.",
)  # fmt: skip
@click.option(
    "--address", default="127.0.0.1", show_default=True, metavar="ADDRESS", envvar="FLOWER_ADDRESS",
    help="Listen at this address; any but 127.0.0.1 lets other machines look.",
)  # fmt: skip
@click.option(
    "--host", "hosts", multiple=True, metavar="NAME", help="Answer to this name, too, in a browser's address. May be repeated.",
)  # fmt: skip
@click.option(
    "--basic_auth", "--basic-auth", "accounts", callback=_accounts, metavar="USER:PASSWORD", envvar="FLOWER_BASIC_AUTH",
    help="Ask for a name and a password; several with commas. $FLOWER_BASIC_AUTH keeps it out of the list of processes.",
)  # fmt: skip
@click.option(
    "--url_prefix", "--url-prefix", "prefix", callback=_prefix, metavar="PATH", envvar="FLOWER_URL_PREFIX",
    help="Stand below this path, behind a web server.",
)  # fmt: skip
@click.option(
    "--installed", is_flag=True, expose_value=False, help="Start the package Flower instead, with its options."
)
@click.pass_obj
def command(
    invocation: Invocation,
    /,
    words: tuple[str, ...],
    port: int,
    address: str,
    hosts: tuple[str, ...],
    accounts: tuple[str, ...],
    prefix: str,
) -> int:
    """Show workers, tasks, queues and schedule in a browser.

    \b
    litetq monitor jobs.sqlite
    litetq -A tasks flower --port 5566

    The page reads the file and changes nothing; it needs no worker, and what has happened before it was started is there, too. Other
    users of this machine can open it unless --basic_auth asks for a password.
    """
    from litetq.dashboard.server import Access, names_of

    file, rest = named_file(invocation, words)
    if rest:
        usage(f"{rest[0]!r} is no file.")
    try:
        access = Access(names_of(address, hosts), accounts, prefix)
    except (OSError, UnicodeError):
        usage(f"--address {address} is no address of this machine, like 127.0.0.1.")
    return _serve(invocation, file, address, port, access)


def _serve(invocation: Invocation, file: str | None, address: str, port: int, access: Access) -> int:
    from litetq.dashboard.answers import Answers
    from litetq.dashboard.server import Server, Site, is_loopback, url_of

    with _opened(invocation, file) as app:
        answers = Answers(app)
        try:
            server = Server(address, port, Site(answers, access))
        except OSError as error:
            console.say(f"Error: {_why_not(address, port, error)}", sys.stderr)
            return cli.FAILED
        with server:
            if not is_loopback(address) and not access.accounts:
                what = f"whoever reaches {address}:{port} can read all tasks; --basic_auth asks for a password"
                console.say(f"warning: {what}", sys.stderr)
            if not invocation.quiet:
                path = visible(str(app.engine.path.absolute()))
                console.say(f"{path} is shown at {url_of(server.server_address, access.prefix)} until Ctrl-C.")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return cli.OK
            finally:
                answers.close()
    return cli.OK


def _opened(invocation: Invocation, file: str | None) -> LiteTQ:
    """Return the app. The file of one that is named need not be there: the page may come before the first worker."""
    has_app = invocation.app is not None or invocation.given_app is not None
    if file is None and invocation.broker is None and has_app:
        app = open_app(invocation, None).app
        if app.broker_address.path is not None:
            return app
    return open_file(invocation, file)


def _why_not(address: str, port: int, error: OSError) -> str:
    if error.errno in (errno.EADDRINUSE, errno.EACCES) and port:
        reason = "is taken by another program" if error.errno == errno.EADDRINUSE else "may not be used by this user"
        return f"port {port} of {address} {reason}; --port 0 takes a free one."
    return f"cannot listen at {address}, port {port}: {error.strerror or error}."
