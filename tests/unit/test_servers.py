"""The servers that tests start: each answers, keeps what it has over an end of any kind, and leaves no process behind."""

from __future__ import annotations

import pytest

from tests.servers import Rabbit, RabbitMQ, Redis


def test_a_private_redis_keeps_what_it_has_over_any_end(private_redis: Redis) -> None:
    private_redis.ask("SET", "colour", "blue")
    private_redis.restart()
    private_redis.kill()
    private_redis.start()
    assert "blue" in private_redis.ask("GET", "colour")


@pytest.mark.slow
def test_a_private_rabbitmq_keeps_what_it_has_over_any_end(private_rabbitmq: RabbitMQ) -> None:
    private_rabbitmq.api("PUT", "queues/%2F/colours", {"durable": True})
    private_rabbitmq.restart()
    private_rabbitmq.kill()
    private_rabbitmq.start()
    assert [found["name"] for found in private_rabbitmq.api("GET", "queues/%2F")] == ["colours"]


@pytest.mark.slow
def test_a_virtual_host_is_empty_for_each_who_asks(rabbitmq: Rabbit) -> None:
    assert rabbitmq.queues() == {}
    assert rabbitmq.close_connections() == 0
