"""The Redis family: what its URLs and settings say about TLS, sockets and sentinels, and the client that speaks with the server.

    redis://, rediss://        one server, over TCP, over TLS
    redis+socket://            one server, by a path
    sentinel://a;sentinel://b  servers that know where the master is; the option `master_name` says of which group

TLS verifies the server, unless the user says otherwise in so many words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from litetq import adapters
from litetq.address import mask
from litetq.exceptions import ImproperlyConfigured

SCHEMES: Final = ("redis", "rediss", "redis+socket", "sentinel")
REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
_REQUIREMENTS: Final = ("required", "optional", "none")


def tls_of(scheme: str, said: Any, setting: str) -> dict[str, Any] | None:
    """Return the TLS options of a server as kombu and the client take them (`ssl_...`), None for no TLS.

    Args:
        said: what the setting holds: None or False, True, or a mapping of options.
        setting: its name, for the message.

    Raises ImproperlyConfigured for what is no such value.
    """
    if said in (None, False):
        return {"ssl_cert_reqs": _requirement("required", setting)} if scheme == "rediss" else None
    if said is True:
        return {"ssl_cert_reqs": _requirement("required", setting)}
    if not isinstance(said, Mapping):
        raise ImproperlyConfigured(
            f"{setting} is {said!r}; give True, or a mapping with ssl_ca_certs, ssl_certfile, ssl_keyfile and ssl_cert_reqs"
        )
    options = dict(said)
    options["ssl_cert_reqs"] = _requirement(options.get("ssl_cert_reqs", "required"), setting)
    return options


def _requirement(said: Any, where: str) -> Any:
    """Return what Celery writes as CERT_REQUIRED, "required" or ssl.CERT_REQUIRED, as the constant."""
    import ssl

    if isinstance(said, ssl.VerifyMode):
        return said
    name = str(said or "none").lower().removeprefix("cert_")
    if name not in _REQUIREMENTS:
        raise ImproperlyConfigured(
            f"ssl_cert_reqs of {where} is {said!r}; it must be one of {', '.join(_REQUIREMENTS)} (or CERT_REQUIRED ...)"
        )
    return getattr(ssl, f"CERT_{name.upper()}")


def client(url: str, *, use_ssl: Any = None, options: Mapping[str, Any] = {}, **common: Any) -> Any:
    """Return a client for results at this address; it connects at its first use.

    Args:
        url: one of the family; of several sentinels, separated by `;`.
        use_ssl: the setting `redis_backend_use_ssl`.
        options: `result_backend_transport_options`: `master_name`, `min_other_sentinels`, `sentinel_kwargs`, `global_keyprefix`,
            and what the client of Redis takes besides.
        common: for every connection of the client.

    Raises ImproperlyConfigured in a sentence for what it cannot mean.
    """
    redis = adapters.package("redis")
    first, *others = url.split(";")
    parts = urlsplit(first)
    if parts.scheme not in SCHEMES:
        raise ImproperlyConfigured(
            f"results at {parts.scheme}:// have no adapter in this version; use redis:// or rediss://"
        )
    if others and parts.scheme != "sentinel":
        raise ImproperlyConfigured(
            f"the result backend {mask(url)} names {1 + len(others)} servers; results lie in one Redis: give one URL, or sentinel://"
        )
    query = dict(parse_qsl(parts.query))
    settings: dict[str, Any] = {**common, **_for_client(options), **_credentials(parts)}
    in_url: dict[str, Any] = {name: query.pop(name) for name in list(query) if name.startswith("ssl_")}
    if "ssl_check_hostname" in in_url:
        in_url["ssl_check_hostname"] = in_url["ssl_check_hostname"].lower() in ("1", "true", "yes")
    tls = tls_of(parts.scheme, in_url or use_ssl, "the URL of results" if in_url else "redis_backend_use_ssl")
    is_socket = parts.scheme == "redis+socket"
    database = query.pop("virtual_host", None) or query.pop("db", None) or ("" if is_socket else parts.path)
    settings["db"] = _database(database, url)
    settings.update((name, _value(value)) for name, value in query.items())
    _give_credentials(settings)
    if is_socket:
        settings = {name: value for name, value in settings.items() if not name.startswith("socket_keepalive")}
        return _client(redis, redis.UnixDomainSocketConnection, url, path=unquote(parts.path), **settings)
    if parts.scheme != "sentinel":
        kind = redis.Connection if tls is None else redis.SSLConnection
        return _client(
            redis,
            kind,
            url,
            host=parts.hostname or "127.0.0.1",
            port=parts.port or REDIS_PORT,
            **settings,
            **(tls or {}),
        )
    if tls is not None:
        settings.update(ssl=True, **tls)
    return _master(redis, [urlsplit(one) for one in (first, *others)], options, settings, url)


def check_broker(url: str) -> None:
    """Raise ImproperlyConfigured where a broker's URL names a database that Redis cannot have."""
    for one in url.split(";"):
        parts = urlsplit(one)
        if parts.scheme != "redis+socket":
            _database(parts.path, one)


