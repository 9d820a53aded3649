"""Recovery of what a subscription missed: recover, replay, resend, enable. And an event to try it out with."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, text
from standardwebhooks import Webhook

from notifier.resending import recovery
from notifier.vocabulary.ids import derived_id, millisecond_of, new_id
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

PATH = "/api/v1/subscriptions"
LONG_AGO = "2026-01-01T00:00:00Z"


def subscribe(system: Running, url: str, *event_types: str, **fields: Any) -> dict[str, Any]:
    answer = system.post(PATH, {"url": url, "event_types": event_types, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def enable(system: Running, subscription: dict[str, Any]) -> dict[str, Any]:
    answer = system.post(f"{PATH}/{subscription['id']}/enable")
    assert answer.status_code == 200, answer.text
    enabled: dict[str, Any] = answer.json()
    assert (enabled["enabled"], enabled["disabled_reason"]) == (True, None)
    return enabled


def recover(system: Running, subscription: dict[str, Any], since: Any = LONG_AGO) -> int:
    answer = system.post(f"{PATH}/{subscription['id']}/recover", {"since": since})
    assert answer.status_code == 202, answer.text
    begun = answer.json()
    return finished(system, begun)["recovered"]


def finished(system: Running, recovery: dict[str, Any]) -> dict[str, Any]:
    """A recovery once it is finished: what is said of it, and that it stands in the list."""
    of_it = f"{PATH}/{recovery['subscription_id']}/recoveries"

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = system.get(f"{of_it}/{recovery['id']}").json()
        assert found["status"] == ("running" if found["finished_at"] is None else "finished")
        assert 0 <= found["recovered"] <= found["total"]
        return found if found["finished_at"] else None

    done = wait_for(look, 60)
    assert done == {**recovery, **{name: done[name] for name in ("status", "recovered", "finished_at")}}
    assert done in system.get(of_it).json()["items"]
    return done


def notifications(system: Running, subscription: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    """All that was made for a subscription, oldest first, page by page."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = system.get(f"{PATH}/{subscription['id']}/notifications", params={"limit": 200, **query, **cursor})
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found[::-1]
        cursor = {"cursor": answer.json()["next_cursor"]}


def missed(system: Running, event_type: str, count: int = 1) -> list[dict[str, Any]]:
    """The notifications of some events that a disabled subscription is skipped for."""
    events = [{"event_type": event_type, "payload": {"n": number}} for number in range(count)]
    ids = [item["id"] for item in system.post("/api/v1/events/batch", {"events": events}).json()["items"]]
    for event_id in ids:
        wait_for(lambda event_id=event_id: system.notifications(event_id), 40)
    skipped = [notification for event_id in ids for notification in system.notifications(event_id)]
    assert {(each["status"], each["reason"]) for each in skipped} == {("skipped", "subscription_disabled")}
    return skipped


