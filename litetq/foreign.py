"""Backends that Celery has, and litetq has none of its own for (`s3://`, `mongodb://`, ...): Celery's class is loaded, where it is installed.

Where `celery` means Celery in this program, its class gets an app of Celery's that holds the settings of ours. Where `celery` means
litetq (`install_as_celery`), the module of the backend alone is loaded from the installed Celery, over our `celery.backends.base`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from litetq import address
from litetq.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from litetq.app import LiteTQ

# Scheme -> module and class, and what Celery calls the extra that brings the client of the server.
CELERYS: Final = {
    "arangodb": ("celery.backends.arangodb:ArangoDbBackend", "arangodb"),
    "azureblockblob": ("celery.backends.azureblockblob:AzureBlockBlobBackend", "azureblockblob"),
    "cassandra": ("celery.backends.cassandra:CassandraBackend", "cassandra"),
    "consul": ("celery.backends.consul:ConsulBackend", "consul"),
    "cosmosdbsql": ("celery.backends.cosmosdbsql:CosmosDBSQLBackend", "cosmosdbsql"),
    "couchbase": ("celery.backends.couchbase:CouchbaseBackend", "couchbase"),
    "couchdb": ("celery.backends.couchdb:CouchBackend", "couchdb"),
    "dynamodb": ("celery.backends.dynamodb:DynamoDBBackend", "dynamodb"),
    "elasticsearch": ("celery.backends.elasticsearch:ElasticsearchBackend", "elasticsearch"),
    "gs": ("celery.backends.gcs:GCSBackend", "gcs"),
    "mongodb": ("celery.backends.mongodb:MongoBackend", "mongodb"),
    "mongodb+srv": ("celery.backends.mongodb:MongoBackend", "mongodb"),
    "s3": ("celery.backends.s3:S3Backend", "s3"),
}
_OLD_REPLIES: Final = ("amqp", "amqps", "pyamqp", "librabbitmq")
_OF_DJANGO: Final = ("django-db", "django-cache")
# Settings that mean something else to Celery, or nothing, in an app that only keeps results.
_NOT_MIRRORED: Final = (
    "broker_url",
    "broker_read_url",
    "broker_write_url",
    "result_backend",
    "task_always_eager",
    "imports",
    "include",
)


def class_of(where: address.Address, source: str) -> Any:
    """Return Celery's class for an address.

    Raises ImproperlyConfigured in one sentence, which says what to install or to use instead.
    """
    shown = address.mask(where.text)
    if where.scheme in _OF_DJANGO:
        raise ImproperlyConfigured(
            f"the result backend {shown} (from {source}) is not installed; it comes with the package django-celery-results: "
            "pip install django-celery-results"
        )
    named = CELERYS.get(where.scheme) or CELERYS.get(where.scheme.partition("+")[0])
    if where.scheme in _OLD_REPLIES:
        raise ImproperlyConfigured(
            f"the result backend {shown} (from {source}) is one that Celery has not any more, either: for results that are "
            "messages of the broker, set result_backend to rpc://"
        )
    if named is None:
        raise ImproperlyConfigured(
            f"the result backend {shown} (from {source}) cannot be used: there is no adapter for {where.scheme}://; give the path "
            "of a file, or a URL of redis://, db+postgresql://, db+mysql://, cache+memcached:// or file://"
        )
    place, extra = named
    module, _, name = place.partition(":")
    try:
        return getattr(_module(module), name)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"the result backend {shown} (from {source}) is one of Celery's own, and cannot be loaded ({error}); install it with  "
            f'pip install "litetq[celery]" "celery[{extra}]"'
        ) from error


def _module(name: str) -> Any:
    """Import a module of Celery's; of a Celery that litetq stands in for, this one alone."""
    if not _is_ours(importlib.import_module("celery")):
        return importlib.import_module(name)
    if name in sys.modules:
        return sys.modules[name]
    ours = Path(__file__).parent
    files = (Path(place or ".") / f"{name.replace('.', '/')}.py" for place in sys.path)
    path = next((file for file in files if file.is_file() and ours not in file.resolve().parents), None)
    spec = None if path is None else importlib.util.spec_from_file_location(name, str(path))
    if spec is None or spec.loader is None:
        raise ImportError(f"no installed Celery has {name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_ours(celery: Any) -> bool:
    return str(getattr(getattr(celery, "Celery", None), "__module__", "")).startswith("litetq")


def backend_of(app: LiteTQ, where: address.Address, source: str) -> Any:
    """Return a new backend of Celery's for this address; ImproperlyConfigured as `class_of`, or where the backend refuses it."""
    cls = class_of(where, source)
    celery = sys.modules["celery"]
    owner: Any = app if isinstance(app, celery.Celery) else _mirrored(celery, app, where)
    try:
        return cls(app=owner, url=where.text)
    except Exception as error:
        if type(error).__name__ != "ImproperlyConfigured":
            raise
        raise ImproperlyConfigured(
            f"the result backend {address.mask(where.text)} (from {source}): {' '.join(str(error).split())}"
        ) from error


def _mirrored(celery: Any, app: LiteTQ, where: address.Address) -> Any:
    """Return an app of Celery's with the settings of ours that were given."""
    mirror = celery.Celery(app.main or "litetq", set_as_current=False, fixups=[], backend=where.text)
    known = importlib.import_module("celery.app.defaults").SETTING_KEYS
    conf = app.conf
    mirror.conf.update(
        {name: conf[name] for name in sorted(known) if name not in _NOT_MIRRORED and conf.value_set_for(name)}
    )
    return mirror
