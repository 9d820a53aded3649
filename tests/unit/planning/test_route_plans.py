"""Plans that a route makes of an event: for whom, when, and why not."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from notifier.planning.plans import Plan, Strategy
from notifier.planning.routes import plans, view_of
from notifier.vocabulary.event_types import PATTERN, matches
from notifier.vocabulary.states import Channel, Priority

AT = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def event(payload: Any = None, **fields: Any) -> dict[str, Any]:
    """An event as its row has it."""
    names = ["user_id", "category", "recipient", "channel", "cancellation_key", "timezone", "occurred_at", "template"]
    times = [
        "send_at",
        "expires_at",
        "target_date",
        "lead_time",
        "dedup_key",
        "dedup_window",
        "dedup_scope",
        "on_ambiguous",
    ]
    base = {"id": UUID(int=1), "event_type": "order.paid", "source": "shop", "critical": False, "priority": "normal"}
    return {**dict.fromkeys(names + times), **base, "payload": payload or {}, "created_at": AT, **fields}


def planned(definition: dict[str, Any], happened: dict[str, Any]) -> list[Plan]:
    route = {"event_type": "order.*", "to": {"user_id": "payload.user_id"}, **definition}
    return plans("orders", route, happened, view_of(happened))


@pytest.mark.parametrize(
    ("pattern", "event_type", "fits"),
    [
        ("order.paid", "order.paid", True),
        ("order.paid", "order.paid.late", False),
        ("order.paid", "ORDER.PAID", False),
        ("order.*", "order.paid", True),
        ("order.*", "order.paid.late", True),
        ("order.*", "order.", True),
        ("order.*", "order", False),
        ("order.*", "orders.paid", False),
        ("order*", "orders.paid", True),
        ("*", "anything:at-all", True),
        # A dot is a dot.
        ("order.paid", "order-paid", False),
    ],
)
def test_patterns(pattern: str, event_type: str, fits: bool) -> None:
    assert PATTERN.fullmatch(pattern)
    assert matches(pattern, event_type) is fits
    assert bool(planned({"event_type": pattern}, event(event_type=event_type))) is fits


@pytest.mark.parametrize(
    "text", ["", "*.paid", "order.*.late", "**", "order.**", "-x", ".x", "a b", "ä", "x" * 129, "a\n"]
)
def test_what_is_no_pattern(text: str) -> None:
    assert not PATTERN.fullmatch(text)


@pytest.mark.parametrize(
    ("found", "user_ids"),
    [("u1", ["u1"]), (7, ["7"]), (["u1", 2], ["u1", "2"]), (["u1", "u1"], ["u1", "u1"]), ("x" * 255, ["x" * 255])],
)
def test_users_are_found_by_a_path(found: Any, user_ids: list[str]) -> None:
    made = planned({}, event({"user_id": found}))
    assert [plan.user_id for plan in made] == user_ids
    assert all((plan.refused, plan.route) == (None, "orders") for plan in made)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, "no_address"),
        ([[]], "invalid_address"),
        ("a/b", "invalid_address"),
        ("..", "invalid_address"),
        ({}, "invalid_address"),
        (True, "invalid_address"),
        (1.5, "invalid_address"),
        ("", "invalid_address"),
        ("x" * 256, "invalid_address"),
        ([None], "no_address"),
    ],
)
def test_where_a_path_leads_to_nobody_the_plan_says_so(found: Any, reason: str) -> None:
    [plan] = planned({}, event({"user_id": found}))
    assert plan.user_id is None
    assert plan.refused is not None
    assert (plan.refused[0], "orders" in plan.refused[1]) == (reason, True)


def test_an_empty_list_is_an_answer_and_makes_no_plan() -> None:
    assert planned({}, event({"user_id": []})) == []


def test_one_bad_member_of_a_list_costs_itself_alone() -> None:
    made = planned({}, event({"user_id": ["u1", None, {}, "u2"]}))
    assert [(plan.user_id, plan.refused and plan.refused[0]) for plan in made] == [
        ("u1", None),
        (None, "no_address"),
        (None, "invalid_address"),
        ("u2", None),
    ]


@pytest.mark.parametrize(
    ("channel", "found", "recipient"),
    [
        ("email", "Ada@Example.COM", "Ada@example.com"),
        ("sms", "+4915112345678", "+4915112345678"),
        ("sms", 4915112345678, None),
        ("email", "not an address", None),
        ("email", {"a": 1}, None),
    ],
)
def test_addresses_are_found_and_checked(channel: str, found: Any, recipient: str | None) -> None:
    [plan] = planned({"to": {"recipient": "payload.to", "channel": channel}}, event({"to": found}))
    assert (plan.recipient, plan.channels) == (recipient, (Channel(channel),))
    assert (plan.refused is None) is (recipient is not None)


@pytest.mark.parametrize(
    ("expression", "applies"),
    [
        ("payload.total > `100`", True),
        ("payload.total > `500`", False),
        ("payload.missing", False),
        ("payload.empty", False),
        ("event_type == 'order.paid' && source == 'shop'", True),
        ("contains(payload.tags, 'vip')", True),
        ("!(payload.empty)", True),
        # As JMESPath has it: what is empty is false, a number never.
        ("payload.zero", True),
        # A function that does not fit what the event holds.
        ("abs(payload.tags)", False),
        ("sort_by(payload.mixed, &x)", False),
        ("contains(payload.name, payload.total)", False),
        ("max_by(payload.mixed, &x)", False),
        ("merge(payload, payload.total)", False),
        ("ceil(to_number(payload.infinite))", False),
        ("payload.tags[::0]", False),
    ],
)
def test_a_filter_decides_whether_it_applies(expression: str, applies: bool) -> None:
    payload = {
        "user_id": "u1",
        "total": 250,
        "tags": ["vip"],
        "empty": [],
        "zero": 0,
        "mixed": [{"x": 1}, {"x": "a"}],
        "name": "Ada",
        "infinite": "inf",
    }
    assert bool(planned({"filter": expression}, event(payload))) is applies


def test_what_a_path_cannot_do_with_an_event_is_nobody() -> None:
    [plan] = planned({"to": {"user_id": "payload.ids[::0]"}}, event({"ids": ["u1"]}))
    assert plan.refused is not None
    assert plan.refused[0] == "no_address"


def test_the_route_goes_before_the_event_and_the_event_fills_the_rest() -> None:
    definition = {
        "template": "mine",
        "category": "orders",
        "critical": True,
        "priority": "low",
        "channels": ["sms", "email"],
        "strategy": "first",
        "target_date": "payload.due",
        "lead_time": ["P7D", "P1D"],
    }
    given = {
        "template": "theirs",
        "category": "other",
        "priority": "high",
        "expires_at": AT,
        "cancellation_key": "k",
        "timezone": "Asia/Tokyo",
        "lead_time": ["PT1H"],
        "target_date": AT,
    }
    happened = event({"user_id": "u1", "due": "2030-01-01T00:00:00+01:00"}, **given)
    [plan] = planned(definition, happened)
    assert plan == Plan(
        user_id="u1",
        channels=(Channel.SMS, Channel.EMAIL),
        strategy=Strategy.FIRST,
        template="mine",
        category="orders",
        critical=True,
        priority=Priority.LOW,
        target_date=datetime(2029, 12, 31, 23, 0, tzinfo=UTC),
        lead_time=("P7D", "P1D"),
        expires_at=AT,
        cancellation_key="k",
        timezone="Asia/Tokyo",
        route="orders",
    )
    [bare] = planned({}, happened)
    assert (bare.template, bare.category, bare.priority) == ("theirs", "other", Priority.HIGH)
    assert (bare.critical, bare.lead_time, bare.target_date) == (False, ("PT1H",), AT)


def test_a_route_may_say_that_it_is_not_critical() -> None:
    [plan] = planned({"critical": False}, event({"user_id": "u1"}, critical=True))
    assert plan.critical is False


@pytest.mark.parametrize("found", ["tomorrow", 5, None, "2030-01-01", "2030-01-01T00:00:00", ["2030-01-01T00:00:00Z"]])
def test_what_is_no_time_is_refused(found: Any) -> None:
    [plan] = planned({"target_date": "payload.due"}, event({"user_id": "u1", "due": found}))
    assert plan.refused is not None
    assert plan.refused[0] == "invalid_target_date"
    assert "payload.due" in plan.refused[1]


def test_paths_see_the_members_of_the_contract() -> None:
    seen = view_of(event('{"a": 1.50}', occurred_at=AT, user_id="u", target_date=AT))
    assert seen["payload"] == {"a": 1.5}
    assert (seen["occurred_at"], seen["created_at"]) == ("2026-11-21T09:00:00Z", "2026-11-21T09:00:00Z")
    assert (seen["id"], seen["source"], seen["critical"]) == (str(UUID(int=1)), "shop", False)
