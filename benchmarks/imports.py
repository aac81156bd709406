"""How long a program waits for its import."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from benchmarks.figures import OURS, Benchmark, Row, Sample, Scale, at_most
from benchmarks.sides import CELERY, HUEY, Side, on_each

WORDS = {OURS: "from litetq import LiteTQ", CELERY: "from celery import Celery", HUEY: "from huey import SqliteHuey"}
CODE = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def sample(make: Callable[[], Side], scale: Scale) -> Sample:
    with make() as side:
        found = {"import": seconds(side, WORDS[side.name]) * 1000}
        if side.name == OURS:
            found["import litetq"] = seconds(side, "import litetq") * 1000
            found["import and an app with a task"] = seconds(side, DEFINED) * 1000
        return found


DEFINED = "from litetq import LiteTQ; app = LiteTQ('x', broker='x.sqlite'); app.task(name='t')(lambda: 1)"


def seconds(side: Side, statements: str) -> float:
    command = [side.python, "-c", CODE.format(statements)]
    return float(
        subprocess.run(
            command, cwd=side.folder, capture_output=True, text=True, check=True, env=side.environment
        ).stdout
    )


IMPORT = Benchmark(
    "import",
    "fresh interpreters with warm files, smallest of all repeats; import is from litetq import LiteTQ and its like",
    (
        Row("import", "ms", at_most(60), best=True),
        Row("import litetq", "ms", at_most(60), best=True),
        Row("import and an app with a task", "ms", best=True),
    ),
    on_each((OURS, CELERY, HUEY), sample),
    repeats=20,
)
