"""Providers that are down, slow or not there: what the whole system makes of it."""

import socket
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from limits import parse_many
from limits.storage import storage_from_string

from deploy.ports import free_port
from notifier.models import attempt_id
from notifier.providers.rate_limits import RecipientLimits
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, made, reaches, wait_for


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Where the two mail servers are, while they run."""
    return free_port(), free_port()


@pytest.fixture(scope="module")
def mailing(new_system: Callable[..., Running], ports: tuple[int, int]) -> Iterator[Running]:
    """A system with two mail servers, none of which runs, and limits for SMS."""
    running = new_system(
        NOTIFIER_EMAIL=", ".join(f"smtp://127.0.0.1:{port}?tls=none" for port in ports),
        NOTIFIER_SMS="outbox:?rate=5",
        NOTIFIER_PUSH="outbox:",
        NOTIFIER_PUSH_RECIPIENT_LIMIT="2/minute; 50/day",
    )
    with running:
        yield running


def _standing(system: Running) -> dict[str, Any]:
    rows = system.sql("SELECT name, open_until IS NOT NULL AS is_open, failures FROM providers WHERE channel = 'email'")
    return {row.name: row for row in rows}


def _emails(system: Running, count: int, name: str) -> list[str]:
    fields = {"event_type": "test.event", "channel": "email"}
    items = [{**fields, "recipient": f"{name}-{n}@example.com"} for n in range(count)]
    answer = system.post("/api/v1/events/batch", {"events": items})
    assert answer.json()["accepted"] == count, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_a_second_provider_takes_over_and_the_first_is_taken_back(mailing: Running, ports: tuple[int, int]) -> None:
    with SmtpReceiver(ports[1]) as second:
        events = _emails(mailing, 30, "over")
        for event_id in events:
            notification = mailing.finished(event_id)
            log = notification["attempt_log"]
            assert notification["status"] == "sent"
            assert [(each["number"], each["provider"], each["outcome"]) for each in log] in (
                [(1, "smtp", "unsent"), (2, "smtp-2", "accepted")],
                [(1, "smtp-2", "accepted")],
            )
            assert notification["attempts"] == len(log)
        assert sorted(mail["To"] for mail in second.mails) == sorted(f"over-{n}@example.com" for n in range(30))
        wait_for(lambda: _standing(mailing)["smtp"].is_open)

        with SmtpReceiver(ports[0]) as first:

            def is_back() -> bool:
                mailing.finished(_emails(mailing, 1, "back")[0])
                return not _standing(mailing)["smtp"].is_open

            wait_for(is_back, 30, "a probe that finds the first one well")
            mailing.finished(_emails(mailing, 1, "first-again")[0])
            assert [mail["To"] for mail in first.mails][-1] == "first-again-0@example.com"
        assert mailing.sql("SELECT count(*) AS n FROM dead_letters")[0].n == 0


def test_while_all_are_down_nothing_is_spent_and_nothing_lost(mailing: Running, ports: tuple[int, int]) -> None:
    events = _emails(mailing, 40, "down")
    ids = [wait_for(lambda each=event: mailing.notifications(each))[0]["id"] for event in events]

    def waiting() -> list[dict[str, Any]]:
        rows = mailing.get("/api/v1/notifications?status=scheduled&channel=email&limit=200").json()["items"]
        return [row for row in rows if row["id"] in ids and row["reason"] == "breaker_open"]

    found = wait_for(lambda: rows if len(rows := waiting()) > 20 else None, 30, "rows that wait")
    explanation = mailing.notification(found[0]["id"])["explanation"]
    assert "smtp and smtp-2 are down; what waits goes as soon as one answers." in explanation
    spent = mailing.sql("SELECT count(*) AS n FROM notifications WHERE tries > 1")[0].n
    assert spent == 0, "probes and the first failures alone cost a try"
    with SmtpReceiver(ports[1]):
        for notification_id in ids:
            reaches(mailing, notification_id, "sent")
    letters = mailing.sql("SELECT count(*) AS n FROM dead_letters")[0].n
    assert letters == 0


def test_a_provider_gets_so_many_a_second(mailing: Running) -> None:
    ids = [made(mailing, channel="sms", recipient=f"+1555010{n:04}") for n in range(16)]
    put_off = wait_for(
        lambda: mailing.get("/api/v1/notifications?status=scheduled&channel=sms").json()["items"], what="what waits"
    )
    assert {row["reason"] for row in put_off} == {"throttled"}
    assert "outbox takes 5 a second." in mailing.notification(put_off[0]["id"])["explanation"]
    for each in ids:
        assert reaches(mailing, each, "sent")["attempts"] == 1
    [span] = mailing.sql(
        "SELECT extract(epoch FROM max(created_at) - min(created_at)) AS seconds FROM outbox WHERE channel = 'sms'"
    )
    assert span.seconds > 1.9, "11 of them had to wait"


def test_a_recipient_gets_so_many_in_a_time(mailing: Running) -> None:
    ids = [made(mailing, channel="push", recipient="token-1") for _ in range(4)]
    other = made(mailing, channel="push", recipient="token-2")
    urgent = made(mailing, channel="push", recipient="token-1", critical=True)
    for each in (other, urgent):
        reaches(mailing, each, "sent")
    states = [reaches(mailing, each, "sent", "scheduled") for each in ids]
    assert sorted(state["status"] for state in states) == ["scheduled", "scheduled", "sent", "sent"]
    waits = [state for state in states if state["status"] == "scheduled"]
    assert {(state["reason"], state["attempts"]) for state in waits} == {("throttled", 0)}
    assert "as many messages as one may" in waits[0]["explanation"]


def test_limits_hold_in_each_process_while_redis_is_away(new_redis: Callable[[], str]) -> None:
    limits = parse_many("2/minute; 3/hour")
    away = storage_from_string(f"redis://127.0.0.1:{free_port()}/0", socket_connect_timeout=0.2)
    for storage in (None, away, storage_from_string(new_redis())):
        counted = RecipientLimits(Channel.SMS, limits, storage)
        assert [counted.wait("+15550100") > 0 for _ in range(4)] == [False, False, True, True]
        assert 50 < counted.wait("+15550100") <= 60
        assert counted.wait("+15550101") == 0


def test_what_one_limit_refuses_no_other_one_counts(new_redis: Callable[[], str]) -> None:
    counted = RecipientLimits(Channel.SMS, parse_many("1/second; 3/hour"), storage_from_string(new_redis()))
    went = []
    wait_for(lambda: went.append(counted.wait("+15550100") == 0) or sum(went) == 3, 10, "the third to go")
    assert 3500 < counted.wait("+15550100") <= 3600


def test_processes_count_together(new_redis: Callable[[], str]) -> None:
    url = new_redis()
    one, two = (RecipientLimits(Channel.SMS, parse_many("2/hour"), storage_from_string(url)) for _ in range(2))
    assert [one.wait("+15550100"), two.wait("+15550100")] == [0, 0]
    assert one.wait("+15550100") > 0
    assert two.wait("+15550100") > 0


# --- on_ambiguous


def test_what_may_have_been_sent_is_held_where_that_is_wanted(system: Running, http: HttpReceiver) -> None:
    release = http.hold("/held")
    try:
        notification_id = made(system, channel="webhook", recipient=http.url("/held"), on_ambiguous="hold")
        dead = reaches(system, notification_id, "failed")
    finally:
        release()
    assert (dead["reason"], dead["attempts"]) == ("ambiguous", 1)
    letters = system.get("/api/v1/dead-letters?reason=ambiguous").json()["items"]
    assert notification_id in {letter["notification_id"] for letter in letters}
    assert len(http.received("/held")) == 1


def test_what_was_lost_on_a_kept_connection_is_held_and_not_repeated(system: Running) -> None:
    read: list[str] = []
    lost: list[str] = []

    def talk(connection: socket.socket) -> None:
        if first := receivers.read_request(connection):
            read.append(first.headers["webhook-id"])
            connection.sendall(receivers.response(204))
        if second := receivers.read_request(connection):
            read.append(second.headers["webhook-id"])
            lost.append(read[-1])

    with receivers.listening(talk) as server:
        for _ in range(50):  # until a worker's thread comes by the same connection again
            fields = {"recipient": f"http://127.0.0.1:{server.port}/", "on_ambiguous": "hold"}
            notification_id = made(system, channel="webhook", **fields)
            ended = reaches(system, notification_id, "delivered", "failed")
            if lost:
                break
    assert lost == [notification_id]
    assert (ended["status"], ended["reason"], ended["attempts"]) == ("failed", "ambiguous", 1)
    assert read.count(notification_id) == 1


@pytest.mark.parametrize("recorded", [False, True])
def test_a_lost_worker_is_as_ambiguous(system: Running, recorded: bool) -> None:
    fields = {"channel": "sms", "recipient": "+14155550100", "on_ambiguous": "hold"}
    notification_id = made(system, send_at="2035-01-01T00:00:00Z", **fields)
    # As a worker leaves it that dies while it sends, or after it has recorded that an answer was lost.
    attempt = (
        "INSERT INTO attempts (id, notification_id, number, provider, outcome)"
        " VALUES (:attempt, :id, 1, 'x', 'ambiguous');"
    )
    system.sql(
        f"{attempt if recorded else ''} UPDATE notifications SET status = 'queued' WHERE id = :id;"
        " UPDATE notifications SET status = 'sending', claims = 1, attempts = :attempts, due_at = now() WHERE id = :id",
        id=notification_id,
        attempt=attempt_id(UUID(notification_id), 1),
        attempts=int(recorded),
    )
    dead = reaches(system, notification_id, "failed")
    assert (dead["reason"], dead["attempts"]) == ("ambiguous", 1)


@pytest.mark.parametrize("value", ["retries", 1, ""])
def test_other_wishes_are_refused(system: Running, value: Any) -> None:
    body = {"channel": "sms", "recipient": "+14155550100", "body": "x", "on_ambiguous": value}
    answer = system.post("/api/v1/notifications", body)
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["on_ambiguous"]
    event = {"event_type": "x", "channel": "sms", "recipient": "+14155550100", "on_ambiguous": value}
    assert system.post("/api/v1/events", event).status_code == 422
