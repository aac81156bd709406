"""Environments with real packages beside litetq: `python -m tests.compat.packages` makes them, once.

`.venv-compat` has Celery itself, and packages written for it. `.venv-wire` has what litetq's extras bring for brokers, and no Celery.
Tests that need one are skipped, with this sentence, where it is not there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
_LITETQ: Final = (  # what litetq itself needs, which comes from the checkout
    "apsw>=3.51.3",
    "click>=8.1",
    "croniter>=2.0",
    "psutil>=5.9",
    "rich>=13.0",
)
WANTED: Final = (
    "boto3==1.44.5",  # SQS, and a server that stands in for it
    "moto[server]==5.2.5",
    "celery==5.7.0",
    "celery-dyrygent==0.8.0",
    "celery-progress==0.5",
    "celery-redbeat==2.4.2",
    "celery_once==3.0.1",
    "django==5.2.7",
    "django-celery-beat==2.9.0",
    "django-celery-results==2.6.0",
    "elastic-apm==6.26.2",
    "fastapi==0.165.0",
    "flower==2.2.0",
    "gevent==25.9.1",
    "opentelemetry-instrumentation-celery==0.66b2",
    "opentelemetry-sdk",
    "psycopg[binary]==3.3.9",  # results in PostgreSQL
    "pymemcache==4.0.0",  # results in memcached
    "PyMySQL==1.2.4",  # results in MariaDB
    "PyYAML>=6.0",
    "redis",  # where kombu wants it for a broker at redis://
    "sqlalchemy==2.1.9",
    "pytest>=8.2",  # fixtures for it are tested there, too
    "sentry-sdk==2.75.0",
    "uvicorn==0.54.0",
    *_LITETQ,
)
UNASKED: Final = ("celery-batches==0.11",)  # pins Celery below 5.7, with which it runs all the same


class Environment(NamedTuple):
    folder: Path
    wanted: tuple[str, ...]
    unasked: tuple[str, ...] = ()  # installed whatever they say they need

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def _stamp(self) -> Path:
        return self.folder / "wanted.txt"

    def is_there(self) -> bool:
        """Return whether the environment has been made with this list."""
        stamp = self._stamp
        return self.python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == self._list()

    def make(self) -> None:
        """Make the environment; raises CalledProcessError where pip cannot."""
        venv.create(self.folder, with_pip=True, symlinks=os.name == "posix")
        words = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*words, *self.wanted], check=True)
        if self.unasked:
            subprocess.run([*words, "--no-deps", *self.unasked], check=True)
        self._stamp.write_text(self._list(), encoding="utf-8")

    def _list(self) -> str:
        return "\n".join((*self.wanted, *self.unasked))


COMPAT: Final = Environment(ROOT / ".venv-compat", WANTED, UNASKED)
WITHOUT_CELERY: Final = Environment(
    ROOT / ".venv-wire", ("kombu[redis]==5.7.0", "pytest>=8.2", "pytest-timeout>=2.3", *_LITETQ)
)
PYTHON: Final = COMPAT.python
is_there: Final = COMPAT.is_there


if __name__ == "__main__":
    for environment in (COMPAT, WITHOUT_CELERY):
        if not environment.is_there():
            environment.make()
        print(environment.python, file=sys.stdout)
