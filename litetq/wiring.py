"""What a program gives to an engine on a wire (`adapters`): how its workflows are written down, and what a signature means.

Imported only where a broker is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from litetq import calling, canvas, context, projection
from litetq.adapters import family, metas, queues, results, unfold
from litetq.adapters.post import Naming
from litetq.adapters.rpc import RpcResults
from litetq.address import mask
from litetq.draft import Draft, Start
from litetq.exceptions import ImproperlyConfigured
from litetq.hanging import views_in
from litetq.message import Plan
from litetq.retry import RetryPolicy

if TYPE_CHECKING:
    from litetq.adapters.broker import Broker
    from litetq.address import Address
    from litetq.app import LiteTQ
    from litetq.conf import Settings


def program_of(app: LiteTQ) -> unfold.Program:
    """Return what an engine on a wire asks of an app."""

    def acks_late(name: str) -> bool:
        task = app.tasks.get(name)
        return bool(task is not None and task.acks_late)

    def takes_failure(sig: Mapping[str, Any]) -> bool:
        task = app.tasks.get(sig["task"])
        return bool(task is not None and task.takes_failure(sig.get("args") or (), sig.get("kwargs") or {}))

    def reply_to(id: str) -> str | None:
        request = context.get_current_request()
        return None if request is None or request.id != id else request.reply_to

    return unfold.Program(
        reply_to=reply_to,
        views=lambda hanging, seq: views_in(app, hanging, seq, nests=True),
        headers=calling.protocol_headers,
        expand=lambda sig, args, ids: expand(app, sig, args, ids),
        acks_late=acks_late,
        takes_failure=takes_failure,
    )


def connecting_options(conf: Settings, broker: Address) -> dict[str, Any]:
    """Return what the settings say about connections to a broker, as kombu's Connection takes it."""
    options: dict[str, Any] = {"failover_strategy": conf.broker_failover_strategy}
    if broker.scheme in family.SCHEMES:
        family.check_broker(broker.text)
        options["ssl"] = family.tls_of(broker.scheme, conf.broker_use_ssl, "broker_use_ssl")
        if broker.scheme == "sentinel" and not (conf.broker_transport_options or {}).get("master_name"):
            raise ImproperlyConfigured(
                f"the broker {mask(broker.text)} is a sentinel, and nobody says for which group of servers it is asked; set "
                'broker_transport_options = {"master_name": "..."}'
            )
    elif conf.broker_use_ssl or broker.scheme == "amqps":
        options["ssl"] = _tls(conf.broker_use_ssl)
    if conf.broker_login_method:
        options["login_method"] = conf.broker_login_method
    return options


def _tls(said: Any) -> dict[str, Any]:
    """Return the TLS options of an AMQP broker: the server is verified, unless the setting says otherwise in so many words."""
    import ssl

    if not isinstance(said, (bool, Mapping)):
        raise ImproperlyConfigured(
            f"broker_use_ssl is {said!r}; give True, or a mapping with ca_certs, certfile, keyfile and cert_reqs"
        )
    own = dict(said) if isinstance(said, Mapping) else {}
    if own.get("cert_reqs") == ssl.CERT_NONE:
        return own
    # None is the host of the URL, also when another of several is tried.
    return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None, **own}


def broker_options(app: LiteTQ) -> dict[str, Any]:
    """Return what the settings say about a broker beside its connections."""
    conf, router = app.conf, app.router
    about = queues.Settings(
        router.queues,
        router.broadcasts,
        router.default,
        conf.task_default_queue_type,
        conf.task_default_exchange,
        conf.task_default_exchange_type,
        conf.task_default_routing_key,
        conf.task_create_missing_queue_type,
        conf.task_create_missing_queue_exchange_type,
        router.max_priority,
        conf.broker_native_delayed_delivery_queue_type,
        bool(conf.worker_detect_quorum_queues),
    )
    policy = conf.task_publish_retry_policy if conf.task_publish_retry else {"max_retries": 0}
    return {
        "heartbeat": conf.broker_heartbeat,
        "heartbeat_rate": conf.broker_heartbeat_checkrate,
        "pool_limit": conf.broker_pool_limit,
        "connect_timeout": conf.broker_connection_timeout,
        "retrying": RetryPolicy.from_mapping(policy or {}),
        "about": about,
    }


def naming_of(conf: Settings) -> Naming:
    """Return what the settings say about the exchanges and queues of remote control and events."""
    return Naming(
        conf.control_exchange,
        conf.control_queue_ttl,
        conf.control_queue_expires,
        bool(conf.control_queue_exclusive),
        bool(conf.control_queue_durable),
        conf.event_exchange,
        conf.event_queue_prefix,
        conf.event_queue_ttl,
        conf.event_queue_expires,
        bool(conf.event_queue_exclusive),
        bool(conf.event_queue_durable),
    )


# Settings of results in Redis -> what its client calls them.
_OF_REDIS: Final = {
    "redis_backend_credential_provider": "credential_provider",
    "redis_backend_health_check_interval": "health_check_interval",
    "redis_client_name": "client_name",
    "redis_max_connections": "max_connections",
    "redis_password": "password",
    "redis_retry_on_timeout": "retry_on_timeout",
    "redis_socket_connect_timeout": "socket_connect_timeout",
    "redis_socket_keepalive": "socket_keepalive",
    "redis_socket_timeout": "socket_timeout",
    "redis_username": "username",
}
_SPANS: Final = ("redis_backend_health_check_interval", "redis_socket_connect_timeout", "redis_socket_timeout")


