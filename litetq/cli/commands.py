"""The commands, the options that all of them share, and the order of words that is accepted.

Options of every command (`-A`, `-b`, ...) may stand before and after the command's name; options of the command may
stand before its name too (`litetq -c 4 -A tasks worker`): Celery's users have learned both orders.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from click.types import StringParamType

from litetq import cli
from litetq.cli import console
from litetq.exceptions import LiteTQError, ProgramError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from litetq.app import LiteTQ

# The module of each command, imported when the command or its options are asked for; the object is called `command`.
_MODULES: Final = {
    "worker": "litetq.cli.worker",
    "beat": "litetq.cli.beat",
    "multi": "litetq.cli.multi",
    "demo": "litetq.cli.demo",
    "exec": "litetq.cli.execute",
    "call": "litetq.cli.call",
    "result": "litetq.cli.result",
    "status": "litetq.cli.status",
    "tasks": "litetq.cli.tasks",
    "show": "litetq.cli.show",
    "watch": "litetq.cli.watch",
    "monitor": "litetq.cli.monitor",
    "flower": "litetq.cli.monitor",
    "schedule": "litetq.cli.schedule",
    "queue": "litetq.cli.queue",
    "dead": "litetq.cli.dead",
    "retry": "litetq.cli.retry",
    "revoke": "litetq.cli.revoke",
    "delete": "litetq.cli.delete",
    "move": "litetq.cli.move",
    "purge": "litetq.cli.purge",
    "doctor": "litetq.cli.doctor",
    "backup": "litetq.cli.backup",
    "vacuum": "litetq.cli.vacuum",
    "migrate": "litetq.cli.migrate",
    "bench": "litetq.cli.bench",
    "inspect": "litetq.cli.inspect",
    "control": "litetq.cli.control",
    "events": "litetq.cli.events",
    "graph": "litetq.cli.graph",
    "list": "litetq.cli.listing",
    "shell": "litetq.cli.shell",
    "report": "litetq.cli.report",
    "upgrade": "litetq.cli.upgrade",
    "logtool": "litetq.cli.logtool",
    "completion": "litetq.cli.completion",
    "amqp": "litetq.cli.amqp",
}
_HEADINGS: Final = {  # of the list of commands, by the first below it
    "worker": "Run tasks",
    "call": "Send tasks",
    "status": "Look into a file",
    "retry": "Change what waits and what has failed",
    "doctor": "Look after a file",
    "inspect": "Speak with workers",
    "shell": "For programs and their authors",
}
PRELOAD: Final = "preload"  # in `app.user_options`: of every command
_FILES: Final = {"FILE", "PATH", "SOURCE", "DEST"}  # what a file's name is called in the help of commands
_SENTENCE: Final = 200  # letters of a command's help that stand in a list of commands; the first sentence is shorter
_FOLDERS: Final = {"DIR", "FOLDER"}
_FULL: Final = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota of its own


@dataclass
class Invocation:
    """What the shared options said; the command's `obj`."""

    words: tuple[str, ...] = ()  # the line, without the program's name
    given_app: LiteTQ | None = None  # by a caller inside the program (`app.worker_main`)
    app: str | None = None
    broker: str | None = None
    result_backend: str | None = None
    loader: str | None = None
    config: str | None = None
    workdir: str | None = None
    no_color: bool = False
    quiet: bool = False
    skip_checks: bool = False
    has_entered: bool = False
    preload: dict[str, Any] = field(default_factory=dict)  # options that the app adds to every command, as far as said

    def enter(self) -> None:
        """Go to `--workdir`, and make what Celery hands on by environment visible to this process and its children."""
        if self.workdir is not None and not self.has_entered:
            try:
                os.chdir(self.workdir)
            except OSError as error:
                raise click.BadParameter(
                    f"cannot go to {self.workdir!r}: {error.strerror}", param_hint="--workdir"
                ) from error
        self.has_entered = True  # a relative directory counts once
        handed_on = {
            "CELERY_LOADER": self.loader,
            "CELERY_CONFIG_MODULE": self.config,
            "CELERY_SKIP_CHECKS": "true" if self.skip_checks else None,
        }
        os.environ.update({name: value for name, value in handed_on.items() if value})


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep what a shared option said; the place nearer to the end of the line wins, and silence says nothing."""
    assert option.name is not None
    if option.name == "app" and value is not None and value.startswith("-"):
        raise click.UsageError(_app_name_missing(value), context)
    invocation = context.ensure_object(Invocation)
    source = context.get_parameter_source(option.name)
    is_said = source is not click.core.ParameterSource.DEFAULT
    if is_said and not (source is click.core.ParameterSource.ENVIRONMENT and getattr(invocation, option.name)):
        setattr(invocation, option.name, value)
        if option.name == "loader" and source is not click.core.ParameterSource.ENVIRONMENT:
            console.say("note: no effect here of --loader: modules are always loaded the same way", sys.stderr)


def _print_version(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from litetq import __version__

        console.say(__version__)
        context.exit()


def shared_options() -> list[click.Option]:
    """Return the options of every command, made anew for each."""
    kept: dict[str, Any] = {"expose_value": False, "callback": _keep}
    text = {"default": None, **kept}
    # What these say, the environment says through settings and the search for the app: $LITETQ_BROKER, $CELERY_APP, ...
    by_settings = {"allow_from_autoenv": False, **text}
    flag = {"is_flag": True, "default": False, **kept}
    return [
        click.Option(["-A", "--app"], metavar="APP", help="The app: module or module:attribute.", **by_settings),
        click.Option(["-b", "--broker"], metavar="URL", help="The file of tasks, as path or URL.", **by_settings),
        click.Option(
            ["--result-backend"], metavar="URL", help="Where results go; the file of tasks by default.", **by_settings
        ),
        click.Option(["--loader"], metavar="NAME", help="Accepted; modules are always loaded the same way.", **text),
        click.Option(["--config"], metavar="MODULE", help="Module with settings.", **text),
        click.Option(["--workdir"], metavar="DIR", help="Go to this directory first.", **text),
        click.Option(["-C", "--no-color"], help="No colours.", **flag),
        click.Option(["-q", "--quiet"], help="Only say what matters.", **flag),
        click.Option(["--skip-checks"], help="Skip Django's checks.", **flag),
        click.Option(
            ["--as-celery"],
            is_flag=True,
            expose_value=False,
            allow_from_autoenv=False,  # `main` has done it, before anything of the user's was imported
            help="`import celery` means litetq, in this process and those it starts.",
        ),
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            allow_from_autoenv=False,
            callback=_print_version,
            help="Print the version and end.",
        ),
    ]


class _FileName(StringParamType):
    """A text that a shell completes as the name of a file, or of a folder."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type=self.kind)]


