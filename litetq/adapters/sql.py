"""Results in a database (`db+postgresql://`, `db+mysql://`, ...), in Celery's own tables, through SQLAlchemy.

`celery_taskmeta` has a row for each task, `celery_tasksetmeta` one for each saved group. Either of the two, Celery or litetq, makes the
tables where there are none, and adds columns that an older version did not have; values are written by the result serializer.

Chords are asked for (`celery.chord_unlock`), as Celery does with databases.
"""

from __future__ import annotations

import json
import logging
import os
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from litetq import adapters, clock, serialization, states
from litetq.adapters.results import ASKED, Once, PolledWatch, Settings
from litetq.address import mask
from litetq.exceptions import BackendStoreError, ImproperlyConfigured, OperationalError
from litetq.message import SAVED, Record, saved_group

logger = logging.getLogger("celery.result")

AT_ONCE: Final = 500  # ids in one statement; arbitrary, below every database's bound
TRIES: Final = 5  # of making tables, and of adding a row, while others do the same
_TOO_LARGE_FOR_MYSQL: Final = 1153  # more than its max_allowed_packet
TASK_SEQUENCE: Final = "task_id_sequence"
_PICKLE: Final = "application/x-python-serialize"


class Database:
    """An engine of SQLAlchemy, and the tables as they are there."""

    def __init__(self, url: str, settings: Settings) -> None:
        sqlalchemy = adapters.package("sqlalchemy")
        more = settings.more
        self.engine = sqlalchemy.create_engine(url, **_engine_options(more))
        _call_back(more.get("database_engine_callback"), self.engine)
        self.pid = os.getpid()
        self._settings = settings
        self.tasks, self.groups = _tables(sqlalchemy, settings)
        self.columns: frozenset[str] = frozenset()  # of the table of tasks, once they are known

    def prepare(self) -> None:
        """Make the tables and columns that are missing; find out which columns there are."""
        sqlalchemy = adapters.package("sqlalchemy")
        for left in reversed(range(TRIES)):
            try:
                self.tasks.metadata.create_all(self.engine)
                break
            except (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError, sqlalchemy.exc.OperationalError):
                if not left:  # another process makes them, too: each look finds more of them
                    raise
        if self.engine.dialect.supports_sequences and not sqlalchemy.inspect(self.engine).has_sequence(
            TASK_SEQUENCE, schema=self.tasks.schema
        ):
            # Tables that somebody made otherwise, which count their rows themselves.
            self.tasks, self.groups = _tables(sqlalchemy, self._settings, has_sequences=False)
        there = self._columns_there()
        for column in self.tasks.columns:
            if column.name not in there:
                self._add(column)
        self.columns = frozenset(self._columns_there())

    def _columns_there(self) -> set[str]:
        inspector = adapters.package("sqlalchemy").inspect(self.engine)
        return {column["name"] for column in inspector.get_columns(self.tasks.name, schema=self.tasks.schema)}

    def _add(self, column: Any) -> None:
        sqlalchemy = adapters.package("sqlalchemy")
        preparer = self.engine.dialect.identifier_preparer
        statement = (
            f"ALTER TABLE {preparer.format_table(self.tasks)} ADD COLUMN {preparer.quote(column.name)} "
            f"{column.type.compile(self.engine.dialect)}"
        )
        try:
            with self.engine.begin() as connection:
                connection.execute(sqlalchemy.text(statement))
        except sqlalchemy.exc.SQLAlchemyError as error:
            logger.warning("results are kept without the column %s, which cannot be added: %s", column.name, error)


def _engine_options(more: Mapping[str, Any]) -> dict[str, Any]:
    return {"pool_pre_ping": True, **(more.get("database_engine_options") or {})}


def _check_driver(url: str, what: str) -> None:
    """Raise ImproperlyConfigured for a URL that is none, or whose driver is not installed."""
    try:
        adapters.package("sqlalchemy").engine.make_url(url).get_dialect().import_dbapi()
    except ImportError as error:
        raise ImproperlyConfigured(
            f"{what} needs a driver that is not installed ({error}); install it, or name another one, as in "
            "db+postgresql+psycopg:// or db+mysql+pymysql://"
        ) from error
    except adapters.package("sqlalchemy.exc").SQLAlchemyError as error:
        raise ImproperlyConfigured(f"{what} cannot be used: {_reason(error)}") from error


def _call_back(callback: Any, engine: Any) -> None:
    if isinstance(callback, str):
        callback = pkgutil.resolve_name(callback)
    if callback is not None:
        callback(engine)


