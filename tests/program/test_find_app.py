"""Which app a command takes, and what it says when there is none to take."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from litetq import context
from litetq.cli.find import Found, apps_defined_in, apps_in_directory, check_recorded, find_app, load
from litetq.exceptions import ImproperlyConfigured

APP = "from litetq import LiteTQ\n{name} = LiteTQ('{main}')\n"
Project = Callable[[dict[str, str]], Path]


def app(name: str = "app", main: str = "it") -> str:
    return APP.format(name=name, main=main)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Write files into a fresh working directory; imports of the test are forgotten after it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]
    context.set_current_app(None)
    context.set_default_app(None)


def refusal(name: str | None = None) -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        find_app(name)
    text = str(caught.value)
    assert "\n" not in text and "Traceback" not in text
    return text


# -- -A, by Celery's rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "files", "expected"),
    [
        ("tasks", {"tasks.py": app("app")}, "tasks:app"),
        ("tasks", {"tasks.py": app("celery")}, "tasks:celery"),
        ("tasks", {"tasks.py": app("odd")}, "tasks:odd"),
        ("tasks", {"tasks.py": app("celery") + app("app")}, "tasks:app"),
        ("tasks:odd", {"tasks.py": app("app") + app("odd")}, "tasks:odd"),
        ("proj", {"proj/__init__.py": app("app")}, "proj:app"),
        ("proj", {"proj/__init__.py": app("celery")}, "proj:celery"),
        ("proj", {"proj/__init__.py": "", "proj/celery.py": app("app")}, "proj.celery:app"),
        ("proj", {"proj/__init__.py": "", "proj/celery.py": app("celery")}, "proj.celery:celery"),
        ("proj", {"proj/__init__.py": "", "proj/celery.py": app("odd")}, "proj.celery:odd"),
        ("proj", {"proj/__init__.py": app("odd"), "proj/celery.py": app("app")}, "proj.celery:app"),
        ("proj", {"proj/__init__.py": app("odd")}, "proj:odd"),
        ("proj", {"proj/__init__.py": app("odd"), "proj/celery.py": ""}, "proj:odd"),
        (
            "proj",
            {"proj/__init__.py": "from .celery import app as celery_app\n", "proj/celery.py": app("app")},
            "proj.celery:app",
        ),
        ("proj.celery", {"proj/__init__.py": "", "proj/celery.py": app("app")}, "proj.celery:app"),
        ("proj.celery:app", {"proj/__init__.py": "", "proj/celery.py": app("app")}, "proj.celery:app"),
        ("proj.tasks", {"proj/__init__.py": "", "proj/tasks.py": app("app")}, "proj.tasks:app"),
        ("proj.odd", {"proj/__init__.py": app("odd") + app("app")}, "proj:odd"),
        (
            "deep.er.tasks",
            {"deep/__init__.py": "", "deep/er/__init__.py": "", "deep/er/tasks.py": app()},
            "deep.er.tasks:app",
        ),
        ("space.tasks", {"space/tasks.py": app()}, "space.tasks:app"),
        ("worker", {"worker.py": app()}, "worker:app"),
    ],
)
def test_dash_a_finds_the_app_in_every_layout_that_celery_knows(
    project: Project, given: str, files: dict[str, str], expected: str
) -> None:
    project(files)
    found = find_app(given)
    assert (found.reference, found.source) == (expected, "-A")
    module, _, attribute = expected.partition(":")
    assert getattr(sys.modules[module], attribute) is found.app


def test_an_attribute_called_app_of_another_kind_is_passed_over(project: Project) -> None:
    project({"web.py": "app = object()\n" + app("queue")})
    assert find_app("web").reference == "web:queue"


def test_the_working_directory_comes_first_on_the_path(project: Project) -> None:
    here = project({"tasks.py": "import other\n" + app(), "other.py": ""})
    find_app("tasks")
    assert sys.path[0] == str(here)


def test_a_missing_module_is_named_with_its_near_match(project: Project) -> None:
    project({"task.py": app()})
    text = refusal("tasks")
    assert "'tasks' was not found" in text and "did you mean 'task'?" in text


def test_a_missing_parent_is_named(project: Project) -> None:
    project({"proj/__init__.py": ""})
    assert "module 'prj.tasks' was not found: no 'prj'" in refusal("prj.tasks")
    assert "module 'proj.nothing' was not found" in refusal("proj.nothing")


def test_a_module_without_an_app_says_what_was_tried(project: Project) -> None:
    project({"proj/__init__.py": "x = 1\n"})
    text = refusal("proj")
    assert "defines no app" in text
    assert all(name in text for name in ("proj.app", "proj.celery"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("tasks:nosuch", ["no attribute 'nosuch'", "tasks:app"]),
        ("tasks:number", ["is an int, not an app", "tasks:app"]),
        ("tasks:os", ["is a module, not an app"]),
        ("tasks.py", ["not of a file", "-A tasks"]),
        ("./sub/tasks.py", ["not of a file", "-A sub.tasks"]),
        ("", ["is not the name of an app"]),
        (":app", ["is not the name of an app"]),
        ("tasks..app", ["is not the name of an app"]),
        ("my tasks", ["is not the name of an app"]),
        ("tasks.number", ["is an int, not an app"]),
    ],
)
def test_a_name_that_is_no_app_gets_a_sentence(project: Project, given: str, words: list[str]) -> None:
    project({"tasks.py": "import os\nnumber = 1\n" + app()})
    text = refusal(given)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import not_installed_anywhere\n", ["No module named 'not_installed_anywhere'", "line 1"]),
        ("x = 1\nx.nothing\n", ["AttributeError", "tasks.py, line 2"]),
        ("def broken(:\n", ["SyntaxError", "tasks.py, line 1"]),
        ("import sys\nsys.exit(3)\n", ["ended the program", "exit code 3", '__name__ == "__main__"']),
        ("from litetq import context\ncontext.refuse_while_importing('run_embedded()')\n", ['__name__ == "__main__"']),
    ],
)
def test_a_module_that_fails_ends_as_one_sentence_with_its_place(
    project: Project, source: str, words: list[str]
) -> None:
    project({"tasks.py": source})
    text = refusal("tasks")
    assert "'tasks'" in text and all(word in text for word in words), text


def test_tasks_enqueued_by_the_module_as_a_script_run_as_its_own(project: Project) -> None:
    project({"script.py": app("app", "").replace("''", "") + "@app.task\ndef add(x, y):\n    return x + y\n"})
    found, _ = load("script")
    assert found.tasks["__main__.add"] is found.tasks["script.add"]


# -- environment and project file ----------------------------------------------------------------------------------


def test_the_environment_names_the_app(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project({"one.py": app(), "two.py": app()})
    monkeypatch.setenv("LITETQ_APP", "two")
    assert find_app(None)[1:] == ("two:app", "$LITETQ_APP")
    assert find_app("one")[1:] == ("one:app", "-A")
    monkeypatch.setenv("LITETQ_APP", "three")
    assert refusal().startswith("$LITETQ_APP names an app that cannot be used: module 'three' was not found")


def test_the_project_file_names_the_app(project: Project) -> None:
    project({"one.py": app(), "two.py": app(), "pyproject.toml": '[tool.litetq]\napp = "two:app"\n'})
    assert find_app(None)[1:] == ("two:app", "pyproject.toml")


@pytest.mark.parametrize("text", ["[tool.litetq]\napp = 3\n", "[tool.litetq\napp='x'"])
def test_a_project_file_that_cannot_be_read_gets_a_sentence(project: Project, text: str) -> None:
    project({"pyproject.toml": text})
    assert "pyproject.toml" in refusal()


def test_a_project_file_about_other_things_does_not_matter(project: Project) -> None:
    project({"tasks.py": app(), "pyproject.toml": "[tool.other]\nbroken = \n"})
    assert find_app(None).reference == "tasks:app"


# -- the app that the file names -----------------------------------------------------------------------------------


def private(path: Path) -> Path:
    path.write_bytes(b"a file of tasks")
    path.chmod(0o600)
    return path


def find_recorded(record: dict[str, object], database: Path, lines: list[str] | None = None) -> Found:
    notify = (lines if lines is not None else []).append
    return find_app(None, database=database, recorded=lambda: record, notify=notify)


def test_the_app_that_the_file_names_is_imported_and_said_before(project: Project) -> None:
    here = project({"one.py": app(), "two.py": "import sys\nseen = list(sys.lines)\n" + app("queue")})
    lines: list[str] = []
    sys.lines = lines  # type: ignore[attr-defined]
    try:
        record: dict[str, object] = {"module": "two", "attribute": "queue", "file": str(here / "two.py")}
        found = find_recorded(record, private(here / "jobs.sqlite"), lines)
    finally:
        del sys.lines  # type: ignore[attr-defined]
    assert found[1:] == ("two:queue", "recorded in jobs.sqlite")
    assert "two:queue" in lines[0] and str(here / "two.py") in lines[0]
    assert sys.modules["two"].seen == lines


def test_a_script_in_a_folder_below_is_found_where_it_lies(project: Project) -> None:
    here = project({"jobs/script.py": app()})
    record: dict[str, object] = {"module": "script", "attribute": None, "file": str(here / "jobs" / "script.py")}
    assert find_recorded(record, private(here / "jobs.sqlite")).reference == "script:app"


EVIL = "raise SystemError('the evil module ran')\n"


@pytest.mark.parametrize(
    "record",
    [
        {"module": "os", "attribute": "path"},
        {"module": "antigravity", "attribute": None},
        {"module": "json", "attribute": None},
        {"module": "evil", "attribute": "app"},
        {"module": "evil", "attribute": "app", "file": "{outside}/evil.py"},
        {"module": "link", "attribute": "app"},
        {"module": "../outside/evil", "attribute": None},
        {"module": "..outside.evil", "attribute": None},
        {"module": "", "attribute": None},
        {"module": 3, "attribute": None},
        {"module": "here", "attribute": ["app"]},
        {"module": "compiled", "attribute": None},
        {"attribute": "app"},
    ],
)
def test_a_hostile_record_is_refused_with_nothing_imported(project: Project, record: dict[str, object]) -> None:
    here = project({"work/json.py": EVIL, "work/here.py": EVIL, "outside/evil.py": EVIL, "work/compiled.pyc": EVIL})
    os.chdir(here / "work")
    (here / "work" / "link.py").symlink_to(here / "outside" / "evil.py")
    if "file" in record:
        record = {**record, "file": str(here / "outside" / "evil.py")}
    before = set(sys.modules)
    with pytest.raises(ImproperlyConfigured) as caught:
        find_recorded(record, private(here / "work" / "jobs.sqlite"))
    assert "jobs.sqlite" in str(caught.value) and "--no-recorded-app" in str(caught.value)
    assert {name for name in set(sys.modules) - before if not name.startswith("importlib")} == set()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows says who may write by lists, not by mode")
@pytest.mark.parametrize("which", ["jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-journal"])
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_names_no_app(project: Project, which: str, mode: int) -> None:
    here = project({"tasks.py": EVIL})
    database = private(here / "jobs.sqlite")
    private(here / which).chmod(mode)
    with pytest.raises(ImproperlyConfigured, match="writable by others"):
        check_recorded({"module": "tasks", "attribute": "app"}, database, here)
    with pytest.raises(ImproperlyConfigured, match="writable by others"):
        find_recorded({"module": "tasks", "attribute": "app"}, database)
    assert "tasks" not in sys.modules


def test_a_record_that_names_a_module_which_is_gone_says_what_to_do(project: Project) -> None:
    here = project({"other.py": app()})
    with pytest.raises(ImproperlyConfigured, match="no such module lies below .* give the app with -A"):
        find_recorded({"module": "tasks", "attribute": "app"}, private(here / "jobs.sqlite"))
    assert "other" not in sys.modules


def test_without_a_record_the_directory_is_searched(project: Project) -> None:
    here = project({"other.py": app()})
    found = find_app(None, database=private(here / "jobs.sqlite"), recorded=lambda: None)
    assert found.reference == "other:app"


# -- the one app of the directory ----------------------------------------------------------------------------------


def test_the_one_module_that_defines_an_app_is_taken(project: Project) -> None:
    here = project({"a.py": EVIL, "queue_app.py": app("q"), "setup.py": app(), "test_x.py": app()})
    lines: list[str] = []
    found = find_app(None, notify=lines.append)
    assert found[1:] == ("queue_app:q", "found in the working directory")
    assert "queue_app" in lines[0] and str(here) in lines[0]
    assert "a" not in sys.modules


def test_of_several_modules_the_usual_names_come_first(project: Project) -> None:
    project({"another.py": EVIL + app(), "app.py": EVIL + app(), "tasks.py": app()})
    assert find_app(None).reference == "tasks:app"


def test_several_modules_without_a_usual_name_are_named_and_not_imported(project: Project) -> None:
    project({"a.py": EVIL + app(), "b.py": EVIL + app()})
    text = refusal()
    assert "a, b" in text and "-A a" in text


def test_no_app_anywhere_says_how_to_name_one(project: Project) -> None:
    project({"a.py": "x = 1\n"})
    assert "-A tasks" in refusal()


def test_a_package_of_the_directory_counts_under_its_own_name(project: Project) -> None:
    project({"proj/__init__.py": "", "proj/celery.py": app(), "proj/views.py": ""})
    assert find_app(None).reference == "proj.celery:app"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from litetq import LiteTQ as L\nq = L()\n", ["q"]),
        ("from celery import Celery\napp = Celery('x')\n", ["app"]),
        ("import litetq\na = b = litetq.LiteTQ()\n", ["a", "b"]),
        ("import litetq as l\napp: object = l.Celery()\n", ["app"]),
        (
            "try:\n    from litetq import LiteTQ\nexcept ImportError:\n    raise\nif True:\n    app = LiteTQ()\n",
            ["app"],
        ),
        ("from litetq import LiteTQ\nif __name__ == '__main__':\n    app = LiteTQ()\n", []),
        ("from litetq import LiteTQ\ndef make():\n    app = LiteTQ()\n", []),
        ("from tasks import app\n", []),
        ("from elsewhere import LiteTQ\napp = LiteTQ()\n", []),
        ("app = (\n", []),
        ("\0", []),
    ],
)
def test_source_is_read_for_what_makes_an_app(tmp_path: Path, source: str, names: list[str]) -> None:
    path = tmp_path / "tasks.py"
    path.write_text(source, encoding="utf-8")
    assert apps_defined_in(path) == names


def test_reading_a_directory_runs_nothing(project: Project) -> None:
    here = project({"tasks.py": EVIL + app(), "proj/__init__.py": EVIL, "proj/celery.py": EVIL + app()})
    assert apps_in_directory(here) == {"tasks": ["app"], "proj": ["app"]}