def _let_files_be_completed(params: Sequence[click.Parameter]) -> None:
    """See to it that a shell completes what is called FILE, PATH, DEST or DIR."""
    for param in params:
        words = set(re.findall(r"\w+", param.metavar or ""))
        if type(param.type) is StringParamType and not words.isdisjoint(_FILES | _FOLDERS):
            param.type = _FileName("file" if words & _FILES else "dir")


def one_of(names: Sequence[str]) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return what completes one of these names, in any case of letters (`shell_complete` of an option)."""

    def complete(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        del context, param
        return [CompletionItem(name) for name in names if name.lower().startswith(incomplete.lower())]

    return complete


class Command(click.Command):
    """A command that takes the shared options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own_params = list(self.params)
        self.params.extend(shared_options())
        self.preload: Collection[click.Parameter] = ()  # of the app, once the line has one of them
        _let_files_be_completed(self.params)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Read the words; an option that is not known may be one that the app adds, which is imported for it."""
        try:
            return super().parse_args(context, list(args))
        except click.NoSuchOption:
            more = [option for option in self._options_of_app(context, args) if option not in self.params]
            if not more:
                raise
            self.params = [*self.params, *more]
            return super().parse_args(context, args)

    def _options_of_app(self, context: click.Context, args: list[str]) -> list[click.Parameter]:
        """Return what the app adds to this command (`app.user_options`); nothing where no app is named."""
        invocation = context.ensure_object(Invocation)
        app = invocation.given_app
        if app is None:
            named = [value for flag, value in _pairs(args) if flag in ("-A", "--app")]
            name = named[-1] if named else invocation.app or os.environ.get("LITETQ_APP")
            if name is None:
                return []
            from litetq.cli.find import load

            invocation.enter()
            app = load(name)[0]
        self.preload = app.user_options.get(PRELOAD, set())
        return [*app.user_options.get(context.info_name or "", ()), *self.preload]

    def invoke(self, context: click.Context) -> Any:
        """Run the command; what the app adds to every command is kept from the function, which does not know it."""
        said = {
            option.name: context.params.pop(option.name) for option in self.preload if option.name in context.params
        }
        context.ensure_object(Invocation).preload = {str(name): value for name, value in said.items()}
        return super().invoke(context)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options first, then the shared ones."""
        _write_options("Options", self.own_params, context, formatter)
        rest = [param for param in self.get_params(context) if all(param is not own for own in self.own_params)]
        _write_options("Options of every command", rest, context, formatter)


