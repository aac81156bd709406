"""Runs at the start of every Python program below `litetq exec`: turns the alias on, then does what it hides.

`site` imports the first module of this name on the path, and that is this one while its folder stands in PYTHONPATH. The
module of the same name that it hides (Linux distributions have one, and so may the user) is run afterwards.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def _turn_on() -> None:
    if not os.environ.get("LITETQ_AS_CELERY"):
        return
    try:
        from litetq.compat import install
    except ModuleNotFoundError as error:
        if error.name != "litetq":
            raise
        # Another environment than the one `litetq exec` was started in.
        print(f"litetq exec: {sys.executable} has no litetq, so celery is not aliased in it", file=sys.stderr)
    else:
        install()


def _run_hidden() -> None:
    rest = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _FOLDER]
    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_turn_on()
_run_hidden()
