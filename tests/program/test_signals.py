"""Signals: who is called, when, and what an error in a receiver does."""

from __future__ import annotations

import gc
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from litetq import LiteTQ, signals
from litetq.signals import Signal


@pytest.mark.row("12.API")
def test_a_receiver_gets_signal_sender_and_arguments_and_its_answer_comes_back() -> None:
    signal = Signal(name="ping")
    seen: list[dict[str, Any]] = []

    @signal.connect
    def receiver(**kwargs: Any) -> str:
        seen.append(kwargs)
        return "pong"

    assert signal.send(sender="me", number=1) == [(receiver, "pong")]
    assert seen == [{"signal": signal, "sender": "me", "number": 1}]


@pytest.mark.row("12.API")
def test_an_error_in_a_receiver_is_logged_and_returned_and_the_next_receiver_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    signal = Signal(name="ping")

    def broken(**_: Any) -> None:
        raise ValueError("broken")

    def sound(**_: Any) -> str:
        return "fine"

    signal.connect(broken)
    signal.connect(sound)
    with caplog.at_level(logging.ERROR):
        responses = signal.send(sender=None)
    assert isinstance(responses[0][1], ValueError)
    assert responses[1] == (sound, "fine")
    assert "broken" in caplog.text


@pytest.mark.row("12.API")
def test_a_receiver_for_one_sender_hears_no_other_one() -> None:
    signal = Signal()
    heard: list[Any] = []

    def receiver(sender: Any, **_: Any) -> None:
        heard.append(sender)

    signal.connect(receiver, sender="tasks.add")
    signal.send(sender="tasks." + "add")  # an equal name, another object
    signal.send(sender="tasks.mul")
    assert heard == ["tasks.add"]
    assert signal.has_listeners("tasks.add") and not signal.has_listeners("tasks.mul")


@pytest.mark.row("12.API")
def test_the_same_receiver_is_connected_once_and_a_dispatch_uid_stands_for_it() -> None:
    signal = Signal()
    calls: list[int] = []

    def first(**_: Any) -> None:
        calls.append(1)

    def second(**_: Any) -> None:
        calls.append(2)

    signal.connect(first)
    signal.connect(first)
    signal.connect(second, dispatch_uid="one")
    signal.connect(first, dispatch_uid="one")
    signal.send(sender=None)
    assert calls == [1, 2]
    assert signal.disconnect(dispatch_uid="one") and not signal.disconnect(dispatch_uid="one")
    assert signal.disconnect(first)
    assert not signal.receivers


@pytest.mark.row("12.API")
def test_a_receiver_that_nobody_else_holds_is_forgotten_unless_held_strongly() -> None:
    signal = Signal()

    class Listener:
        def hear(self, **_: Any) -> str:
            return "heard"

    listener = Listener()
    signal.connect(listener.hear)
    signal.connect(lambda **_: "kept", weak=False)
    assert [response for _, response in signal.send(sender=None)] == ["heard", "kept"]
    del listener
    gc.collect()
    assert [response for _, response in signal.send(sender=None)] == ["kept"]
    assert len(signal.receivers) == 1


def test_a_receiver_without_keyword_arguments_is_refused_with_the_signals_name() -> None:
    with pytest.raises(ValueError, match=r"must accept keyword arguments.*'ping'.*\*\*kwargs"):
        Signal(name="ping").connect(lambda sender: None)


@pytest.mark.row("12.API")
def test_connect_with_arguments_is_a_decorator_and_leaves_the_function_as_it_is() -> None:
    signal = Signal()

    @signal.connect(sender="a", weak=False)
    def receiver(**_: Any) -> int:
        return 7

    assert receiver() == 7
    assert signal.send(sender="a") == [(receiver, 7)]


@pytest.mark.row("12.API")
def test_a_receiver_may_be_called_again_until_it_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(signals, "time", SimpleNamespace(sleep=pauses.append))
    signal = Signal()

    @signal.connect(retry=True)
    def receiver(**_: Any) -> str:
        if len(pauses) < 3:
            raise ValueError("not yet")
        return "done"

    assert [answer for _, answer in signal.send(sender=None)] == ["done"]
    assert pauses == [2, 4, 6]


def test_all_of_celerys_signals_exist_and_nobody_listens() -> None:
    names = """before_task_publish after_task_publish task_received task_prerun task_postrun task_success task_failure
        task_retry task_revoked task_rejected task_unknown task_internal_error import_modules celeryd_init
        celeryd_after_setup worker_init worker_before_create_process worker_process_init worker_process_shutdown
        worker_ready worker_shutting_down worker_shutdown heartbeat_sent beat_init beat_embedded_init
        eventlet_pool_started eventlet_pool_preshutdown eventlet_pool_postshutdown eventlet_pool_apply setup_logging
        after_setup_logger after_setup_task_logger user_preload_options"""
    for name in names.split():
        signal = getattr(signals, name)
        assert signal.name == name and not signal.receivers, name


@pytest.mark.row("12.before_task_publish, after_task_publish")
def test_publish_signals_show_the_message_and_headers_added_there_reach_the_request(
    app: LiteTQ, run_waiting: Any
) -> None:
    seen: dict[str, Any] = {}
    published: list[dict[str, Any]] = []

    @app.task(bind=True)
    def show(self: Any, x: int) -> list[Any]:
        return [self.request.headers, self.request.tenant, self.request.delivery_info["priority"]]

    def before(sender: Any, headers: dict[str, Any], body: Any, properties: dict[str, Any], **kwargs: Any) -> None:
        seen.update(sender=sender, body=body, headers=dict(headers), routing_key=kwargs["routing_key"])
        headers["tenant"] = "acme"
        properties["priority"] = 9

    def after(**kwargs: Any) -> None:
        published.append(kwargs)

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        result = show.apply_async((1,), queue="mail")
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)
    assert seen["sender"] == show.name
    assert seen["body"][:2] == ((1,), {})
    assert seen["routing_key"] == "mail"
    assert seen["headers"]["id"] == result.id and seen["headers"]["task"] == show.name
    assert published[0]["headers"]["tenant"] == "acme" and published[0]["routing_key"] == "mail"
    assert run_waiting(app) == [result.id]
    assert result.get(timeout=5) == [{"tenant": "acme"}, "acme", 9]