def settled(system: Running, notification_id: str, *statuses: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = system.notification(notification_id)
        return found if found["status"] in statuses else None

    return wait_for(look, what=f"{notification_id} to be {statuses}")


def all_delivered(system: Running, http: HttpReceiver, path: str, ids: Sequence[str]) -> None:
    """Wait for these webhook-ids at a path, each exactly once, and for their record."""
    wait_for(lambda: set(http.times(path)) >= set(ids), 60, f"{len(ids)} at {path}")
    assert dict(http.times(path)) == dict.fromkeys(ids, 1)
    statement = "SELECT count(*) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'delivered'"
    wait_for(lambda: system.sql(statement, ids=list(ids))[0][0] == len(ids), 40)


# A test event


@pytest.mark.parametrize("enabled", [True, False])
def test_a_test_reaches_that_subscription_alone(system: Running, http: HttpReceiver, enabled: bool) -> None:
    path = f"/tried-{enabled}"
    made = subscribe(system, http.url(path), "tried.other", filter="payload.never", enabled=enabled)
    others = [subscribe(system, http.url(f"{path}-other"), *types) for types in (["notifier.test"], ["tried.other"])]
    answer = system.post(f"{PATH}/{made['id']}/test")
    assert answer.status_code == 202, answer.text
    notification = settled(system, answer.json()["id"], "delivered")
    assert (notification["subscription_id"], notification["channel"]) == (made["id"], "webhook")
    assert notification["event_id"] is None
    [received] = http.received(path)
    assert received.json["type"] == "notifier.test"
    assert received.json["id"] == received.id == notification["id"]
    assert received.json["timestamp"].endswith("Z")
    assert isinstance(received.json["data"], dict)
    Webhook(made["secret"]).verify(received.body, received.headers)
    assert [notifications(system, other) for other in others] == [[], []]
    assert [each["id"] for each in notifications(system, made)] == [notification["id"]]
    assert system.get(f"{PATH}/{made['id']}").json()["enabled"] is enabled


def test_a_test_that_fails_says_what_was_answered(system: Running, http: HttpReceiver) -> None:
    http.answer("/tried-in-vain", 404)
    made = subscribe(system, http.url("/tried-in-vain"), "tried.in.vain", permanent_statuses=[404])
    notification = settled(system, system.post(f"{PATH}/{made['id']}/test").json()["id"], "failed")
    assert [attempt["status_code"] for attempt in notification["attempt_log"]] == [404]


# Recover


def test_what_was_missed_while_disabled_comes_once_with_its_ids(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/missed"), "missed.while.disabled")
    before = system.event(event_type="missed.while.disabled")
    first = system.finished(before) if wait_for(lambda: system.notifications(before)) else {}
    system.http.patch(f"{system.url}{PATH}/{made['id']}", json={"enabled": False}, timeout=9)
    ids = [each["id"] for each in missed(system, "missed.while.disabled", 3)]
    enable(system, made)
    assert recover(system, made) == 3
    all_delivered(system, http, "/missed", [first["id"], *ids])
    found = system.notification(ids[0])
    assert (found["reason"], found["attempts"], found["due_at"]) == (None, 1, None)
    assert recover(system, made) == 0
    # Whatever came again would have come before this one.
    last = system.event(event_type="missed.while.disabled")
    wait_for(lambda: len(http.received("/missed")) >= 5)
    assert dict(http.times("/missed")) == dict.fromkeys([first["id"], *ids, system.notifications(last)[0]["id"]], 1)


def test_what_failed_comes_again_with_its_id_and_a_full_budget(system: Running, http: HttpReceiver) -> None:
    http.answer("/failed", 500, 500, 500, 500, 204)
    made = subscribe(system, http.url("/failed"), "failed.for.good")
    event_id = system.event(event_type="failed.for.good")
    letter = system.dead_letter(event_id)
    [dead] = notifications(system, made, status="failed")
    assert dead["attempts"] == 3
    assert recover(system, made) == 1
    later = settled(system, dead["id"], "delivered")
    assert [attempt["number"] for attempt in later["attempt_log"]] == [1, 2, 3, 4, 5]
    assert later["reason"] is None
    assert dict(http.times("/failed")) == {dead["id"]: 5}
    assert len({received.body for received in http.received("/failed")}) == 1
    assert system.get(f"/api/v1/dead-letters/{letter['id']}").json()["requeued_at"] is not None
    assert system.post(f"/api/v1/dead-letters/{letter['id']}/requeue").status_code == 409
    assert recover(system, made) == 0


def test_since_is_a_moment(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/since"), "since.then", enabled=False)
    skipped = [missed(system, "since.then")[0] for _ in range(3)]
    moments = [datetime.fromisoformat(each["created_at"]) for each in skipped]
    assert moments == sorted(set(moments))
    enable(system, made)
    assert recover(system, made, (datetime.now(UTC) + timedelta(days=1)).isoformat()) == 0
    elsewhere = moments[1].astimezone(tz=None).isoformat()
    assert recover(system, made, elsewhere) == 2
    all_delivered(system, http, "/since", [each["id"] for each in skipped[1:]])
    assert recover(system, made, skipped[0]["created_at"]) == 1
    all_delivered(system, http, "/since", [each["id"] for each in skipped])


def test_since_may_be_very_long_ago(system: Running) -> None:
    made = subscribe(system, "https://example.com/ancient", "since.ancient", enabled=False)
    missed(system, "since.ancient")
    enable(system, made)
    assert recover(system, made, "1970-01-01T00:00:00Z") == 1


@pytest.mark.parametrize("since", ["1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_since_out_of_all_bounds_recovers_nothing(system: Running, since: str) -> None:
    made = subscribe(system, "https://example.com/far-off", "since.far.off", enabled=False)
    answer = system.post(f"{PATH}/{made['id']}/recover", {"since": since})
    assert (answer.status_code, answer.json().get("recovered")) in {(202, 0), (422, None)}


WRONG_BODIES: list[Any] = [{}, {"since": None}, {"since": ""}, {"since": "yesterday"}, {"since": 1}, [], None]
WRONG_BODIES += [{"since": "2026-01-01T00:00:00"}, {"since": "2026-01-01"}, {"since": LONG_AGO, "until": LONG_AGO}]


@pytest.mark.parametrize("number", range(len(WRONG_BODIES)))
def test_a_wrong_since_recovers_nothing(system: Running, number: int) -> None:
    made = subscribe(system, "https://example.com/wrong-since", "since.wrong", enabled=False)
    answer = system.post(f"{PATH}/{made['id']}/recover", WRONG_BODIES[number])
    assert answer.status_code == (415 if WRONG_BODIES[number] is None else 422), answer.text


def test_what_is_refused_while_disabled_can_be_recovered_later(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/too-soon"), "recovered.too.soon", enabled=False)
    [skipped] = missed(system, "recovered.too.soon")
    before = system.notification(skipped["id"])
    assert recover(system, made) == 0
    assert system.notification(skipped["id"]) == before
    enable(system, made)
    assert recover(system, made) == 1
    all_delivered(system, http, "/too-soon", [skipped["id"]])


def test_only_what_failed_or_was_missed_is_recovered(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/only"), "only.missed")
    other = subscribe(system, http.url("/only-other"), "only.others", enabled=False)
    missed(system, "only.others")
    fine = settled(system, system.post(f"{PATH}/{made['id']}/test").json()["id"], "delivered")
    http.answer("/only", (503, {"retry-after": "3600"}), 204)
    ids = []
    for then in ("cancelled", "retrying"):
        event_id = system.event(event_type="only.missed")
        [notification] = wait_for(lambda event_id=event_id: system.notifications(event_id))
        http.answer("/only", (503, {"retry-after": "3600"}))
        settled(system, notification["id"], "retrying")
        if then == "cancelled":
            assert system.post(f"/api/v1/notifications/{notification['id']}/cancel").status_code == 200
        ids.append(notification["id"])
    assert recover(system, made) == 0
    states = [system.notification(each)["status"] for each in [fine["id"], *ids]]
    assert states == ["delivered", "cancelled", "retrying"]
    assert {each["status"] for each in notifications(system, other)} == {"skipped"}


def test_twelve_hundred_that_failed_are_recovered_in_batches(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/hundreds"), "failed.by.hundreds", enabled=False)
    [example] = missed(system, "failed.by.hundreds")
    ids = [str(new_id()) for _ in range(1200)]
    # As if they had failed one by one, which would open the receiver's breaker.
    system.sql(
        """
        WITH made AS (
            INSERT INTO notifications (id, origin_id, event_id, event_type, source, recipient, channel, critical,
                priority, queue, subscription_id, created_at, status, reason, attempts, claims, tries, lost)
            SELECT new.id, origin_id, event_id, event_type, source, recipient, channel, critical, priority, queue,
                subscription_id, created_at, 'failed', 'retries_exhausted', 3, 3, 3, 0
            FROM notifications n, unnest(CAST(:ids AS uuid[])) AS new(id) WHERE n.id = :example RETURNING *
        )
        INSERT INTO dead_letters
            (id, notification_id, event_id, claims, channel, event_type, reason, attempts, created_at)
        SELECT id, id, event_id, claims, channel, event_type, reason, 3, now() FROM made
        """,
        ids=ids,
        example=example["id"],
    )
    enable(system, made)
    begun = system.post(f"{PATH}/{made['id']}/recover", {"since": LONG_AGO}).json()
    assert (begun["total"], begun["recovered"], begun["status"]) == (1201, 500, "running")
    assert finished(system, begun)["recovered"] == 1201
    all_delivered(system, http, "/hundreds", [example["id"], *ids])
    letters = "SELECT count(*) FROM dead_letters WHERE event_id = :event_id AND requeued_at IS NULL"
    assert system.sql(letters, event_id=example["event_id"])[0][0] == 0
    assert {each["attempts"] for each in notifications(system, made)} == {1, 4}
    assert recover(system, made) == 0


def test_recoveries_take_turns(engine: Engine) -> None:
    large, small = new_id(), new_id()
    made = text("""
        INSERT INTO notifications (id, source, channel, critical, priority, queue, created_at, status, attempts, claims,
            tries, lost, subscription_id)
        SELECT id, 'test', 'webhook', false, 'normal', 'webhook', now(), 'failed', 1, 1, 1, 0, :subscription
        FROM unnest(CAST(:ids AS uuid[])) AS made(id)
    """)
    subscription_row = text("""
        INSERT INTO subscriptions (id, url, event_types, headers, enabled, secret, created_at, updated_at)
        VALUES (:id, 'https://example.com/', '{}', '{}', true, '', now(), now())
    """)
    with engine.begin() as connection:
        for subscription, count in ((large, 2500), (small, 700)):
            connection.execute(subscription_row, {"id": subscription})
            connection.execute(made, {"subscription": subscription, "ids": [new_id() for _ in range(count)]})
    begun = [recovery.begin(engine, each, datetime(2026, 1, 1, tzinfo=UTC), lambda _: 0) for each in (large, small)]
    assert [len(hints) for _, hints in begun] == [500, 500]
    assert [len(recovery.go_on(engine, lambda _: 0) or []) for _ in range(2)] == [500, 200]
    found = [recovery.find(engine, each) for each, _ in begun]
    assert [(each.recovered, each.status) for each in found if each] == [(1000, "running"), (700, "finished")]


def test_several_at_once_recover_everything_once(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/at-once"), "recovered.at.once", enabled=False)
    ids = [each["id"] for each in missed(system, "recovered.at.once", 300)]
    enable(system, made)
    url = f"{system.url}{PATH}/{made['id']}/recover"

    def ask(_: int) -> int:
        answer = requests.post(url, json={"since": LONG_AGO}, timeout=60)
        assert answer.status_code == 202, answer.text
        return int(finished(system, answer.json())["recovered"])

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(ask, range(6))) == 300
    all_delivered(system, http, "/at-once", ids)


# Replay, resend, enable, list


def test_a_replay_makes_new_notifications_for_those_who_listen_now(system: Running, http: HttpReceiver) -> None:
    first, gone = (subscribe(system, http.url(f"/replay-{each}"), "replayed.event") for each in ("first", "gone"))
    event_id = system.event(event_type="replayed.event", payload={"n": 1})
    wait_for(lambda: http.received("/replay-first") and http.received("/replay-gone"))
    system.http.delete(f"{system.url}{PATH}/{gone['id']}", timeout=9)
    later = subscribe(system, http.url("/replay-later"), "replayed.*")
    off = subscribe(system, http.url("/replay-off"), "replayed.*", enabled=False)
    subscribe(system, http.url("/replay-filtered"), "replayed.*", filter="payload.never")
    assert system.post(f"/api/v1/events/{event_id}/replay").status_code == 202
    wait_for(lambda: len(http.received("/replay-first")) == 2 and http.received("/replay-later"))
    made = [each["subscription_id"] for each in system.notifications(event_id)]
    assert sorted(made) == sorted([first["id"], first["id"], gone["id"], later["id"], off["id"]])
    one, two = http.received("/replay-first")
    assert one.id != two.id
    assert one.body == two.body
    assert one.json["id"] == event_id
    assert len(http.received("/replay-gone")) == 1
    [skipped] = notifications(system, off)
    assert (skipped["status"], skipped["reason"]) == ("skipped", "subscription_disabled")


@pytest.mark.parametrize("since_then", ["nothing", "moved", "disabled", "deleted"])
def test_one_is_sent_again_on_request(system: Running, http: HttpReceiver, since_then: str) -> None:
    made = subscribe(system, http.url(f"/resent-{since_then}"), f"resent.{since_then}")
    event_id = system.event(event_type=f"resent.{since_then}")
    wait_for(lambda: system.notifications(event_id))
    first = system.finished(event_id)
    there = f"{system.url}{PATH}/{made['id']}"
    if since_then == "moved":
        system.http.patch(there, json={"url": http.url("/resent-elsewhere")}, timeout=9)
    elif since_then == "disabled":
        system.http.patch(there, json={"enabled": False}, timeout=9)
    elif since_then == "deleted":
        system.http.delete(there, timeout=9)
    answer = system.post(f"/api/v1/notifications/{first['id']}/resend")
    path = {"nothing": "/resent-nothing", "moved": "/resent-elsewhere"}.get(since_then)
    if path:
        assert answer.status_code == 202
        wait_for(lambda: http.times(path)[first["id"]] == (1 if since_then == "moved" else 2))
        assert settled(system, first["id"], "delivered")["attempts"] == 2
        assert len({each.body for each in [*http.received(f"/resent-{since_then}"), *http.received(path)]}) == 1
    else:
        assert (answer.status_code, answer.json()["reason"]) == (409, f"subscription_{since_then}")
        assert system.notification(first["id"]) == {**system.notification(first["id"]), **first}


def test_a_recovery_leaves_alone_what_rules_forbid(system: Running, http: HttpReceiver) -> None:
    """A recovery counts them, by reason; a later one recovers them once the rules allow it."""
    made = subscribe(system, http.url("/refused"), "refused.some", enabled=False)
    skipped = missed(system, "refused.some", 3)
    system.sql("UPDATE notifications SET expires_at = now() WHERE id = :id", id=skipped[0]["id"])
    answer = system.post(f"{PATH}/{made['id']}/recover", {"since": LONG_AGO})
    first = finished(system, answer.json())
    assert (first["total"], first["recovered"], first["refused"]) == (3, 0, 3)
    assert first["refused_reasons"] == {"subscription_disabled": 2, "expired": 1}
    assert [system.notification(each["id"])["status"] for each in skipped] == ["skipped"] * 3
    enable(system, made)
    answer = system.post(f"{PATH}/{made['id']}/recover", {"since": LONG_AGO})
    second = finished(system, answer.json())
    assert (second["recovered"], second["refused"], second["asked_by"]) == (2, 1, "anonymous")
    assert second["refused_reasons"] == {"expired": 1}
    all_delivered(system, http, "/refused", [each["id"] for each in skipped[1:]])
    assert [each["how"] for each in system.notification(skipped[1]["id"])["earlier_sends"]] == ["recover"]


def test_one_that_was_gone_is_enabled_and_recovered(system: Running, http: HttpReceiver) -> None:
    http.answer("/gone", 410, 204)
    made = subscribe(system, http.url("/gone"), "gone.for.now")
    event_id = system.event(event_type="gone.for.now")
    wait_for(lambda: system.notifications(event_id))
    dead = system.finished(event_id)
    assert (dead["status"], dead["reason"], dead["attempts"]) == ("failed", "permanent_error", 1)
    assert [attempt["outcome"] for attempt in dead["attempt_log"]] == ["rejected"]
    found = wait_for(lambda: (each := system.get(f"{PATH}/{made['id']}").json()) and not each["enabled"] and each)
    assert found["disabled_reason"] == "gone"
    skipped = [each["id"] for each in missed(system, "gone.for.now", 2)]
    assert enable(system, made)["updated_at"] > made["updated_at"]
    assert recover(system, made) == 3
    wait_for(lambda: len(http.received("/gone")) == 4)
    assert dict(http.times("/gone")) == {dead["id"]: 2, **dict.fromkeys(skipped, 1)}


def test_enabling_and_recovering_are_one_call(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/one-call"), "enabled.and.recovered", enabled=False)
    ids = [each["id"] for each in missed(system, "enabled.and.recovered", 3)]
    enable_it = f"{PATH}/{made['id']}/enable"
    for wrong in ({"recover_since": "yesterday"}, {"since": LONG_AGO}, {"recover_since": 1}, []):
        assert system.post(enable_it, wrong).status_code == 422, wrong
    assert system.get(f"{PATH}/{made['id']}").json()["enabled"] is False
    answer = system.post(enable_it, {"recover_since": LONG_AGO})
    assert answer.status_code == 200, answer.text
    assert answer.json()["enabled"] is True
    assert finished(system, answer.json()["recovery"])["recovered"] == 3
    all_delivered(system, http, "/one-call", ids)
    assert system.post(enable_it, {"recover_since": None}).json()["recovery"] is None
    assert system.post(enable_it, {}).json()["recovery"] is None


def test_a_recovery_is_found_by_its_subscription_alone(system: Running) -> None:
    one, other = (subscribe(system, "https://example.com/found", "never.happens") for _ in range(2))
    begun = system.post(f"{PATH}/{one['id']}/recover", {"since": LONG_AGO}).json()
    assert (begun["total"], begun["recovered"], begun["status"]) == (0, 0, "finished")
    assert begun["since"] == LONG_AGO
    assert system.get(f"{PATH}/{one['id']}/recoveries/{begun['id']}").json() == begun
    for wrong in (f"{other['id']}/recoveries/{begun['id']}", f"{one['id']}/recoveries/{one['id']}"):
        assert system.get(f"{PATH}/{wrong}").status_code == 404
    system.http.delete(f"{system.url}{PATH}/{one['id']}", timeout=9)
    assert system.get(f"{PATH}/{one['id']}/recoveries").status_code == 404


def test_what_is_skipped_while_it_is_enabled_is_recovered(system: Running, http: HttpReceiver) -> None:
    """A fan-out has found it disabled, and not written that yet, when it is enabled and recovered."""
    made = subscribe(system, http.url("/raced"), "enabled.in.a.race", enabled=False)
    [skipped] = missed(system, "enabled.in.a.race")
    event_id = new_id()
    its_id = derived_id(millisecond_of(event_id), event_id, "subscription", made["id"])
    another_event = """
        INSERT INTO events (id, event_type, source, payload, critical, priority, status, handovers, created_at, due_at)
        SELECT :id, event_type, source, payload, critical, priority, 'accepted', 0, created_at, now()
        FROM events WHERE id = :like
    """
    its_notification = text("""
        INSERT INTO notifications (id, channel, critical, priority, queue, created_at, status, attempts, claims, tries,
            lost, source)
        SELECT :id, channel, critical, priority, queue, created_at, status, 0, 0, 0, 0, source
        FROM notifications WHERE id = :like
    """)

    def is_waiting(query: str) -> bool:
        waits = "datname = current_database() AND wait_event_type = 'Lock' AND query LIKE :query"
        return bool(system.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {waits}", query=query)[0][0])

    with system.engine.connect() as blocker, ThreadPoolExecutor(1) as pool:
        with blocker.begin() as held:
            # The row of this id must wait until it is known whether it is there.
            blocker.execute(its_notification, {"id": its_id, "like": skipped["id"]})
            system.sql(another_event, id=event_id, like=skipped["event_id"])
            wait_for(lambda: is_waiting("%INSERT INTO notifications%"))
            enabled = pool.submit(system.post, f"{PATH}/{made['id']}/enable", {"recover_since": LONG_AGO})
            wait_for(lambda: is_waiting("UPDATE subscriptions%") or enabled.done())
            held.rollback()
        finished(system, enabled.result().json()["recovery"])
    all_delivered(system, http, "/raced", [skipped["id"], str(its_id)])


def test_what_is_to_be_skipped_goes_where_it_was_enabled_meanwhile(system: Running, http: HttpReceiver) -> None:
    """A worker has read that it is disabled, and not put the row aside yet, when it is enabled."""
    made = subscribe(system, http.url("/read-before"), "enabled.after.reading", enabled=False)
    [skipped] = missed(system, "enabled.after.reading")
    with system.engine.begin() as enabling:
        values = {"id": made["id"]}
        enabling.execute(text("UPDATE subscriptions SET enabled = true, disabled_reason = NULL WHERE id = :id"), values)
        queued = "UPDATE notifications SET status = 'queued', reason = NULL, due_at = now() WHERE id = :id"
        system.sql(queued, id=skipped["id"])
        waits = "datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%subscriptions%FOR SHARE%'"
        wait_for(lambda: system.sql(f"SELECT count(*) FROM pg_stat_activity WHERE {waits}")[0][0])
    all_delivered(system, http, "/read-before", [skipped["id"]])


def test_its_notifications_are_listed_newest_first(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/listed"), "listed.for.it", enabled=False)
    skipped = [each["id"] for each in missed(system, "listed.for.it", 5)]
    enable(system, made)
    tried = settled(system, system.post(f"{PATH}/{made['id']}/test").json()["id"], "delivered")
    listed = f"{PATH}/{made['id']}/notifications"
    first = system.get(listed, params={"limit": 4}).json()
    second = system.get(listed, params={"limit": 4, "cursor": first["next_cursor"]}).json()
    found = [each["id"] for each in [*first["items"], *second["items"]]]
    assert (found[0], sorted(found[1:]), second["next_cursor"]) == (tried["id"], sorted(skipped), None)
    assert set(first["items"][0]) == set(tried) - {"attempt_log", "explanation", "earlier_sends", "receipts", "judged"}
    assert len(notifications(system, made, status="skipped")) == 5
    assert len(notifications(system, made, status="delivered")) == 1
    for wrong in ("status=lost", "limit=0", "limit=201", "cursor=x", "channel=sms"):
        assert system.get(f"{listed}?{wrong}").status_code == 422, wrong
