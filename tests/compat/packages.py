"""An environment with real packages, and Celery itself beside litetq: `python -m tests.compat.packages` makes it, once.

It lies in `.venv-compat`. Tests that need it are skipped, with this sentence, where it is not there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
ENVIRONMENT: Final = ROOT / ".venv-compat"
PYTHON: Final = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
WANTED: Final = (
    "celery==5.7.0",
    "celery-dyrygent==0.8.0",
    "celery-progress==0.5",
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
    "redis",  # where kombu wants it for a broker at redis://
    "pytest>=8.2",  # fixtures for it are tested there, too
    "sentry-sdk==2.75.0",
    "uvicorn==0.54.0",
    # what litetq itself needs, which comes from the checkout
    "apsw>=3.51.3",
    "click>=8.1",
    "croniter>=2.0",
    "psutil>=5.9",
    "rich>=13.0",
)
_STAMP: Final = ENVIRONMENT / "wanted.txt"


def is_there() -> bool:
    """Return whether the environment has been made with this list."""
    return PYTHON.exists() and _STAMP.exists() and _STAMP.read_text(encoding="utf-8") == "\n".join(WANTED)


def make() -> None:
    """Make the environment; raises CalledProcessError where pip cannot."""
    venv.create(ENVIRONMENT, with_pip=True, symlinks=os.name == "posix")
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *WANTED], check=True)
    _STAMP.write_text("\n".join(WANTED), encoding="utf-8")


if __name__ == "__main__":
    if not is_there():
        make()
    print(PYTHON, file=sys.stdout)
