"""Filtered lists: all that matches, newest first and once, whichever indexes it is found by."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from api.app import create_app
from config.settings import read_settings
from config.wiring import Wiring
from notifier.models import Attempt, IdempotencyKey
from notifier.storage.engines import autocommit_of
from notifier.vocabulary.ids import derived_id, first_id_of, millisecond_of
from notifier.vocabulary.states import Status
from notifier.vocabulary.timestamps import rfc3339
from tests.conftest import QUICK
from tests.support.known_rows import FAR, Known


@pytest.fixture
def known(database_url: str) -> Iterator[Known]:
    wires = Wiring(read_settings({**QUICK, "DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    yield Known(create_app(wires).test_client(), wires)
    wires.template_process.close()
    wires.engine.dispose()
    autocommit_of(wires.engine).dispose()


def listed(known: Known, resource: str, **query: Any) -> list[str]:
    """Return the ids of all pages of a list, two items at a time."""
    ids, cursor = list[str](), None
    while True:
        answer = known.ask(f"/api/v1/{resource}", limit=2, **query, **({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        page = answer.get_json()
        ids += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return ids


def newest_first(ids: list[UUID]) -> list[str]:
    return [str(each) for each in sorted(ids, reverse=True)]


@pytest.mark.parametrize("name", ["event_type", "source", "channel"])
def test_notifications_of_a_group_are_listed_in_whatever_state_they_are(known: Known, name: str) -> None:
    value = {"event_type": "group.type", "source": "group", "channel": "push"}[name]
    statuses = [*Status, *Status]
    ids = [known.notification(status, **{name: value}) for status in statuses]
    for status in Status:
        known.notification(status)
    assert listed(known, "notifications", **{name: value}) == newest_first(ids)
    for status in Status:
        of_status = [row_id for row_id, each in zip(ids, statuses, strict=True) if each is status]
        assert listed(known, "notifications", **{name: value, "status": status}) == newest_first(of_status)


@pytest.mark.parametrize("status", list(Status))
def test_notifications_are_listed_by_status(known: Known, status: str) -> None:
    ids = [known.notification(status) for _ in range(3)]
    for other in set(Status) - {Status(status)}:
        known.notification(other)
    assert listed(known, "notifications", status=status) == newest_first(ids)


def test_notifications_are_listed_by_each_form_of_an_address(known: Known) -> None:
    forms = ["Ada@EXAMPLE.com", "Ada@example.com"]  # the first was kept before addresses were normalised
    ids = [known.notification(recipient=forms[place % 2]) for place in range(5)]
    assert listed(known, "notifications", recipient=forms[0]) == newest_first(ids)


def test_notifications_are_listed_by_their_provider(known: Known) -> None:
    ids = [known.notification(provider="twilio") for _ in range(7)]
    known.notification(provider="vonage")
    # So many attempts of one that the newest attempts are those of few notifications.
    for number in range(2, 40):
        attempt = derived_id(millisecond_of(ids[5]), ids[5], number)
        known.add(Attempt(id=attempt, notification_id=ids[5], number=number, outcome="unsent", provider="twilio"))
    assert listed(known, "notifications", provider="twilio") == newest_first(ids)
    assert listed(known, "notifications", provider="nobody") == []
    assert listed(known, "notifications", provider="twilio", status="failed") == []
    assert listed(known, "notifications", provider="twilio", source="shop") == newest_first(ids)


def test_notifications_of_one_millisecond_have_all_their_places(known: Known) -> None:
    millisecond = millisecond_of(known.notification(provider="other"))
    ids = [known.notification(at=derived_id(millisecond, place), provider="twilio") for place in range(9)]
    assert listed(known, "notifications", provider="twilio") == newest_first(ids)


def test_a_time_bounds_what_a_provider_was_called_for(known: Known) -> None:
    begin = datetime(2026, 11, 21, 9, tzinfo=UTC)
    moments = [begin + timedelta(minutes=place) for place in range(6)]
    ids = [
        known.notification(at=derived_id(millisecond_of(first_id_of(each)), each), provider="twilio")
        for each in moments
    ]
    bounds = {"created_after": rfc3339(moments[1]), "created_before": rfc3339(moments[4])}
    assert listed(known, "notifications", provider="twilio", **bounds) == newest_first(ids[2:4])
    assert listed(known, "notifications", **bounds) == newest_first(ids[2:4])
    # Before the middle of a millisecond: what was created at its beginning belongs to it.
    middle = rfc3339(moments[4] + timedelta(microseconds=500))
    assert listed(known, "notifications", created_before=middle) == newest_first(ids[:5])


def test_notifications_are_listed_by_the_key_that_made_them(known: Known) -> None:
    event, now = known.event(), datetime.now(UTC)
    told, direct = known.notification(event_id=event), known.notification()
    for source, ids in (("a", [event]), ("m", [direct]), ("z", [event])):
        key = "once" if source != "z" else "another"
        known.add(IdempotencyKey(source=source, key=key, ids=ids, fingerprint=b"x", created_at=now, expires_at=FAR))
    assert listed(known, "notifications", idempotency_key="once") == newest_first([told, direct])
    assert listed(known, "notifications", idempotency_key="another") == [str(told)]
    assert listed(known, "notifications", idempotency_key="never") == []


@pytest.mark.parametrize("name", ["event_type", "source"])
def test_events_of_a_group_are_listed_in_whatever_state_they_are(known: Known, name: str) -> None:
    statuses = ("accepted", "processed", "failed") * 2
    ids = [known.event(status, **{name: "group.x"}) for status in statuses]
    for status in statuses:
        known.event(status)
    assert listed(known, "events", **{name: "group.x"}) == newest_first(ids)
    for place, status in enumerate(statuses[:3]):
        assert listed(known, "events", **{name: "group.x"}, status=status) == newest_first([ids[place], ids[place + 3]])
        assert len(listed(known, "events", status=status)) == 4


def test_users_are_listed_by_an_address(known: Known) -> None:
    known.user("u-1", email="Ada@example.com", push_tokens=["device-1"])
    known.user("u-2", email="bob@example.com", push_tokens=["device-1", "device-2"])
    for address, names in {
        "ADA@EXAMPLE.com": {"u-1"},
        "device-1": {"u-1", "u-2"},
        "device-2": {"u-2"},
        "x": set(),
    }.items():
        items = known.ask("/api/v1/users", address=address).get_json()["items"]
        assert {each["user_id"] for each in items} == names