def _tables(sqlalchemy: Any, settings: Settings, *, has_sequences: bool = True) -> tuple[Any, Any]:
    """Return the two tables, with the types and names that Celery's have."""
    metadata = sqlalchemy.MetaData()
    names = settings.more.get("database_table_names") or {}
    schemas = settings.more.get("database_table_schemas") or {}
    integer = sqlalchemy.Integer().with_variant(sqlalchemy.BigInteger, "mssql")

    def key(sequence: str, schema: str | None) -> Any:
        counted = [sqlalchemy.Sequence(sequence, schema=schema)] if has_sequences else []
        return sqlalchemy.Column("id", integer, *counted, primary_key=True, autoincrement=True)

    def column(name: str, type: Any, **options: Any) -> Any:
        return sqlalchemy.Column(name, type, nullable=True, **options)

    text, blob, moment = sqlalchemy.String(155), sqlalchemy.LargeBinary, sqlalchemy.DateTime
    extended = [
        column("name", text),
        column("args", blob),
        column("kwargs", blob),
        column("worker", text),
        column("retries", sqlalchemy.Integer),
        column("queue", text),
        column("stamps", blob),
    ]
    tasks = sqlalchemy.Table(
        names.get("task") or "celery_taskmeta",
        metadata,
        key(TASK_SEQUENCE, schemas.get("task")),
        column("task_id", text, unique=True),
        column("status", sqlalchemy.String(50)),
        column("result", blob),
        column("date_done", moment, index=True),
        column("traceback", sqlalchemy.Text),
        column("children", blob),
        *(extended if settings.codec.is_extended else ()),
        schema=schemas.get("task"),
    )
    groups = sqlalchemy.Table(
        names.get("group") or "celery_tasksetmeta",
        metadata,
        key("taskset_id_sequence", schemas.get("group")),
        column("taskset_id", text, unique=True),
        column("result", blob),
        column("date_done", moment, index=True),
        schema=schemas.get("group"),
    )
    return tasks, groups


