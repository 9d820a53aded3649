"""dedup_key: within its window the same recipient, channel and key is sent once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.receivers import HttpReceiver
from tests.support.running import FINISHED, Running, wait_for

HOUR = {"dedup_window": "PT1H"}


def made(system: Running, **fields: Any) -> str:
    answer = system.post("/api/v1/notifications", {"body": "x", **HOUR, **fields})
    assert answer.status_code == 202, answer.text
    [notification] = answer.json()["items"]
    return str(notification["id"])


def finished(system: Running, notification_id: str) -> tuple[str, str | None]:
    """Its status and reason, once it is finished."""

    def look() -> dict[str, Any] | None:
        found = system.notification(notification_id)
        return found if found["status"] in FINISHED else None

    found = wait_for(look, what="a notification to be finished")
    assert found["due_at"] is None
    return found["status"], found["reason"]


DUPLICATE = ("skipped", "duplicate")


def test_within_its_window_a_key_is_sent_once(system: Running, http: HttpReceiver) -> None:
    fields = {"recipient": http.url("/dedup-1"), "channel": "webhook", "dedup_key": "d-1"}
    first = made(system, **fields)
    assert finished(system, first) == ("delivered", None)
    second = made(system, **fields)
    assert finished(system, second) == DUPLICATE
    found = system.notification(second)
    assert (found["attempts"], found["sent_at"], found["attempt_log"]) == (0, None, [])
    assert "dedup_key" in found["explanation"]
    # An event is no other matter.
    event = system.event(**fields, **HOUR)
    assert (system.finished(event)["status"], system.finished(event)["reason"]) == DUPLICATE
    assert http.times("/dedup-1") == {first: 1}


@pytest.mark.parametrize(
    "other",
    [
        {"recipient": "dedup-other"},
        {"dedup_key": "d-other"},
        {"dedup_key": "D-2"},
        {"recipient": "slack://dedup", "channel": "chat"},
        {"dedup_key": None, "dedup_window": None},
    ],
    ids=str,
)
def test_other_recipients_channels_and_keys_are_independent(system: Running, other: dict[str, Any]) -> None:
    fields = {"recipient": f"dedup-{'-'.join(map(str, other.values()))}", "channel": "push", "dedup_key": "d-2"}
    assert finished(system, made(system, **fields)) == ("sent", None)
    assert finished(system, made(system, **{**fields, **other})) == ("sent", None)
    assert finished(system, made(system, **fields)) == DUPLICATE


def test_whose_message_it_is_does_not_matter_only_where_it_goes(system: Running) -> None:
    for user in ("u-dedup-1", "u-dedup-2"):
        fields = {"push_tokens": ["dedup-shared", f"own-{user}"]}
        system.http.put(f"{system.url}/api/v1/users/{user}", json=fields, timeout=20).raise_for_status()
        body = {"user_id": user, "channel": "push", "body": "x", "dedup_key": "d-shared", **HOUR}
        items = system.post("/api/v1/notifications", body).json()["items"]
        ends = {each["recipient"]: finished(system, each["id"]) for each in items}
        assert ends[f"own-{user}"] == ("sent", None)
        assert ends["dedup-shared"] == (("sent", None) if user == "u-dedup-1" else DUPLICATE)


def test_of_several_in_one_batch_the_oldest_goes(system: Running, http: HttpReceiver) -> None:
    event = {"event_type": "test.event", "recipient": http.url("/dedup-batch"), "channel": "webhook"}
    body = {"events": [{**event, "dedup_key": "d-batch", **HOUR} for _ in range(6)]}
    items = system.post("/api/v1/events/batch", body).json()["items"]
    ends = [system.finished(item["id"]) for item in items]
    assert sorted(each["status"] for each in ends) == ["delivered"] + ["skipped"] * 5
    assert len(http.received("/dedup-batch")) == 1


def test_of_fifty_at_once_over_two_workers_one_goes(breakable: Running, http: HttpReceiver) -> None:
    system = breakable
    second = system.add_worker("fresh", "fresh-2")
    system.start(only=[second])
    fields = {"recipient": http.url("/dedup-race"), "channel": "webhook", "dedup_key": "d-race"}
    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(lambda _: made(system, **fields), range(50)))
    ends = [finished(system, each) for each in ids]
    assert ends.count(("delivered", None)) == 1
    assert ends.count(DUPLICATE) == 49
    assert len(http.received("/dedup-race")) == 1


def test_after_its_window_a_key_is_sent_again(system: Running) -> None:
    fields = {"recipient": "dedup-again", "channel": "push", "dedup_key": "d-again", "dedup_window": "PT1.5S"}
    first = made(system, **fields)
    assert finished(system, first) == ("sent", None)
    ids: list[str] = []

    def again() -> str | None:
        ids.append(made(system, **fields))
        return ids[-1] if finished(system, ids[-1]) == ("sent", None) else None

    second = wait_for(again, what="the window to end")
    assert {finished(system, each) for each in ids[:-1]} <= {DUPLICATE}
    sent = [datetime.fromisoformat(system.notification(each)["sent_at"]) for each in (first, second)]
    began = datetime.fromisoformat(system.notification(second)["attempt_log"][0]["started_at"])
    # The key was taken a moment before the first was sent.
    assert began - sent[0] > timedelta(seconds=0.5)
    assert sent[1] > sent[0]


def test_one_that_failed_for_good_frees_the_key(system: Running, http: HttpReceiver) -> None:
    http.answer("/dedup-dead", 410, 204)
    fields = {"recipient": http.url("/dedup-dead"), "channel": "webhook", "dedup_key": "d-dead"}
    assert finished(system, made(system, **fields)) == ("failed", "permanent_error")
    assert finished(system, made(system, **fields)) == ("delivered", None)
    assert finished(system, made(system, **fields)) == DUPLICATE


def test_one_that_is_still_tried_keeps_the_key_through_its_retries(system: Running, http: HttpReceiver) -> None:
    http.answer("/dedup-retry", 500, 204)
    fields = {"recipient": http.url("/dedup-retry"), "channel": "webhook", "dedup_key": "d-retry"}
    first = made(system, **fields)
    wait_for(lambda: system.notification(first)["attempts"] == 1)
    second = made(system, **fields)
    assert finished(system, second) == DUPLICATE
    assert finished(system, first) == ("delivered", None)
    assert http.times("/dedup-retry") == {first: 2}


def test_one_that_was_cancelled_before_it_was_sent_frees_the_key(system: Running, http: HttpReceiver) -> None:
    http.answer("/dedup-cancelled", (429, {"Retry-After": "600"}), 204)
    fields = {"recipient": http.url("/dedup-cancelled"), "channel": "webhook", "dedup_key": "d-cancelled"}
    first = made(system, **fields)
    wait_for(lambda: system.notification(first)["status"] == "retrying")
    assert system.post(f"/api/v1/notifications/{first}/cancel").status_code == 200
    assert finished(system, made(system, **fields)) == ("delivered", None)


def test_what_waits_for_its_hour_takes_no_key_before(system: Running) -> None:
    fields = {"recipient": "dedup-later", "channel": "push", "dedup_key": "d-later"}
    later = made(system, **fields, send_at="2040-06-01T12:00:00Z")
    assert finished(system, made(system, **fields)) == ("sent", None)
    assert system.notification(later)["status"] == "scheduled"


def test_a_resend_is_no_duplicate_of_itself(system: Running, http: HttpReceiver) -> None:
    fields = {"recipient": http.url("/dedup-resend"), "channel": "webhook", "dedup_key": "d-resend"}
    notification = made(system, **fields)
    assert finished(system, notification) == ("delivered", None)
    assert system.post(f"/api/v1/notifications/{notification}/resend").status_code == 202
    wait_for(lambda: system.notification(notification)["attempts"] == 2)
    assert finished(system, notification) == ("delivered", None)


@pytest.mark.parametrize("window", ["P7D", "P1W", "P1W2DT3H4M5.123456S", "PT876600H", "P36525D", "PT0.000001S", "P0D"])
def test_every_window_that_is_accepted_works(system: Running, window: str) -> None:
    fields = {"recipient": "dedup-window", "channel": "push", "dedup_key": f"d-{window}", "dedup_window": window}
    assert finished(system, made(system, **fields)) == ("sent", None)


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/notifications"])
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"dedup_key": "d"}, "dedup_window"),
        ({"dedup_window": "PT1H"}, "dedup_key"),
        ({"dedup_key": "", "dedup_window": "PT1H"}, "dedup_key"),
        ({"dedup_key": "d" * 256, "dedup_window": "PT1H"}, "dedup_key"),
        *[({"dedup_key": "d", "dedup_window": bad}, "dedup_window") for bad in ("1h", 3600, "P1M", "-PT1H", "PT٣H")],
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_is_refused(system: Running, path: str, wrong: dict[str, Any], field: str) -> None:
    body = {"recipient": "dedup-wrong", "channel": "push", **wrong}
    body |= {"event_type": "test.event"} if path.endswith("events") else {"body": "x"}
    answer = system.post(path, body)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()["errors"]) == [field]
