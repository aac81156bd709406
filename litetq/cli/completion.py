"""`litetq completion SHELL`: print the script that lets a shell complete commands and options.

The script asks `litetq` itself, through the variable `_LITETQ_COMPLETE`, by click's own protocol. PowerShell's is ours.
"""

from __future__ import annotations

import os
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

from litetq import cli
from litetq.cli import console
from litetq.cli.commands import Command

VARIABLE: Final = "_LITETQ_COMPLETE"
_SHELLS: Final = ("bash", "zsh", "fish", "powershell")
_WHERE: Final = """\
\b
bash        litetq completion bash >> ~/.bashrc
zsh         litetq completion zsh >> ~/.zshrc
fish        litetq completion fish > ~/.config/fish/completions/litetq.fish
PowerShell  litetq completion powershell >> $PROFILE      (written by the book, not proven)
"""


class PowerShellComplete(ShellComplete):
    """What click lacks. The words travel in COMP_WORDS, the one that is being typed in COMP_WORD."""

    name = "powershell"
    source_template = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $env:COMP_WORDS = ($commandAst.CommandElements | ForEach-Object { $_.ToString() }) -join "`n"
    $env:COMP_WORD = $wordToComplete
    $env:%(complete_var)s = "powershell_complete"
    try {
        %(prog_name)s | Where-Object { $_ } | ForEach-Object {
            $value, $help = $_ -split "`t", 2
            [System.Management.Automation.CompletionResult]::new($value, $value, "ParameterValue", ($help, $value -ne "")[0])
        }
    } finally {
        Remove-Item Env:COMP_WORDS, Env:COMP_WORD, Env:%(complete_var)s -ErrorAction Ignore
    }
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        words = os.environ.get("COMP_WORDS", "").split("\n")[1:]
        incomplete = os.environ.get("COMP_WORD", "")
        return (words[:-1] if incomplete and words and words[-1] == incomplete else words), incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Leave out that a file is wanted: PowerShell offers files where it is told nothing."""
        return [item for item in super().get_completions(args, incomplete) if item.type == "plain"]

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{item.help or ''}"


add_completion_class(PowerShellComplete)


@click.command(cls=Command, short_help="Print what lets a shell complete.")
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> int:
    from litetq.cli.commands import litetq

    kind: Any = get_completion_class(shell)
    made = kind(litetq, {}, "litetq", VARIABLE)
    console.say(kind.source_template % made.source_vars())
    return cli.OK


command.help = f"""Print the script that lets SHELL complete commands and options.

{_WHERE}
"""
