"""What names a file, what names something else, and what is refused in one sentence."""

from __future__ import annotations

import ntpath
import os
import sys
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from litetq.address import Address, is_of_broker, mask, parse
from litetq.exceptions import ImproperlyConfigured


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def path_of(address: Address) -> Path:
    assert address.scheme == "file" and address.path is not None
    return Path(address.path)


ODD_NAMES = [
    "jobs.sqlite",
    "a b.db",
    "#1.db",
    "what?.db",
    "100%.db",
    "a%20b.db",
    "任务.db",
    "ü.db",
    "x@y:z.db",
    "redis.db",
    "-",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_plain_path_is_taken_letter_by_letter(name: str, here: Path) -> None:
    assert path_of(parse(name, windows=False)) == here / name
    assert path_of(parse(str(here / name), windows=False)) == here / name
    assert path_of(parse(Path(name), windows=False)) == here / name
    assert parse(name, windows=False).text == name


@pytest.mark.parametrize(
    "scheme", ["sqlite", "SQLite", "sqla+sqlite", "sqlalchemy+sqlite", "db+sqlite", "sqlite+pysqlite"]
)
def test_three_slashes_are_relative_and_four_are_absolute(scheme: str, here: Path) -> None:
    assert path_of(parse(f"{scheme}:///in/jobs.sqlite", windows=False)) == here / "in" / "jobs.sqlite"
    assert path_of(parse(f"{scheme}:////srv/jobs.sqlite", windows=False)) == Path("/srv/jobs.sqlite")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a%20b.db", "a b.db"),
        ("a b.db", "a b.db"),
        ("what%3F.db", "what?.db"),
        ("x.db#y", "x.db#y"),
        ("100%.db", "100%.db"),
        ("%zz%2.db", "%zz%2.db"),
        ("%ff.db", "%ff.db"),
        ("%E4%BB%BB.db", "任.db"),
        ("任务.db", "任务.db"),
        ("a\\b.db", "a\\b.db"),
    ],
)
def test_only_valid_escapes_of_a_url_are_read(written: str, meant: str, here: Path) -> None:
    assert path_of(parse(f"sqlite:///{written}", windows=False)) == here / meant


def test_a_relative_path_stays_where_it_was_when_the_directory_changes(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = parse("jobs.sqlite")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert path_of(address) == here / "jobs.sqlite"


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    monkeypatch.setenv("USERPROFILE", str(here / "home"))
    assert path_of(parse("~/jobs.sqlite")) == here / "home" / "jobs.sqlite"


def test_nothing_is_made_by_reading_an_address(here: Path) -> None:
    parse("sqlite:///folder/jobs.sqlite")
    assert list(here.iterdir()) == []


# -- Windows


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (r"C:\x\jobs.sqlite", r"C:\x\jobs.sqlite"),
        ("C:/x/jobs.sqlite", r"C:\x\jobs.sqlite"),
        ("C://x//jobs.sqlite", r"C:\x\jobs.sqlite"),
        (r"sqlite:///C:\x\jobs.sqlite", r"C:\x\jobs.sqlite"),
        ("sqla+sqlite:///" + ntpath.join("C:\\", "a b", "jobs.sqlite"), r"C:\a b\jobs.sqlite"),
        ("db+sqlite:////C:/x/jobs.sqlite", r"C:\x\jobs.sqlite"),
        (r"\\server\share\jobs.sqlite", r"\\server\share\jobs.sqlite"),
        (r"C:\#\100%\任务.db", r"C:\#\100%\任务.db"),
    ],
)
def test_paths_of_windows_are_read_as_windows_does(text: str, path: str) -> None:
    assert parse(text, windows=True).path == path


def test_backslashes_are_letters_elsewhere(here: Path) -> None:
    assert path_of(parse(r"C:\x\jobs.sqlite", windows=False)) == here / r"C:\x\jobs.sqlite"


# -- options


def test_options_stand_after_the_question_mark_of_a_url(here: Path) -> None:
    address = parse("sqlite:///jobs.sqlite?durability=full&busy_timeout=2.5&check_file_system=no")
    assert path_of(address) == here / "jobs.sqlite"
    assert (address.durability, dict(address.options)) == ("full", {"busy_timeout": 2.5, "check_file_system": False})
    assert parse("sqlite:///jobs.sqlite").durability is None


def test_options_made_for_sqlalchemy_are_left_aside() -> None:
    assert not parse("sqla+sqlite:///jobs.sqlite?timeout=5&check_same_thread=false").options


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("durabilty=full", ["durabilty", "known are durability"]),
        ("durability=very", ["'very'", "normal or full"]),
        ("busy_timeout=soon", ["'soon'", "seconds"]),
        ("busy_timeout=-1", ["'-1'", "seconds"]),
        ("check_file_system=maybe", ["'maybe'", "yes or no"]),
    ],
)
def test_a_wrong_option_is_named_with_what_it_may_be(query: str, words: list[str]) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        parse(f"sqlite:///jobs.sqlite?{query}")
    assert all(word in str(caught.value) for word in words)


# -- what is no file


