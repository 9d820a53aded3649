"""Release of rows that wait for an endpoint: as soon as nothing keeps them, whatever was known before."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from sqlalchemy import text

from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

PATH = "/api/v1/subscriptions"


def subscribe(system: Running, url: str, event_type: str, **fields: Any) -> str:
    answer = system.post(PATH, {"url": url, "event_types": [event_type], **fields})
    assert answer.status_code == 201, answer.text
    made: str = answer.json()["id"]
    return made


def change(system: Running, subscription_id: str, **fields: Any) -> None:
    answer = system.http.patch(f"{system.url}{PATH}/{subscription_id}", json=fields, timeout=30)
    assert answer.status_code == 200, answer.text


def post(system: Running, event_type: str, count: int, **fields: Any) -> None:
    answer = system.post("/api/v1/events/batch", {"events": [{"event_type": event_type, **fields}] * count})
    assert answer.json()["accepted"] == count, answer.text


def states(system: Running, subscription_id: str) -> dict[tuple[str, str | None], int]:
    statement = "SELECT status, reason, count(*) FROM notifications WHERE subscription_id = :id GROUP BY 1, 2"
    return {(row[0], row[1]): row[2] for row in system.sql(statement, id=subscription_id)}


def wait_for_states(system: Running, subscription_id: str, **wanted: int) -> None:
    def look() -> bool:
        found = states(system, subscription_id)
        by_status = {status: sum(n for (each, _), n in found.items() if each == status) for status, _ in found}
        return by_status == wanted

    wait_for(look, 40, f"{wanted}")


def ended(system: Running, event_id: str) -> dict[str, Any]:
    """The one notification of an event, once it is finished."""
    wait_for(lambda: system.notifications(event_id))
    return system.finished(event_id, 30)


def waiting(system: Running, query: str) -> int:
    """How many wait for a lock with such a query."""
    waits = "datname = current_database() AND wait_event_type = 'Lock' AND query LIKE :query"
    return int(system.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {waits}", query=query)[0][0])


def test_those_behind_a_gap_in_the_line_move_up(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/go/gap"), "gap.in.line", rate_limit_per_second=0.5)
    post(system, "gap.in.line", 80, cancellation_key="k-gap")
    wait_for(lambda: states(system, made).get(("scheduled", "throttled"), 0) >= 70)
    last = system.event(event_type="gap.in.line")
    wait_for(lambda: system.notifications(last) and system.notifications(last)[0]["reason"] == "throttled")
    assert system.post("/api/v1/notifications/cancel", {"cancellation_key": "k-gap"}).json()["cancelled"] >= 60
    # By its place it would go in over two minutes.
    assert ended(system, last)["status"] == "delivered"
    assert ended(system, system.event(event_type="gap.in.line"))["status"] == "delivered"


def test_a_limit_that_is_raised_holds_at_once(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/go/raised"), "limit.raised", rate_limit_per_second=0.01)
    post(system, "limit.raised", 100)
    wait_for_states(system, made, delivered=1, scheduled=99)
    change(system, made, rate_limit_per_second=200)
    wait_for_states(system, made, delivered=100)
    assert set(http.times("/go/raised").values()) == {1}


@pytest.mark.parametrize("rate", [None, 500])
def test_what_is_put_off_by_the_old_limit_while_it_changes(
    system: Running, http: HttpReceiver, rate: float | None
) -> None:
    """A worker has read the old limit, and waits for its turn to put rows off by it."""
    made = subscribe(system, http.url(f"/go/old-limit-{rate}"), f"old.limit.{rate}", rate_limit_per_second=0.01)
    post(system, f"old.limit.{rate}", 1)
    wait_for_states(system, made, delivered=1)
    with system.engine.connect() as blocker, ThreadPoolExecutor(1) as pool:
        with blocker.begin() as held:
            blocker.execute(text("SELECT FROM endpoints WHERE id = :id FOR UPDATE"), {"id": made})
            post(system, f"old.limit.{rate}", 100)
            wait_for(lambda: waiting(system, "%INSERT INTO endpoints%") == 1)
            changing = pool.submit(change, system, made, rate_limit_per_second=rate)
            wait_for(lambda: waiting(system, "%INSERT INTO endpoints%") == 2)
            held.rollback()
        changing.result()
    wait_for_states(system, made, delivered=101)
    assert set(http.times(f"/go/old-limit-{rate}").values()) == {1}


def test_what_waits_for_a_deleted_subscription_is_skipped(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/go/deleted"), "deleted.while.waiting", rate_limit_per_second=0.01)
    post(system, "deleted.while.waiting", 20)
    wait_for_states(system, made, delivered=1, scheduled=19)
    assert system.http.delete(f"{system.url}{PATH}/{made}", timeout=9).status_code == 204
    wait_for(lambda: states(system, made) == {("delivered", None): 1, ("skipped", "subscription_deleted"): 19}, 30)


def test_what_waits_for_a_disabled_subscription_is_skipped_and_comes_back(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/go/off-on"), "disabled.while.waiting", rate_limit_per_second=0.01)
    post(system, "disabled.while.waiting", 20)
    wait_for_states(system, made, delivered=1, scheduled=19)
    change(system, made, enabled=False, rate_limit_per_second=None)
    wait_for(lambda: states(system, made).get(("skipped", "subscription_disabled")) == 19, 30)
    enabled = system.post(f"{PATH}/{made}/enable", {"recover_since": "2026-01-01T00:00:00Z"})
    assert enabled.json()["recovery"]["recovered"] == 19
    wait_for_states(system, made, delivered=20)


def test_what_an_old_url_answers_late_is_not_held_against_the_new_one(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/go/old-url"), "moved.away")
    release = http.hold("/go/old-url")
    http.answer("/go/old-url", 410)
    event_id = system.event(event_type="moved.away")
    wait_for(lambda: http.received("/go/old-url"))
    change(system, made, url=http.url("/go/new-url"))
    release()
    assert ended(system, event_id)["status"] == "failed"
    assert ended(system, system.event(event_type="moved.away"))["status"] == "delivered"
    found = system.get(f"{PATH}/{made}").json()
    assert (found["enabled"], found["disabled_reason"]) == (True, None)
    assert len(http.received("/go/new-url")) == 1


def test_a_receivers_password_is_shown_to_nobody_else(system: Running, http: HttpReceiver) -> None:
    told = subscribe(system, http.url("/go/told-of-it"), "notifier.subscription.disabled")
    url = http.url("/go/with-password").replace("http://", "http://user:pa55w0rd@")
    made = subscribe(system, url, "with.password")
    http.answer("/go/with-password", 204, 410)
    assert ended(system, system.event(event_type="with.password"))["status"] == "delivered"
    assert http.received("/go/with-password")[0].headers["authorization"].startswith("Basic ")
    failed = ended(system, system.event(event_type="with.password"))
    assert failed["recipient"] == http.url("/go/with-password")
    mine = [made, http.url("/go/with-password").replace("http://", "http://***@")]
    wait_for(
        lambda: (
            mine
            in [
                [each.json["data"]["subscription_id"], each.json["data"]["url"]]
                for each in http.received("/go/told-of-it")
            ]
        )
    )
    assert not [each for each in http.received("/go/told-of-it") if b"pa55w0rd" in each.body]
    assert system.get(f"{PATH}/{made}?reveal=1").json()["url"] == url
    assert system.http.delete(f"{system.url}{PATH}/{told}", timeout=9).status_code == 204


@pytest.mark.parametrize("content_type", [None, "application/json", "application/x-www-form-urlencoded"])
def test_enabling_needs_no_body(system: Running, content_type: str | None) -> None:
    made = subscribe(system, "https://example.com/hook", "no.body", enabled=False)
    headers = {"content-type": content_type} if content_type else {}
    answer = requests.post(f"{system.url}{PATH}/{made}/enable", data=b"", headers=headers, timeout=20)
    assert (answer.status_code, answer.json()["enabled"]) == (200, True), answer.text
    described = system.get("/openapi.json").json()["paths"][f"{PATH}/{{subscription_id}}/enable"]["post"]
    assert described["requestBody"]["required"] is False
