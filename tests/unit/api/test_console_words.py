"""Words, masks and timelines of the console's pages."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.console import words
from api.console.masks import masked_address, masked_text, masked_values
from api.console.story import moments


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ada@example.com", "a•••@example.com"),
        ("+491701234567", "+49•••67"),
        ("https://user:pass@example.com/hook?token=x", "https://example.com/•••"),
        ("slack://a/b/c", "slack://a/•••"),
        ("fcm-device-token-1234", "•••1234"),
        ("short", "•••"),
        ("", "•••"),
        (None, None),
    ],
)
def test_an_address_is_recognised_and_not_told(address: str | None, shown: str | None) -> None:
    assert masked_address(address) == shown


@given(st.emails())
def test_no_mailbox_stays_whole(address: str) -> None:
    hidden = masked_address(address)
    assert hidden is not None
    mailbox = address.rpartition("@")[0]
    assert len(mailbox) == 1 or f"{mailbox}@" not in hidden


def test_addresses_within_a_text_are_hidden() -> None:
    said = masked_text("550 <ada@example.com> unknown; call +49 170 1234567, id 550-17")
    assert said == "550 <a•••@example.com> unknown; call +49•••67, id 550-17"


def test_values_are_hidden_and_names_kept() -> None:
    given = {"name": "Ada", "n": 1, "vip": True, "none": None, "list": [{"x": "y"}]}
    assert masked_values(given) == {"name": "•••", "n": "•••", "vip": True, "none": None, "list": [{"x": "•••"}]}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.25, "250 ms"), (1, "1 s"), (59.6, "1 min"), (61, "1 min 1 s"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")],
)
def test_durations_have_two_units_at_the_most(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


def test_times_say_how_far_they_are() -> None:
    now = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
    assert words.ago("2026-11-29T11:58:00Z", now) == "2 min ago"
    assert words.ago("2026-11-29T14:00:00+01:00", now) == "in 1 h"
    assert words.at("2026-11-29T14:00:00+01:00") == "2026-11-29 13:00:00"
    assert words.at(None) == ""


def _record(**more: Any) -> dict[str, Any]:
    return {
        **{"created_at": "2026-11-29T12:00:00Z", "source": "billing", "status": "sent", "due_at": None},
        **{"attempt_log": [], "receipts": [], "earlier_sends": [], **more},
    }


def _attempt(number: int, at: str | None, outcome: str) -> dict[str, Any]:
    return {
        **{"number": number, "started_at": at, "outcome": outcome, "provider": "p"},
        **{"status_code": 503, "duration_ms": 12.0},
    }


def test_a_story_is_told_in_its_order_whatever_the_zones() -> None:
    judged = {"rule": "quiet_hours", "local_time": "2026-11-29T14:30:00+02:00", "timezone": "Europe/Kyiv"}
    log = [_attempt(1, "2026-11-29T12:10:00Z", "unsent"), _attempt(2, "2026-11-29T12:40:00Z", "accepted")]
    resent = {
        "how": "resend",
        "asked_by": "ops",
        "asked_at": "2026-11-29T12:35:00Z",
        "status": "failed",
        "reason": None,
    }
    receipt = {
        **{"provider": "p", "kind": "delivered", "happened_at": "2026-11-29T12:41:00Z"},
        **{"taken_at": "2026-11-29T12:42:00Z", "applied": True},
    }
    told = moments(
        _record(judged=judged, attempt_log=log, receipts=[receipt], earlier_sends=[{**resent, "attempts": 1}])
    )
    assert [each.title for each in told] == [
        "Accepted",
        "Attempt 1: It was not sent",
        "A rule of its recipient held it back: quiet hours",
        "Sent again",
        "Attempt 2: The provider accepted it",
        "It arrived, says p",
    ]


def test_a_story_says_what_comes_next() -> None:
    told = moments(_record(status="retrying", due_at="2026-11-29T13:00:00Z"))
    assert told[-1].title == "Next: it is looked at again"
    assert moments(_record(status="sent", due_at=None))[-1].title == "Accepted"
