"""Settings: every key of Celery's with its default, ours beside them, read lazily and written as Celery's users write them.

Making a `Settings` touches no file and imports nothing of the user. The first read of any setting loads what was given: then
every value is a plain attribute (reading one costs 20 ns). A value comes from the highest of these places that has one:

    a command line (`override`) > the environment ($LITETQ_BROKER, $CELERY_BROKER_URL, ...) > assignments (`conf.x = ...`,
    `conf.update`) > the app's constructor > `add_defaults`, the latest first > `config_from_object` > the default

`config_from_object` makes assignments done before it void, with a warning; constructor values and later assignments stay.
Both spellings of Celery are understood (`task_serializer`, `CELERY_TASK_SERIALIZER`), as long as one source keeps to one.
Values of a wrong type are refused, all together; names that nobody knows are kept, with a warning that shows near ones.

This room knows no other room but the errors. Defaults, meanings and what becomes of each key stand in `OPTIONS`, from which
the settings reference is made.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from litetq.exceptions import CDeprecationWarning, CeleryWarning, ImproperlyConfigured

HONOURED: Final = "honoured"
ACCEPTED: Final = "accepted"  # no effect here; the meaning says why, or what happens instead
ADAPTER: Final = "adapter"  # takes effect when broker or results are a server
LATER: Final = "later"  # is to be honoured; this version does not look at it


class Option(NamedTuple):
    """One setting: its default, the kind of its values (a key of `KINDS`; None always fits), what it means."""

    default: Any
    kind: str
    meaning: str
    effect: str = HONOURED


LOG_FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_LOG_FORMAT: Final = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"

OPTIONS: Final[dict[str, Option]] = {
    "accept_content": Option(("json",), "names", "serializers (names or content types) that a worker decodes"),
    "result_accept_content": Option(None, "names", "the same for results; None: accept_content"),
    "enable_utc": Option(True, "flag", "points in time are UTC; False: local time of `timezone`"),
    "imports": Option((), "names", "modules that a worker imports at its start"),
    "include": Option((), "names", "more modules that a worker imports at its start"),
    "timezone": Option(None, "any", "time zone of schedules and log lines; None: UTC"),
    "beat_enable_remote_control": Option(False, "flag", "beat answers `ping`, and nothing else"),
    "beat_remote_control_max_tick_age": Option(
        None,
        "seconds",
        "age of beat's last tick from which it answers no `ping`; 0: never; None: twice its longest pause, at least 60",
    ),
    "beat_max_loop_interval": Option(0, "seconds", "longest sleep of beat between two looks; 0: the scheduler's own"),
    "beat_schedule": Option({}, "mapping", "periodic tasks: name -> entry"),
    "beat_scheduler": Option("celery.beat:PersistentScheduler", "any", "scheduler class or its path"),
    "beat_schedule_filename": Option(
        "celerybeat-schedule", "text", "file of Celery's scheduler; here the schedule is in the store", ACCEPTED
    ),
    "beat_sync_every": Option(
        0, "integer", "sends between two saves of the schedule; here each send commits", ACCEPTED
    ),
    "beat_cron_starting_deadline": Option(
        None, "seconds", "how late a missed crontab run may still start; None: any time"
    ),
    "broker_url": Option(None, "any", "where tasks are: a path, or a URL"),
    "broker_read_url": Option(None, "any", "where workers read; None: broker_url"),
    "broker_write_url": Option(None, "any", "where tasks are sent; None: broker_url"),
    "broker_transport": Option(None, "text", "transport, when the URL names none", ADAPTER),
    "broker_transport_options": Option({}, "mapping", "options of the engine behind the URL"),
    "broker_connection_timeout": Option(
        4, "seconds", "limit for making a connection; for a file see litetq_busy_timeout", ADAPTER
    ),
    "broker_connection_retry": Option(
        True, "flag", "connect again after a lost connection; workers do so for ever, after 0.5 to 30 s", ACCEPTED
    ),
    "broker_connection_retry_on_startup": Option(
        None, "flag", "keep trying to connect at the start; workers do so for ever", ACCEPTED
    ),
    "broker_connection_max_retries": Option(100, "integer", "attempts to connect; workers try for ever", ACCEPTED),
    "broker_channel_error_retry": Option(
        False, "flag", "connect again after a channel error; workers do so always", ACCEPTED
    ),
    "broker_failover_strategy": Option(None, "any", "how the next of several URLs is chosen", ADAPTER),
    "broker_heartbeat": Option(120, "number", "seconds between AMQP heartbeats", ADAPTER),
    "broker_heartbeat_checkrate": Option(3.0, "number", "checks per AMQP heartbeat", ADAPTER),
    "broker_login_method": Option(None, "text", "AMQP login method", ADAPTER),
    "broker_native_delayed_delivery_queue_type": Option("quorum", "text", "type of RabbitMQ's queues for eta", ADAPTER),
    "broker_pool_limit": Option(10, "integer", "connections kept open; a file needs one per process", ADAPTER),
    "broker_pool_acquire_timeout": Option(
        None, "seconds", "wait for a connection of the pool; nobody waits, one more is made", ACCEPTED
    ),
    "broker_use_ssl": Option(False, "any", "TLS: True or its options", ADAPTER),
    "broker_host": Option(None, "text", "host, in place of broker_url", ADAPTER),
    "broker_port": Option(None, "integer", "port, in place of broker_url", ADAPTER),
    "broker_user": Option(None, "text", "user, in place of broker_url", ADAPTER),
    "broker_password": Option(None, "text", "password, in place of broker_url", ADAPTER),
    "broker_vhost": Option(None, "text", "virtual host, in place of broker_url", ADAPTER),
    "cache_backend": Option(
        None, "text", "which of Django's caches `django-cache` means; memcached: result_backend = cache+memcached://..."
    ),
    "cache_backend_options": Option({}, "mapping", "options of that cache", ADAPTER),
    "db_reuse_max": Option(
        None, "integer", "Django: tasks that may use a thread's database connections before they are closed; None: one"
    ),
    "cassandra_entry_ttl": Option(None, "seconds", "results in Cassandra: lifetime", ADAPTER),
    "cassandra_keyspace": Option(None, "text", "results in Cassandra: keyspace", ADAPTER),
    "cassandra_port": Option(None, "any", "results in Cassandra: port", ADAPTER),
    "cassandra_read_consistency": Option(None, "text", "results in Cassandra: read consistency", ADAPTER),
    "cassandra_servers": Option(None, "names", "results in Cassandra: hosts", ADAPTER),
    "cassandra_bundle_path": Option(None, "text", "results in Cassandra: secure bundle", ADAPTER),
    "cassandra_table": Option(None, "text", "results in Cassandra: table", ADAPTER),
    "cassandra_write_consistency": Option(None, "text", "results in Cassandra: write consistency", ADAPTER),
    "cassandra_auth_provider": Option(None, "text", "results in Cassandra: authentication class", ADAPTER),
    "cassandra_auth_kwargs": Option(None, "any", "results in Cassandra: its arguments", ADAPTER),
    "cassandra_options": Option({}, "mapping", "results in Cassandra: more options", ADAPTER),
    "s3_access_key_id": Option(None, "text", "results in S3: key id", ADAPTER),
    "s3_secret_access_key": Option(None, "text", "results in S3: secret", ADAPTER),
    "s3_bucket": Option(None, "text", "results in S3: bucket", ADAPTER),
    "s3_base_path": Option(None, "text", "results in S3: folder", ADAPTER),
    "s3_endpoint_url": Option(None, "text", "results in S3: endpoint", ADAPTER),
    "s3_region": Option(None, "text", "results in S3: region", ADAPTER),
    "azureblockblob_container_name": Option("celery", "text", "results in Azure: container", ADAPTER),
    "azureblockblob_retry_initial_backoff_sec": Option(2, "number", "results in Azure: first backoff", ADAPTER),
    "azureblockblob_retry_increment_base": Option(2, "number", "results in Azure: growth of the backoff", ADAPTER),
    "azureblockblob_retry_max_attempts": Option(3, "integer", "results in Azure: attempts", ADAPTER),
    "azureblockblob_base_path": Option("", "text", "results in Azure: folder", ADAPTER),
    "azureblockblob_connection_timeout": Option(20, "seconds", "results in Azure: limit for connecting", ADAPTER),
    "azureblockblob_read_timeout": Option(120, "seconds", "results in Azure: limit for reading", ADAPTER),
    "gcs_bucket": Option(None, "text", "results in Google Cloud Storage: bucket", ADAPTER),
    "gcs_project": Option(None, "text", "results in Google Cloud Storage: project", ADAPTER),
    "gcs_base_path": Option("", "text", "results in Google Cloud Storage: folder", ADAPTER),
    "gcs_ttl": Option(0, "seconds", "results in Google Cloud Storage: lifetime", ADAPTER),
    "control_queue_ttl": Option(300.0, "seconds", "lifetime of a remote control request"),
    "control_queue_expires": Option(10.0, "seconds", "lifetime of a reply nobody reads"),
    "control_queue_exclusive": Option(True, "flag", "remote control queues belong to one connection", ADAPTER),
    "control_queue_durable": Option(False, "flag", "remote control queues survive the broker's restart", ADAPTER),
    "control_exchange": Option("celery", "text", "exchange of remote control", ADAPTER),
    "couchbase_backend_settings": Option(None, "mapping", "results in Couchbase", ADAPTER),
    "arangodb_backend_settings": Option(None, "mapping", "results in ArangoDB", ADAPTER),
    "mongodb_backend_settings": Option(None, "mapping", "results in MongoDB", ADAPTER),
    "cosmosdbsql_database_name": Option("celerydb", "text", "results in Cosmos DB: database", ADAPTER),
    "cosmosdbsql_collection_name": Option("celerycol", "text", "results in Cosmos DB: collection", ADAPTER),
    "cosmosdbsql_consistency_level": Option("Session", "text", "results in Cosmos DB: consistency", ADAPTER),
    "cosmosdbsql_max_retry_attempts": Option(9, "integer", "results in Cosmos DB: attempts", ADAPTER),
    "cosmosdbsql_max_retry_wait_time": Option(30, "seconds", "results in Cosmos DB: longest wait", ADAPTER),
    "event_queue_expires": Option(
        60.0,
        "seconds",
        "how long the events for a reader that went away are kept; a file's readers have no queues, all read the same events",
        ADAPTER,
    ),
    "event_queue_ttl": Option(
        5.0,
        "seconds",
        "lifetime of an event that nobody reads; in a file the last 100,000 are kept for an hour, for whoever comes later",
        ADAPTER,
    ),
    "event_queue_prefix": Option("celeryev", "text", "prefix of event queues", ADAPTER),
    "event_queue_exclusive": Option(True, "flag", "event queues belong to one connection", ADAPTER),
    "event_queue_durable": Option(False, "flag", "event queues survive the broker's restart", ADAPTER),
    "event_serializer": Option("json", "text", "serializer of events; they are JSON", ACCEPTED),
    "event_exchange": Option("celeryev", "text", "exchange of events", ADAPTER),
    "redis_backend_use_ssl": Option(None, "any", "results in Redis: TLS options", ADAPTER),
    "redis_db": Option(None, "any", "results in Redis: database number", ADAPTER),
    "redis_host": Option(None, "text", "results in Redis: host", ADAPTER),
    "redis_max_connections": Option(None, "integer", "results in Redis: connections", ADAPTER),
    "redis_username": Option(None, "text", "results in Redis: user", ADAPTER),
    "redis_password": Option(None, "text", "results in Redis: password", ADAPTER),
    "redis_port": Option(None, "integer", "results in Redis: port", ADAPTER),
    "redis_socket_timeout": Option(30.0, "seconds", "results in Redis: limit for one operation", ADAPTER),
    "redis_socket_connect_timeout": Option(None, "seconds", "results in Redis: limit for connecting", ADAPTER),
    "redis_retry_on_timeout": Option(False, "flag", "results in Redis: try again after the limit", ADAPTER),
    "redis_socket_keepalive": Option(False, "flag", "results in Redis: TCP keepalive", ADAPTER),
    "result_backend": Option(None, "any", "where results are; None: in the file of the tasks"),
    "result_cache_max": Option(
        -1, "integer", "results that a client keeps in memory; here each result object keeps its own", ACCEPTED
    ),
    "result_compression": Option(None, "text", "compression of results"),
    "result_exchange": Option("celeryresults", "text", "exchange of rpc results", ADAPTER),
    "result_exchange_type": Option("direct", "text", "its type", ADAPTER),
    "result_expires": Option(
        timedelta(days=1), "seconds", "results are removed this long after their end; None: never"
    ),
    "result_chord_expires": Option(
        None, "seconds", "lifetime of a chord's counters; in a file they last until the body is final", ADAPTER
    ),
    "result_failure_expires": Option(None, "seconds", "the same as result_expires, for failures; None: result_expires"),
    "result_persistent": Option(
        None, "flag", "rpc results survive the broker's restart; in a file they always do", ADAPTER
    ),
    "result_extended": Option(
        False, "flag", "a result backend of a package gets name, arguments and worker, too; the file always has them"
    ),
    "result_serializer": Option("json", "text", "serializer of results"),
    "result_backend_transport_options": Option({}, "mapping", "options of the engine behind result_backend"),
    "result_chord_retry_interval": Option(
        1.0, "seconds", "pause between looks whether a chord's members have ended; in a file nothing polls", ADAPTER
    ),
    "result_chord_join_timeout": Option(
        3.0, "seconds", "limit for joining a chord's values; here they are joined by the store", ACCEPTED
    ),
    "result_backend_max_sleep_between_retries_ms": Option(
        10000,
        "number",
        "longest wait between attempts to store a result, milliseconds; here an end is kept until it is written",
        ACCEPTED,
    ),
    "result_backend_max_retries": Option(
        math.inf, "number", "attempts to store a result; here an end is kept until it is written", ACCEPTED
    ),
    "result_backend_base_sleep_between_retries_ms": Option(
        10,
        "number",
        "first wait between attempts to store a result, milliseconds; here an end is kept until it is written",
        ACCEPTED,
    ),
    "result_backend_always_retry": Option(
        False, "flag", "try again when a result cannot be stored; always so here", ACCEPTED
    ),
    "elasticsearch_retry_on_timeout": Option(
        None, "flag", "results in Elasticsearch: try again after the limit", ADAPTER
    ),
    "elasticsearch_max_retries": Option(None, "integer", "results in Elasticsearch: attempts", ADAPTER),
    "elasticsearch_timeout": Option(None, "seconds", "results in Elasticsearch: limit for one operation", ADAPTER),
    "elasticsearch_save_meta_as_text": Option(True, "flag", "results in Elasticsearch: store as text", ADAPTER),
    "security_certificate": Option(None, "text", "file of this program's certificate (serializer auth)"),
    "security_cert_store": Option(None, "text", "directory or pattern of the certificates that are trusted"),
    "security_key": Option(None, "text", "file of this program's private key"),
    "security_key_password": Option(None, "any", "password of that key, bytes"),
    "security_digest": Option("sha256", "text", "digest of the signatures"),
    "database_url": Option(
        None, "text", "SQL database for results; give it to result_backend, as db+postgresql://...", ACCEPTED
    ),
    "database_engine_options": Option(
        {"pool_pre_ping": True, "pool_recycle": 3600}, "mapping", "options of its SQLAlchemy engine", ADAPTER
    ),
    "database_engine_callback": Option(None, "any", "called with that engine", ADAPTER),
    "database_short_lived_sessions": Option(
        False, "flag", "one session per operation; connections are taken from a pool for each", ACCEPTED
    ),
    "database_table_schemas": Option(None, "mapping", "schemas of its tables", ADAPTER),
    "database_table_names": Option(None, "mapping", "names of its tables", ADAPTER),
    "database_create_tables_at_setup": Option(True, "flag", "create its tables at the start", ADAPTER),
    "task_acks_late": Option(False, "flag", "a task is acknowledged after it ran, not before"),
    "task_acks_on_failure_or_timeout": Option(True, "flag", "with acks_late, a failure is acknowledged too"),
    "task_acks_on_failure": Option(None, "flag", "the same for failures alone; None: as above"),
    "task_acks_on_timeout": Option(None, "flag", "the same for time limits alone; None: as above"),
    "task_always_eager": Option(False, "flag", "delay() runs the task at once, in the caller"),
    "task_annotations": Option(None, "any", "attributes set on tasks: name -> attributes"),
    "task_compression": Option(None, "text", "compression of task bodies"),
    "task_create_missing_queues": Option(True, "flag", "queues that task_queues does not list may be used"),
    "task_create_missing_queue_type": Option("classic", "text", "RabbitMQ type of such queues", ADAPTER),
    "task_create_missing_queue_exchange_type": Option(None, "text", "exchange type of such queues", ADAPTER),
    "task_inherit_parent_priority": Option(False, "flag", "a task sent by a task gets its priority"),
    "task_default_delivery_mode": Option(
        2, "any", "persistent (2) or transient (1); the file is always persistent", ACCEPTED
    ),
    "task_default_queue": Option("celery", "text", "queue of tasks without a route"),
    "task_default_queue_type": Option("classic", "text", "RabbitMQ type of that queue", ADAPTER),
    "task_default_exchange": Option(None, "text", "exchange of that queue; None: its name", ADAPTER),
    "task_default_exchange_type": Option("direct", "text", "type of that exchange", ADAPTER),
    "task_default_routing_key": Option(None, "text", "routing key of that queue; None: its name", ADAPTER),
    "task_default_rate_limit": Option(None, "any", "rate limit of tasks that have none"),
    "task_default_priority": Option(None, "integer", "priority of tasks that have none"),
    "task_eager_propagates": Option(False, "flag", "eager tasks raise in the caller"),
    "task_ignore_result": Option(False, "flag", "tasks keep no value"),
    "task_store_eager_result": Option(False, "flag", "results of eager tasks are stored"),
    "task_protocol": Option(2, "integer", "message format on a wire; it is version 2", ACCEPTED),
    "task_publish_retry": Option(True, "flag", "sending is tried again"),
    "task_publish_retry_policy": Option(
        {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "mapping",
        "how often and how fast sending is tried again",
    ),
    "task_queues": Option(None, "queues", "queues that workers consume from, and their options"),
    "task_queue_max_priority": Option(None, "integer", "largest priority of queues that say none"),
    "task_reject_on_worker_lost": Option(None, "flag", "with acks_late, a task whose process died is delivered again"),
    "task_retry_on_worker_lost": Option(False, "flag", "a task whose process died is retried"),
    "task_remote_tracebacks": Option(
        False,
        "flag",
        "errors carry the traceback of the worker; always so here, as the cause of what get() raises",
        ACCEPTED,
    ),
    "task_repr_maxlevels": Option(
        3, "integer", "depth of arguments shown in log lines and events; here their length alone is bounded", ACCEPTED
    ),
    "task_routes": Option(None, "any", "task name -> queue and options"),
    "task_send_sent_event": Option(False, "flag", "an event when a task is sent"),
    "task_serializer": Option("json", "text", "serializer of task bodies"),
    "task_soft_time_limit": Option(None, "seconds", "SoftTimeLimitExceeded is raised in a task after this long"),
    "task_time_limit": Option(None, "seconds", "a task is stopped after this long"),
    "task_store_errors_even_if_ignored": Option(
        False, "flag", "failures are kept also with ignore_result; always so here", ACCEPTED
    ),
    "task_track_started": Option(False, "flag", "the state STARTED is recorded"),
    "task_allow_error_cb_on_chord_header": Option(
        False, "flag", "errbacks of a chord's body are linked to its members too"
    ),
    "worker_agent": Option(None, "any", "actor agent", ACCEPTED),
    "worker_autoscaler": Option(
        "celery.worker.autoscale:Autoscaler",
        "any",
        "class or its path that says how large the pool should be, between the bounds of --autoscale",
    ),
    "worker_cancel_long_running_tasks_on_connection_loss": Option(
        False,
        "flag",
        "stop acks_late tasks when the connection is lost; they go on, and are known when they come again",
        ACCEPTED,
    ),
    "worker_soft_shutdown_timeout": Option(
        0.0, "seconds", "time for running tasks between a cold shutdown's order and its doing"
    ),
    "worker_enable_soft_shutdown_on_idle": Option(False, "flag", "that time also when nothing runs"),
    "worker_concurrency": Option(None, "concurrency", "children or threads; None: one per CPU"),
    "worker_consumer": Option("celery.worker.consumer:Consumer", "any", "consumer class or its path", ACCEPTED),
    "worker_direct": Option(False, "flag", "each worker has a queue of its own"),
    "worker_disable_rate_limits": Option(False, "flag", "rate limits are ignored"),
    "worker_deduplicate_successful_tasks": Option(
        False, "flag", "a redelivered task that succeeded already is not run"
    ),
    "worker_enable_remote_control": Option(True, "flag", "workers answer remote control"),
    "worker_hijack_root_logger": Option(True, "flag", "the worker sets up the root logger"),
    "worker_log_color": Option(None, "flag", "colours in log lines; None: on a terminal"),
    "worker_log_datefmt": Option(None, "text", "date format of log lines"),
    "worker_log_format": Option(LOG_FORMAT, "text", "format of log lines"),
    "worker_lost_wait": Option(
        10.0, "seconds", "wait for a lost child's result; here its loss is known at once", ACCEPTED
    ),
    "worker_max_memory_per_child": Option(None, "number", "KiB of memory from which a child is replaced"),
    "worker_max_tasks_per_child": Option(None, "integer", "tasks after which a child is replaced"),
    "worker_pool": Option(
        "prefork",
        "any",
        "pool: processes (prefork), threads, asyncio, solo, or module:Class; gevent and eventlet only by -P",
    ),
    "worker_pool_putlocks": Option(True, "flag", "bounded hand-over to children; always so here", ACCEPTED),
    "worker_pool_restarts": Option(False, "flag", "remote control may restart the pool"),
    "worker_pool_start_method": Option(
        "fork", "text", "how children start; here each is a new interpreter, on every system", ACCEPTED
    ),
    "worker_proc_alive_timeout": Option(
        4.0,
        "seconds",
        "limit for the start of a child; here 60 s, because a new interpreter imports the program",
        ACCEPTED,
    ),
    "worker_prefetch_multiplier": Option(
        4, "integer", "tasks reserved per child; here none is before it can start", ACCEPTED
    ),
    "worker_eta_task_limit": Option(
        None, "integer", "future tasks held in memory; here they stay in the file", ACCEPTED
    ),
    "worker_enable_prefetch_count_reduction": Option(True, "flag", "reserve less after a reconnect", ACCEPTED),
    "worker_disable_prefetch": Option(False, "flag", "reserve nothing ahead; always so here", ACCEPTED),
    "worker_redirect_stdouts": Option(True, "flag", "print() in tasks goes to the log"),
    "worker_redirect_stdouts_level": Option("WARNING", "any", "level of such lines"),
    "worker_send_task_events": Option(False, "flag", "workers send events"),
    "worker_state_db": Option(None, "text", "file for revoked ids; here they are in the store", ACCEPTED),
    "worker_task_log_datefmt": Option(None, "text", "date format of a task's log lines"),
    "worker_task_log_format": Option(TASK_LOG_FORMAT, "text", "format of a task's log lines"),
    "worker_timer": Option(None, "any", "timer class or its path", ACCEPTED),
    "worker_timer_precision": Option(1.0, "seconds", "precision of that timer", ACCEPTED),
    "worker_detect_quorum_queues": Option(True, "flag", "look for RabbitMQ quorum queues", ADAPTER),
    "beat_executable": Option(None, "text", "Python that `litetq beat -D` starts; None: the same"),
    "beat_gid": Option(None, "any", "group (name or number) that beat runs as; None: the user's own"),
    "beat_logfile": Option(None, "text", "log file of beat"),
    "beat_pidfile": Option(None, "text", "pid file of beat"),
    "beat_uid": Option(None, "any", "user (name or number) that beat runs as"),
    "beat_umask": Option(None, "any", "umask of beat: a number, or octal as a text"),
    "cassandra_secure_bundle_path": Option(None, "text", "results in Cassandra: secure bundle", ADAPTER),
    "events_executable": Option(
        None, "text", "program that `multi` starts as event reader; here it runs in the foreground", ACCEPTED
    ),
    "events_gid": Option(None, "any", "group that the event reader runs as; here it runs in the foreground", ACCEPTED),
    "events_logfile": Option(None, "text", "log file of the event reader; here it runs in the foreground", ACCEPTED),
    "events_pidfile": Option(None, "text", "pid file of the event reader; here it runs in the foreground", ACCEPTED),
    "events_uid": Option(None, "any", "user that the event reader runs as; here it runs in the foreground", ACCEPTED),
    "events_umask": Option(None, "any", "umask of the event reader; here it runs in the foreground", ACCEPTED),
    "override_backends": Option(None, "mapping", "more backends: scheme -> class path", LATER),
    "redis_backend_credential_provider": Option(None, "any", "results in Redis: credentials", ADAPTER),
    "redis_backend_health_check_interval": Option(
        None, "seconds", "results in Redis: seconds between health checks", ADAPTER
    ),
    "redis_client_name": Option(None, "text", "results in Redis: name of the connection", ADAPTER),
    "result_backend_thread_safe": Option(None, "flag", "one backend for all threads; always so here", ACCEPTED),
    "worker_executable": Option(None, "text", "Python that `litetq worker -D` starts; None: the same"),
    "worker_gid": Option(None, "any", "group (name or number) that the worker runs as; None: the user's own"),
    "worker_logfile": Option(None, "text", "log file of the worker"),
    "worker_pidfile": Option(None, "text", "pid file of the worker"),
    "worker_uid": Option(None, "any", "user (name or number) that the worker runs as"),
    "worker_umask": Option(None, "any", "umask of the worker: a number, or octal as a text"),
    "litetq_durability": Option("normal", "durability", "what a commit survives: normal: kill -9; full: power loss"),
    "litetq_eager_results": Option(
        False,
        "flag",
        "with task_always_eager, results go through the serializer as a worker's do; as in Celery they do not",
    ),
    "litetq_busy_timeout": Option(30.0, "seconds", "how long a caller waits for the write lock before StoreBusy"),
    "litetq_lease": Option(30.0, "seconds", "how long a worker's silence is trusted"),
    "litetq_silence_bound": Option(300.0, "seconds", "silence after which a worker that still lives loses its tasks"),
    "litetq_rate_limit_scope": Option(
        "file", "scope", "who counts rate limits: file: all workers together; worker: each for itself, as Celery"
    ),
    "litetq_priority_ageing": Option(
        None, "seconds", "a waiting task rises by one priority in this time, when workers claim; None: it does not"
    ),
    "litetq_redelivery_bound": Option(5, "integer", "redeliveries of begun work before it rests as a dead letter"),
}


# -- spellings -----------------------------------------------------------------------------------------------------

# Old names that are not made by rule; rule and exceptions are compared with Celery's own map in tests/compat.
_IRREGULAR: Final = {
    "RESULT_ACCEPT_CONTENT": "result_accept_content",
    "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_RESULT_DBURI": "database_url",
    "CELERY_RESULT_ENGINE_OPTIONS": "database_engine_options",
    "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS": "database_short_lived_sessions",
    "CELERY_RESULT_DB_TABLENAMES": "database_table_names",
    "CELERY_MESSAGE_COMPRESSION": "task_compression",
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "CELERY_TASK_PROTOCOL": "task_protocol",
    "CELERY_TASK_PUBLISH_RETRY": "task_publish_retry",
    "CELERY_TASK_PUBLISH_RETRY_POLICY": "task_publish_retry_policy",
    "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "CELERY_TASK_SERIALIZER": "task_serializer",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERY_WORKER_DIRECT": "worker_direct",
    "CELERY_DISABLE_RATE_LIMITS": "worker_disable_rate_limits",
    "CELERY_ENABLE_REMOTE_CONTROL": "worker_enable_remote_control",
    "CELERYD_WORKER_LOST_WAIT": "worker_lost_wait",
    "CELERY_REDIRECT_STDOUTS": "worker_redirect_stdouts",
    "CELERY_REDIRECT_STDOUTS_LEVEL": "worker_redirect_stdouts_level",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
    # Celery 3's names, which Celery 5 forgot; settings files still have them.
    "CELERYD_LOG_FILE": "worker_logfile",
    "CELERYD_PID_FILE": "worker_pidfile",
    "CELERYBEAT_LOG_FILE": "beat_logfile",
    "CELERYBEAT_PID_FILE": "beat_pidfile",
}
_WITH_CELERY: Final = (
    *("accept_content", "imports", "include", "timezone", "cache_", "couchbase_", "arangodb_", "mongodb_", "event_"),
    *("redis_", "result_", "elasticsearch_", "security_", "db_"),
)


def _old_name(key: str) -> str:
    if key.startswith("beat_"):
        return f"CELERYBEAT_{key[5:]}".upper()
    if key.startswith("worker_"):
        return f"CELERYD_{key[7:]}".upper()
    if key.startswith("task_"):
        return f"CELERY_{key[5:]}".upper()
    database_table = key in ("database_create_tables_at_setup", "database_table_schemas", "database_engine_callback")
    return f"CELERY_{key}".upper() if key.startswith(_WITH_CELERY) and not database_table else key.upper()


TO_OLD: Final = {key: _old_name(key) for key in OPTIONS} | {key: old for old, key in _IRREGULAR.items()}
TO_NEW: Final = {old: key for key, old in TO_OLD.items() if not key.startswith("litetq_")}


# -- values --------------------------------------------------------------------------------------------------------

KINDS: Final = {  # kind -> what a value of it must be, in words
    "text": "a text",
    "flag": "True or False",
    "integer": "a whole number",
    "number": "a number",
    "seconds": "a number of seconds or a timedelta, not below 0",
    "mapping": "a dictionary",
    "names": "a list of texts",
    "queues": "a list of queues or their names",
    "concurrency": 'a whole number from 1 up, or "auto"',
    "durability": '"normal" or "full"',
    "scope": '"file" or "worker"',
    "any": "anything",
}
_FLAGS: Final = {
    "true": True,
    "yes": True,
    "1": True,
    "on": True,
    "false": False,
    "no": False,
    "0": False,
    "off": False,
}


def _fitting(kind: str, value: Any) -> Any:
    """Return the value as this kind wants it; raises ValueError. A text that says a number or a flag is taken as such."""
    if value is None or kind == "any":
        return value
    if kind in ("integer", "number", "seconds"):
        return _number(kind, value)
    if kind == "concurrency" and value != "auto":
        value = _number("integer", value)
        return value if 1 <= value < math.inf else _refuse()
    if kind == "flag":
        if isinstance(value, str):
            return _FLAGS[value.lower()] if value.lower() in _FLAGS else _refuse()
        return bool(value) if isinstance(value, int) and value in (0, 1) else _refuse()
    if kind == "names":
        if isinstance(value, str):
            return (value,)
        fits = isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in value)
    elif kind == "queues":
        fits = isinstance(value, (list, tuple, set, frozenset, Mapping)) and all(
            isinstance(getattr(queue, "name", queue), str) for queue in value
        )
    elif kind == "mapping":
        fits = isinstance(value, Mapping)
    elif kind == "durability":
        fits = value in ("normal", "full")
    elif kind == "scope":
        fits = value in ("file", "worker")
    else:
        fits = isinstance(value, str)
    return value if fits else _refuse()


def _number(kind: str, value: Any) -> Any:
    if isinstance(value, timedelta):
        return value if kind == "seconds" and value >= timedelta(0) else _refuse()
    if isinstance(value, str):
        value = float(value) if kind != "integer" else int(value)
    if not isinstance(value, (int, float)) or value != value:  # NaN is unequal to itself
        return _refuse()
    if kind == "seconds" and value < 0:
        return _refuse()
    if kind != "integer" or abs(value) == math.inf:
        return value
    return int(value) if value == value // 1 else _refuse()


_CASTS: Final[dict[str, Callable[[str], Any]]] = {
    "string": str, "str": str, "int": int, "float": float, "bool": lambda text: _fitting("flag", text), "any": str,
    "json": json.loads, "tuple": json.loads, "list": json.loads, "dict": json.loads,
}  # fmt: skip


def _said(word: str, namespace: str) -> tuple[str, Any]:
    """Return the setting and the value that a word of the command line means: `worker.concurrency=10`."""
    key, is_given, text = word.partition("=")
    if not is_given:
        raise ImproperlyConfigured(f"{word!r} is no setting; write it as name=value, like worker.concurrency=10")
    key = key.lower().replace(".", "_")
    if key.startswith("_"):
        key = namespace.lower() + key
    cast = re.match(r"\((\w+)\)", text)
    if cast is None:
        return key, text
    try:
        return key, _CASTS[cast[1]](text[cast.end() :])
    except (KeyError, ValueError) as error:
        raise ImproperlyConfigured(f"{word!r}: {text[cast.end() :]!r} cannot be read as {cast[1]}") from error


def _effective(key: str, value: Any) -> Any:
    """Return the value as it takes effect. What only an adapter or nobody uses is left for that one to judge."""
    option = OPTIONS.get(key)
    return value if option is None or option.effect != HONOURED else _fitting(option.kind, value)


def _refuse() -> Any:
    raise ValueError


def _problem(key: str, value: Any, source: str) -> str | None:
    """Return the sentence about a value that a setting cannot have, or None."""
    if key == "beat_scheduler" and isinstance(value, Mapping):
        return f"beat_scheduler ({source}) is the scheduler's class; the entries belong in beat_schedule."
    try:
        _effective(key, value)
    except ValueError:
        kind = type(value).__name__
        article = "an" if kind[0] in "aeiouAEIOU" else "a"
        return f"{key} ({source}) is {value!r:.80}, {article} {kind}; it must be {KINDS[OPTIONS[key].kind]}."
    return None


def _refuse_all(problems: list[str]) -> None:
    if problems:
        heading = "A setting" if len(problems) == 1 else f"{len(problems)} settings"
        raise ImproperlyConfigured(
            f"{heading} cannot be used as given:\n" + "\n".join(f"  {text}" for text in problems)
        )


# -- reading a source ----------------------------------------------------------------------------------------------


class _Source(NamedTuple):
    """What `config_from_object` was given."""

    given: Any  # a name to import, or an object
    label: str  # where its values come from, in words
    silent: bool = False  # a missing module is no error


def _source(given: Any, silent: bool) -> _Source:
    if isinstance(given, str):
        return _Source(given, given, silent)
    name = getattr(given, "__name__", None) or type(given).__name__
    return _Source(given, name if not isinstance(given, Mapping) else "a dictionary", silent)


def _import_source(source: _Source) -> Any:
    """Return the object that a name means: a module, `module:attribute` or `module.attribute`."""
    name = source.given
    try:
        module, _, attribute = name.partition(":")
        if attribute:
            return _attribute(_import(module), attribute, name)
        try:
            return _import(module)
        except ModuleNotFoundError as error:
            parent, _, last = name.rpartition(".")
            if not parent or error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise
            try:
                return _attribute(_import(parent), last, name)
            except ModuleNotFoundError:
                raise error from None
    except ModuleNotFoundError as error:
        raise _missing(name, error) from error


def _import(module: str) -> ModuleType:
    """Import a module as if the working directory were on the path, which it is not in an installed program."""
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except AttributeError as error:
        # Would look like a missing setting to whoever reads one.
        raise ImproperlyConfigured(f"Importing the configuration {module} raised AttributeError: {error}") from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _attribute(module: ModuleType, path: str, name: str) -> Any:
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ImportError(
                f"The configuration {name!r} cannot be read: {module.__name__} has no attribute {path}; "
                "name a module, or module:attribute."
            ) from None
    return found


def _missing(name: str, error: ModuleNotFoundError) -> ImportError:
    if error.name is None or not (name == error.name or name.startswith((f"{error.name}.", f"{error.name}:"))):
        return error  # the module is there; something that it imports is not
    if name.endswith(".py"):
        advice = f"name the module without its suffix: {name[:-3]!r}"
    else:
        advice = "it must be importable from the working directory or from sys.path"
    return ModuleNotFoundError(f"The configuration module {name!r} cannot be found; {advice}.", name=error.name)


def _public(source: Any) -> dict[str, Callable[[], Any]]:
    """Return the names of a source, each with how to read it: a lazy settings object may not like being read whole."""
    if isinstance(source, Mapping):
        return {str(name): partial(source.__getitem__, name) for name in source}
    return {name: partial(getattr, source, name) for name in dir(source) if not name.startswith("_")}


def _check_spelling(names: Iterable[str]) -> None:
    """Raise ImproperlyConfigured when one source mixes old and new names; a setting given under both is allowed."""
    have = set(names)
    new, old = have & OPTIONS.keys(), have & TO_NEW.keys()
    if len(old) > len(new):
        odd, others, way_out = new, TO_OLD, "\nOr change all of the settings to use the new format :)\n"
        heading = (
            "Cannot mix new setting names with old setting names, please rename the\nfollowing settings to use the old"
        )
    else:
        odd, others, way_out = old, TO_NEW, ""
        heading = "Cannot mix new and old setting keys, please rename the\nfollowing settings to the new"
    left = sorted(name for name in odd if others[name] not in have)
    if left and new and old:
        renames = "\n".join(f"{name:<36} -> {others[name]}" for name in left)
        raise ImproperlyConfigured(f"{heading} format:\n\n{renames}\n{way_out}")


# -- the settings --------------------------------------------------------------------------------------------------

_ENVIRONMENT: Final = {
    "broker_url": ("LITETQ_BROKER", "LITETQ_BROKER_URL", "CELERY_BROKER_URL"),
    "broker_read_url": ("LITETQ_BROKER_READ_URL", "CELERY_BROKER_READ_URL"),
    "broker_write_url": ("LITETQ_BROKER_WRITE_URL", "CELERY_BROKER_WRITE_URL"),
    "result_backend": ("LITETQ_RESULT_BACKEND", "CELERY_RESULT_BACKEND"),
}
_SECRET: Final = re.compile("API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI", re.IGNORECASE)
_STARS: Final = "*" * 8
_CELERYS: Final = ("CELERY", "BROKER_")  # old names that count under a namespace too
_CALLABLE: Final = (ModuleType, FunctionType, type)


def _hide_password(url: str) -> str:
    return re.sub(r"(://[^/@:]*):.*@", rf"\1:{_STARS}@", url)


class Settings(MutableMapping[str, Any]):
    """The settings of one app, by attribute and by item, in both spellings.

    Args:
        given: the values of the app's constructor; those that are None count as not given.
        namespace: prefix of the names in `config_from_object`'s source ("CELERY": CELERY_TASK_SERIALIZER).
        before: called before the first load; may still change anything (`on_configure`).
        after: called with these settings after the first load (`on_after_configure`).
        mask: hides the password in a URL where settings are shown.

    Any thread may read; changes are for the time before workers and other threads start.
    """

    __slots__ = (
        "__dict__",  # the effective values, once loaded
        "_added",
        "_after",
        "_assigned",
        "_before",
        "_given",
        "_loaded",
        "_loading",
        "_lock",
        "_mask",
        "_namespace",
        "_old_names",
        "_overrides",
        "_prepare",
        "_raw_names",
        "_source",
        "_source_object",
        "_sources",
        "_warned",
    )
    _added: list[Mapping[str, Any] | Callable[[], Mapping[str, Any]]]
    _assigned: dict[str, Any]
    _given: dict[str, Any]
    _old_names: set[str]
    _overrides: dict[str, tuple[Any, str]]
    _raw_names: set[str]
    _source: _Source | None
    _source_object: Any
    _sources: dict[str, str]
    _warned: set[str]

    def __init__(
        self,
        given: Mapping[str, Any] | None = None,
        *,
        namespace: str | None = None,
        before: Callable[[], object] | None = None,
        after: Callable[[Settings], object] | None = None,
        mask: Callable[[str], str] = _hide_password,
        prepare: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        self._namespace = namespace
        self._before, self._after, self._mask, self._prepare = before, after, mask, prepare
        self._lock = threading.RLock()
        self._loaded = self._loading = False
        self._added, self._assigned, self._overrides, self._sources = [], {}, {}, {}
        self._raw_names, self._old_names, self._warned = set(), set(), set()
        self._source, self._source_object = None, None
        self._given = {}
        for name, value in (given or {}).items():
            if value is not None:
                self._given[self._known(name, "the constructor")] = value
        _refuse_all([text for text in (self._check(*item, "constructor") for item in self._given.items()) if text])

    # Names and checks.

    def _canonical(self, name: str) -> str:
        """Return the new, bare spelling of a name; unknown names stay as they are."""
        if name in OPTIONS:
            return name
        bare = self._without_namespace(name)
        if bare in OPTIONS:
            return bare
        return TO_NEW.get(name, bare)

    def _without_namespace(self, name: str) -> str:
        if not self._namespace:
            return name
        prefix = f"{self._namespace.rstrip('_')}_"
        # As Celery: the key is written in the case of the prefix.
        if not name.startswith(prefix) or (name.isupper() != prefix.isupper()):
            return name
        return name[len(prefix) :].lower()

    def _known(self, name: str, where: str) -> str:
        """Return the canonical name, with a warning when nobody knows it.

        Programs give a framework's whole configuration, as Flask's: its names in capitals are kept, and nobody is warned of them.
        """
        key = self._canonical(name)
        is_a_frameworks = name.isupper() and not name.startswith("CELERY") and not _near(name)
        # Celery(broker=config["CELERY_BROKER_URL"]), then conf.update(config): many programs with Flask
        is_given = name == "CELERY_BROKER_URL" and "broker_url" in self._given
        if key not in OPTIONS and not is_a_frameworks and not is_given:
            self._warn_unknown(name, where)
        return key

    def _warn_unknown(self, name: str, where: str) -> None:
        if name in self._warned:
            return
        self._warned.add(name)
        near = _near(name)
        advice = f"did you mean {' or '.join(near)}?" if near else "it is kept, and litetq does nothing with it."
        warnings.warn(f"Unknown setting {name} in {where}: {advice}", CeleryWarning, stacklevel=_user_level())

    @property
    def unknown(self) -> list[str]:
        """The names that were given and that nobody knows; each was warned of."""
        return sorted(self._warned)

    def _check(self, key: str, value: Any, source: str) -> str | None:
        return _problem(key, value, source) if key in OPTIONS else None

    # Where values come from.

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> bool:
        """Take the settings from an object, a mapping, or a module (`"module"`, `"module:attribute"`), at the first read.

        Returns False only when `force` and `silent` are set and the module is missing. Raises ImportError at the first read
        when the module is missing, unless `silent`. Assignments done before are void.
        """
        with self._lock:
            if self._assigned:
                dropped = ", ".join(sorted(self._assigned))
                warnings.warn(
                    f"config_from_object makes void what was assigned to conf before it: {dropped}; "
                    "assign after it, or give these to the constructor.",
                    CeleryWarning,
                    stacklevel=_user_level(),
                )
            self._assigned.clear()
            self._raw_names.clear()
            self._namespace = namespace or self._namespace
            self._source = _source(obj, silent)
            self._unload()
            if force:
                self.finalize()
        return not force or self._source_object is not None

    def reread(self) -> None:
        """Take what the source says anew at the next read: it has changed. What was assigned stays."""
        with self._lock:
            self._unload()

    def config_from_envvar(
        self, variable_name: str = "CELERY_CONFIG_MODULE", silent: bool = False, force: bool = False
    ) -> bool:
        """Take the settings from the module that an environment variable names; see `config_from_object`."""
        module = os.environ.get(variable_name)
        if module:
            return self.config_from_object(module, silent=silent, force=force)
        if silent:
            return False
        raise ImproperlyConfigured(
            f"The environment variable {variable_name!r} is not set, and as such the configuration could not be loaded. "
            "Please set this variable and make it point to a configuration module."
        )

    def config_from_cmdline(self, arguments: Iterable[str], namespace: str = "celery") -> None:
        """Assign what words like `worker.concurrency=10` say; `.concurrency=10` means the setting of this namespace.

        A value counts as what its setting takes; `key=(list)[1, 2]` gives JSON, `key=(int)1` and its like a type of Python's.
        """
        self.update(dict(_said(word, namespace) for word in arguments))

    def add_defaults(self, values: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Add values that stand above `config_from_object` and below the constructor; a function is called at the load."""
        with self._lock:
            self._added.append(values)
            if self._loaded:
                self._unload()
                self.finalize()

    def override(self, source: str, **values: Any) -> None:
        """Set values that win over everything else in this process; `source` names who said so ("-b", "FILE")."""
        with self._lock:
            _refuse_all([text for text in (self._check(*pair, source) for pair in values.items()) if text])
            self._overrides.update({key: (value, source) for key, value in values.items()})
            self._apply(values, source)

    @contextmanager
    def overridden(self, source: str, **values: Any) -> Iterator[None]:
        """Within the block, set values as `override` does; afterwards, what they were before counts again."""
        before = dict(self._overrides)
        self.override(source, **values)
        try:
            yield
        finally:
            with self._lock:
                self._overrides = before
                if self._loaded:
                    self._unload()
                    self.finalize()

    def source_of(self, key: str) -> str:
        """Return in words where the value of a setting comes from: "-b", "$CELERY_BROKER_URL", "default", ..."""
        self.finalize()
        key = self._canonical(key)
        return self._looked_up(key)[1]

    @property
    def config_source(self) -> Any:
        """What `config_from_object` was given, a module as its name: it can be pickled. None: nothing."""
        if self._source is None:
            return None
        given = self._source.given
        return given.__name__ if isinstance(given, ModuleType) else given

    @property
    def namespace(self) -> str | None:
        return self._namespace

    @property
    def changes(self) -> dict[str, Any]:
        """What constructor, assignments and command line set: with `config_source`, all that a copy in another process needs."""
        return {**self._given, **self._assigned, **{key: value for key, (value, _) in self._overrides.items()}}

    # Loading.

    def finalize(self) -> Settings:
        """Load the settings if they are not; raises ImproperlyConfigured or ImportError when they cannot be."""
        if self._loaded:
            return self
        with self._lock:
            if self._loaded or self._loading:
                return self
            self._loading = True
            try:
                if self._before is not None:
                    before, self._before = self._before, None
                    before()
                explicit, problems = self._gather()
                _refuse_all(problems)
                self._take(explicit)
                self._loaded = True
            finally:
                self._loading = False
            if self._after is not None:
                after, self._after = self._after, None
                after(self)
        return self

    def problems(self) -> list[str]:
        """Return a sentence for each value that a setting cannot have; a broken source raises as at the first read."""
        with self._lock:
            return self._gather()[1]

    def _gather(self) -> tuple[dict[str, tuple[Any, str]], list[str]]:
        """Return every explicit value with its source, and what is wrong with them."""
        explicit = self._read_source()
        for place, added in enumerate(self._added):
            values = self._added[place] = added() if callable(added) else added
            for name, value in values.items():
                explicit[self._known(name, "add_defaults")] = value, "add_defaults"
        if self._source is None:
            _check_spelling(self._raw_names)
        explicit.update((key, (value, "constructor")) for key, value in self._given.items())
        explicit.update((key, (value, "conf")) for key, value in self._assigned.items())
        explicit.update(self._overrides)
        found = (self._check(key, value, source) for key, (value, source) in explicit.items())
        return explicit, [text for text in found if text]

    def _take(self, explicit: dict[str, tuple[Any, str]]) -> None:
        """Make these values the effective ones."""
        values = {key: _own(option.default) for key, option in OPTIONS.items()}
        for key, (value, _) in explicit.items():
            values[key] = _effective(key, value)
        if values["timezone"] is None:
            values["timezone"] = self._from_source("TIME_ZONE", None)  # Django's name
        self._sources = {key: source for key, (_, source) in explicit.items()}
        self.__dict__.clear()
        self.__dict__.update(values)

    def _read_source(self) -> dict[str, tuple[Any, str]]:
        source = self._source
        module = os.environ.get("CELERY_CONFIG_MODULE")
        if source is None and module:
            source = _Source(module, f"{module} ($CELERY_CONFIG_MODULE)")
        if source is not None:
            self._source_object = self._open(source)
        if self._prepare is not None:
            read: dict[str, Callable[[], Any]] = {}
            if source is not None and self._source_object is not None:
                read = _public(self._source_object)
            prepared = self._prepare({name: value() for name, value in read.items()})
            self._source_object, source = prepared, source or _Source(prepared, "prepare_config")
        if source is None or self._source_object is None:
            return {}
        readers = _public(self._source_object)
        self._old_names.update(readers.keys() & TO_NEW.keys())
        if not self._namespace:
            _check_spelling(readers)
        return self._select(readers, source.label)

    def _open(self, source: _Source) -> Any:
        if not isinstance(source.given, str):
            return source.given
        try:
            return _import_source(source)
        except ImportError:
            if source.silent:
                return None
            raise

    def _select(self, readers: dict[str, Callable[[], Any]], label: str) -> dict[str, tuple[Any, str]]:
        """Return the settings among the names of a source; what a module has besides (imports, constants) is no setting."""
        explicit: dict[str, tuple[Any, str]] = {}
        # Old names first: a new one for the same setting wins.
        for name in sorted(readers, key=lambda name: name not in TO_NEW):
            key = self._canonical(name)
            if self._namespace and (name == key or (name in TO_NEW and not name.startswith(_CELERYS))):
                continue  # another program's setting, as in Django's file: S3_BUCKET may be anything there
            if key in OPTIONS:
                explicit[key] = readers[name](), label
            elif self._namespace:
                self._warn_unknown(name, label)
                explicit[key] = readers[name](), label
            elif not name.isupper() or name.startswith("CELERY"):
                self._consider(name, key, readers[name], label, explicit)
        return explicit

    def _consider(
        self, name: str, key: str, read: Callable[[], Any], label: str, explicit: dict[str, tuple[Any, str]]
    ) -> None:
        """Keep an unknown name of a source, unless it only serves the module that holds it."""
        is_mapping, value = isinstance(self._source_object, Mapping), read()
        if not is_mapping and isinstance(value, _CALLABLE):
            return
        explicit[key] = value, label
        if is_mapping or _near(name):
            self._warn_unknown(name, label)

    def _from_source(self, name: str, default: Any) -> Any:
        source = self._source_object
        if isinstance(source, Mapping):
            return source.get(name, default)
        return default if source is None else getattr(source, name, default)

    def _unload(self) -> None:
        self._loaded = False
        self._source_object = None
        self._old_names.clear()
        self.__dict__.clear()

    # Reading.

    def __getattr__(self, name: str) -> Any:
        # Only for what is no attribute yet: before the load, other spellings, names of the source that are no settings.
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            near = _near(name)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise AttributeError(f"There is no setting {name}{hint}") from None

    def __getitem__(self, name: str) -> Any:
        self.finalize()
        key = self._canonical(name)
        if key in _LOOKED:
            return _LOOKED[key](self)
        try:
            return self.__dict__[key]
        except KeyError:
            pass
        if not self._loaded:
            return self._while_loading(key)
        value = self._from_source(name, _NOTHING)
        if value is _NOTHING:
            raise KeyError(name)
        return value

    def _while_loading(self, key: str) -> Any:
        """Return what is known of a setting while the user's module, which may ask for it, is being imported."""
        for values in (self._assigned, self._given):
            if key in values:
                return values[key]
        return _own(OPTIONS[key].default)

    def _looked_up(self, key: str) -> tuple[Any, str]:
        """Return value and source of a setting, with command line and environment."""
        if key in self._overrides:
            return self._overrides[key]
        for variable in _ENVIRONMENT.get(key, ()):
            if os.environ.get(variable):
                return os.environ[variable], f"${variable}"
        value = self.__dict__[key] if self._loaded else self._while_loading(key)
        return value, self._sources.get(key, "default")

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.finalize().__dict__))

    def __len__(self) -> int:
        return len(self.finalize().__dict__)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._canonical(name) in self.finalize().__dict__

    def __bool__(self) -> bool:
        return True

    def first(self, *names: str) -> Any:
        """Return the value of the first of these settings that is not None."""
        return next((value for value in map(self.get, names) if value is not None), None)

    def get_by_parts(self, *parts: str) -> Any:
        """Return the setting whose name has these parts: ("worker", "concurrency")."""
        return self["_".join(part for part in parts if part)]

    def find_value_for_key(self, name: str, namespace: str = "") -> Any:
        """Return a setting by the last part of its name, looked for behind `namespace` first: ("expires", "result").

        Raises KeyError when no setting is called so.
        """
        names = [f"{namespace}_{name}" if namespace else name, name]
        names += [key for key in OPTIONS if key.endswith(f"_{name}")]
        return self[next((key for key in names if key in OPTIONS), name)]

    def without_effect(self, *, is_at_server: bool = False) -> dict[str, str]:
        """Return the settings that were given a value of their own and have no effect here, each with the reason.

        Args:
            is_at_server: whether tasks or results are at a server.
        """
        with_effect = (HONOURED, ADAPTER) if is_at_server else (HONOURED,)
        return {
            key: _why(OPTIONS[key])
            for key, value in self.table(censored=False).items()
            if key in OPTIONS and OPTIONS[key].effect not in with_effect and value != OPTIONS[key].default
        }

    def value_set_for(self, name: str) -> bool:
        """Was this setting given anywhere, rather than left at its default?"""
        return self.source_of(name) != "default"

    # Writing.

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self.update({name: value})

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *args: Any, **values: Any) -> None:
        """Assign many settings; when one of them cannot be, none is, and the error names all such."""
        named = dict(*args, **values)
        with self._lock:
            pairs = {self._known(name, "conf"): value for name, value in named.items()}
            _refuse_all([text for text in (self._check(*pair, "conf") for pair in pairs.items()) if text])
            self._raw_names.update(named)
            self._old_names.update(named.keys() & TO_NEW.keys())
            self._assigned.update(pairs)
            self._apply({key: value for key, value in pairs.items() if key not in self._overrides}, "conf")

    def _apply(self, values: Mapping[str, Any], source: str) -> None:
        """Let changes take effect at once, if the settings are loaded."""
        if self._loaded:
            self.__dict__.update({key: _effective(key, value) for key, value in values.items()})
            self._sources.update(dict.fromkeys(values, source))

    def setdefault(self, name: str, default: Any = None) -> Any:
        """As Celery: before the load this assigns unless it was assigned, and does not load."""
        if self._loaded:
            return super().setdefault(name, default)
        key = self._canonical(name)
        if key not in self._assigned and key not in self._given:
            self[name] = default
        return self.changes[key]

    def pop(self, name: str, *default: Any) -> Any:
        """Take back an assignment and return its value; KeyError when there was none and no default is given."""
        key = self._canonical(name)
        if key not in self._assigned and default:
            return default[0]
        value = self._assigned[key]
        del self[key]
        return value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __delitem__(self, name: str) -> None:
        """Take back an assignment; raises KeyError when there was none."""
        with self._lock:
            del self._assigned[self._canonical(name)]
            self._raw_names.discard(name)
            if self._loaded:
                self._unload()
                self.finalize()

    def clear(self) -> None:
        """Take back all assignments."""
        with self._lock:
            self._assigned.clear()
            self._raw_names.clear()
            if self._loaded:
                self._unload()

    def without_defaults(self) -> dict[str, Any]:
        """Return the settings that somebody has set, as they count."""
        return self.table(with_defaults=False, censored=False)

    def copy(self) -> Settings:
        """Return settings of their own with the same values."""
        twin = Settings(self._given, namespace=self._namespace, mask=self._mask, prepare=self._prepare)
        twin._source, twin._added = self._source, list(self._added)
        twin._assigned, twin._overrides = dict(self._assigned), dict(self._overrides)
        twin._raw_names, twin._warned = set(self._raw_names), set(self._warned)
        return twin

    __copy__ = copy

    # Showing.

    @property
    def deprecated_settings(self) -> set[str]:
        """The old names in use."""
        return set(self.finalize()._old_names)

    def maybe_warn_deprecated_settings(self) -> bool:
        """Emit one warning for each old name in use, naming the new one; return whether there was any."""
        for old in sorted(self.deprecated_settings):
            warnings.warn(
                f"The {old!r} setting is an old name. Use the {TO_NEW[old]} instead", CDeprecationWarning, stacklevel=2
            )
        return bool(self.deprecated_settings)

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Return the settings that were given, or all, by key; secrets as stars when `censored`."""
        self.finalize()
        shown = {
            key: self[key]
            for key in self.__dict__
            if (with_defaults or self.value_set_for(key))
            and (key in OPTIONS or not isinstance(self.__dict__[key], _CALLABLE))
        }
        return self._censor(shown) if censored else shown

    def _censor(self, values: Mapping[Any, Any]) -> dict[Any, Any]:
        return {key: self._censored(key, value) for key, value in values.items()}

    def _censored(self, key: Any, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self._censor(value)
        if not isinstance(key, str):
            return value
        if _SECRET.search(key):
            return _STARS
        if key.lower() in ("broker_url", "broker_read_url", "broker_write_url") or "backend" in key.lower():
            if isinstance(value, (list, tuple)):
                return type(value)(self._censored(key, one) for one in value)
            return self._mask(value) if isinstance(value, str) else value
        return value

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return `table` as text, a line "key: value" for each."""
        return "\n".join(f"{key}: {_pretty(value)}" for key, value in self.table(with_defaults, censored).items())

    def __repr__(self) -> str:
        return f"<Settings: {self.table()!r}>" if self._loaded else "<Settings: not read yet>"

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *OPTIONS})

    # Looked up at each read, because the environment or another setting may decide them.
    broker_url = property(lambda conf: conf["broker_url"])
    broker_read_url = property(lambda conf: conf["broker_read_url"])
    broker_write_url = property(lambda conf: conf["broker_write_url"])
    result_backend = property(lambda conf: conf["result_backend"])
    task_default_exchange = property(lambda conf: conf["task_default_exchange"])
    task_default_routing_key = property(lambda conf: conf["task_default_routing_key"])