def _write_options(
    title: str, params: Sequence[click.Parameter], context: click.Context, formatter: click.HelpFormatter
) -> None:
    found = [param.get_help_record(context) for param in params if isinstance(param, click.Option)]
    rows = [row for row in found if row is not None]
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


class Actions(click.Group):
    """Commands below a command (`litetq schedule list`); they take the shared options, too.

    Args:
        aliases: other names of the commands.
    """

    def __init__(self, *args: Any, aliases: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.invoke_without_command = True
        self.no_args_is_help = False
        self.subcommand_metavar = "COMMAND [ARGS]..."
        self.callback = self._ask_which
        self.own_params = list(self.params)
        self.params.extend(shared_options())
        self.aliases = aliases or {}

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return self.commands.get(self.aliases.get(name, name))

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(context, args[0]) is None:
            near = get_close_matches(args[0], self.commands)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(self.commands)}."
            raise click.UsageError(f"No such command {args[0]!r}. {hint}", context)
        return super().resolve_command(context, args)

    def _ask_which(self) -> None:
        context = click.get_current_context()
        if context.invoked_subcommand is None:
            raise click.UsageError(f"Which command? There are: {', '.join(self.commands)}.", context)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands first, with a whole sentence each, then the options of every command."""
        commands = [(name, command.get_short_help_str(_SENTENCE)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(commands)
        _write_options("Options of every command", self.get_params(context), context, formatter)


class Commands(click.Group):
    """The commands, each imported at first need; sorts the words of the line before it reads them."""

    def list_commands(self, context: click.Context) -> list[str]:
        from litetq.cli import plugins

        return [*_MODULES, *(name for name in plugins.named() if name not in _MODULES)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        module = _MODULES.get(name)
        return _of_another_package(name) if module is None else import_module(module).command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line for each command; one of another package that cannot be loaded says so."""
        rows: dict[str, list[tuple[str, str]]] = {}
        heading = ""
        for name in self.list_commands(context):
            heading = _HEADINGS.get(name, heading) if name in _MODULES else "Of other packages"
            try:
                command = self.get_command(context, name)
                text = "" if command is None else command.get_short_help_str(_SENTENCE)
            except click.ClickException as error:
                text = error.format_message()
            rows.setdefault(heading, []).append((name, text))
        for title, found in rows.items():
            with formatter.section(title):
                formatter.write_dl(found)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(context, self._sort(context, list(args)))

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _MODULES:
            return args[0], self.get_command(context, args[0]), args[1:]
        invocation = context.ensure_object(Invocation)
        _check_app_is_no_command(invocation.app, context)
        plugin = _of_another_package(args[0])
        if plugin is not None:
            from litetq.cli.plugins import Surroundings

            context.obj = Surroundings(invocation)
            return args[0], plugin, args[1:]
        near = self._below(context, args[0]) or get_close_matches(args[0], self.list_commands(context), 1)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are: {', '.join(_MODULES)}."
        raise click.UsageError(f"No such command {args[0]!r}. {hint}", context)

    def _below(self, context: click.Context, name: str) -> list[str]:
        """Return the commands of this name that stand below others: `multi stop`."""
        from litetq.panel import PANEL

        found = [f"{PANEL[name].kind} {name}"] if name in PANEL else []
        for above in _MODULES:
            command = self.get_command(context, above)
            if isinstance(command, click.Group) and command.get_command(context, name) is not None:
                found.append(f"{above} {name}")
        return found

    def _sort(self, context: click.Context, args: list[str]) -> list[str]:
        """Return the words with the options of a command moved behind its name; all else keeps its place."""
        shared = arity(self.params)
        for place, word in enumerate(args):
            if word in _MODULES:
                command = self.get_command(context, word)
                assert command is not None
                sorted_words = _split(args[:place], shared, arity(command.params))
                if sorted_words is not None:
                    before, moved = sorted_words
                    return [*before, word, *moved, *args[place + 1 :]]
        return self._sort_roughly(context, args, shared)

    def _sort_roughly(self, context: click.Context, args: list[str], shared: dict[str, bool]) -> list[str]:
        """Sort a line whose command is not clear, so that what is wrong with it is found and said."""
        before: list[str] = []
        moved: list[str] = []
        args = list(args)
        while args and args[0].startswith("-") and args[0] not in ("-", "--"):
            word = args.pop(0)
            known = shared if _flag_of(word) in shared else self._options_of_commands(context)
            taken = [word, *args[:1]] if _wants_next_word(word, known) else [word]
            del args[: len(taken) - 1]
            (moved if known is not shared and _flag_of(word) in known else before).extend(taken)
        if not args:
            for flag, value in _pairs(before):
                _check_app_is_no_command(value if flag in ("-A", "--app") else None, context)
        if not args and moved:
            raise click.UsageError(f"Option {moved[0]!r} belongs to a command, and none was given.", context)
        return [*before, *args[:1], *moved, *args[1:]]

    def _options_of_commands(self, context: click.Context) -> dict[str, bool]:
        known: dict[str, bool] = {}
        for name in _MODULES:
            command = self.get_command(context, name)
            assert command is not None
            known |= arity(command.params)
        return known


