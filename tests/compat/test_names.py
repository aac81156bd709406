"""Every name that programs and packages take from Celery is there, and is the object that runs; or it is listed as missing."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from typing import Any

import pytest

from docs import celery_names
from litetq import conf
from litetq.exceptions import ImproperlyConfigured
from tests.conftest import RunPython

# What tools replace, subclass or compare: the very objects of litetq.
SAME = {
    "celery:Celery": "litetq.app:LiteTQ",
    "celery:Task": "litetq.task:Task",
    "celery:shared_task": "litetq.app:shared_task",
    "celery:current_app": "litetq:current_app",
    "celery:current_task": "litetq:current_task",
    "celery:chain": "litetq.canvas:chain",
    "celery.app:Celery": "litetq.app:LiteTQ",
    "celery.app.base:Celery": "litetq.app:LiteTQ",
    "celery.app.control:Control": "litetq.control:Control",
    "celery.app.control:Inspect": "litetq.control:Inspect",
    "celery.app.log:TaskFormatter": "litetq.log:TaskFormatter",
    "celery.app.registry:TaskRegistry": "litetq.app:TaskRegistry",
    "celery.app.task:Context": "litetq.context:Context",
    "celery.app.task:Task": "litetq.task:Task",
    "celery.app.utils:Settings": "litetq.conf:Settings",
    "celery.beat:Scheduler": "litetq.beat:Scheduler",
    "celery.beat:Service": "litetq.beat:Service",
    "celery.bootsteps:StartStopStep": "litetq.steps:StartStopStep",
    "celery.canvas:Signature": "litetq.canvas:Signature",
    "celery.canvas:_chain": "litetq.canvas:chain",
    "celery.events.state:State": "litetq.events:State",
    "celery.events:EventReceiver": "litetq.events:EventReceiver",
    "celery.exceptions:OperationalError": "litetq.exceptions:OperationalError",
    "celery.exceptions:SoftTimeLimitExceeded": "litetq.exceptions:SoftTimeLimitExceeded",
    "celery.loaders.base:BaseLoader": "litetq.parts:Loader",
    "celery.result:AsyncResult": "litetq.result:AsyncResult",
    "celery.schedules:crontab": "litetq.schedules:crontab",
    "celery.signals:task_prerun": "litetq.signals:task_prerun",
    "celery.states:SUCCESS": "litetq.states:SUCCESS",
    "celery.utils.dispatch:Signal": "litetq.signals:Signal",
    "celery.utils.log:get_task_logger": "litetq.log:get_task_logger",
    "celery.worker.consumer:Consumer": "litetq.worker:Worker",
    "celery.worker.control:control_command": "litetq.panel:control_command",
    "celery.worker.request:Request": "litetq.parts:Request",
    "celery.worker:WorkController": "litetq.worker:Worker",
    "kombu.exceptions:OperationalError": "litetq.exceptions:OperationalError",
    "billiard.exceptions:TimeLimitExceeded": "litetq.exceptions:TimeLimitExceeded",
    "billiard.einfo:ExceptionInfo": "litetq.execution:ExceptionInfo",
}


def resolved(module: str, name: str) -> Any:
    """Return what `from module import name` gives."""
    return celery_names.resolve(celery_names.Name(0, module, name))


def does_nothing(value: Any) -> bool:
    """Return whether a function has no statement but its docstring, `pass` and the return of a constant."""
    if not inspect.isfunction(value):
        return False
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    return all(
        isinstance(each, ast.Pass)
        or (isinstance(each, ast.Expr | ast.Return) and isinstance(each.value, ast.Constant | None))
        for each in getattr(function, "body", [function])
    )


@pytest.mark.parametrize("name", celery_names.names(), ids=lambda name: name.path)
def test_a_name_that_programs_use_is_there_and_does_something_or_is_listed(
    alias: None, name: celery_names.Name
) -> None:
    """A name that resolves and does nothing counts as missing, unless the page says that this is so."""
    if celery_names.why_missing(name) is None:
        assert not does_nothing(celery_names.resolve(name)) or name.path in celery_names.LESS
        return
    assert name.tier == 3, "what is widely used is there"
    with pytest.raises(ModuleNotFoundError) as raised:
        celery_names.resolve(name)
    assert raised.value.name is not None and f"{name.module}.{name.name}".startswith(raised.value.name)


# Of kombu, billiard and vine; what the packages and applications take from them.
OF_THE_STAND_INS = """
kombu: Connection Consumer Exchange Producer Queue uuid common connection entity exceptions message pools serialization utils
kombu.asynchronous.timer: Timer to_timestamp
kombu.common: Broadcast
kombu.exceptions: ChannelError ConnectionError DecodeError EncodeError OperationalError
kombu.message: Message
kombu.mixins: ConsumerMixin
kombu.pools: connections producers
kombu.serialization: dumps loads register registry
kombu.utils: cached_property symbol_by_name uuid
kombu.utils.compat: register_after_fork
kombu.utils.encoding: bytes_to_str safe_repr safe_str
kombu.utils.json: dumps loads register_type
kombu.utils.objects: cached_property
kombu.utils.url: maybe_sanitize_url
kombu.utils.uuid: uuid
billiard: VERSION einfo exceptions pool Process Queue cpu_count current_process
billiard.einfo: ExceptionInfo ExceptionWithTraceback
billiard.exceptions: SoftTimeLimitExceeded Terminated TimeLimitExceeded WorkerLostError
billiard.pool: Pool Worker
billiard.process: current_process
vine: promise
"""


@pytest.mark.parametrize("line", OF_THE_STAND_INS.strip().splitlines(), ids=lambda line: line.partition(":")[0])
def test_stand_ins_have_the_names_that_packages_take_from_them(alias: None, line: str) -> None:
    module, _, wanted = line.partition(":")
    found = importlib.import_module(module)
    assert [name for name in wanted.split() if not hasattr(found, name)] == []
    assert not hasattr(found, "nosuch")


def test_a_stand_in_that_is_asked_for_a_broker_says_what_to_install(alias: None) -> None:
    kombu = importlib.import_module("kombu")
    for ask in (
        lambda: kombu.Connection("amqp://host").connect(),
        lambda: kombu.Producer().publish("x"),
        lambda: kombu.pools.producers[kombu.Connection("amqp://host")],
        lambda: kombu.message.Message("x").ack(),
        importlib.import_module("kombu.mixins").ConsumerMixin().run,
    ):
        with pytest.raises(ImproperlyConfigured, match="pip install kombu"):
            ask()


def test_what_is_said_of_names_is_said_of_names_that_are_listed() -> None:
    known = {name.path for name in celery_names.names()} | {name.module for name in celery_names.names()}
    assert {*celery_names.MISSING, *celery_names.LESS} <= known


@pytest.mark.parametrize(("path", "ours"), SAME.items())
def test_it_is_the_object_that_runs(alias: None, path: str, ours: str) -> None:
    module, _, name = path.partition(":")
    assert resolved(module, name) is pkgutil.resolve_name(ours)


@pytest.mark.parametrize(
    "name", ["celery.task", "celery.five", "celery.nosuch", "celery.utils.nosuch", "celery.decorators"]
)
def test_what_celery_5_does_not_have_is_a_module_not_found(alias: None, name: str) -> None:
    with pytest.raises(ModuleNotFoundError) as raised:
        importlib.import_module(name)
    assert raised.value.name == name


def test_every_module_below_celery_can_be_imported(alias: None) -> None:
    celery = importlib.import_module("celery")
    names = [
        found.name for found in pkgutil.walk_packages(celery.__path__, "celery.") if not found.name.endswith("__main__")
    ]
    assert len(names) > 80
    for name in names:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            assert hasattr(module, public), f"{name}.{public}"


ATTRIBUTES = """
import litetq

litetq.install_as_celery()
import celery

celery.Celery("attributes", broker="memory://")
print(celery.app.base.Celery, celery.app.registry.TaskRegistry, celery.fixups.django.fixup, celery.worker.state)
print(celery.utils.time.timezone, celery.utils.text.truncate, celery.utils.objects.mro_lookup)
print([hasattr(celery.app, "nosuch"), hasattr(celery.utils, "nosuch"), hasattr(celery.worker, "nosuch")])
"""


def test_modules_that_an_app_brings_along_are_attributes_without_an_import_of_their_own(run_python: RunPython) -> None:
    """Those that Celery 5.7 has after `import celery; celery.Celery()`."""
    process = run_python(ATTRIBUTES)
    output, errors = process.communicate(timeout=30)
    assert "[False, False, False]" in output, errors


def test_the_defaults_are_those_of_the_settings(alias: None) -> None:
    from celery.app.defaults import DEFAULT_TASK_LOG_FMT  # type: ignore[import-not-found]

    assert DEFAULT_TASK_LOG_FMT == conf.OPTIONS["worker_task_log_format"].default
