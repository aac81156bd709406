"""Where tasks and results are: the forms of a broker and of a result backend, read into an `Address`.

Two kinds of text name a file. A *path* is taken as it is: `#`, `?`, `%`, spaces, backslashes and any letters belong to the
name. A *URL* (`sqlite:///jobs.sqlite`, with three slashes a path relative to the working directory, with four an absolute
one; also `sqla+sqlite`, `sqlalchemy+sqlite`, `db+sqlite`) may carry options after `?`, and `%20` in it is a space.

Nothing is opened here. A relative path is fixed to the working directory of this moment, so that a later `chdir` does not
lead to another file.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from litetq.exceptions import ImproperlyConfigured

FILE: Final = "file"
MEMORY: Final = "memory"
DISABLED: Final = "disabled"

# Celery's and kombu's; what stands behind them is an adapter's matter. Names without a SQL driver, as in "db+postgresql".
_SERVERS: Final = (
    *("amqp", "amqps", "pyamqp", "librabbitmq", "redis", "rediss", "redis+socket", "sentinel", "sqs", "rpc", "cache"),
    *("azurestoragequeues", "azureservicebus", "confluentkafka", "consul", "etcd", "filesystem", "gcpubsub", "kafka"),
    *("mongodb", "mongodb+srv", "pgmq", "pyro", "qpid", "slmq", "zookeeper", "django"),
    *("arangodb", "azureblockblob", "cassandra", "cosmosdbsql", "couchbase", "couchdb", "dynamodb", "elasticsearch"),
    *("gs", "riak", "s3", "django-db", "django-cache"),
)
_COMPOSITE: Final = ("db", "database", "sqla", "sqlalchemy", "cache", "elasticsearch", "transport")
# What `adapters` speaks to as a broker; kombu's names, before a "+" as in sqla+postgresql.
FILE_ENDINGS: Final = (
    ".sqlite",
    ".db",
)  # in small letters: what tells a file's name from other words of a command line
_BROKERS: Final = frozenset(
    "amqp amqps pyamqp librabbitmq redis rediss sentinel sqs filesystem azurestoragequeues azureservicebus confluentkafka kafka consul "
    "etcd gcpubsub mongodb pgmq pyro qpid slmq sqla sqlalchemy zookeeper".split()
)
_WITH_PORT: Final = frozenset(("amqp", "amqps", "pyamqp", "librabbitmq", "redis", "rediss", "sentinel"))
_GONE: Final = frozenset(("ironmq", "ironcache"))  # of packages that end with Celery 3
_BARE: Final = frozenset({*_SERVERS, MEMORY, DISABLED})  # `backend="rpc"`; a file of such a name is "./rpc"

_WORDS: Final = (
    "amqp",
    "redis",
    "rpc",
    "cache",
    MEMORY,
    DISABLED,
    "django-db",
    "django-cache",
)  # that are of use by themselves
_MEANT: Final = {
    "rabbitmq": "amqp://", "rabbit": "amqp://", "postgres": "db+postgresql://", "postgresql": "db+postgresql://",
    "mysql": "db+mysql://", "mariadb": "db+mysql://", "database": "db+sqlite:///results.sqlite", "sqlite": "sqlite:///jobs.sqlite",
    "memcached": "cache+memcached://", "mongo": "mongodb://",
}  # fmt: skip
_PLAIN_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")  # as a mistyped kind of server is
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)  # two letters at least: C:// is a drive
_HOST_AND_PORT: Final = re.compile(r"[A-Za-z0-9][\w.-]*:\d{2,5}(?:/\S*)?")  # localhost:6379/0
_SQLITE: Final = re.compile(r"(?:(?:sqla|sqlalchemy|db|database)\+)?sqlite(?:\+\w+)?")
_OF_SQLALCHEMY: Final = frozenset(  # options that URLs made for SQLAlchemy carry; they mean nothing to this store
    {"timeout", "check_same_thread", "isolation_level", "detect_types", "cached_statements", "uri", "mode", "cache"}
)


class Address(NamedTuple):
    """One place for tasks or results.

    `scheme` is "file" for a SQLite file, "memory", "disabled", or the scheme of a server. `path` is absolute, and None for
    all but files: the engine makes a private temporary file for "memory". `durability` and `options` are those of the URL.
    `text` is what was given; it may hold a password, see `mask`.
    """

    scheme: str
    path: str | None = None
    durability: str | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    text: str = ""


def is_of_broker(scheme: str) -> bool:
    """Return whether tasks at an address of this scheme go through a server that has an adapter."""
    return scheme.partition("+")[0] in _BROKERS or (scheme not in _SERVERS and _is_known_to_kombu(scheme))


def _is_known_to_kombu(scheme: str) -> bool:
    """Return whether this program has told kombu of a transport by this name; what is a file's here stays one, kombu or not."""
    return scheme not in (FILE, MEMORY) and scheme in getattr(
        sys.modules.get("kombu.transport"), "TRANSPORT_ALIASES", ()
    )


