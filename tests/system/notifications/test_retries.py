"""Retries and dead letters: what fails is tried again with backoff, and when all fails it can be requeued."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import redis

from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, wait_for


def test_a_failing_webhook_is_retried_with_backoff_until_it_works(system: Running, http: HttpReceiver) -> None:
    http.answer("/recovers", 500, 503, 204)
    event_id = system.event(recipient=http.url("/recovers"), channel="webhook", payload={"n": 1.10})
    notification = system.finished(event_id)
    received = http.received("/recovers")
    assert notification["status"] == "delivered"
    assert [a["outcome"] for a in notification["attempt_log"]] == ["unsent", "unsent", "accepted"]
    assert [a["status_code"] for a in notification["attempt_log"]] == [500, 503, 204]
    assert [a["number"] for a in notification["attempt_log"]] == [1, 2, 3]
    assert len({each.id for each in received}) == 1
    assert len({each.body for each in received}) == 1
    first, second = (later.at - earlier.at for earlier, later in pairwise(received))
    assert first >= 1
    assert second >= 2


def test_a_row_that_waits_for_its_retry_waits_in_the_channels_retry_queue(system: Running, http: HttpReceiver) -> None:
    http.answer("/waits", (429, {"Retry-After": "30"}))
    event_id = system.event(recipient=http.url("/waits"), channel="webhook")
    row = wait_for(
        lambda: system.sql(
            "SELECT queue, tries, attempts, extract(epoch FROM due_at - clock_timestamp()) AS seconds"
            " FROM notifications WHERE event_id = :id AND status = 'retrying'",
            id=event_id,
        )
    )[0]
    assert (row.queue, row.tries, row.attempts) == ("webhook.retry", 1, 1)
    assert 20 < row.seconds <= 30  # Retry-After is a floor under a backoff of one second


def test_max_retries_means_one_attempt_more_then_a_dead_letter(system: Running, http: HttpReceiver) -> None:
    http.answer("/dead", 500)
    event_id = system.event(recipient=http.url("/dead"), channel="webhook")
    notification = system.finished(event_id)
    assert (notification["status"], notification["reason"]) == ("failed", "retries_exhausted")
    assert notification["attempts"] == len(http.received("/dead")) == 3
    letter = system.dead_letter(event_id)
    assert letter["reason"] == "retries_exhausted"
    assert letter["error"].startswith("http 500")
    assert letter["attempts"] == 3
    assert letter["notification_id"] == notification["id"]
    assert letter["channel"] == "webhook"
    assert letter["event_type"] == "test.event"
    assert letter["requeued_at"] is None


def test_a_permanent_error_is_dead_at_once(system: Running, http: HttpReceiver) -> None:
    http.answer("/permanent", 410)
    event_id = system.event(recipient=http.url("/permanent"), channel="webhook")
    notification = system.finished(event_id)
    assert (notification["status"], notification["reason"]) == ("failed", "permanent_error")
    assert len(http.received("/permanent")) == 1
    assert system.dead_letter(event_id)["attempts"] == 1


def test_a_receiver_in_the_middle_of_a_deploy_gets_its_webhooks_later(system: Running, http: HttpReceiver) -> None:
    deploys = {400: "/deploy-400", 401: "/deploy-401", 403: "/deploy-403", 404: "/deploy-404", 499: "/deploy-499"}
    for code, path in deploys.items():
        http.answer(path, code, 204)
    events = [system.event(recipient=http.url(path), channel="webhook") for path in deploys.values()]
    for code, event_id in zip(deploys, events, strict=True):
        notification = system.finished(event_id)
        assert notification["status"] == "delivered"
        log = [(each["outcome"], each["status_code"]) for each in notification["attempt_log"]]
        assert log == [("unsent", code), ("accepted", 204)]


def test_mail_servers_permanent_and_transient_codes_are_told_apart(system: Running, smtp: SmtpReceiver) -> None:
    smtp.refuse("nobody@example.com", "550 5.1.1 no such user")
    smtp.refuse("busy@example.com", "451 4.3.0 try later", "250 OK")
    permanent = system.event(recipient="nobody@example.com", channel="email")
    transient = system.event(recipient="busy@example.com", channel="email")
    dead = system.finished(permanent)
    assert (dead["status"], dead["reason"], dead["attempts"]) == ("failed", "permanent_error", 1)
    assert dead["attempt_log"][0]["status_code"] == 550
    # The receiver takes "250 OK" without keeping the recipient: what matters is that it was tried again.
    later = wait_for(lambda: [a for a in system.finished(transient)["attempt_log"] if a["number"] == 2])
    assert later


def test_a_refused_address_is_permanent(system: Running) -> None:
    event_id = system.event(recipient="http://10.255.255.1/", channel="webhook")
    notification = system.finished(event_id)
    assert (notification["status"], notification["reason"]) == ("failed", "permanent_error")
    assert "NOTIFIER_WEBHOOK_ALLOWED_NETWORKS" in notification["attempt_log"][0]["error"]


def test_requeueing_sends_once_with_the_same_id_and_a_fresh_budget(system: Running, http: HttpReceiver) -> None:
    http.answer("/requeued", 500, 500, 500, 500, 204)
    event_id = system.event(recipient=http.url("/requeued"), channel="webhook")
    letter = system.dead_letter(event_id)
    answer = system.post(f"/api/v1/dead-letters/{letter['id']}/requeue")
    assert answer.status_code == 202, answer.text
    assert answer.json()["requeued_at"]
    assert system.post(f"/api/v1/dead-letters/{letter['id']}/requeue").status_code == 409
    notification = wait_for(lambda: (n := system.finished(event_id))["status"] == "delivered" and n)
    assert notification["attempts"] == 5
    assert [a["number"] for a in notification["attempt_log"]] == [1, 2, 3, 4, 5]
    assert set(http.times("/requeued").values()) == {5}


def test_two_requeues_at_once_send_once(system: Running, http: HttpReceiver) -> None:
    http.answer("/both", 410)
    event_id = system.event(recipient=http.url("/both"), channel="webhook")
    letter = system.dead_letter(event_id)
    http.answer("/both", 204)
    with ThreadPoolExecutor(20) as pool:
        path = f"/api/v1/dead-letters/{letter['id']}/requeue"
        codes = list(pool.map(lambda _: system.post(path).status_code, range(20)))
    assert sorted(codes) == [202] + [409] * 19
    wait_for(lambda: system.finished(event_id)["status"] == "delivered")
    assert len(http.received("/both")) == 2


def test_a_second_death_is_a_second_letter(system: Running, http: HttpReceiver) -> None:
    http.answer("/again", 410)
    event_id = system.event(recipient=http.url("/again"), channel="webhook")
    first = system.dead_letter(event_id)
    system.post(f"/api/v1/dead-letters/{first['id']}/requeue")

    def second_letter() -> bool:
        return system.dead_letter(event_id)["id"] != first["id"]

    wait_for(second_letter)
    letters = [x for x in system.get("/api/v1/dead-letters").json()["items"] if x["event_id"] == event_id]
    assert [bool(letter["requeued_at"]) for letter in letters] == [False, True]


def test_many_are_requeued_by_filter(system: Running, http: HttpReceiver) -> None:
    http.answer("/filtered", 410)
    events = [
        system.event(event_type="filter.me", recipient=http.url("/filtered"), channel="webhook") for _ in range(5)
    ]
    for event_id in events:
        system.finished(event_id)
    http.answer("/filtered", 204)
    answer = system.post("/api/v1/dead-letters/requeue", {"event_type": "filter.me"})
    assert (answer.status_code, answer.json()["requeued"]) == (202, 5)
    for event_id in events:
        wait_for(lambda event_id=event_id: system.finished(event_id)["status"] == "delivered")
    assert system.post("/api/v1/dead-letters/requeue", {"event_type": "filter.me"}).json()["requeued"] == 0


@pytest.mark.parametrize(
    "body", [{}, {"all": False}, {"all": None}, {"all": "true"}, {"all": True, "channel": "email"}]
)
def test_all_dead_letters_are_requeued_only_where_that_is_said(system: Running, body: dict[str, Any]) -> None:
    answer = system.post("/api/v1/dead-letters/requeue", body)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, ["all"])


def test_a_dead_letter_can_be_deleted(system: Running, http: HttpReceiver) -> None:
    http.answer("/deleted", 410)
    event_id = system.event(recipient=http.url("/deleted"), channel="webhook")
    letter = system.dead_letter(event_id)
    url = f"{system.url}/api/v1/dead-letters/{letter['id']}"
    assert system.http.delete(url, timeout=10).status_code == 204
    assert system.http.delete(url, timeout=10).status_code == 404
    assert system.finished(event_id)["status"] == "failed"


def test_no_message_carries_an_eta_and_no_retry_waits_in_redis(system: Running, http: HttpReceiver) -> None:
    http.answer("/patient", (503, {"Retry-After": "3"}), 204)
    event_id = system.event(recipient=http.url("/patient"), channel="webhook")
    wait_for(lambda: system.notifications(event_id)[0]["status"] == "retrying")
    # Nothing but Postgres knows of the retry: no list in Redis holds a message for it.
    client = redis.Redis.from_url(system.environment["REDIS_URL"])
    lists = {key for key in client.scan_iter() if client.type(key) == b"list"}
    client.close()
    assert lists <= {b"clock"}
    assert system.finished(event_id)["status"] == "delivered"
