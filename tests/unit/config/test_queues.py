"""Queues: every one is consumed, and looked into in the right order."""

from collections import Counter

import pytest
from kombu.exceptions import ContentDisallowed
from kombu.serialization import loads, prepare_accept_content

import celeryconfig
from config.queues import ALL, WORKERS, PriorityOrder
from notifier.vocabulary.queues import FAN_OUT, channel_of, handover_queue, queue_for, retry_queue
from notifier.vocabulary.states import Channel, Priority


def test_every_queue_is_consumed_by_exactly_one_worker() -> None:
    assert Counter(queue for queues in WORKERS.values() for queue in queues) == Counter(ALL)


def test_every_lane_and_retry_queue_exists_and_knows_its_channel() -> None:
    for channel in Channel:
        for queue in [retry_queue(channel), *(queue_for(channel, priority) for priority in Priority)]:
            assert queue in ALL
            assert channel_of(queue) is channel


def test_what_the_clock_brings_takes_turns_with_what_is_fresh() -> None:
    assert handover_queue("email") == "email.due"
    assert channel_of("email.due") is Channel.EMAIL
    for queue in ("email.high", "email.low", "email.retry", FAN_OUT):
        assert handover_queue(queue) == queue
    order = PriorityOrder()
    order.update(["email.low", "email.due", "email", "email.high"])
    order.rotate("email")
    assert list(order.consume(4)) == ["email.high", "email.due", "email", "email.low"]


def test_high_comes_before_normal_before_low_whatever_was_used_last() -> None:
    order = PriorityOrder()
    order.update(["email.low", "email", "sms", "email.high", "sms.high"])
    for used in ("email.high", "email", "email", "email.low"):
        order.rotate(used)
    looked = list(order.consume(5))
    assert set(looked[:2]) == {"email.high", "sms.high"}
    assert set(looked[2:4]) == {"email", "sms"}
    assert looked[4] == "email.low"


def test_equals_take_turns_so_that_none_starves() -> None:
    order = PriorityOrder()
    order.update(["email", "sms", "webhook"])
    served = []
    for _ in range(6):
        first = order.consume(3)[0]
        order.rotate(first)
        order.update(["email", "sms", "webhook"])
        served.append(first)
    assert Counter(served) == {"email": 2, "sms": 2, "webhook": 2}


def test_a_queue_that_is_no_longer_consumed_is_forgotten() -> None:
    order = PriorityOrder()
    order.update(["email", "sms"])
    order.update(["sms"])
    assert list(order.consume(5)) == ["sms"]
    assert order.rotate("email") == "email"


def test_a_message_that_is_not_json_is_not_read() -> None:
    accepted = prepare_accept_content(celeryconfig.accept_content)
    assert accepted == {"application/json"}
    assert celeryconfig.task_serializer == "json"
    for content_type in ("application/x-python-serialize", "application/x-yaml"):
        with pytest.raises(ContentDisallowed):
            loads(b"gASVCgAAAAAAAABLAS4=", content_type, "binary", accept=accepted)
