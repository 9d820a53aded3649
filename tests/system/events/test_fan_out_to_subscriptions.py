"""Who hears of what: patterns, filters, subscriptions that come, change and go, and fan-out to very many."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from standardwebhooks import Webhook

from deploy.ports import free_port
from notifier.vocabulary.ids import new_id
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

PATH = "/api/v1/subscriptions"


@pytest.fixture(scope="module")
def own(new_system: Callable[..., Running]) -> Iterator[Running]:
    """A system whose subscriptions may hear everything, and whose worker may be killed."""
    with new_system() as system:
        yield system


def subscribe(system: Running, url: str, *event_types: str, **fields: Any) -> str:
    answer = system.post(PATH, {"url": url, "event_types": event_types, **fields})
    assert answer.status_code == 201, answer.text
    made: str = answer.json()["id"]
    return made


def change(system: Running, subscription_id: str, **fields: Any) -> None:
    answer = system.http.patch(f"{system.url}{PATH}/{subscription_id}", json=fields, timeout=20)
    assert answer.status_code == 200, answer.text


def delete(system: Running, subscription_id: str) -> None:
    assert system.http.delete(f"{system.url}{PATH}/{subscription_id}", timeout=20).status_code == 204


def processed(system: Running, event_id: str) -> list[dict[str, Any]]:
    """The notifications of an event once it is fanned out: there will be no further ones."""
    # Where a process could not know that somebody listens by now, it leaves the event to the clock, for 5 s.
    system.sql("UPDATE events SET due_at = now() WHERE id = :id AND status = 'accepted'", id=event_id)
    wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed", 40)
    return system.notifications(event_id)


def hearers(system: Running, event_id: str) -> list[str]:
    return sorted(each["subscription_id"] for each in processed(system, event_id) if each["subscription_id"])


def batch(system: Running, *events: dict[str, Any]) -> list[str]:
    answer = system.post("/api/v1/events/batch", {"events": events})
    assert answer.json()["accepted"] == len(events), answer.text
    return [item["id"] for item in answer.json()["items"]]


def settled(system: Running, notification_id: str, *statuses: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = system.notification(notification_id)
        return found if found["status"] in statuses else None

    return wait_for(look, what=f"{notification_id} to be {statuses}")


# Patterns and filters


def test_patterns_say_who_hears(system: Running, http: HttpReceiver) -> None:
    wanted = {
        "hear.a": ["hear.a"],
        "hear.*": ["hear.a", "hear.ab", "hear.a.b", "hear.A"],
        "hear.a*": ["hear.a", "hear.ab", "hear.a.b"],
        "hear.a.*": ["hear.a.b"],
        "HEAR.*": [],
        "hear": ["hear"],
    }
    made = {subscribe(system, http.url("/patterns"), pattern): pattern for pattern in wanted}
    several = subscribe(system, http.url("/patterns"), "hear.a*", "hear.ab", "hear.*", "unheard")
    types = ["hear.a", "hear.ab", "hear.a.b", "hear.A", "hear", "hearing.a"]
    for event_type, event_id in zip(types, batch(system, *({"event_type": each} for each in types)), strict=True):
        heard = hearers(system, event_id)
        assert {made[each] for each in heard if each != several} == {p for p in wanted if event_type in wanted[p]}
        assert heard.count(several) == (1 if event_type.startswith("hear.") else 0)


def test_a_star_hears_everything(own: Running, http: HttpReceiver) -> None:
    made = subscribe(own, http.url("/star"), "*")
    ids = batch(
        own,
        {"event_type": "USER_SIGNUP"},
        {"event_type": "x:y", "user_id": "u_nobody"},
        {"event_type": "9", "recipient": "+4915112345678", "channel": "sms"},
    )
    assert [hearers(own, event_id) for event_id in ids] == [[made]] * 3
    wait_for(lambda: {each.json["type"] for each in http.received("/star")} >= {"USER_SIGNUP", "x:y", "9"})
    delete(own, made)


def test_a_filter_means_yes_and_no_as_jmespath_does(system: Running, http: HttpReceiver) -> None:
    yes = [True, 1, 0, -0.5, "x", "false", [0], [None], {"a": None}]
    no = [False, None, "", [], {}]
    made = subscribe(system, http.url("/truth"), "filter.truth", filter="payload.v")
    events = [{"event_type": "filter.truth", "payload": {"v": value}} for value in [*yes, *no]]
    ids = batch(system, *events, {"event_type": "filter.truth"})
    assert [hearers(system, event_id) for event_id in ids] == [[made]] * len(yes) + [[]] * (len(no) + 1)
    # An event that nobody wants is kept all the same.
    assert system.get(f"/api/v1/events/{ids[len(yes)]}").json()["payload"] == {"v": False}


def test_a_filter_sees_the_whole_event(system: Running, http: HttpReceiver) -> None:
    filters = {
        "event_type == 'filter.see'": True,
        "payload.total > `100` && payload.tags[?@ == 'vip']": True,
        "payload.total > `500`": False,
        "recipient == '+4915112345678' && channel == 'sms'": True,
        "critical": False,
        "priority == 'low' && category == 'news'": True,
        "!user_id": True,
        "source == 'anonymous' && starts_with(occurred_at, '2026-11-21T09')": True,
    }
    made = {subscribe(system, http.url("/see"), "filter.see", filter=each): each for each in filters}
    about = {"recipient": "+4915112345678", "channel": "sms", "priority": "low", "category": "news"}
    payload, occurred_at = {"total": 101, "tags": ["new", "vip"]}, "2026-11-21T10:00:00+01:00"
    event_id = system.event(event_type="filter.see", payload=payload, occurred_at=occurred_at, **about)
    assert {made[each] for each in hearers(system, event_id)} == {each for each in filters if filters[each]}


def test_filters_that_break_on_an_events_data_stop_nobody_else(system: Running, http: HttpReceiver) -> None:
    breaking = ["contains(payload.name, payload.n)", "max_by(payload.a, &x)", "ceil(to_number(payload.inf))"]
    breaking += ["ceil(to_number(payload.nan))", "payload.a[::0]", "length(payload.n)", "merge(payload, payload.a)"]
    for expression in breaking:
        subscribe(system, http.url("/breaking"), "filter.breaks", filter=expression)
    fine = [subscribe(system, http.url("/unbroken"), "filter.breaks", filter=each) for each in (None, "payload.n")]
    payload = {"name": "abc", "n": 5, "a": [{"x": 1}, {"x": "y"}], "inf": "inf", "nan": "nan"}
    event_id = system.event(event_type="filter.breaks", payload=payload)
    assert hearers(system, event_id) == sorted(fine)
    wait_for(lambda: len(http.received("/unbroken")) == 2)
    assert http.received("/breaking") == []


# Patterns and filters


def test_what_arrives_and_what_is_on_record(system: Running, http: HttpReceiver) -> None:
    answer = system.post(PATH, {"url": http.url("/what?a=b"), "event_types": ["what.arrives"]}).json()
    payload = {"z": 1, "a": {"big": 2**63, "text": "é☃"}}
    about = {"category": "news", "critical": True, "user_id": "u_what", "channel": "push"}
    occurred_at = "2026-11-21T10:00:00+01:00"
    event_id = system.event(event_type="what.arrives", payload=payload, occurred_at=occurred_at, **about)
    [made_id] = [each["id"] for each in processed(system, event_id) if each["subscription_id"]]
    notification = settled(system, made_id, "delivered")
    [received] = http.received("/what?a=b")
    told = {"type": "what.arrives", "timestamp": "2026-11-21T09:00:00Z", "id": event_id, "data": payload}
    assert received.json == told
    assert received.id == notification["id"]
    Webhook(answer["secret"]).verify(received.body, received.headers)
    expected = {
        "event_id": event_id,
        "user_id": None,
        "recipient": http.url("/what?a=b"),
        "channel": "webhook",
        "category": "news",
        "critical": True,
        "priority": "high",
        "template": None,
        "reason": None,
        "due_at": None,
        "attempts": 1,
        "subscription_id": answer["id"],
    }
    assert {name: notification[name] for name in expected} == expected
    without = system.event(event_type="what.arrives")
    wait_for(lambda: len(http.received("/what?a=b")) == 2)
    created_at = system.get(f"/api/v1/events/{without}").json()["created_at"]
    assert http.received("/what?a=b")[1].json["timestamp"] == created_at
    assert http.received("/what?a=b")[1].json["data"] == {}


@pytest.mark.parametrize("kind", ["recipient", "user", "user-and-channel", "route"])
def test_people_and_subscriptions_both_hear(system: Running, http: HttpReceiver, kind: str) -> None:
    number, event_type = "+4915112340077", f"both.{kind}"
    assert system.http.put(f"{system.url}/api/v1/users/u_both", json={"phone": number}, timeout=9).ok
    route = {"event_type": event_type, "to": {"recipient": f"'{number}'", "channel": "sms"}}
    if kind == "route":
        assert system.http.put(f"{system.url}/api/v1/routes/both-hear", json=route, timeout=9).ok
    made = subscribe(system, http.url(f"/both-{kind}"), event_type)
    addressed: dict[str, Any] = {
        "recipient": {"recipient": number, "channel": "sms"},
        "user": {"user_id": "u_both"},
        "user-and-channel": {"user_id": "u_both", "channel": "sms"},
    }.get(kind, {})
    event_id = system.event(event_type=event_type, **addressed)
    found = {(each["channel"], each["recipient"]): each for each in processed(system, event_id)}
    assert set(found) == {("sms", number), ("webhook", http.url(f"/both-{kind}"))}
    assert found["webhook", http.url(f"/both-{kind}")]["subscription_id"] == made
    assert found["sms", number]["subscription_id"] is None
    settled(system, found["sms", number]["id"], "sent")
    wait_for(lambda: http.received(f"/both-{kind}"))


def test_a_reminder_for_somebody_is_an_event_for_subscriptions_now(system: Running, http: HttpReceiver) -> None:
    made = subscribe(system, http.url("/reminded"), "reminded.somebody")
    for _ in range(2):
        event_id = system.event(
            event_type="reminded.somebody",
            recipient="+4915112340078",
            channel="sms",
            target_date="2027-12-24T12:00:00Z",
            lead_time="P1D",
            timezone="UTC",
            cancellation_key="reminded-1",
        )
        assert hearers(system, event_id) == [made]
    wait_for(lambda: len(http.received("/reminded")) == 2)


# Subscriptions that come, change and go


@pytest.mark.parametrize("how", ["made", "patched"])
def test_one_that_is_disabled_is_skipped_and_says_why(system: Running, http: HttpReceiver, how: str) -> None:
    made = subscribe(system, http.url("/off"), f"off.{how}", enabled=how != "made")
    if how == "patched":
        change(system, made, enabled=False)
    assert system.get(f"{PATH}/{made}").json()["disabled_reason"] == "by_hand"
    [notification] = processed(system, system.event(event_type=f"off.{how}"))
    assert (notification["status"], notification["reason"]) == ("skipped", "subscription_disabled")
    assert (notification["subscription_id"], notification["attempts"]) == (made, 0)
    assert notification["due_at"] is None
    change(system, made, enabled=True)
    [later] = processed(system, system.event(event_type=f"off.{how}"))
    settled(system, later["id"], "delivered")
    assert set(http.times("/off")) & {notification["id"], later["id"]} == {later["id"]}


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        ("moved", "delivered", None),
        ("disabled", "skipped", "subscription_disabled"),
        ("deleted", "skipped", "subscription_deleted"),
    ],
)
def test_what_waits_goes_by_what_holds_when_it_is_sent(
    system: Running, http: HttpReceiver, what: str, status: str, reason: str | None
) -> None:
    http.answer(f"/waits-{what}", (503, {"retry-after": "3600"}), 204)
    made = subscribe(system, http.url(f"/waits-{what}"), f"waits.{what}")
    [notification] = processed(system, system.event(event_type=f"waits.{what}", payload={"n": 1}))
    settled(system, notification["id"], "retrying")
    if what == "moved":
        change(system, made, url=http.url("/waits-elsewhere"))
    elif what == "disabled":
        change(system, made, enabled=False)
    else:
        delete(system, made)
    system.sql("UPDATE notifications SET due_at = now() WHERE id = :id", id=notification["id"])
    finished = settled(system, notification["id"], status)
    assert (finished["reason"], finished["attempts"]) == (reason, 2 if what == "moved" else 1)
    [first] = http.received(f"/waits-{what}")
    if what == "moved":
        [second] = http.received("/waits-elsewhere")
        assert (second.id, second.body) == (first.id, first.body)


def test_those_that_were_deleted_hear_nothing_more(system: Running, http: HttpReceiver) -> None:
    for _ in range(5):
        made = subscribe(system, http.url("/deleted"), "deleted.before")
        delete(system, made)
        assert processed(system, system.event(event_type="deleted.before")) == []


ADDRESSED: list[dict[str, Any]] = [
    {},
    {"recipient": "+4915112345678", "channel": "sms"},
    {"user_id": "u_first_words"},
    {"recipient": "+4915112345678", "channel": "sms", "idempotency_key": "first-words"},
]


def test_the_very_next_event_is_heard_whichever_process_takes_it(own: Running, http: HttpReceiver) -> None:
    port = free_port()
    own.start(only=[own.add_api(port)])
    apis = [own.url, f"http://127.0.0.1:{port}"]
    numbers = itertools.count()

    def begin(session: requests.Session, api: str, event_type: str, how: str) -> str:
        """Somebody begins to listen: by a new subscription, or by a change of one that listened for something else."""
        body = {"url": http.url("/next"), "event_types": [event_type if how == "new" else "next.never"]}
        made = session.post(f"{api}{PATH}", json={**body, "enabled": how != "enabled"}, timeout=30)
        assert made.status_code == 201, made.text
        subscription_id: str = made.json()["id"]
        if how != "new":
            fields = {"event_types": [event_type], "enabled": True}
            assert session.patch(f"{api}{PATH}/{subscription_id}", json=fields, timeout=30).status_code == 200
        return subscription_id

    def rounds(worker: int) -> list[tuple[str, str]]:
        made = []
        with requests.Session() as session:
            for turn in range(12):
                number = next(numbers)
                event_type = f"next.{number}"
                event = {"event_type": event_type, **ADDRESSED[turn % len(ADDRESSED)]}
                if "idempotency_key" in event:
                    event["idempotency_key"] += str(number)
                first, second = apis[(worker + turn) % 2], apis[(worker + turn // 2) % 2]
                subscription_id = begin(session, first, event_type, ("new", "patched", "enabled")[turn % 3])
                answer = session.post(f"{second}/api/v1/events", json=event, timeout=30)
                assert answer.status_code == 202, answer.text
                made.append((answer.json()["id"], subscription_id))
        return made

    with ThreadPoolExecutor(6) as pool:
        told = list(itertools.chain(rounds(0), *pool.map(rounds, range(6))))
    missed = [event_id for event_id, made in told if hearers(own, event_id) != [made]]
    assert missed == []
    wait_for(lambda: {each.json["id"] for each in http.received("/next")} == {event_id for event_id, _ in told}, 40)


# Very many


def copy(system: Running, subscription_id: str, count: int, *, enabled: bool) -> None:
    """Subscriptions like this one, added as if over HTTP."""
    system.sql(
        """
        WITH bumped AS (UPDATE listeners SET version = version + 1)
        INSERT INTO subscriptions (id, url, event_types, headers, enabled, secret, created_at, updated_at)
        SELECT made.id, url, event_types, headers, :enabled, secret, created_at, updated_at
        FROM subscriptions s, unnest(CAST(:ids AS uuid[])) AS made(id) WHERE s.id = :id
        """,
        ids=[new_id() for _ in range(count)],
        id=subscription_id,
        enabled=enabled,
    )


def made_for(system: Running, *event_ids: str) -> tuple[int, int, int]:
    """How many notifications events have, of how many pairs of event and subscription, and how many were delivered."""
    [row] = system.sql(
        """SELECT count(*), count(DISTINCT (event_id, subscription_id)), count(*) FILTER (WHERE status = 'delivered')
        FROM notifications WHERE event_id = ANY(CAST(:ids AS uuid[]))""",
        ids=list(event_ids),
    )
    return tuple(row)


def test_a_worker_that_dies_amid_ten_thousand_forgets_and_doubles_nobody(own: Running, http: HttpReceiver) -> None:
    first = subscribe(own, http.url("/crowd"), "crowd.told")
    copy(own, first, 9_699, enabled=False)
    copy(own, first, 300, enabled=True)
    [(victim,)] = own.sql("SELECT id FROM subscriptions ORDER BY id OFFSET 8000 LIMIT 1")
    # The fan-out stops at this subscription, in its second chunk, for as long as the test holds a lock.
    own.sql("""CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$""")
    own.sql(f"""CREATE TRIGGER wait_here BEFORE INSERT ON notifications FOR EACH ROW
        WHEN (NEW.subscription_id = '{victim}') EXECUTE FUNCTION wait_here()""")
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
    with own.engine.begin() as holder:
        holder.exec_driver_sql("SELECT pg_advisory_xact_lock(4711)")
        event_id = own.event(event_type="crowd.told")
        wait_for(lambda: own.sql(waiting)[0][0] == 1, 40, "the second chunk to be under way")
        assert made_for(own, event_id)[0] == 5_000
        assert own.fresh.pid
        os.killpg(own.fresh.pid, signal.SIGKILL)
        wait_for(lambda: not own.fresh.alive())
    wait_for(lambda: own.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")[0][0] == 0)
    assert made_for(own, event_id)[0] == 5_000
    assert own.get(f"/api/v1/events/{event_id}").json()["status"] == "accepted"
    own.sql("DROP TRIGGER wait_here ON notifications")
    own.fresh.launch()
    assert len(processed(own, event_id)) == 10_000
    wait_for(lambda: made_for(own, event_id) == (10_000, 10_000, 301), 40)
    assert len(http.times("/crowd")) == 301

    # Once more from the beginning: everything is there already.
    own.sql("UPDATE events SET status = 'accepted', fan_out_after = NULL, due_at = now() WHERE id = :id", id=event_id)
    processed(own, event_id)
    assert made_for(own, event_id) == (10_000, 10_000, 301)
    assert sum(http.times("/crowd").values()) == 301
    own.sql("DELETE FROM subscriptions")
    own.sql("UPDATE listeners SET version = version + 1")


def test_very_many_filters_forget_and_double_nothing(own: Running, http: HttpReceiver) -> None:
    first = subscribe(own, http.url("/asked"), "asked.often", filter="payload.n == `0`")
    copy(own, first, 249, enabled=True)
    own.sql("""UPDATE subscriptions s SET filter = 'payload.n == `' || place || '`'
        FROM (SELECT id, row_number() OVER (ORDER BY id) - 1 AS place FROM subscriptions) AS of WHERE s.id = of.id""")
    own.sql("UPDATE listeners SET version = version + 1")
    # 250 filters for each of 100 events are more than one transaction asks.
    ids = batch(own, *({"event_type": "asked.often", "payload": {"n": number}} for number in range(100)))
    wait_for(lambda: made_for(own, *ids) == (100, 100, 100), 60)
    assert sorted(each.json["data"]["n"] for each in http.received("/asked")) == [*range(100)]
    for event_id in ids:
        assert len(processed(own, event_id)) == 1
    own.sql("DELETE FROM subscriptions")
    own.sql("UPDATE listeners SET version = version + 1")


def test_many_events_to_many_subscriptions_are_one_each(own: Running, http: HttpReceiver) -> None:
    first = subscribe(own, http.url("/many-to-many"), "many.told")
    copy(own, first, 99, enabled=False)
    subscribe(own, http.url("/many-filtered"), "many.told", filter="payload.n >= `115`")
    ids = batch(own, *({"event_type": "many.told", "payload": {"n": number}} for number in range(120)))
    wait_for(lambda: made_for(own, *ids) == (12_005, 12_005, 125), 60)
    assert len(http.times("/many-to-many")) == 120
    assert sorted(each.json["data"]["n"] for each in http.received("/many-filtered")) == [*range(115, 120)]
