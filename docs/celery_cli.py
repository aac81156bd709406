"""Take down the commands and options of Celery: `python docs/celery_cli.py > docs/celery-cli.json`, where Celery is installed.

The file that comes of it is data of this project: docs/cli-celery.md is written from it, and a test goes through its rows. It
is taken again when Celery has a new version.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any


def main() -> int:
    import_module("celery.bin.worker")
    root = import_module("celery.bin.celery").celery
    found = {"celery": import_module("celery").__version__, "commands": dict(_commands("", root))}
    found["inspect"], found["control"] = _remote("inspect"), _remote("control")
    json.dump(found, sys.stdout, indent=1)
    print()
    return 0


def _commands(name: str, command: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a command and those below it: its arguments, and for each option its spellings and whether it takes a value."""
    options = [param for param in command.params if param.param_type_name == "option"]
    yield (
        name,
        {
            "arguments": [param.name for param in command.params if param.param_type_name == "argument"],
            "options": [
                {"names": [*option.opts, *option.secondary_opts], "value": not (option.is_flag or option.count)}
                for option in options
            ],
        },
    )
    for below, each in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(f"{name} {below}".strip(), each)


def _remote(kind: str) -> list[str]:
    panel = import_module("celery.worker.control").Panel
    return sorted(name for name, info in panel.meta.items() if info.type == kind and info.visible)


if __name__ == "__main__":
    sys.exit(main())