def parse(
    text: str | os.PathLike[str] | list[str] | tuple[str, ...], *, windows: bool = sys.platform == "win32"
) -> Address:
    """Return the address that a setting, an option or a constructor's argument names.

    Args:
        text: a path, a URL, or a list of URLs of one kind of server.
        windows: read paths as Windows does.

    Raises ImproperlyConfigured, in one sentence, for what is no address.
    """
    if isinstance(text, (list, tuple)):
        return _several(text)
    if isinstance(text, os.PathLike):
        given = os.fspath(text)
        return _file(os.fsdecode(given), windows, given=text)
    if not isinstance(text, str):
        raise ImproperlyConfigured(
            f"An address must be a path or a URL; found {text!r}, a {type(text).__name__}; give jobs.sqlite, for example."
        )
    if not text.strip():
        raise ImproperlyConfigured("The address is empty; give a path (jobs.sqlite) or a URL (sqlite:///jobs.sqlite).")
    url = _URL.fullmatch(text)
    if url is None:
        return _without_scheme(text, windows)
    scheme, rest = url[1].lower(), url[2]
    if _SQLITE.fullmatch(scheme):
        return _sqlite(text, scheme, rest, windows)
    return _server(text, scheme)


def _several(texts: list[str] | tuple[str, ...]) -> Address:
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ImproperlyConfigured(f"A list of addresses must hold URLs; found {texts!r}.")
    first = parse(texts[0])
    if first.scheme == FILE and len(texts) > 1:
        raise ImproperlyConfigured(
            f"Tasks lie in one file; found a list of {len(texts)} addresses that begins with {texts[0]!r}; give one."
        )
    return first._replace(text=";".join(texts))


def _without_scheme(text: str, windows: bool) -> Address:
    if text == ":memory:":
        return Address(MEMORY, text=text)
    if text.lower() in _BARE:
        return Address(text.lower(), text=text)
    if _PLAIN_WORD.fullmatch(text) and not os.path.lexists(text):
        meant = _MEANT.get(text.lower())
        hint = f"; did you mean {meant}?" if meant else _did_you_mean(text.lower()) or "."
        raise ImproperlyConfigured(
            f"The address {text!r} is a single word; there is no file of this name here, and no broker or result backend is called "
            f"so{hint} Name a file with its ending (jobs.sqlite), or as ./{text}; of servers give the URL, like redis://host; words "
            f"that stand alone are {', '.join(_WORDS)}."
        )
    _refuse_half_url(text)
    return _file(text, windows)


def _refuse_half_url(text: str) -> None:
    """Raise ImproperlyConfigured for a URL that lacks its slashes: a file of this name would be made, and workers elsewhere never see it."""
    scheme, colon, rest = text.partition(":")
    scheme, rest = scheme.lower(), rest.lstrip("/")
    if not colon or os.path.lexists(text):
        return
    if _HOST_AND_PORT.fullmatch(text):
        shown, meant = text, f"redis://{text} or amqp://{text}"
    elif scheme in _BARE or _SQLITE.fullmatch(scheme):
        meant = mask(f"{scheme}://{rest}")
        shown = meant.replace("://", ":", 1)
        if scheme not in _BARE:
            meant = f"{scheme}:///{rest}"
    else:
        return
    raise ImproperlyConfigured(
        f"The address {shown!r} lacks the beginning or the slashes of a URL; did you mean {meant}? The name of a file that begins so is "
        "written with ./ before it."
    )


def _did_you_mean(word: str, end: str = "") -> str:
    import difflib  # only after a mistake

    near = difflib.get_close_matches(word, [*_SERVERS, "sqlite", MEMORY, DISABLED, "sqla+sqlite", "db+sqlite"], 1, 0.6)
    return f"; did you mean {near[0]}{end}?" if near else ""


def _server(text: str, scheme: str) -> Address:
    if scheme == "file":
        return Address("filesystem", text=text)  # Celery's results in a folder; "file" is ours
    if scheme == "cache+memory":
        return Address("cache", text=text)
    first, plus, _ = scheme.partition("+")
    if scheme in _BARE or (plus and first in _COMPOSITE) or _is_known_to_kombu(scheme):
        if scheme in _WITH_PORT:
            _check_port(text)
        return Address(scheme, text=text)
    if scheme in _GONE:
        raise ImproperlyConfigured(
            f"The address {mask(text)!r} names a service that Celery itself no longer speaks to; give the path of a file, or a URL of "
            "redis:// or amqp://."
        )
    known = ["sqlite", MEMORY, DISABLED, *_SERVERS]
    hint = _did_you_mean(scheme, "://") or "; give a path, or one of these."
    raise ImproperlyConfigured(
        f"The address {mask(text)!r} has the unknown scheme {scheme!r}{hint} Known are {', '.join(known)}, "
        "and db+ or sqla+ before a SQL driver."
    )