def arity(params: Sequence[click.Parameter]) -> dict[str, bool]:
    """Return each spelling of the options, and whether it takes a value."""
    return {
        spelling: not (param.is_flag or param.count)
        for param in params
        if isinstance(param, click.Option)
        for spelling in (*param.opts, *param.secondary_opts)
    }


def _split(words: Sequence[str], shared: dict[str, bool], own: dict[str, bool]) -> tuple[list[str], list[str]] | None:
    """Return the words before a command as (shared options, its own options); None when they are something else, too."""
    before: list[str] = []
    moved: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag = _flag_of(word)
        if not word.startswith("-") or (flag not in shared and flag not in own):
            return None
        taken = [word]
        if _wants_next_word(word, shared if flag in shared else own):
            if not rest:
                return None
            taken.append(rest.pop(0))
        (before if flag in shared else moved).extend(taken)
    return before, moved


def _of_another_package(name: str) -> click.Command | None:
    from litetq.cli import plugins

    point = plugins.named().get(name)
    return None if point is None else plugins.load(point)


def _flag_of(word: str) -> str:
    return word.partition("=")[0] if word.startswith("--") else word[:2]


def _wants_next_word(word: str, known: dict[str, bool]) -> bool:
    if word.startswith("--"):
        return "=" not in word and known.get(word, False)
    for place, letter in enumerate(word[1:], 1):  # `-qA tasks`: flags may share one dash with an option at the end
        if known.get(f"-{letter}", False):
            return place == len(word) - 1
    return False


def _check_app_is_no_command(name: str | None, context: click.Context) -> None:
    """Say so when `-A` has eaten the command (`litetq -A  worker`): the name of the app was left out."""
    if name in _MODULES and name != "tasks":  # the name that most people give to the module of their app
        raise click.UsageError(_app_name_missing(str(name)), context)


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    yield from zip(words, words[1:], strict=False)
    yield from ((word.partition("=")[0], word.partition("=")[2]) for word in words if "=" in word)


def _app_name_missing(taken: str) -> str:
    command = taken if taken in _MODULES else "worker"
    came = taken if taken == "nothing" else repr(taken)
    return (
        f"The name of the app is missing after -A ({came} came instead). Example:  litetq -A tasks {command}  "
        "for an app in tasks.py."
    )


