"""Completion in real shells: the script that `litetq completion` prints is read by the shell, and asked."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from litetq import platforms
from tests.conftest import NeedTool, RunPython

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(platforms.PORTABLE, reason="shells of other systems"),
]
LONG = 60.0  # seconds
# What is typed, and what the line is after the tabulator key where there is one answer.
LINES = {
    "litetq ins": "litetq inspect",
    "litetq -A tasks call --coun": "litetq -A tasks call --countdown",
    "litetq multi stopw": "litetq multi stopwait",
    "litetq worker -P eventl": "litetq worker -P eventlet",
    "litetq worker -l warn": "litetq worker -l WARNING",
    "litetq status jo": "litetq status jobs.sqlite",
    "litetq worker --pidfile ru": "litetq worker --pidfile run.pid",
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH where litetq is found, before a folder with files."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "litetq"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m litetq "$@"\n')
    program.chmod(0o755)
    for name in ("jobs.sqlite", "run.pid"):
        (tmp_path / name).touch()
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def run(run_python: RunPython, path: str, shell: str, script: str) -> str:
    """Run a script in a shell and return what it prints."""
    code = f"import subprocess, sys; sys.exit(subprocess.call([{shell!r}, 'ask']))"
    Path(path.partition(os.pathsep)[0], "..", "ask").resolve().write_text(script)
    out, err = run_python(code, env={"PATH": path, "TERM": "dumb"}).communicate(timeout=LONG)
    assert err == "", out
    return out


def test_bash_completes(run_python: RunPython, path: str, need_tool: NeedTool) -> None:
    """Whether the file is taken is bash's own work, where the answer says that a file is wanted."""
    ask = (
        "COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=(); _litetq_completion litetq; "
        'echo "${{COMPREPLY[@]}}"'
    )
    script = [
        "compopt() { COMPREPLY+=($(compgen -f -- ${COMP_WORDS[COMP_CWORD]})); }",
        'eval "$(litetq completion bash)"',
    ]
    out = run(run_python, path, need_tool("bash"), "\n".join([*script, *(ask.format(words=line) for line in LINES)]))
    assert [line.strip() for line in out.splitlines()] == [line.split()[-1] for line in LINES.values()]


def test_fish_completes(run_python: RunPython, path: str, need_tool: NeedTool) -> None:
    asks = [f'complete -C "{line}" | string split -f1 \\t' for line in LINES]
    out = run(run_python, path, need_tool("fish"), "\n".join(["litetq completion fish | source", *asks]))
    assert out.splitlines() == [line.split()[-1] for line in LINES.values()]


ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; autoload -U compinit; compinit -u -D; eval "$(litetq completion zsh)"'
zpty -w shell 'show() { print -r -- "<$BUFFER>"; BUFFER= }; zle -N show; bindkey "^T" show; print RE""ADY'
zpty -r shell out '*READY*'
for line in "${lines[@]}"; do
  zpty -w -n shell "$line"$'\t\C-t'
  zpty -r shell out '*<*>*'
  print -r -- "${${out##*<}%%>*}"
done
zpty -d shell
"""


def test_zsh_completes(run_python: RunPython, path: str, need_tool: NeedTool) -> None:
    lines = "lines=({})\n".format(" ".join(f"'{line}'" for line in LINES))
    out = run(run_python, path, need_tool("zsh"), lines + ZSH)
    assert [line.strip() for line in out.splitlines()] == list(LINES.values())
