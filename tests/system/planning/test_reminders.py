"""Reminders: at which moment they go, and which one takes another's place."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.receivers import HttpReceiver
from tests.support.running import FINISHED, Running, ahead, wait_for

FAR = "2040-06-01T12:00:00Z"


def by_event(system: Running, **fields: Any) -> list[dict[str, Any]]:
    event_id = system.event(**fields)
    wait_for(lambda: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed", what="fan-out")
    return system.notifications(event_id)


def by_notification(system: Running, **fields: Any) -> list[dict[str, Any]]:
    answer = system.post("/api/v1/notifications", {"body": "Remember.", **fields})
    assert answer.status_code == 202, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


Way = Callable[..., list[dict[str, Any]]]
BOTH_WAYS = pytest.mark.parametrize("way", [by_event, by_notification])


def dues(made: list[dict[str, Any]]) -> dict[str, str]:
    assert {each["status"] for each in made} == {"scheduled"}
    assert len({each["lead_time"] for each in made}) == len(made)
    return {each["lead_time"]: each["due_at"] for each in made}


@BOTH_WAYS
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"PT0S": "2040-06-01T12:00:00Z"}),
        ({"lead_time": "P7D"}, {"P7D": "2040-05-25T12:00:00Z"}),
        ({"lead_time": ["P1D"]}, {"P1D": "2040-05-31T12:00:00Z"}),
        ({"lead_time": ["P7D", "P1D", "PT30M"]}, {"P7D": "2040-05-25T12:00:00Z", "P1D": "2040-05-31T12:00:00Z",
                                                  "PT30M": "2040-06-01T11:30:00Z"}),
        ({"lead_time": ["P1D", "P1D"]}, {"P1D": "2040-05-31T12:00:00Z"}),
        ({"lead_time": "P1W"}, {"P1W": "2040-05-25T12:00:00Z"}),
        ({"lead_time": "P1DT2H0.5S"}, {"P1DT2H0.5S": "2040-05-31T09:59:59.500000Z"}),
        ({"lead_time": "PT0.000001S"}, {"PT0.000001S": "2040-06-01T11:59:59.999999Z"}),
        ({"lead_time_days": 7}, {"P7D": "2040-05-25T12:00:00Z"}),
        ({"lead_time_days": 0}, {"P0D": "2040-06-01T12:00:00Z"}),
    ],
)  # fmt: skip
def test_each_lead_time_is_one_reminder(
    system: Running, way: Way, asked: dict[str, Any], expected: dict[str, str]
) -> None:
    made = way(system, recipient="lead@example.com", channel="email", target_date=FAR, **asked)
    assert dues(made) == expected
    assert all(each["target_date"] == FAR and each["attempts"] == 0 and each["reason"] is None for each in made)


#: Berlin goes to summer time on 25 March 2040, and back on 28 October.
IN_BERLIN = [
    ("2040-03-31T09:00:00+02:00", "P7D", "2040-03-24T08:00:00Z"),
    ("2040-03-31T09:00:00+02:00", "PT168H", "2040-03-24T07:00:00Z"),
    ("2040-10-30T09:00:00+01:00", "P7D", "2040-10-23T07:00:00Z"),
    ("2040-10-30T09:00:00+01:00", "PT168H", "2040-10-23T08:00:00Z"),
    ("2040-03-26T02:30:00+02:00", "P1D", "2040-03-25T01:00:00Z"),
    ("2040-10-29T02:30:00+01:00", "P1D", "2040-10-28T00:30:00Z"),
    ("2040-03-25T23:00:00+02:00", "P1DT1H", "2040-03-24T21:00:00Z"),
]


@BOTH_WAYS
@pytest.mark.parametrize(("target", "lead", "due"), IN_BERLIN)
def test_days_are_counted_on_the_wall_clock_and_hours_exactly(
    system: Running, way: Way, target: str, lead: str, due: str
) -> None:
    fields = {"recipient": "berlin@example.com", "channel": "email", "timezone": "Europe/Berlin"}
    assert dues(way(system, **fields, target_date=target, lead_time=lead)) == {lead: due}


@pytest.fixture(scope="module")
def in_new_york(new_system: Callable[..., Running]) -> Iterator[Running]:
    """A system whose people live in New York where nothing else is known of them."""
    system = new_system(NOTIFIER_TIMEZONE="America/New_York")
    system.start(only=[system.api, system.fresh])
    yield system
    system.stop()


@BOTH_WAYS
@pytest.mark.parametrize(
    ("zone_of_event", "zone_of_user", "configured", "due"),
    [
        # New York changes on 11 March 2040, Berlin on the 25th, Tokyo never; the target is the 12th.
        ("Europe/Berlin", "Asia/Tokyo", True, "2040-03-10T12:00:00Z"),
        ("America/New_York", "Asia/Tokyo", False, "2040-03-10T13:00:00Z"),
        (None, "America/New_York", False, "2040-03-10T13:00:00Z"),
        (None, "Asia/Tokyo", True, "2040-03-10T12:00:00Z"),
        (None, None, True, "2040-03-10T13:00:00Z"),
        (None, None, False, "2040-03-10T12:00:00Z"),
    ],
)
def test_whose_wall_clock_it_is(
    system: Running,
    in_new_york: Running,
    way: Way,
    zone_of_event: str | None,
    zone_of_user: str | None,
    configured: bool,
    due: str,
) -> None:
    asked = in_new_york if configured else system
    user = f"u-wall-clock-{zone_of_user}".replace("/", "-")
    path = f"{asked.url}/api/v1/users/{user}"
    asked.http.put(path, json={"email": "wall@example.com", "timezone": zone_of_user}, timeout=20).raise_for_status()
    fields = {"user_id": user, "channel": "email", "timezone": zone_of_event}
    made = way(asked, **fields, target_date="2040-03-12T12:00:00Z", lead_time="P2D")
    assert dues(made) == {"P2D": due}


@BOTH_WAYS
def test_one_whose_moment_has_passed_goes_at_once_and_one_whose_target_has_passed_never(
    system: Running, http: HttpReceiver, way: Way
) -> None:
    path = f"/passed-{way.__name__}"
    fields = {"recipient": http.url(path), "channel": "webhook"}
    made = way(system, **fields, target_date=ahead(hours=20), lead_time=["P7D", "PT1H"])
    late = way(system, **fields, target_date=ahead(seconds=-1), lead_time=["P7D", "PT1S"])
    by_lead = {each["lead_time"]: each for each in made}
    wait_for(lambda: system.notification(by_lead["P7D"]["id"])["status"] == "delivered")
    assert system.notification(by_lead["PT1H"]["id"])["status"] == "scheduled"
    for each in late:
        found = system.notification(each["id"])
        assert (found["status"], found["due_at"], found["attempts"]) == ("expired", None, 0)
    assert [each.id for each in http.received(path)] == [by_lead["P7D"]["id"]]


@BOTH_WAYS
def test_without_a_lead_time_it_comes_at_its_target(system: Running, http: HttpReceiver, way: Way) -> None:
    path = f"/at-target-{way.__name__}"
    target = datetime.now(UTC) + timedelta(seconds=1.2)
    [made] = way(system, recipient=http.url(path), channel="webhook", target_date=target.isoformat())
    assert datetime.fromisoformat(made["due_at"]) == target
    wait_for(lambda: system.notification(made["id"])["status"] == "delivered")
    attempt = system.notification(made["id"])["attempt_log"][0]
    assert datetime.fromisoformat(attempt["started_at"]) >= target


@BOTH_WAYS
@pytest.mark.parametrize("expires_at", ["2040-05-25T12:00:00Z", "2040-05-01T00:00:00Z"])
def test_what_expires_before_it_is_due_is_expired_from_the_start(system: Running, way: Way, expires_at: str) -> None:
    fields = {"recipient": "soon-over@example.com", "channel": "email", "target_date": FAR, "expires_at": expires_at}
    statuses = {each["lead_time"]: each["status"] for each in way(system, **fields, lead_time=["P7D", "P60D"])}
    assert statuses == {"P7D": "expired", "P60D": "scheduled"}


def test_its_explanation_tells_its_moment_and_its_target(system: Running) -> None:
    fields = {"recipient": "told@example.com", "channel": "email", "target_date": FAR}
    [made] = by_event(system, **fields, lead_time="P7D")
    explanation = system.notification(made["id"])["explanation"]
    assert "P7D" in explanation
    assert "2040-05-25T12:00:00Z" in explanation
    assert "2040-06-01T12:00:00Z" in explanation


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/notifications"])
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"lead_time": "P7D"}, "target_date"),
        ({"lead_time_days": 7}, "target_date"),
        ({"target_date": FAR, "lead_time": "P7D", "lead_time_days": 7}, "lead_time_days"),
        ({"target_date": FAR, "send_at": FAR}, "send_at"),
        ({"target_date": "2040-06-01T12:00:00"}, "target_date"),
        ({"target_date": "2040-06-01"}, "target_date"),
        ({"target_date": 2_222_222_222}, "target_date"),
        ({"target_date": "9999-12-31T23:59:59Z"}, "target_date"),
        *[({"target_date": FAR, "lead_time": bad}, "lead_time") for bad in (7, "", "7", "P1M", "-P1D", [], [None], {})],
        *[({"target_date": FAR, "lead_time": bad}, "lead_time") for bad in (["P1D", "x"], ["P1D"] * 21, "P99999D")],
        *[({"target_date": FAR, "lead_time_days": bad}, "lead_time_days") for bad in (-1, 1.5, "7", True, 10**9)],
        *[({"target_date": FAR, "timezone": bad}, "timezone") for bad in ("Mars/Base", "", "../etc", 1, "CET-1")],
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"send_at": "2040-02-30T00:00:00Z"}, "send_at"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(system: Running, path: str, wrong: dict[str, Any], field: str) -> None:
    body = {"recipient": "wrong@example.com", "channel": "email", **wrong}
    body |= {"event_type": "test.event"} if path.endswith("events") else {"body": "x"}
    answer = system.post(path, body)
    assert answer.status_code == 422, answer.text
    assert [name for name in answer.json()["errors"] if name.split(".")[0] == field], answer.text


def test_hundreds_that_are_due_in_the_same_second_all_go_out_once(system: Running, http: HttpReceiver) -> None:
    target, total = ahead(seconds=3), 300
    event = {"event_type": "test.rush", "recipient": http.url("/rush"), "channel": "webhook", "target_date": target}
    answer = system.post("/api/v1/events/batch", {"events": [{**event, "payload": {"n": n}} for n in range(total)]})
    assert answer.json()["accepted"] == total
    wait_for(lambda: len(http.received("/rush")) >= total, 40)
    done = "SELECT count(*) AS n FROM notifications WHERE event_type = 'test.rush' AND status = 'delivered'"
    wait_for(lambda: system.sql(done)[0].n == total)
    assert set(http.times("/rush").values()) == {1}
    assert {each.json["data"]["n"] for each in http.received("/rush")} == set(range(total))


# Replacement.


@BOTH_WAYS
def test_a_later_one_replaces_those_still_pending(system: Running, way: Way) -> None:
    fields = {"recipient": "moved@example.com", "channel": "email", "cancellation_key": f"k-replace-{way.__name__}"}
    old = way(system, **fields, target_date=FAR, lead_time=["P7D", "P1D"])
    new = way(system, **fields, target_date="2040-07-01T12:00:00Z", lead_time=["P3D", "P1D"])
    for each in old:
        found = system.notification(each["id"])
        assert (found["status"], found["reason"], found["due_at"]) == ("cancelled", "replaced", None)
        assert "later reminder" in found["explanation"]
    assert {system.notification(each["id"])["status"] for each in new} == {"scheduled"}
    assert dues(new) == {"P3D": "2040-06-28T12:00:00Z", "P1D": "2040-06-30T12:00:00Z"}


REMINDER = {"recipient": "others@example.com", "channel": "email", "target_date": FAR, "event_type": "a.type"}


@pytest.mark.parametrize(
    "different",
    [
        {"event_type": "another.type"},
        {"recipient": "somebody-else@example.com"},
        {"recipient": "+4915112345678", "channel": "sms"},
        {"cancellation_key": "k-another"},
        {"target_date": None, "send_at": FAR},
        {"target_date": None},
        None,
    ],
    ids=str,
)
@pytest.mark.parametrize("other_first", [True, False])
def test_others_are_untouched(system: Running, different: dict[str, Any] | None, other_first: bool) -> None:
    key = f"k-untouched-{different}-{other_first}"[:255]
    mine = {**REMINDER, "cancellation_key": key}

    def make(other: bool) -> str:
        if other and different is None:  # without an event it has no type
            [made] = by_notification(system, **{name: mine[name] for name in mine if name != "event_type"})
        else:
            [made] = by_event(system, **{**mine, **(different or {} if other else {})})
        return str(made["id"])

    ids = [make(other_first), make(not other_first)]
    statuses = {system.notification(each)["status"] for each in ids}
    assert "cancelled" not in statuses


def test_the_same_request_again_replaces_nothing(system: Running) -> None:
    fields = {**REMINDER, "cancellation_key": "k-again", "idempotency_key": "i-again"}
    [made] = by_event(system, **fields)
    system.event(**fields)
    assert system.notification(made["id"])["status"] == "scheduled"


def test_of_two_in_one_batch_the_later_one_stands(system: Running) -> None:
    events = [{**REMINDER, "cancellation_key": "k-in-batch", "lead_time": lead} for lead in ("P1D", "P2D", "P3D")]
    items = system.post("/api/v1/events/batch", {"events": events}).json()["items"]
    [last] = [item["id"] for item in items[-1:]]
    wait_for(lambda: system.get(f"/api/v1/events/{last}").json()["status"] == "processed")
    found = [each for item in items for each in system.notifications(item["id"])]
    assert [(each["status"], each["reason"]) for each in found] == [
        ("cancelled", "replaced"),
        ("cancelled", "replaced"),
        ("scheduled", None),
    ]


@BOTH_WAYS
def test_of_two_at_the_same_moment_only_one_ever_arrives(system: Running, http: HttpReceiver, way: Way) -> None:
    pairs = 30
    target = ahead(seconds=4)
    mark = f"/same-moment-{way.__name__}"

    def post(number: int) -> list[dict[str, Any]]:
        name = f"{mark}/{number % pairs}"
        fields = {"recipient": http.url(name), "channel": "webhook", "cancellation_key": f"k-{name}"}
        return way(system, **fields, target_date=target)

    order = [number for pair in range(pairs) for number in (pair, pair + pairs)]
    with ThreadPoolExecutor(8) as pool:
        made = [each for posted in pool.map(post, order) for each in posted]
    assert len(made) == 2 * pairs
    ids = [each["id"] for each in made]
    ended = wait_for(lambda: _all_finished(system, ids), 40)
    assert sorted(each["status"] for each in ended) == ["cancelled"] * pairs + ["delivered"] * pairs
    assert {each["reason"] for each in ended if each["status"] == "cancelled"} == {"replaced"}
    assert [len(http.received(f"{mark}/{pair}")) for pair in range(pairs)] == [1] * pairs


def _all_finished(system: Running, ids: list[str]) -> list[dict[str, Any]] | None:
    found = [system.notification(each) for each in ids]
    return found if all(each["status"] in FINISHED for each in found) else None