@click.group(cls=Commands, params=[*shared_options()], context_settings={"help_option_names": ["--help", "-h"]})
def litetq() -> None:
    """A task queue with Celery's API in one SQLite file: broker, results, schedule and control.

    \b
    litetq worker jobs.sqlite            run the tasks in a file
    litetq -A tasks worker -l INFO       run the tasks of the app in tasks.py
    litetq demo                          see it work
    """


def run(argv: list[str], app: LiteTQ | None) -> int:
    """Run the command that `argv` names and return its exit code."""
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    elif argv == ["version"]:
        argv = ["--version"]
    if "_LITETQ_COMPLETE" in os.environ:
        import_module("litetq.cli.completion")  # brings PowerShell, which click does not know
    try:
        answer = litetq.main(
            argv or ["--help"],
            prog_name="litetq",
            standalone_mode=False,
            obj=Invocation(words=tuple(argv), given_app=app),
            auto_envvar_prefix="CELERY",
        )
    except click.exceptions.NoSuchOption as error:
        return _refuse(error, f"No such option {error.option_name!r}. {_near_option(error)}".strip())
    except click.BadOptionUsage as error:
        is_app = error.option_name in ("-A", "--app")
        return _refuse(error, _app_name_missing("nothing") if is_app else error.format_message())
    except click.ClickException as error:
        return _refuse(error, f"{error.format_message()}{_by_environment(error)}")
    except click.exceptions.Abort:
        return cli.INTERRUPTED
    except KeyboardInterrupt:
        return cli.INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return cli.FAILED
    except LiteTQError as error:
        _say_error(str(error))
        return cli.USAGE if isinstance(error, ProgramError) else cli.FAILED
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _forget_stdout()
        _say_error(f"{error.filename or 'What this command prints'} cannot be written: {error.strerror}.")
        return cli.FAILED
    return answer if isinstance(answer, int) else cli.OK


def _refuse(error: click.ClickException, sentence: str) -> int:
    context = getattr(error, "ctx", None)
    if context is not None:
        console.say(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n", sys.stderr)
    _say_error(sentence)
    return error.exit_code


def _say_error(sentence: str) -> None:
    """Print what went wrong; words of the line or of tasks in it are shown and not obeyed."""
    from litetq.cli.text import visible_lines

    console.say("\n".join(visible_lines(f"Error: {sentence}")), sys.stderr)


def _by_environment(error: click.ClickException) -> str:
    """Return which variable gave a value that was refused; nothing where the line did."""
    context, param = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None or param is None or not isinstance(error, click.BadParameter):
        return ""
    if context.get_parameter_source(param.name) is not click.core.ParameterSource.ENVIRONMENT:
        return ""
    return f" ($CELERY_{'_'.join([*context.command_path.split()[1:], param.name]).upper().replace('-', '_')} says so.)"


def _near_option(error: click.exceptions.NoSuchOption) -> str:
    context, flag = error.ctx, error.option_name
    if context is None:
        return ""
    spellings = list(arity(context.command.params))
    if isinstance(context.command, Commands):
        spellings += list(context.command._options_of_commands(context))
    near = get_close_matches(flag, sorted(set(spellings)))
    if not near and len(flag.lstrip("-")) > 1:
        near = [spelling for spelling in sorted(set(spellings)) if spelling.startswith(f"--{flag.lstrip('-')}")]
    return f"Did you mean {near[0]}?" if near else ""


def _forget_stdout() -> None:
    """Keep the interpreter's last flush from complaining about a reader who has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unsaid_options(app: LiteTQ, command: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of those options that the app adds to a command and that the line does not have."""
    context = click.get_current_context()
    added = [option for option in app.user_options.get(command, ()) if option.name not in said]
    return {option.name: option.get_default(context) for option in added}


def preloaded(invocation: Invocation, app: LiteTQ) -> dict[str, Any]:
    """Return what counts for the options that the app adds to every command: what the line says, or their defaults."""
    return {**unsaid_options(app, PRELOAD, invocation.preload), **invocation.preload}


def usage(sentence: str) -> NoReturn:
    """End the command with exit code 2 and this sentence."""
    raise click.UsageError(sentence, click.get_current_context(silent=True))