def _check_port(text: str) -> None:
    for url in text.split(";"):
        try:
            _ = urlsplit(url).port
        except ValueError:
            raise ImproperlyConfigured(
                f"The address {mask(url)!r} has a port that is no number from 0 to 65535; after the host comes a colon and the port, and in "
                "a user name or password @ : / # ? are written %40 %3A %2F %23 %3F."
            ) from None


def _sqlite(text: str, scheme: str, rest: str, windows: bool) -> Address:
    rest, _, query = rest.partition("?")
    options = _options(text, query)
    if rest in ("", "/", "/:memory:"):
        return Address(MEMORY, None, options.pop("durability", None), options, text)
    if not rest.startswith("/"):
        raise ImproperlyConfigured(
            f"The address {text!r} has two slashes, which a host would follow; write {scheme}:///{rest} for a path relative "
            f"to the working directory, {scheme}:////folder/{posixpath.basename(rest)} for an absolute one."
        )
    path = _unescape(rest[1:])
    if windows and re.match(r"/[A-Za-z]:", path):
        path = path[1:]  # sqlite:////C:/x, which SQLAlchemy takes too
    return _file(path, windows, given=text, options=options)


def _unescape(path: str) -> str:
    """Return the path with its percent escapes read; what is no valid escape, or no UTF-8, stays as it is."""
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        return path


def _options(text: str, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _READERS:
            try:
                options[name] = _READERS[name](value)
            except ValueError as error:
                raise ImproperlyConfigured(f"The address {text!r} has {name}={value!r}; it must be {error}.") from None
        elif name not in _OF_SQLALCHEMY:
            raise ImproperlyConfigured(
                f"The address {text!r} has the unknown option {name!r}; known are {', '.join(_READERS)}. "
                "A question mark that belongs to the name is written %3F."
            )
    return options


def _read_durability(value: str) -> str:
    if value not in ("normal", "full"):
        raise ValueError("normal or full")
    return value


def _read_seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError("a number of seconds, 0 or more")
    return seconds


def _read_flag(value: str) -> bool:
    if value.lower() not in ("yes", "no", "true", "false", "1", "0"):
        raise ValueError("yes or no")
    return value.lower() in ("yes", "true", "1")


_READERS: Final = {
    "durability": _read_durability,
    "busy_timeout": _read_seconds,
    "check_file_system": _read_flag,
}


def _file(
    path: str,
    windows: bool,
    given: str | os.PathLike[str] | None = None,
    options: dict[str, Any] | None = None,
) -> Address:
    text = path if given is None else os.fspath(given)
    rules: Any = ntpath if windows else posixpath
    if "\0" in path:
        raise ImproperlyConfigured(f"The address {text!r} holds a null character, which no file name can have.")
    if not path.strip():
        raise ImproperlyConfigured(f"The address {text!r} names no file; give a path like jobs.sqlite.")
    if path.startswith(("~/", "~\\")):
        path = os.path.expanduser(path)
    absolute: str = rules.normpath(rules.join(os.getcwd(), path))
    if path.endswith(("/", "\\") if windows else "/") or os.path.isdir(absolute):
        raise ImproperlyConfigured(
            f"The address {text!r} is a folder; name a file in it, like {rules.join(absolute, 'jobs.sqlite')}."
        )
    remaining = dict(options or {})
    return Address(FILE, absolute, remaining.pop("durability", None), remaining, text)


# -- showing -------------------------------------------------------------------------------------------------------


def mask(text: str, stars: str = "**") -> str:
    """Return an address that can be shown: passwords, and keys of Azure's connection strings, are stars."""
    if "://" not in text:
        return text
    # Several servers: "sentinel://:a@h1;sentinel://:b@h2" repeats the scheme, "cache+memcached://u:a@h1;u:b@h2" does not.
    parts = re.split(r";(?=[A-Za-z][\w+.-]*://)", text)
    return ";".join(_mask_one(part, stars) for part in parts)


def _mask_one(url: str, stars: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme.lower() == "azureblockblob":
        rest = re.sub(r"((?:AccountKey|SharedAccessSignature)=)[^;]*", rf"\g<1>{stars}", rest, flags=re.IGNORECASE)
        return f"{scheme}://" + re.sub(r"([?&]sig=)[^&;#]*", rf"\g<1>{stars}", rest, flags=re.IGNORECASE)
    if _SQLITE.fullmatch(scheme.lower()):
        return url  # a path; an @ in it is a letter
    rest = re.sub(r"([?&](?:password|secret|token)=)[^&;#]*", rf"\g<1>{stars}", rest, flags=re.IGNORECASE)
    # Up to the last @, so that a password with :, @ or / in it is hidden whole. Where an @ further on is no end of a
    # password, too much is hidden, never too little.
    user, at, host = rest.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{scheme}://{name}:{stars}@{host}" if at and colon else f"{scheme}://{rest}"
