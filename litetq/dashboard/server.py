"""HTTP for the page: a few paths that answer GET, and nothing else.

What a browser shows here comes from whoever sends tasks, and whoever can make a browser open a page may try to read this one.
So all of it is JSON that the page's script writes as text; the policy of the page (CSP) allows no script but that one; the name
in `Host` must be one that is known, or another site could let its own name point here (DNS rebinding); and nothing that is
asked can change the file.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import logging
import os
import socket
import socketserver
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from litetq import __version__
from litetq.dashboard import flower
from litetq.dashboard.answers import Answers, Refused
from litetq.exceptions import LiteTQError

logger = logging.getLogger("litetq.dashboard")

PAGES: Final = ("/", "/tasks", "/task", "/workers", "/queues", "/schedule", "/file")
_FILES: Final = {"app.js": "text/javascript", "app.css": "text/css", "icon.svg": "image/svg+xml"}
_JSON: Final = "application/json"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_SILENCE_S: Final = 60.0  # after which a connection is closed; arbitrary


class Access(NamedTuple):
    """Who may look, and where the page stands.

    Args:
        names: names in `Host` that are known, in small letters, besides addresses: an address cannot be made to point here.
        accounts: "user:password", one of which is asked for; empty: none is.
        prefix: "" or "/…": what stands before all paths. Paths without it are answered, too, for proxies that take it off.
    """

    names: frozenset[str]
    accounts: tuple[str, ...] = ()
    prefix: str = ""

    def knows(self, host: str | None) -> bool:
        """Return whether the value of `Host` names this page."""
        name = _name_in(host or "")
        return name is not None and (name in self.names or _is_address(name))

    def lets_in(self, authorization: str | None) -> bool:
        if not self.accounts:
            return True
        kind, _, word = (authorization or "").partition(" ")
        try:
            said = base64.b64decode(word.strip(), validate=True)
        except ValueError:
            return False
        # All are compared, so that the time says nothing.
        matches = [hmac.compare_digest(said, account.encode()) for account in self.accounts]
        return kind.lower() == "basic" and any(matches)


class Reply(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = {}


class Site:
    """What is answered to which path."""

    def __init__(self, answers: Answers, access: Access) -> None:
        self.answers = answers
        self.access = access
        folder = resources.files("litetq.dashboard") / "page"
        self._files = {
            name: Reply(HTTPStatus.OK, f"{kind}; charset=utf-8", (folder / name).read_bytes())
            for name, kind in _FILES.items()
        }
        self._page = Reply(HTTPStatus.OK, "text/html; charset=utf-8", (folder / "index.html").read_bytes())
        self._plain: dict[str, Callable[[Mapping[str, str]], Any]] = {
            "/api/overview": lambda query: answers.overview(),
            "/api/list": answers.list,
            "/api/task": lambda query: _known(answers.task(_id(query)), _id(query)),
            "/api/workflow": lambda query: answers.workflow(_id(query)),
            "/api/tasks": lambda query: flower.tasks(answers, query),
            "/api/workers": lambda query: flower.workers(answers, query),
            "/api/queues/length": lambda query: flower.queue_lengths(answers),
        }

    def reply(self, target: str) -> Reply:
        """Return what is at a path with its query. Errors of the file and of the question are answers, too."""
        parts = urlsplit(target)
        prefix = self.access.prefix
        if prefix and parts.path == prefix:
            return _moved(f"{prefix}/")
        path = parts.path.removeprefix(prefix) if parts.path.startswith(f"{prefix}/") else parts.path
        if path in PAGES:
            return self._page
        if path.startswith("/static/") and path[8:] in self._files:
            return self._files[path[8:]]
        if path == "/healthcheck":
            return Reply(HTTPStatus.OK, "text/plain; charset=utf-8", b"OK")
        if path.startswith("/task/"):
            return _moved(f"{'../' * (path.count('/') - 1)}task?id={quote(unquote(path[6:]), safe='')}")
        return self._json(path, parts.query)

    def _json(self, path: str, words: str) -> Reply:
        try:
            if path.startswith("/api/task/info/"):
                id = unquote(path[15:])
                return _as_json(_known(flower.task(self.answers, id), id))
            ask = self._plain.get(path)
            if ask is None:
                return _error(HTTPStatus.NOT_FOUND, f"There is nothing at {path}.")
            return _as_json(ask(dict(parse_qsl(words, keep_blank_values=True))))
        except _Unknown as error:
            return _error(HTTPStatus.NOT_FOUND, str(error))
        except Refused as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        except (LiteTQError, OSError) as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))


class Server(ThreadingHTTPServer):
    """Listens at an address. Raises OSError when that cannot be had."""

    daemon_threads = True
    # There it would let two programs listen at one port.
    allow_reuse_address = os.name != "nt"

    def __init__(self, address: str, port: int, site: Site) -> None:
        self.site = site
        self.address_family, found = _resolve(address, port)
        super().__init__(found, _Handler)

    def server_bind(self) -> None:
        """Bind without HTTPServer's question for the name of the machine, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong; a browser that has gone is nothing."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            logger.exception("a question from %s could not be answered", client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"litetq/{__version__}"
    sys_version = ""
    timeout = _SILENCE_S

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _refuse(self) -> None:
        self.close_connection = True  # a body may follow, which nobody reads
        sentence = "This page only reads. Tasks are called and changed with litetq call, revoke, retry and control."
        self._send(_error(HTTPStatus.METHOD_NOT_ALLOWED, sentence)._replace(headers={"Allow": "GET, HEAD"}))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _answer(self) -> None:
        access = self.server.site.access
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not access.knows(hosts[0]):
            sentence = f"This page does not know the name {', '.join(hosts)[:100]!r}; --host NAME adds one."
            self._send(_error(HTTPStatus.FORBIDDEN, sentence))
        elif not access.lets_in(self.headers.get("Authorization")):
            asks = {"WWW-Authenticate": 'Basic realm="litetq", charset="UTF-8"'}
            self._send(_error(HTTPStatus.UNAUTHORIZED, "A name and a password are needed.")._replace(headers=asks))
        else:
            self._send(self._found())

    def _found(self) -> Reply:
        try:
            return self.server.site.reply(self.path)
        except Exception:
            logger.exception("%s could not be answered", self.path)
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "This could not be answered; the log says why.")

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        headers = {"Content-Type": reply.content_type, "Content-Length": str(len(reply.body))}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in {**_HEADERS, **headers, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("%s %s", self.client_address[0], format % args)


class _Unknown(Exception):
    pass


def names_of(address: str, more: Collection[str] = ()) -> frozenset[str]:
    """Return the names by which a page at this address may be asked for."""
    own = {"localhost", address.lower(), *(name.lower() for name in more)}
    return frozenset(own if is_loopback(address) else own | {socket.gethostname().lower()})


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address. Raises OSError when it is none."""
    return ipaddress.ip_address(_resolve(address, 0)[1][0].partition("%")[0]).is_loopback


def _resolve(address: str, port: int) -> tuple[socket.AddressFamily, Any]:
    found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # "localhost" may mean both kinds; the older one is found by every browser.
    family, _, _, _, place = sorted(found, key=lambda each: each[0] != socket.AF_INET)[0]
    return family, place


def _name_in(host: str) -> str | None:
    """Return the name in a value of `Host`, in small letters and without the port; None where it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname if parts.netloc == host and "@" not in host and parts.port != 0 else None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _id(query: Mapping[str, str]) -> str:
    if "id" not in query:
        raise Refused("Which task? Give its id.")
    return query["id"]


def _known(found: Any, id: str) -> Any:
    if found is None:
        raise _Unknown(f"No task {id} is known here: it was never sent, or it ended and its result has expired.")
    return found


def _as_json(value: Any) -> Reply:
    return Reply(HTTPStatus.OK, _JSON, json.dumps(value).encode("ascii"))


def _error(status: HTTPStatus, sentence: str) -> Reply:
    return Reply(status, _JSON, json.dumps({"error": sentence}).encode("ascii"))


def _moved(place: str) -> Reply:
    return Reply(HTTPStatus.FOUND, _JSON, b"{}", {"Location": place})


def url_of(address: Sequence[Any], prefix: str) -> str:
    """Return what a person types to see the page."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address[0], address[0])
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{host}:{address[1]}{prefix}/"
