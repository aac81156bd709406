"""Settings: where values come from, both spellings, what is refused and what is only warned about, and how they are shown."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from litetq.conf import OPTIONS, TO_NEW, Settings
from litetq.exceptions import CDeprecationWarning, CeleryWarning, ImproperlyConfigured


@pytest.fixture(autouse=True)
def no_module_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def module(tmp_path: Path, text: str, name: str = "celeryconfig") -> None:
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")


def from_source(source: Any, **kwargs: Any) -> Settings:
    conf = Settings()
    conf.config_from_object(source, **kwargs)
    return conf


# -- defaults and access


def test_every_documented_key_of_celery_and_our_own_are_there() -> None:
    celerys = [key for key in OPTIONS if not key.startswith("litetq_")]
    assert len(celerys) == 232
    conf = Settings()
    assert {key: conf[key] for key in ("task_serializer", "worker_prefetch_multiplier", "result_expires")} == {
        "task_serializer": "json",
        "worker_prefetch_multiplier": 4,
        "result_expires": timedelta(days=1),
    }
    assert (conf.litetq_durability, conf.litetq_busy_timeout, conf.litetq_lease) == ("normal", 30.0, 30.0)
    assert (conf.litetq_silence_bound, conf.litetq_redelivery_bound) == (300.0, 5)


def test_a_setting_is_an_attribute_and_an_item() -> None:
    conf = Settings({"task_serializer": "pickle"})
    assert conf.task_serializer == conf["task_serializer"] == conf.get("task_serializer") == "pickle"
    assert "task_serializer" in conf and "nobody" not in conf
    assert conf.get("nobody", 5) == 5
    assert dict(conf)["task_serializer"] == "pickle" and len(conf) >= 236


def test_a_setting_that_nobody_knows_is_no_attribute_and_no_item() -> None:
    conf = Settings()
    with pytest.raises(AttributeError, match="did you mean task_serializer"):
        _ = conf.task_serialiser
    with pytest.raises(KeyError):
        conf["nobody"]
    assert not hasattr(conf, "_repr_html_")


def test_defaults_are_not_shared_between_apps() -> None:
    one, other = Settings(), Settings()
    one.beat_schedule["x"] = 1
    assert other.beat_schedule == {}


def test_a_setting_once_read_is_a_plain_attribute() -> None:
    conf = Settings()
    assert conf.task_serializer == "json"
    assert conf.__dict__["task_serializer"] == "json"


# -- laziness


def test_nothing_is_imported_before_the_first_read(tmp_path: Path) -> None:
    module(tmp_path, "open('imported', 'w').close()\ntimezone = 'Europe/Oslo'")
    conf = from_source("celeryconfig")
    conf.task_serializer = "pickle"
    assert not (tmp_path / "imported").exists()
    assert conf.timezone == "Europe/Oslo" and conf.task_serializer == "pickle"


def test_a_config_module_may_ask_for_settings_while_it_is_read(tmp_path: Path) -> None:
    module(tmp_path, "import holder\ntask_serializer = 'pickle' if holder.conf.timezone == 'UTC' else 'yaml'")
    holder: Any = ModuleType("holder")
    holder.conf = Settings({"timezone": "UTC"})
    sys.modules["holder"] = holder
    try:
        holder.conf.config_from_object("celeryconfig")
        assert holder.conf.task_serializer == "pickle"
    finally:
        del sys.modules["holder"]


def test_late_defaults_may_ask_for_settings() -> None:
    conf = Settings({"task_default_queue": "work"})
    conf.add_defaults(lambda: {"task_routes": {"*": conf.task_default_queue}})
    assert conf.task_routes == {"*": "work"}


def test_many_threads_reading_at_once_load_once(tmp_path: Path) -> None:
    module(tmp_path, "open('count', 'a').write('x')\ntask_serializer = 'pickle'")
    conf = from_source("celeryconfig")
    start, seen = threading.Barrier(8), []

    def read() -> None:
        start.wait()
        seen.append(conf.task_serializer)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["pickle"] * 8 and (tmp_path / "count").read_text() == "x"


def test_hooks_run_around_the_first_load_once() -> None:
    order: list[str] = []

    def before() -> None:
        order.append("before")
        conf.task_serializer = "yaml"

    conf = Settings(before=before, after=lambda made: order.append(f"after {made.task_serializer}"))
    assert order == []
    assert conf.task_serializer == "yaml"
    conf.add_defaults({"timezone": "UTC"})
    assert conf.timezone == "UTC" and order == ["before", "after yaml"]


# -- sources


SOURCE = "task_serializer = 'pickle'\nimports = ('myapp.tasks',)\nimport os\nhelper = lambda: 1\n_private = 2\n"


def test_a_source_is_a_module_by_name(tmp_path: Path) -> None:
    module(tmp_path, SOURCE)
    conf = from_source("celeryconfig")
    assert (conf.task_serializer, conf.imports) == ("pickle", ("myapp.tasks",))
    assert conf.source_of("task_serializer") == "celeryconfig"


def test_a_source_is_a_dotted_module_of_a_package(tmp_path: Path) -> None:
    (tmp_path / "proj").mkdir()
    (tmp_path / "proj" / "__init__.py").touch()
    module(tmp_path / "proj", SOURCE)
    assert from_source("proj.celeryconfig").task_serializer == "pickle"


def test_a_source_is_an_attribute_of_a_module(tmp_path: Path) -> None:
    module(tmp_path, "class Config:\n    task_serializer = 'pickle'\n", "settings")
    assert from_source("settings:Config").task_serializer == "pickle"
    assert from_source("settings.Config").task_serializer == "pickle"


@pytest.mark.row("1.config_from_object")
def test_a_source_is_a_module_a_class_an_instance_or_a_dictionary() -> None:
    class Base:
        task_serializer = "pickle"

    class Config(Base):
        timezone = "UTC"

    made = ModuleType("made")
    made.task_serializer = "pickle"  # type: ignore[attr-defined]
    for source in (made, Config, Config(), SimpleNamespace(task_serializer="pickle"), {"task_serializer": "pickle"}):
        assert from_source(source).task_serializer == "pickle"


def test_a_module_as_source_can_be_told_to_another_process_by_name() -> None:
    made = ModuleType("made")
    assert from_source(made).config_source == "made"
    assert from_source("named").config_source == "named"


def test_a_missing_module_is_an_import_error_at_the_first_read() -> None:
    conf = from_source("nosuchconfig")
    with pytest.raises(ImportError, match="'nosuchconfig' cannot be found"):
        _ = conf.timezone
    with pytest.raises(ImportError, match="'celeryconfig'"):
        _ = from_source("celeryconfig.py").timezone
    assert from_source("nosuchconfig", silent=True).timezone is None


def test_a_missing_attribute_of_a_module_is_an_import_error(tmp_path: Path) -> None:
    module(tmp_path, SOURCE)
    with pytest.raises(ImportError, match="has no attribute Nobody"):
        _ = from_source("celeryconfig:Nobody").timezone


def test_an_error_inside_a_config_module_is_shown_as_it_is(tmp_path: Path) -> None:
    module(tmp_path, "import nosuchmodule_inside", "one")
    module(tmp_path, "this is no python", "two")
    module(tmp_path, "int.nothing", "three")
    with pytest.raises(ImportError, match="nosuchmodule_inside"):
        _ = from_source("one").timezone
    with pytest.raises(SyntaxError):
        _ = from_source("two").timezone
    with pytest.raises(ImproperlyConfigured, match="nothing"):
        _ = from_source("three").timezone


def test_force_reads_at_once(tmp_path: Path) -> None:
    conf = Settings()
    with pytest.raises(ImportError):
        conf.config_from_object("nosuchconfig", force=True)
    assert conf.config_from_object("nosuchconfig", force=True, silent=True) is False


@pytest.mark.row("1.config_from_envvar")
def test_an_environment_variable_can_name_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(tmp_path, SOURCE)
    conf = Settings()
    with pytest.raises(ImproperlyConfigured, match="'MY_CONFIG' is not set"):
        conf.config_from_envvar("MY_CONFIG")
    assert conf.config_from_envvar("MY_CONFIG", silent=True) is False
    monkeypatch.setenv("MY_CONFIG", "celeryconfig")
    assert conf.config_from_envvar("MY_CONFIG") is True
    assert conf.task_serializer == "pickle"
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "celeryconfig")
    assert Settings().task_serializer == "pickle"


def test_a_namespace_is_the_prefix_of_the_settings_in_upper_case() -> None:
    source = SimpleNamespace(
        CELERY_TASK_SERIALIZER="pickle",
        CELERY_BEAT_SCHEDULE={"a": {}},
        CELERY_RESULT_BACKEND="rpc",
        CELERYD_MAX_TASKS_PER_CHILD=10,  # an old name counts under a namespace too
        timezone="Europe/Oslo",  # neither prefixed nor upper: not ours
        S3_BUCKET={"not": "a text"},  # another program's
        TIME_ZONE="Asia/Shanghai",
        DEBUG=True,
    )
    conf = from_source(source, namespace="CELERY")
    assert (conf.task_serializer, conf.beat_schedule, conf.result_backend) == ("pickle", {"a": {}}, "rpc")
    assert (conf.worker_max_tasks_per_child, conf.timezone) == (10, "Asia/Shanghai")
    assert conf.s3_bucket is None and conf.DEBUG is True and conf.namespace == "CELERY"


# -- who wins


def test_a_later_place_wins_over_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    conf = Settings({"include": ["constructor"], "broker_url": "constructor"})
    conf.config_from_object({"broker_url": "file", "timezone": "file", "task_serializer": "file", "include": ["file"]})
    conf.add_defaults(lambda: {"timezone": "default", "task_serializer": "default", "include": ["default"]})
    conf.task_serializer = "conf"
    assert (conf.include, conf.timezone, conf.task_serializer) == (["constructor"], "default", "conf")
    assert [conf.source_of(key) for key in ("include", "timezone", "task_serializer", "result_backend")] == [
        *("constructor", "add_defaults", "conf", "default")
    ]
    assert (conf.broker_url, conf.source_of("broker_url")) == ("constructor", "constructor")
    monkeypatch.setenv("CELERY_BROKER_URL", "celery")
    assert (conf.broker_url, conf.source_of("broker_url")) == ("celery", "$CELERY_BROKER_URL")
    monkeypatch.setenv("LITETQ_BROKER", "ours")
    assert (conf.broker_url, conf["broker_url"], conf.source_of("broker_url")) == ("ours", "ours", "$LITETQ_BROKER")
    conf.override("-b", broker_url="command line")
    assert (conf.broker_url, conf.source_of("broker_url")) == ("command line", "-b")
    conf.broker_url = "late"
    assert conf.broker_url == "command line"
    conf.override("-c", worker_concurrency=2)
    conf.worker_concurrency = 9
    assert (conf.worker_concurrency, conf.source_of("worker_concurrency")) == (2, "-c")


def test_config_from_object_makes_earlier_assignments_void_and_says_so() -> None:
    conf = Settings({"broker_url": "constructor"})
    conf.task_serializer = "pickle"
    with pytest.warns(CeleryWarning, match="makes void what was assigned to conf before it: task_serializer"):
        conf.config_from_object({"timezone": "UTC"})
    conf.result_serializer = "yaml"
    assert (conf.task_serializer, conf.broker_url, conf.timezone) == ("json", "constructor", "UTC")
    assert conf.result_serializer == "yaml"


def test_config_from_object_after_a_read_reads_again() -> None:
    conf = from_source({"timezone": "UTC"})
    assert conf.timezone == "UTC"
    conf.config_from_object({"task_serializer": "yaml"})
    assert (conf.timezone, conf.task_serializer) == (None, "yaml")


@pytest.mark.row("1.conf.update")
def test_an_assignment_is_seen_at_once_and_can_be_taken_back() -> None:
    conf = from_source({"timezone": "UTC"})
    conf.timezone = "Europe/Oslo"
    assert conf.timezone == "Europe/Oslo"
    del conf.timezone
    assert conf.timezone == "UTC"
    conf.update(timezone="x", task_serializer="y")
    assert conf.pop("timezone") == "x" and conf.pop("timezone", "gone") == "gone"
    conf.clear()
    assert (conf.timezone, conf.task_serializer) == ("UTC", "json")


def test_reading_and_writing_urls_fall_back_to_the_broker() -> None:
    conf = Settings({"broker_url": "jobs.sqlite"})
    assert conf.broker_read_url == conf.broker_write_url == "jobs.sqlite"
    conf.task_default_queue = "work"
    assert conf.task_default_exchange == conf.task_default_routing_key == "work"
    conf.broker_read_url = "other.sqlite"
    assert conf.broker_read_url == "other.sqlite"


def test_a_copy_has_the_same_values_and_its_own_changes() -> None:
    conf = Settings({"include": ["a"]})
    conf.timezone = "UTC"
    twin = conf.copy()
    twin.timezone = "Europe/Oslo"
    assert (conf.timezone, twin.timezone, twin.include) == ("UTC", "Europe/Oslo", ["a"])
    assert conf.changes == {"include": ["a"], "timezone": "UTC"}


# -- spellings


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BROKER_URL", "broker_url"),
        ("CELERY_RESULT_BACKEND", "result_backend"),
        ("CELERY_TIMEZONE", "timezone"),
        ("CELERY_IMPORTS", "imports"),
        ("CELERYBEAT_SCHEDULE", "beat_schedule"),
        ("CELERYD_MAX_TASKS_PER_CHILD", "worker_max_tasks_per_child"),
        ("CELERYD_LOG_FILE", "worker_logfile"),
        ("CELERYBEAT_LOG_FILE", "beat_logfile"),
        ("CELERY_TASK_RESULT_EXPIRES", "result_expires"),
        ("CELERY_ALWAYS_EAGER", "task_always_eager"),
        ("CELERY_SEND_EVENTS", "worker_send_task_events"),
        ("CELERYD_TASK_TIME_LIMIT", "task_time_limit"),
        ("CELERY_ROUTES", "task_routes"),
    ],
)
def test_an_old_name_is_the_same_setting(old: str, new: str) -> None:
    assert TO_NEW[old] == new
    conf = Settings()
    value: Any = {"mapping": {"a": 1}, "flag": True, "integer": 3, "seconds": 3, "names": ("a",)}.get(
        OPTIONS[new].kind, "x"
    )
    setattr(conf, old, value)
    assert conf[new] == conf[old] == getattr(conf, old) == value


def test_old_names_in_use_are_warned_about_with_the_new_ones() -> None:
    conf = from_source({"CELERY_TIMEZONE": "UTC"})
    assert conf.deprecated_settings == {"CELERY_TIMEZONE"}
    with pytest.warns(CDeprecationWarning, match="'CELERY_TIMEZONE'.*Use the timezone instead"):
        assert conf.maybe_warn_deprecated_settings() is True
    assert Settings().maybe_warn_deprecated_settings() is False


@pytest.mark.parametrize(
    ("source", "renames"),
    [
        (
            {"task_serializer": "json", "result_expires": 1, "CELERY_TIMEZONE": "UTC"},
            ["CELERY_TIMEZONE                      -> timezone"],
        ),
        (
            {"CELERY_TASK_SERIALIZER": "json", "CELERY_TIMEZONE": "UTC", "result_expires": 1},
            ["result_expires                       -> CELERY_TASK_RESULT_EXPIRES", "change all of the settings"],
        ),
        (
            {"timezone": "UTC", "CELERY_TASK_SERIALIZER": "json"},
            ["CELERY_TASK_SERIALIZER               -> task_serializer"],
        ),
    ],
)
def test_mixed_spellings_are_refused_with_renames_for_the_smaller_group(source: Any, renames: list[str]) -> None:
    for conf in (from_source(source), from_source(SimpleNamespace(**source)), Settings()):
        if conf.config_source is None:
            conf.update(source)
        with pytest.raises(ImproperlyConfigured, match="Cannot mix new") as caught:
            _ = conf.timezone
        assert all(line in str(caught.value) for line in renames)


def test_one_setting_in_both_spellings_is_allowed() -> None:
    conf = from_source({"timezone": "UTC", "CELERY_TIMEZONE": "old", "result_expires": 1})
    assert conf.timezone == "UTC"


def test_constructor_values_do_not_count_as_mixing() -> None:
    conf = Settings({"broker_url": "x", "include": ["a"]})
    conf.config_from_object({"CELERY_TIMEZONE": "UTC"})
    assert conf.timezone == "UTC"


# -- unknown names


def test_an_unknown_name_is_kept_with_a_warning_that_shows_the_near_one() -> None:
    conf = Settings()
    with pytest.warns(CeleryWarning, match=r"celery_broker_url.*did you mean broker_url\?") as caught:
        conf.celery_broker_url = "x"
    assert caught[0].filename == __file__
    assert conf.celery_broker_url == "x" and conf.broker_url is None
    with pytest.warns(CeleryWarning, match="redbeat_redis_url"):
        Settings({"redbeat_redis_url": "x"})


def test_a_source_is_warned_about_only_where_a_name_looks_like_a_setting(tmp_path: Path) -> None:
    module(tmp_path, "task_serialiser = 'json'\nCELERY_BROKER_URL = 'x'\nmy_helper_value = 5\nDEBUG = True\n")
    with pytest.warns(CeleryWarning) as caught:
        assert from_source("celeryconfig").my_helper_value == 5
    assert sorted(str(warning.message).split()[2] for warning in caught) == ["CELERY_BROKER_URL", "task_serialiser"]


def test_each_unknown_name_is_warned_about_once() -> None:
    conf = Settings()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        conf.nobody_knows = 1
        conf.nobody_knows = 2
    assert len(caught) == 1 and conf.nobody_knows == 2


# -- values


@pytest.mark.parametrize(
    ("key", "given", "taken"),
    [
        ("worker_max_tasks_per_child", "10", 10),
        ("task_time_limit", "1.5", 1.5),
        ("task_time_limit", 30, 30),
        ("result_expires", timedelta(hours=1), timedelta(hours=1)),
        ("result_expires", None, None),
        ("task_always_eager", "true", True),
        ("task_always_eager", 0, False),
        ("imports", "myapp.tasks", ("myapp.tasks",)),
        ("accept_content", {"json"}, {"json"}),
        ("task_default_rate_limit", "10/m", "10/m"),
        ("task_routes", [("a", "b")], [("a", "b")]),
        ("worker_concurrency", "auto", "auto"),
        ("litetq_durability", "full", "full"),
        ("redis_port", "not ours to judge", "not ours to judge"),
        ("result_backend_max_retries", float("inf"), float("inf")),
    ],
)
def test_a_value_is_taken_as_what_it_means(key: str, given: Any, taken: Any) -> None:
    late = Settings()
    assert late.task_serializer
    late[key] = given
    confs = [from_source({key: given}), late]
    if given is not None:  # the constructor's None is "not given", as in Celery
        confs.append(Settings({key: given}))
    for conf in confs:
        assert conf[key] == taken
        assert type(conf[key]) is type(taken)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("task_time_limit", "soon", "a number of seconds or a timedelta"),
        ("task_time_limit", float("nan"), "a number of seconds"),
        ("worker_max_tasks_per_child", [1], "a whole number"),
        ("worker_max_tasks_per_child", "many", "a whole number"),
        ("task_always_eager", "perhaps", "True or False"),
        ("task_always_eager", 2, "True or False"),
        ("beat_schedule", ["a"], "a dictionary"),
        ("accept_content", [1], "a list of texts"),
        ("task_serializer", 5, "a text"),
        ("litetq_durability", "very", '"normal" or "full"'),
        ("beat_scheduler", {"a": {}}, "belong in beat_schedule"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_is_wanted(key: str, value: Any, wanted: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=wanted) as caught:
        Settings({key: value})
    assert key in str(caught.value)
    with pytest.raises(ImproperlyConfigured, match=key):
        Settings()[key] = value
    with pytest.raises(ImproperlyConfigured, match=key):
        _ = from_source({key: value}).timezone


def test_all_problems_are_told_together_and_none_of_the_values_is_taken() -> None:
    conf = Settings()
    with pytest.raises(ImproperlyConfigured) as caught:
        conf.update(timezone="UTC", task_time_limit="soon", task_serializer=5)
    assert "2 settings" in str(caught.value) and "task_time_limit" in str(caught.value)
    assert "task_serializer" in str(caught.value) and conf.timezone is None
    broken = from_source({"task_time_limit": "soon", "task_always_eager": "perhaps", "timezone": "UTC"})
    assert len(broken.problems()) == 2 and Settings().problems() == []


# -- showing


def shown() -> Settings:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conf = Settings({"broker_url": "amqp://u:hush@h//", "result_backend": "db+postgresql://u:hush@h/db"})
        conf.update(
            task_annotations={"t": {"rate_limit": "1/s", "api_token": "hush"}},
            my_token="hush",
            imports=("a", "b"),
            worker_concurrency=3,
        )
    return conf


def test_the_text_has_a_line_for_each_given_setting_as_celery_prints_it() -> None:
    assert shown().humanize().split("\n") == [
        *("imports: ", "    ('a', 'b')"),
        "broker_url: 'amqp://u:********@h//'",
        "result_backend: 'db+postgresql://u:********@h/db'",
        *("task_annotations: ", " 't': {'api_token': '********', 'rate_limit': '1/s'}}"),
        "worker_concurrency: 3",
        "my_token: '********'",
    ]


def test_the_table_hides_secrets_unless_told_otherwise() -> None:
    conf = shown()
    assert "hush" not in repr(conf.table(with_defaults=True)) and "hush" not in repr(conf)
    assert conf.table(censored=False)["my_token"] == "hush"
    assert conf.table(censored=False)["broker_url"] == "amqp://u:hush@h//"


def test_defaults_are_shown_only_when_asked_for() -> None:
    conf = shown()
    assert set(conf.table()) == {
        *("imports", "broker_url", "result_backend", "task_annotations", "worker_concurrency", "my_token")
    }
    assert set(conf.table(with_defaults=True)) == {*OPTIONS, "my_token"}
    assert "task_serializer: 'json'" in conf.humanize(with_defaults=True)


def test_looking_at_settings_does_not_read_them() -> None:
    conf = from_source("nosuchconfig")
    assert "not read" in repr(conf)


def test_small_helpers_of_celerys_settings_work() -> None:
    conf = Settings({"worker_concurrency": 3})
    assert conf.get_by_parts("worker", "concurrency") == 3
    assert conf.first("worker_pidfile", "worker_concurrency") == 3
    assert conf.value_set_for("CELERYD_CONCURRENCY") and not conf.value_set_for("timezone")
    assert conf.finalize() is conf and bool(conf)
    assert conf.setdefault("timezone", "UTC") is None  # loaded: the default is a value, as in Celery
    fresh = Settings()
    assert fresh.setdefault("timezone", "UTC") == "UTC" and fresh.timezone == "UTC"


def test_a_frameworks_names_in_capitals_are_kept_without_a_word_and_mistyped_old_names_are_told(
    recwarn: pytest.WarningsRecorder,
) -> None:
    conf = Settings()
    conf.update({"SECRET_KEY": "x", "SESSION_COOKIE_PATH": "/", "ONCE": {"a": 1}, "CELERY_TIMEZONE": "Europe/Oslo"})
    assert not recwarn.list
    assert (conf["SECRET_KEY"], conf.ONCE, conf.timezone) == ("x", {"a": 1}, "Europe/Oslo")
    for wrong, meant in (
        ("CELERY_TIMEZON", "CELERY_TIMEZONE"),
        ("BROKER_URI", "BROKER_URL"),
        ("task_serialiser", "task_serializer"),
    ):
        with pytest.warns(CeleryWarning, match=f"Unknown setting {wrong} in conf: did you mean {meant}"):
            conf.update({wrong: "x"})


def test_a_frameworks_name_of_the_broker_is_told_only_where_nothing_else_says_the_broker(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Many programs with Flask give `config["CELERY_BROKER_URL"]` to the constructor, and then all of `config` to `update`."""
    conf = Settings({"broker_url": "jobs.sqlite"})
    conf.update({"CELERY_BROKER_URL": "jobs.sqlite"})
    assert not recwarn.list and conf.broker_url == "jobs.sqlite"
    with pytest.warns(CeleryWarning, match="Unknown setting CELERY_BROKER_URL in conf: did you mean broker_url"):
        Settings().update({"CELERY_BROKER_URL": "jobs.sqlite"})
