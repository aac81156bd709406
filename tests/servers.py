"""Servers that tests of brokers and result stores speak to: one that runs anyway, else a private one, else a sentence.

Used first is the server that the environment names (`LITETQ_TEST_REDIS`, `LITETQ_TEST_AMQP`, ...), then the one at the standard
port of this machine, of which a test takes a database or a virtual host that was empty and leaves it empty. Where neither answers,
a private server starts on a free port, and ends with the test or the session. Without its program the test is skipped with the
reason; in CI it fails. What stops or restarts a server always has a private one.

Fixtures: `redis` and `rabbitmq` are empty ones for a test, `private_redis` and `private_rabbitmq` may be stopped and started. RabbitMQ
takes seconds to start, so that `rabbitmq_server` lives as long as the session, and gives a virtual host to each. `postgresql`,
`mariadb` and `memcached` are private and live as long as the session, too; the first two give a database to each test. The environment
may name a database instead (`LITETQ_TEST_POSTGRESQL`, `LITETQ_TEST_MARIADB`, as URLs of SQLAlchemy), or a memcached
(`LITETQ_TEST_MEMCACHED`, host:port); what tests put there stays.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

import psutil
import pytest

from tests.compat import packages
from tests.conftest import missing
from tests.waiting import eventually

LOCAL: Final = "127.0.0.1"


def free_port(address: str = LOCAL) -> int:
    with socket.socket() as free:
        free.bind((address, 0))
        port: int = free.getsockname()[1]
        return port


def program(name: str, package: str, *places: str) -> str:
    """Return the path of a program: the newest that fits one of the patterns, else that on PATH; the test ends without it."""
    found = next((hits[-1] for hits in map(sorted, map(glob.glob, places)) if hits), None) or shutil.which(name)
    if found is None:
        missing(f"{name} is not on PATH: apt-get install {package}")
    assert found is not None
    return found


class Server:
    """A private server in a folder, on a free port: it keeps what it has over `stop` and `start`.

    A subclass says how it is started and when it answers; `url` is what programs are given.
    """

    shown: ClassVar[str]
    starts_within: ClassVar[float] = 60.0
    user: ClassVar[str | None] = None  # whom it runs as, where root starts it
    url: str

    def __init__(self, folder: Path, *, address: str = LOCAL) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.address = address
        self.port = free_port(address)
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def as_user(self) -> dict[str, Any]:
        """Return what has `subprocess` run a program of the server as its user."""
        return {"user": self.user} if self.user and hasattr(os, "getuid") and os.getuid() == 0 else {}

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Return when the server answers."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C of a test run is not for it
                **self.as_user(),
            )
        eventually(self._answers_or_died, within=self.starts_within)

    def stop(self) -> None:
        """End it as an administrator does; return when it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power failure does; return when it is gone."""
        self._end(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server and all that belongs to it; what it had is not needed any more."""
        self.kill()

    def _answers_or_died(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise AssertionError(f"{self.shown} ended with {self._process.returncode} instead of starting:\n{tail}")
        try:
            return self.answers()
        except (OSError, ValueError):
            return False

    def _end(self, by: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(by)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if by == signal.SIGTERM:
            psutil.wait_procs(family, timeout=5.0)
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(family, timeout=5.0)


# -- Redis


class RedisCommands:
    """What tests ask a Redis, private or not."""

    address: str
    port: int
    words_first: tuple[str, ...] = ()

    def ask(self, *words: str) -> str:
        """Send a command and return the beginning of the answer, as the server writes it. Raises OSError."""
        with socket.create_connection((self.address, self.port), timeout=5) as connection:
            for first in self.words_first:
                connection.sendall(f"{first}\r\n".encode())
                connection.recv(1024)
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(65536).decode()


class Redis(Server, RedisCommands):
    shown = "redis-server"

    def __init__(self, folder: Path, *, address: str = LOCAL) -> None:
        super().__init__(folder, address=address)
        self._program = program("redis-server", "redis-server")
        self.url = f"redis://{address}:{self.port}/0"

    def command(self) -> list[str]:
        options = {"port": self.port, "bind": self.address, "protected-mode": "no", "appendonly": "yes", "save": ""}
        return [self._program, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]

    def answers(self) -> bool:
        return self.ask("PING").startswith("+PONG")


class BorrowedRedis(RedisCommands):
    """A database, empty at first and in the end, of a server that runs anyway; a key in its database 0 tells other runs.

    Raises OSError when no server answers, LookupError when no database is empty.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.address, self.port = parts.hostname or LOCAL, parts.port or 6379
        self._login = (f"AUTH {parts.password}",) if parts.password else ()
        self._number = next(filter(self._is_ours, range(15, 0, -1)), None)
        if self._number is None:
            raise LookupError(f"the Redis at {self.address}:{self.port} has no empty database")
        self.url = parts._replace(path=f"/{self._number}").geturl()

    def close(self) -> None:
        self.ask("FLUSHDB")
        self.words_first = self._login
        self.ask("DEL", self._hold(self._number))

    def _is_ours(self, number: int) -> bool:
        self.words_first = self._login
        if not self.ask("SET", self._hold(number), "1", "NX", "EX", "3600").startswith("+OK"):
            return False
        self.words_first = (*self._login, f"SELECT {number}")
        if self.ask("DBSIZE") == ":0\r\n":
            return True
        self.words_first = self._login
        self.ask("DEL", self._hold(number))
        return False

    def _hold(self, number: int | None) -> str:
        return f"litetq-tests-use-database-{number}"


# -- RabbitMQ


class RabbitCommands:
    """What tests ask a RabbitMQ, private or not, through its management plugin."""

    api_url: str
    login: str  # user:password
    address: str
    port: int

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the management plugin; `path` comes after `/api/`. Raises OSError, also for an answer that says no."""
        key = base64.b64encode(self.login.encode()).decode()
        headers = {"Authorization": f"Basic {key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api_url}/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            read = answer.read()
        return json.loads(read) if read else None

    @contextlib.contextmanager
    def virtual_host(self) -> Iterator[Rabbit]:
        """Give an empty virtual host; it goes with all that lies in it."""
        name = f"litetq-{uuid.uuid4().hex[:8]}"
        user = self.login.partition(":")[0]
        self.api("PUT", f"vhosts/{name}")
        self.api("PUT", f"permissions/{name}/{user}", {"configure": ".*", "write": ".*", "read": ".*"})
        try:
            yield Rabbit(self, name)
        finally:
            self.api("DELETE", f"vhosts/{name}")


class Rabbit:
    """An empty virtual host of a RabbitMQ, for one test or module."""

    def __init__(self, server: RabbitCommands, name: str) -> None:
        self.server = server
        self.name = name
        self.url = f"amqp://{server.login}@{server.address}:{server.port}/{name}"

    def queues(self) -> dict[str, Any]:
        """Return what the management plugin says of each queue, by name; its counts are half a second old (of one that is borrowed, five)."""
        return {found["name"]: found for found in self.server.api("GET", f"queues/{self.name}")}

    def close_connections(self) -> int:
        """Close all connections from the side of the server, as an administrator does; return how many there were."""
        names = [found["name"] for found in self.server.api("GET", f"vhosts/{self.name}/connections")]
        for name in names:
            with contextlib.suppress(urllib.error.HTTPError):  # gone meanwhile
                self.server.api("DELETE", f"connections/{urllib.parse.quote(name, '')}")
        return len(names)


class RabbitMQ(Server, RabbitCommands):
    """A node of its own name, with its own name server (epmd), which both end together. It takes about seven seconds to start."""

    shown = "rabbitmq-server"
    starts_within = 100.0

    def __init__(self, folder: Path, *, address: str = LOCAL) -> None:
        super().__init__(folder, address=address)
        # The script on Debian's PATH changes the user and knows only the one node of this machine.
        own = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
        self._program = program("rabbitmq-server", "rabbitmq-server", own)
        self._epmd_program = program("epmd", "erlang-base", "/usr/lib/erlang/bin/epmd")
        self._epmd_port, self._node_port, api_port = free_port(), free_port(), free_port(address)
        self._epmd: subprocess.Popen[bytes] | None = None
        self.login = "guest:guest"
        self.api_url = f"http://{address}:{api_port}/api"
        self.url = f"amqp://{self.login}@{address}:{self.port}//"
        (folder / "enabled_plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
        lines = (
            f"listeners.tcp.default = {address}:{self.port}",
            f"management.tcp.ip = {address}",
            f"management.tcp.port = {api_port}",
            "loopback_users = none",
            "collect_statistics_interval = 500",
        )
        (folder / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def command(self) -> list[str]:
        return [self._program]

    def environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            **os.environ,
            "HOME": folder,  # where the cookie of the node lies
            "ERL_EPMD_ADDRESS": LOCAL,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the server, instead of watching over it
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_NODENAME": f"litetq{self.port}@localhost",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            # Two schedulers that sleep when there is nothing to do: other tests want the machine, too.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -noinput",
        }

    def start(self) -> None:
        if self._epmd is None:
            words = [self._epmd_program, "-address", LOCAL, "-port", str(self._epmd_port)]
            self._epmd = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
        super().start()

    def answers(self) -> bool:
        return bool(self.api("GET", "overview"))

    def close(self) -> None:
        super().close()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None


class BorrowedRabbitMQ(RabbitCommands):
    """A RabbitMQ that runs anyway, with its management plugin. Raises OSError where either does not answer."""

    def __init__(self, url: str, api_url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.address, self.port = parts.hostname or LOCAL, parts.port or 5672
        self.login = f"{parts.username or 'guest'}:{parts.password or 'guest'}"
        self.api_url = api_url
        with socket.create_connection((self.address, self.port), timeout=2):
            self.api("GET", "overview")

    def close(self) -> None:
        """Each virtual host goes with who asked for it."""


# -- databases, memcached


class Postgresql(Server):
    shown = "postgres"
    user = "nobody"  # it refuses to run as root

    def __init__(self, folder: Path, *, address: str = LOCAL) -> None:
        super().__init__(folder, address=address)
        places = "/usr/lib/postgresql/*/bin/"
        self._program = program("postgres", "postgresql", f"{places}postgres")
        self._client = program("psql", "postgresql", f"{places}psql")
        data = folder / "data"
        folder.chmod(0o755)
        if self.as_user():
            shutil.chown(folder, self.user)
        words = ["-D", str(data), "-U", "litetq", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(
            [program("initdb", "postgresql", f"{places}initdb"), *words],
            check=True, capture_output=True, cwd=folder, **self.as_user(),
        )  # fmt: skip
        self._data = data

    def command(self) -> list[str]:
        settings = ("fsync=off", "unix_socket_directories=", f"listen_addresses={self.address}", "max_connections=200")
        return [self._program, "-D", str(self._data), "-p", str(self.port), *(w for s in settings for w in ("-c", s))]

    def run(self, statement: str) -> str:
        """Return what a statement answers."""
        words = ["-h", self.address, "-p", str(self.port), "-U", "litetq", "-d", "postgres", "-Atc", statement]
        return subprocess.run([self._client, *words], check=True, capture_output=True, encoding="utf-8").stdout

    def answers(self) -> bool:
        try:
            return self.run("SELECT 1").strip() == "1"
        except subprocess.CalledProcessError:
            return False

    def database(self) -> str:
        """Return the URL of a new database, as SQLAlchemy takes it."""
        name = f"litetq_{uuid.uuid4().hex[:8]}"
        self.run(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://litetq@{self.address}:{self.port}/{name}"


class Mariadb(Server):
    shown = "mariadbd"

    def __init__(self, folder: Path, *, address: str = LOCAL) -> None:
        super().__init__(folder, address=address)
        self._program = program("mariadbd", "mariadb-server", "/usr/sbin/mariadbd")
        self._client = program("mariadb", "mariadb-client")
        words = [f"--datadir={folder}/data", "--skip-test-db", "--auth-root-authentication-method=normal"]
        subprocess.run(
            [program("mariadb-install-db", "mariadb-server"), "--no-defaults", *words], check=True, capture_output=True
        )
        if os.getuid() == 0:
            for place in (folder / "data").rglob("*"):
                shutil.chown(place, "root")

    def command(self) -> list[str]:
        folder = self.folder
        return [
            self._program, "--no-defaults", f"--datadir={folder}/data", f"--port={self.port}", f"--bind-address={self.address}",
            f"--socket={folder}/s", f"--pid-file={folder}/pid", "--skip-grant-tables", "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=2", *(["--user=root"] if os.getuid() == 0 else []),
        ]  # fmt: skip

    def run(self, statement: str) -> str:
        """Return what a statement answers."""
        words = ["--no-defaults", "-h", self.address, "-P", str(self.port), "--protocol=tcp", "-BNe", statement]
        return subprocess.run([self._client, *words], check=True, capture_output=True, encoding="utf-8").stdout

    def answers(self) -> bool:
        try:
            return self.run("SELECT 1").strip() == "1"
        except subprocess.CalledProcessError:
            return False

    def database(self) -> str:
        """Return the URL of a new database, as SQLAlchemy takes it."""
        name = f"litetq_{uuid.uuid4().hex[:8]}"
        self.run(f"CREATE DATABASE {name}")
        return f"mysql+pymysql://root@{self.address}:{self.port}/{name}?charset=utf8mb4"


class Memcached(Server):
    shown = "memcached"

    def __init__(self, folder: Path, *, address: str = LOCAL) -> None:
        super().__init__(folder, address=address)
        self._program = program("memcached", "memcached")
        self.url = f"{address}:{self.port}"

    def command(self) -> list[str]:
        words = [self._program, "-l", self.address, "-p", str(self.port), "-U", "0", "-m", "32"]
        return [*words, "-u", "root"] if os.getuid() == 0 else words

    def answers(self) -> bool:
        with socket.create_connection((self.address, self.port), timeout=5) as connection:
            connection.sendall(b"version\r\n")
            return connection.recv(100).startswith(b"VERSION")


class Moto(Server):
    """A server that stands in for S3 and SQS, of the environment of `tests.compat.packages`."""

    shown = "moto"

    def __init__(self, folder: Path, *, address: str = LOCAL) -> None:
        super().__init__(folder, address=address)
        if not packages.is_there():
            missing("python -m tests.compat.packages has not been run: it brings moto")
        self.url = f"http://{address}:{self.port}"

    def command(self) -> list[str]:
        return [str(packages.PYTHON), "-m", "moto.server", "-H", self.address, "-p", str(self.port)]

    def answers(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5) as answer:
            return bool(answer.status == 200)


# -- fixtures


@contextlib.contextmanager
def redis_for(folder: Path) -> Iterator[Redis | BorrowedRedis]:
    """Give an empty Redis: a database of one that answers, else a private one in this folder."""
    wanted = os.environ.get("LITETQ_TEST_REDIS")
    found: Redis | BorrowedRedis
    try:
        found = BorrowedRedis(wanted or f"redis://{LOCAL}:6379")
    except OSError:
        if wanted:
            raise
        found = Redis(folder)
        found.start()
    try:
        yield found
    finally:
        found.close()


@contextlib.contextmanager
def places(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[str, str]]:
    """Give the URLs of an empty broker and of an empty store of results, of any scope.

    `kind` names the broker, `redis` or `rabbitmq`; results are in Redis, or with `, rpc` after it messages of the broker.
    """
    broker, _, results = kind.partition(", ")
    with contextlib.ExitStack() as stack:
        urls = []
        if broker == "rabbitmq":
            urls.append(stack.enter_context(request.getfixturevalue("rabbitmq_server").virtual_host()).url)
        if broker == "redis" or results != "rpc":
            urls.append(stack.enter_context(redis_for(folder / "redis")).url)
        yield urls[0], "rpc://" if results == "rpc" else urls[-1]


@contextlib.contextmanager
def private(kind: type[Server], folder: Path) -> Iterator[Any]:
    """Give a private server that has started; it is gone at the end."""
    server = kind(folder)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis | BorrowedRedis]:
    with redis_for(tmp_path / "redis") as found:
        yield found


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[Redis]:
    with private(Redis, tmp_path / "redis") as found:
        yield found


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitCommands]:
    """A RabbitMQ for all tests of this process: `with rabbitmq_server.virtual_host() as rabbit`."""
    wanted = os.environ.get("LITETQ_TEST_AMQP")
    api = os.environ.get("LITETQ_TEST_AMQP_API", f"http://{LOCAL}:15672/api")
    try:
        borrowed: RabbitCommands | None = BorrowedRabbitMQ(wanted or f"amqp://{LOCAL}:5672", api)
    except OSError:
        if wanted:
            raise
        borrowed = None
    if borrowed is not None:
        yield borrowed
        return
    folder = Path(tempfile.mkdtemp(prefix="litetq-rabbitmq-"))
    try:
        with private(RabbitMQ, folder) as found:
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def rabbitmq(rabbitmq_server: RabbitCommands) -> Iterator[Rabbit]:
    with rabbitmq_server.virtual_host() as found:
        yield found


@pytest.fixture
def private_rabbitmq(tmp_path: Path) -> Iterator[RabbitMQ]:
    with private(RabbitMQ, tmp_path / "rabbitmq") as found:
        yield found


@contextlib.contextmanager
def for_session(kind: type[Server]) -> Iterator[Any]:
    """Give a private server in a folder that any user can reach."""
    folder = Path(tempfile.mkdtemp(prefix=f"litetq-{kind.shown}-"))
    try:
        with private(kind, folder) as found:
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Postgresql]:
    with for_session(Postgresql) as found:
        yield found


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Mariadb]:
    with for_session(Mariadb) as found:
        yield found


@pytest.fixture
def postgresql(request: pytest.FixtureRequest) -> str:
    """The URL of a database of PostgreSQL, as SQLAlchemy takes it."""
    given = os.environ.get("LITETQ_TEST_POSTGRESQL")
    return given or str(request.getfixturevalue("postgresql_server").database())


@pytest.fixture
def mariadb(request: pytest.FixtureRequest) -> str:
    """The URL of a database of MariaDB, as SQLAlchemy takes it."""
    given = os.environ.get("LITETQ_TEST_MARIADB")
    return given or str(request.getfixturevalue("mariadb_server").database())


@pytest.fixture(scope="session")
def memcached() -> Iterator[str]:
    """Host and port of a memcached."""
    given = os.environ.get("LITETQ_TEST_MEMCACHED")
    if given:
        yield given
        return
    with for_session(Memcached) as found:
        yield found.url
