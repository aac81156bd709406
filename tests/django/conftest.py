"""Projects of Django in folders of a test, run in the environment of real packages: Celery itself lies beside litetq there."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.compat import packages
from tests.conftest import ROOT, RunPython, missing
from tests.waiting import eventually

WITHIN = 60.0  # seconds: programs start slowly on a busy machine


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, run_python: RunPython) -> RunPython:
    """Start Python programs as `run_python` does, in the environment of real packages."""
    if not packages.is_there():
        missing("the environment of real packages is not there: python -m tests.compat.packages")
    monkeypatch.setattr(sys, "executable", str(packages.PYTHON))
    return run_python


class Project:
    """A project in a folder of its own."""

    def __init__(self, folder: Path, run: RunPython) -> None:
        self.folder = folder
        self._run = run

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """Start a Python program in the project; what it says goes to files there."""
        name = f"{len(list(self.folder.glob('*.log'))):02}-{'-'.join(re.sub(r'[^a-z]', '', word) for word in words if word)[:40]}.log"
        with open(self.folder / name, "w", encoding="utf-8") as said:
            return self._run(*self._named(words), cwd=self.folder, stdout=said, stderr=said, **more)

    def _named(self, words: tuple[str, ...]) -> list[Any]:
        # A script is a path, or it would be taken for code.
        return [self.folder / word if word.endswith(".py") else word for word in words]

    def do(self, *words: str, **more: Any) -> str:
        """Run a Python program in the project to its end; return what it printed."""
        process = self._run(*self._named(words), cwd=self.folder, **more)
        out, err = process.communicate(timeout=WITHIN)
        assert process.returncode == 0, out + err
        return out

    def python(self, code: str, **more: Any) -> Any:
        """Run code with the project set up; it prints one JSON value, which is returned."""
        head = (
            "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'proj.settings'\nimport json, django; django.setup()\n"
        )
        out = self.do("-c", head + code, **more)
        return json.loads(out.splitlines()[-1])

    def said(self, first: int = 0) -> str:
        """Return what the programs that were started have written, from this one on."""
        return "\n".join(path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("*.log"))[first:])


@pytest.fixture
def blog(tmp_path: Path, there: RunPython) -> Project:
    """The project of examples/django, with its tables."""
    folder = tmp_path / "blog"
    shutil.copytree(ROOT / "examples" / "django", folder, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite*"))
    project = Project(folder, there)
    project.do("manage.py", "migrate", "--verbosity", "0")
    return project


class MakeProject(Protocol):
    def __call__(self, tasks: str, settings: str = "") -> Project: ...


@pytest.fixture
def make_project(tmp_path: Path, there: RunPython) -> MakeProject:
    """Make a project with these tasks, in an app called `work`, and no more than it needs; nothing is migrated."""

    def make(tasks: str, settings: str = "") -> Project:
        folder = tmp_path / "made"
        for name, text in {
            "proj/__init__.py": "import litetq; litetq.install_as_celery()\nfrom .celery import app as celery_app\n",
            "proj/celery.py": (ROOT / "examples/django/proj/celery.py").read_text(encoding="utf-8"),
            "proj/settings.py": (
                "SECRET_KEY = 'x'\nUSE_TZ = True\nDEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'\n"
                "INSTALLED_APPS = ['django.contrib.contenttypes', 'django.contrib.auth', 'work']\n"
                "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'db.sqlite3', 'OPTIONS': {'timeout': 20}}}\n"
                "CELERY_BROKER_URL = 'jobs.sqlite'\n" + settings
            ),
            "work/__init__.py": "",
            "work/tasks.py": "from celery import shared_task\n" + tasks,
        }.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Project(folder, there)

    return make


class Browser:
    """Follows forms of one site, with cookies."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._cookies = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))

    def get(self, path: str) -> str:
        return self._read(urllib.request.Request(self.address + path))

    def post(self, path: str, form: dict[str, str], seen_at: str | None = None) -> str:
        """Fill in a form of the page `seen_at` (or `path`) and send it; return the page that this leads to."""
        self.get(seen_at or path)
        token = next(cookie.value for cookie in self._cookies if cookie.name == "csrftoken")
        data = urllib.parse.urlencode({**form, "csrfmiddlewaretoken": token}).encode()
        return self._read(urllib.request.Request(self.address + path, data=data))

    def _read(self, request: urllib.request.Request) -> str:
        with self._opener.open(request, timeout=WITHIN) as answer:
            text: str = answer.read().decode()
            return text


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def serve(free_port: int) -> Callable[[Project], Browser]:
    """Start the web server of a project."""

    def start(project: Project) -> Browser:
        process = project.start("manage.py", "runserver", "--noreload", f"127.0.0.1:{free_port}")
        browser = Browser(f"http://127.0.0.1:{free_port}")

        def answers() -> bool:
            assert process.poll() is None, project.said()
            try:
                browser.get("/admin/login/")
            except urllib.error.URLError:
                return False
            return True

        eventually(answers, WITHIN)
        return browser

    return start