def _client(redis: Any, kind: Any, url: str, **settings: Any) -> Any:
    """Return a client that tries nothing again by itself: the engine does, and says so."""
    pool = redis.ConnectionPool(connection_class=kind, **settings)
    try:
        kind(**pool.connection_kwargs)  # connects nowhere
    except TypeError as error:
        raise ImproperlyConfigured(
            f"results at {mask(url)}: redis takes no such option in the URL or the settings ({error})"
        ) from error
    return redis.Redis(connection_pool=pool)


def _give_credentials(settings: dict[str, Any]) -> None:
    """Let a provider of credentials, which may be named as "module.Class", stand for user and password.

    Raises ImproperlyConfigured for what is none.
    """
    provider = settings.get("credential_provider")
    if provider is None:
        return
    kind = adapters.package("redis").CredentialProvider
    try:
        found = (
            adapters.package("kombu.utils.imports").symbol_by_name(provider)()
            if isinstance(provider, str)
            else provider
        )
    except (ImportError, AttributeError, ValueError) as error:
        raise ImproperlyConfigured(
            f"the credential provider {provider!r} of results in Redis cannot be imported ({error})"
        ) from error
    if not isinstance(found, kind):
        raise ImproperlyConfigured(
            f"the credential provider of results in Redis is {provider!r}; give an object of a class of redis.CredentialProvider, or "
            'the name of such a class, as "module.Class"'
        )
    settings["credential_provider"] = found
    settings.pop("username", None)
    settings.pop("password", None)


def _master(redis: Any, sentinels: list[Any], options: Mapping[str, Any], settings: dict[str, Any], url: str) -> Any:
    name = options.get("master_name")
    if not name:
        raise ImproperlyConfigured(
            f"the result backend {mask(url)} asks sentinels, and nobody says for which group of servers; set "
            'result_backend_transport_options = {"master_name": "..."}'
        )
    adapters.package("redis.sentinel")
    found = redis.sentinel.Sentinel(
        [(one.hostname, one.port or SENTINEL_PORT) for one in sentinels],
        min_other_sentinels=options.get("min_other_sentinels", 0),
        sentinel_kwargs=options.get("sentinel_kwargs"),
        **settings,
    )
    return found.master_for(name)


# What of `result_backend_transport_options` is the client's; people give the results the options of the broker, too.
_OF_CLIENT: Final = (
    *(
        "socket_",
        "health_check_interval",
        "retry_on_",
        "client_name",
        "username",
        "password",
        "max_connections",
        "protocol",
    ),
)


def _for_client(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name.startswith(_OF_CLIENT)}


def _credentials(parts: Any) -> dict[str, Any]:
    found = {"username": parts.username, "password": parts.password}
    return {name: unquote(value) for name, value in found.items() if value}


def _database(said: str, url: str) -> int:
    text = said.strip("/")
    if text and not text.isdigit():
        raise ImproperlyConfigured(
            f"{mask(url)} names the database {text!r}; databases of Redis are numbers, as in redis://localhost/1"
        )
    return int(text or 0)


def _value(text: str) -> Any:
    """Return an option of a URL as the client takes it."""
    if text.lower() in ("true", "false", "yes", "no"):
        return text.lower() in ("true", "yes")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def prefix_of(options: Mapping[str, Any]) -> str:
    """Return what stands before all keys of results: `global_keyprefix`, set off from the key as Celery sets it off."""
    prefix = str(options.get("global_keyprefix") or "")
    return prefix if not prefix or prefix[-1] in ":_-." else f"{prefix}_"