class SqlResults:
    """Results in one database. Connects at the first use; may be used by any number of threads."""

    counting = ASKED
    keeps_parts = False
    is_shared = True
    reply_to = None

    def __init__(self, url: str, settings: Settings) -> None:
        adapters.package("sqlalchemy")
        self._settings = settings
        self._codec = settings.codec
        self.shown = mask(url)
        plain = url.partition("+")[2]
        _check_driver(plain, f"the result backend {self.shown}")
        self._database = Once(lambda: Database(plain, settings))

    def _open(self) -> Database:
        found: Database = self._database()
        if found.pid != os.getpid():  # after a fork: connections are the parent's
            found.engine.dispose(close=False)
            found.pid = os.getpid()
        if not found.columns:
            found.prepare()
        return found

    def _do(self, what: str, command: Any) -> Any:
        """Return what a command answers, which is given the tables and a connection in a transaction.

        Raises OperationalError where the database is away, BackendStoreError where it refuses a value.
        """
        errors = adapters.package("sqlalchemy.exc")
        try:
            database = self._open()
            with database.engine.begin() as connection:
                return command(database, connection)
        except (errors.SQLAlchemyError, OSError) as error:
            if _is_refusal(error):
                raise BackendStoreError(f"{what} failed: {self.shown} refuses it ({_reason(error)})") from error
            raise OperationalError(
                f"{what} failed: {self.shown} did not do it ({_reason(error)}); is it running?"
            ) from error

    def close(self) -> None:
        database = self._database.drop()
        if database is not None and database.pid == os.getpid():
            database.engine.dispose()

    # -- results

    def read_many(self, ids: Sequence[str]) -> dict[str, Record]:
        groups = {group: id for id in ids if (group := saved_group(id)) is not None}
        tasks = [id for id in ids if saved_group(id) is None]
        found: dict[str, Record] = {}
        if ids:
            self._do(
                "Reading results", lambda database, connection: self._read(database, connection, tasks, groups, found)
            )
        return found

    def _read(
        self, database: Database, connection: Any, tasks: list[str], groups: dict[str, str], found: dict[str, Record]
    ) -> None:
        select = adapters.package("sqlalchemy").select
        for start in range(0, len(tasks), AT_ONCE):
            table = database.tasks
            wanted = [column for column in table.columns if column.name in database.columns]
            rows = connection.execute(select(*wanted).where(table.c.task_id.in_(tasks[start : start + AT_ONCE])))
            for row in rows.mappings():
                found[row["task_id"]] = self._record(row)
        for group, id in groups.items():
            data = connection.execute(
                select(database.groups.c.result).where(database.groups.c.taskset_id == group)
            ).scalar()
            if data is not None:
                value = self._load(data)
                described = value.as_tuple() if hasattr(value, "as_tuple") else value
                found[id] = Record(id, SAVED, "DONE", json.dumps(described).encode())

    def _record(self, row: Mapping[str, Any]) -> Record:
        meta = {
            name: row[name]
            for name in ("status", "traceback", "date_done", "name", "worker", "retries", "queue")
            if name in row
        }
        meta["result"] = self._load(row["result"])
        meta["children"] = self._load(row.get("children"))
        stamps = self._load(row.get("stamps"))
        if isinstance(stamps, dict) and stamps.get("stamped_headers"):
            meta.update(stamps.get("stamps") or {}, stamped_headers=stamps["stamped_headers"])
        meta.update(args=self._load(row.get("args")), kwargs=self._load(row.get("kwargs")))
        return self._codec.record(row["task_id"], meta)

    def _load(self, data: Any) -> Any:
        """Return what a column of bytes holds. Results of old versions of Celery are pickled, whatever the serializer."""
        if data is None:
            return None
        data = bytes(data)
        if data[:1] == b"\x80" and self._codec.content_type != _PICKLE:
            return serialization.decode(data, _PICKLE, self._codec.accept)
        return self._codec.load(data)

    def write(self, record: Record, *, is_newest: bool = False) -> None:
        what = f"Storing the result of task {record.id}"
        if record.state == SAVED:
            self._do(what, lambda database, connection: self._write_group(database, connection, record))
            return
        values = self._values(record)
        for left in reversed(range(TRIES)):
            try:
                self._do(
                    what,
                    lambda database, connection: self._write_task(database, connection, record, values, is_newest),
                )
                return
            except BackendStoreError as error:
                # Another process has added the row meanwhile: it is there now.
                cause = error.__cause__
                if not left or not isinstance(cause, adapters.package("sqlalchemy.exc").IntegrityError):
                    raise

    def _values(self, record: Record) -> dict[str, Any]:
        meta = self._codec.meta(record)
        values = {name: meta.get(name) for name in ("status", "traceback")}
        values["result"] = self._codec.dump(meta["result"])
        values["date_done"] = None if record.done_at is None else _naive(record.done_at)
        values["children"] = self._codec.dump(meta["children"]) if meta["children"] else None
        if self._codec.is_extended:
            values.update({name: meta.get(name) for name in ("name", "worker", "retries", "queue")})
            for name in ("args", "kwargs"):
                values[name] = self._codec.dump(meta.get(name)) if name in meta else None
            stamped = meta.get("stamped_headers")
            stamps = {
                "stamped_headers": stamped,
                "stamps": {name: meta[name] for name in stamped or () if name in meta},
            }
            values["stamps"] = self._codec.dump(stamps) if stamped else None
        return values

    def _write_task(
        self, database: Database, connection: Any, record: Record, values: dict[str, Any], is_newest: bool
    ) -> None:
        select = adapters.package("sqlalchemy").select
        table = database.tasks
        is_it = table.c.task_id == record.id
        known = {name: value for name, value in values.items() if name in database.columns}
        # Looked for without a lock first: MySQL would lock the gap where no row is, and two who add rows would wait for each other.
        if connection.execute(select(table.c.status).where(is_it)).first() is None:
            connection.execute(table.insert().values(task_id=record.id, **known))
            return
        [status] = connection.execute(select(table.c.status).where(is_it).with_for_update()).first() or [None]
        if status != states.SUCCESS or is_newest:
            connection.execute(table.update().where(is_it).values(**known))

    def _write_group(self, database: Database, connection: Any, record: Record) -> None:
        group, table = saved_group(record.id), database.groups
        data = self._codec.dump(json.loads(record.result or b"null"))
        connection.execute(table.delete().where(table.c.taskset_id == group))
        connection.execute(table.insert().values(taskset_id=group, result=data, date_done=_naive(clock.now())))

    def forget(self, ids: Iterable[str]) -> int:
        ids = list(ids)
        tasks = [id for id in ids if saved_group(id) is None]
        groups = [group for id in ids if (group := saved_group(id)) is not None]

        def command(database: Database, connection: Any) -> int:
            count = 0
            for table, column, wanted in (
                (database.tasks, database.tasks.c.task_id, tasks),
                (database.groups, database.groups.c.taskset_id, groups),
            ):
                for start in range(0, len(wanted), AT_ONCE):
                    where = column.in_(wanted[start : start + AT_ONCE])
                    count += connection.execute(table.delete().where(where)).rowcount
            return count

        forgotten: int = self._do("Forgetting results", command) if ids else 0
        return forgotten

    def watch(self) -> PolledWatch:
        return PolledWatch()

    def cleanup(self) -> int:
        """Remove what is older than `result_expires`; return how many rows."""
        seconds = self._settings.expires
        if not seconds:
            return 0
        before = _naive(clock.now()) - timedelta(seconds=seconds)

        def command(database: Database, connection: Any) -> int:
            return sum(
                connection.execute(table.delete().where(table.c.date_done < before)).rowcount
                for table in (database.tasks, database.groups)
            )

        removed: int = self._do("Removing expired results", command)
        return removed


def _naive(at: float) -> datetime:
    """Return a point in time as Celery's columns have it: UTC, without saying so."""
    return datetime.fromtimestamp(at, timezone.utc).replace(tzinfo=None)


def _is_refusal(error: BaseException) -> bool:
    """Return whether it is the value that a database will never take, rather than the database that is away."""
    errors = adapters.package("sqlalchemy.exc")
    if isinstance(error, errors.OperationalError):
        return bool((getattr(error.orig, "args", None) or [None])[0] == _TOO_LARGE_FOR_MYSQL)
    if isinstance(error, errors.StatementError) and not isinstance(error, errors.DBAPIError):
        return True  # it was not even sent
    return isinstance(error, (errors.DataError, errors.IntegrityError, errors.NotSupportedError))


def _reason(error: BaseException) -> str:
    """Return what a database said, on one line, without the statement and its values."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