def _result_options(conf: Settings, *, is_of_broker: bool) -> dict[str, Any]:
    """Return what the settings say about results in Redis; where they lie at the broker's own address, the broker's apply."""
    options = dict(conf.result_backend_transport_options or {})
    use_ssl = conf.redis_backend_use_ssl
    if is_of_broker:
        options = {**(conf.broker_transport_options or {}), **options}
        use_ssl = use_ssl or conf.broker_use_ssl
    given = {name: conf[key] for key, name in _OF_REDIS.items() if conf.value_set_for(key) and conf[key] is not None}
    given.update((_OF_REDIS[key], calling.seconds(conf[key], key)) for key in _SPANS if _OF_REDIS[key] in given)
    return {"use_ssl": use_ssl, "transport_options": options, **given}


# Settings of single places of results; each reads its own.
_OF_STORES: Final = (
    "cache_backend_options",
    "database_create_tables_at_setup",
    "database_engine_callback",
    "database_engine_options",
    "database_table_names",
    "database_table_schemas",
    "result_persistent",
)


def codec_of(app: LiteTQ) -> metas.Codec:
    """Return how an app writes its results, and which it reads."""
    conf = app.conf
    return metas.Codec(
        conf.result_serializer, app.accepted_results, conf.result_compression, bool(conf.result_extended)
    )


def result_settings(app: LiteTQ, where: Address, *, is_of_broker: bool = False) -> results.Settings:
    """Return what the settings of an app say about results at this place."""
    conf = app.conf
    options = _result_options(conf, is_of_broker=is_of_broker)
    transport_options = options.pop("transport_options")
    return results.Settings(
        codec_of(app),
        _span(conf.result_expires, "result_expires"),
        _span(conf.result_failure_expires, "result_failure_expires"),
        _span(conf.result_chord_expires, "result_chord_expires"),
        transport_options,
        options if where.scheme in family.SCHEMES else {name: conf[name] for name in _OF_STORES},
    )


def _span(value: Any, setting: str) -> float | None:
    """Return a span in seconds; None where it has no end, and for 0."""
    return calling.seconds(value, setting) if value else None


def results_at(
    app: LiteTQ, where: Address, source: str, *, is_wire: bool = False, is_of_broker: bool = False
) -> results.ResultStore:
    """Return the place of results that an address names; nothing is connected yet.

    Args:
        is_wire: whether tasks are at a broker, so that this place is asked for each result.
        is_of_broker: whether it is the broker's own address.

    Raises ImproperlyConfigured for one that cannot be used, in a sentence that names it and what to do.
    """
    if results.is_native(where.scheme):
        settings = result_settings(app, where, is_of_broker=is_of_broker)
        return results.open_store(where.scheme, _spelled_out(app.conf, where.text), settings)
    return projection.plugged_in(app, where, source, app.release if is_wire else lambda: None)


def _spelled_out(conf: Settings, text: str) -> str:
    """Return the URL that a bare name of a server stands for: of Redis, with what old settings say about it."""
    if "://" in text:
        return text
    if text.lower() != "redis":
        return f"{text}://"
    return f"redis://{conf.redis_host or 'localhost'}:{conf.redis_port or 6379}/{conf.redis_db or 0}"


def check_results(app: LiteTQ, where: Address, source: str) -> None:
    """Raise ImproperlyConfigured for a place of results that cannot be used; nothing is connected."""
    if results.is_native(where.scheme):
        results_at(app, where, source)
    else:
        projection.check_plugged_in(app, where, source)


def results_of_broker(
    app: LiteTQ, where: Address, source: str, *, is_of_broker: bool
) -> Callable[[Broker], results.ResultStore]:
    """Return what opens the place of results of an app whose tasks are at a broker; raises as `results_at`."""
    if where.path is not None or where.scheme in ("memory", "cache"):
        raise ImproperlyConfigured(
            f"the result backend {mask(where.text)} (from {source}) is on this machine: with a broker, results lie in Redis, in "
            "a database or at another place that all workers reach; set result_backend to a redis:// or db+ URL, or to rpc://"
        )
    if where.scheme == "disabled":
        return lambda broker: results.NoResults(broker.shown)
    if where.scheme == "rpc":
        settings = result_settings(app, where)
        return lambda broker: RpcResults(broker, settings)
    store = results_at(app, where, source, is_wire=True, is_of_broker=is_of_broker)
    return lambda broker: store


def expand(app: LiteTQ, sig: Any, args: Sequence[Any], ids: tuple[str | None, str | None]) -> Plan:
    """Return the plan of a call of a signature, as a dict, with these arguments before its own; `ids` are those of root and parent."""
    draft = Draft(app, None)
    root_id, parent_id = ids
    canvas.maybe_signature(_as_written(sig), app).compile_into(
        draft, Start(root_id=root_id, parent_id=parent_id), canvas.Call(args=tuple(args))
    )
    return draft.plan()


def _as_written(sig: Any) -> Any:
    """Return a signature in which bodies of chords keep their own ids: Celery writes the header's id on the chord itself."""
    if isinstance(sig, (list, tuple)):
        return [_as_written(one) for one in sig]
    if not isinstance(sig, dict) or sig.get("task") not in ("celery.chain", "celery.group", "celery.chord"):
        return sig
    kwargs = {name: _as_written(value) for name, value in sig["kwargs"].items()}
    options = dict(sig.get("options") or {})
    body = kwargs.get("body")
    if isinstance(body, dict):
        options.pop("task_id", None)
    return {**sig, "kwargs": kwargs, "options": options}