def _look(key: str) -> Callable[[Settings], Any]:
    return lambda conf: conf._looked_up(key)[0]


def _look_or(key: str, other: str) -> Callable[[Settings], Any]:
    def look(conf: Settings) -> Any:
        value = conf._looked_up(key)[0]
        return conf[other] if value is None else value

    return look


_NOTHING: Final = object()
_LOOKED: Final[dict[str, Callable[[Settings], Any]]] = {
    "broker_url": _look_or("broker_url", "broker_host"),
    "broker_read_url": _look_or("broker_read_url", "broker_url"),
    "broker_write_url": _look_or("broker_write_url", "broker_url"),
    "result_backend": _look("result_backend"),
    "task_default_exchange": _look_or("task_default_exchange", "task_default_queue"),
    "task_default_routing_key": _look_or("task_default_routing_key", "task_default_queue"),
}


def _why(option: Option) -> str:
    """Return why a setting has no effect, in words."""
    if option.effect == LATER:
        return "this version does not look at it"
    reason = option.meaning.partition("; ")[2]
    if reason:
        return reason
    return (
        "it concerns a server, and tasks and results are in a file"
        if option.effect == ADAPTER
        else "it has no use here"
    )


def _own(default: Any) -> Any:
    return dict(default) if isinstance(default, dict) else default


def _near(name: str) -> list[str]:
    """Return up to three known names that this one may have meant."""
    import difflib  # only after a mistake

    bare = re.sub(r"^(celery|celeryd|celerybeat|litetq)_", "", name.lower())
    if bare in OPTIONS:
        return [bare]
    known = OPTIONS if not name.isupper() else TO_NEW
    return difflib.get_close_matches(name, known, 3, 0.8)


def _pretty(value: Any) -> str:
    """Return a value as Celery prints it."""
    from pprint import pformat  # 6 ms, which only `report` needs to pay

    if isinstance(value, dict):
        return f"\n {pformat(value, 4, 80)[1:]}"
    return f"\n    {pformat(value, width=80)}" if isinstance(value, tuple) else pformat(value, width=50)


def _user_level() -> int:
    """Return the stacklevel at which a warning points to the first caller outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("litetq.", "collections")):
        frame, level = frame.f_back, level + 1
    return level
