"""Celery's module names: with the alias on, `import celery` brings litetq, in this process and in those it starts.

- `alias.py`: the finder that answers the name `celery`, and what goes on and off with it.
- `mirror.py`: a module that shows the names of another one and passes on what is assigned to it.
- `tree/`: the modules, each in the file that its name says; beside `celery` also `kombu`, `billiard` and `vine`, which stand
  in where the real ones are not installed.
- `startup/`: what `litetq exec` puts before a Python program.

Nothing of litetq below this package knows Celery's paths, and `import litetq` does not load it.
"""

from __future__ import annotations

from litetq.compat.alias import VARIABLE, install, uninstall

__all__ = ["VARIABLE", "install", "uninstall"]