@pytest.mark.parametrize("text", ["memory://", "memory", ":memory:", "sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_memory_has_no_path(text: str) -> None:
    assert parse(text)[:2] == ("memory", None)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("amqp://guest:guest@localhost:5672//", "amqp"),
        ("redis://localhost/0", "redis"),
        ("sqs://", "sqs"),
        ("rpc://", "rpc"),
        ("rpc", "rpc"),
        ("db+postgresql://u:p@h/db", "db+postgresql"),
        ("sqla+mysql+pymysql://h/db", "sqla+mysql+pymysql"),
        ("cache+memory://", "cache"),
        ("django-db", "django-db"),
        ("disabled://", "disabled"),
        ("disabled", "disabled"),
        ("file:///var/results", "filesystem"),
        ("amqp://a;amqp://b", "amqp"),
        (["amqp://a", "amqp://b"], "amqp"),
    ],
)
def test_a_known_server_keeps_its_scheme_and_has_no_path(text: Any, scheme: str) -> None:
    address = parse(text)
    assert (address.scheme, address.path) == (scheme, None)
    assert address.text == (text if isinstance(text, str) else ";".join(text))


def test_an_unknown_scheme_is_refused_with_the_near_and_the_known_ones_and_without_the_password() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        parse("rediz://:secret@h/0")
    text = str(caught.value)
    assert "'rediz'" in text and "did you mean redis://" in text and "sqlite" in text and "secret" not in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("sqlite://jobs.sqlite", "sqlite:///jobs.sqlite"),
        ("folder/", "is a folder"),
        (".", "is a folder"),
        (Path("."), "is a folder"),
        ("a\0b", "null character"),
        ("sqlite:///a%00b", "null character"),
        (5, "path or a URL"),
        (None, "path or a URL"),
        (["a.db", "b.db"], "one file"),
        ([], "list"),
    ],
)
def test_what_is_no_address_is_refused_in_one_sentence(text: Any, words: str, here: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("ampq", "did you mean amqp?"), ("rabbitmq", "did you mean amqp://?"), ("jobs", "called so. Name")],
)
def test_a_word_that_is_neither_a_file_nor_a_kind_of_server_is_refused(word: str, meant: str, here: Path) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        parse(word)
    text = str(refused.value)
    assert repr(word) in text and meant in text and f"./{word}" in text and "redis" in text
    assert path_of(parse(f"./{word}")) == here / word
    assert path_of(parse(Path(word))) == here / word
    (here / word).touch()
    assert path_of(parse(word)) == here / word


def test_any_path_like_object_is_a_path(here: Path) -> None:
    class Where:
        def __fspath__(self) -> str:
            return "jobs.sqlite"

    assert path_of(parse(Where())) == here / "jobs.sqlite"
    assert parse(PurePosixPath("/x/redis"), windows=False).path == "/x/redis"
    assert os.path.basename(parse("./redis").path or "") == "redis"


# -- showing


@pytest.mark.row("15.passwords are masked")
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:secret@host//", "amqp://guest:**@host//"),
        ("amqp://guest:se@cr/et@host//", "amqp://guest:**@host//"),
        ("redis://:secret@h:1/0", "redis://:**@h:1/0"),
        ("amqp://host//", "amqp://host//"),
        ("amqp://guest@host//", "amqp://guest@host//"),
        ("sentinel://:secret@h1:1;sentinel://:secret@h2:2", "sentinel://:**@h1:1;sentinel://:**@h2:2"),
        ("db+postgresql://u:secret@h/db", "db+postgresql://u:**@h/db"),
        ("redis://h/0?password=secret&x=1", "redis://h/0?password=**&x=1"),
        ("azureblockblob://A=b;AccountKey=secret==;C=d", "azureblockblob://A=b;AccountKey=**;C=d"),
        ("jobs.sqlite", "jobs.sqlite"),
        ("sqlite:///a@b:c.db", "sqlite:///a@b:c.db"),
    ],
)
def test_a_shown_address_holds_no_password(url: str, shown: str) -> None:
    assert mask(url) == shown
    assert "secret" not in mask(url, "*" * 8)


def test_what_is_in_memory_is_no_broker_in_a_program_that_has_imported_kombu(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"memory": "kombu.transport.memory:Transport", "file": "other:Transport", "mine": "mine:Transport"}
    monkeypatch.setitem(sys.modules, "kombu.transport", SimpleNamespace(TRANSPORT_ALIASES=known))
    assert is_of_broker("mine") and not is_of_broker("memory") and not is_of_broker("file")
    assert parse("memory://").scheme == "memory" and not is_of_broker(parse("cache+memory://").scheme)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("localhost:6379", "redis://localhost:6379 or amqp://localhost:6379"),
        ("10.0.0.7:5672/shop", "amqp://10.0.0.7:5672/shop"),
        ("redis:", "redis://"),
        ("redis:/localhost:6379/0", "redis://localhost:6379/0"),
        ("amqp:guest:secret@localhost", "amqp://guest:**@localhost"),
        ("sqlite:jobs.sqlite", "sqlite:///jobs.sqlite"),
    ],
)
def test_a_url_without_its_slashes_is_no_name_of_a_file(
    text: str, meant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImproperlyConfigured) as caught:
        parse(text)
    assert meant in str(caught.value)
    assert "secret" not in str(caught.value)
    assert parse(f"./{text.replace('/', '-')}", windows=False).scheme == "file"
