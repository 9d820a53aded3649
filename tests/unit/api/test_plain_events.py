"""Plain events: whatever is read without the schema is read as the schema reads it."""

from typing import Any

import marshmallow as ma
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.plain_events import plain_fields
from api.schemas.events import EventSchema
from notifier.vocabulary.event_types import OURS
from notifier.vocabulary.states import Channel, Priority

_SCHEMA = EventSchema()
_ADDRESSES = {
    "email": ["anna@example.org", "Anna@EXAMPLE.org", "anna@exämple.org", "anna", "", "a@b", "a" * 2049],
    "sms": ["+4915112345678", "+49 151 1234 5678", "0151 12345678", "+49", "l511"],
    "push": ["token", "to ken", "tökén", "t" * 2048, "t" * 2049],
    "chat": ["slack://a/b/c", "slack:", "json://localhost:0/"],
    "webhook": ["https://example.org/x", "HTTP://EXAMPLE.org", "https://exämple.org/ä?b=ü", "ftp://x", "https://a b"],
}
_ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.text(max_size=3), st.just([]), st.just({}), st.just("a\n")
)


def _mostly(*good: Any) -> st.SearchStrategy[Any]:
    return st.one_of(st.sampled_from(good), st.sampled_from(good), _ANY)


_TEXTS = ("k", "ä" * 255, "k" * 255, "k" * 256, "", "a\tb")
_MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "event_type": _mostly("user.signed_up", "A", "a" * 128, "a" * 129, ".a", "a\n", f"{OURS}sent", "ä", ""),
    "payload": _mostly({}, {"a": 1}, {"a": {"b": [1, None]}}),
    "channel": _mostly(*_ADDRESSES, "fax", "EMAIL", None),
    "recipient": _mostly(*[each for addresses in _ADDRESSES.values() for each in addresses]),
    "user_id": _mostly("u1", ".", "..", "a/b", "u" * 255, "u" * 256, "", "a\x00b", "ü"),
    "category": _mostly("news", "c" * 64, "c" * 65, "a b", "", "news\n"),
    "critical": _mostly(True, False, "true", 1),
    "priority": _mostly(*[each.value for each in Priority], "urgent", "HIGH"),
    "idempotency_key": _mostly(*_TEXTS),
    "cancellation_key": _mostly(*_TEXTS),
    "send_at": _mostly("2030-01-01T00:00:00Z"),
    "template": _mostly("welcome"),
    "lead_time_days": _mostly(7),
    "unknown": _ANY,
}
_SELDOM = ("send_at", "template", "lead_time_days", "unknown")
_DOCUMENTS = st.one_of(
    st.fixed_dictionaries(
        {"event_type": _MEMBERS["event_type"]},
        optional={name: each for name, each in _MEMBERS.items() if name not in {"event_type", *_SELDOM}},
    ),
    st.fixed_dictionaries({}, optional=_MEMBERS),
)


def _fields_of(document: dict[str, Any]) -> dict[str, Any] | None:
    try:
        loaded: dict[str, Any] = _SCHEMA.load(document)
    except ma.ValidationError:
        return None
    return loaded


@settings(max_examples=1000, deadline=None)
@given(_DOCUMENTS)
@example({"event_type": "a", "channel": "email"})
@example({"event_type": "a", "recipient": "anna@example.org"})
@example({"event_type": "a", "user_id": "u1", "channel": "sms", "recipient": "+49 151 1234 5678"})
def test_plain_fields_are_those_of_the_schema(document: dict[str, Any]) -> None:
    before = repr(document)
    fields = plain_fields(document)
    assert repr(document) == before
    if fields is not None:
        loaded = _fields_of(document)
        assert fields == loaded
        assert {name: type(value) for name, value in fields.items()} == {n: type(v) for n, v in (loaded or {}).items()}


@pytest.mark.parametrize(("channel", "address"), [(name, each[0]) for name, each in _ADDRESSES.items()])
def test_most_events_are_plain(channel: str, address: str) -> None:
    document = {"event_type": "order.shipped", "channel": channel, "recipient": address, "payload": {"n": 1}}
    fields = plain_fields({**document, "idempotency_key": "k", "user_id": "u", "category": "c", "priority": "low"})
    assert fields is not None
    assert (fields["channel"], fields["priority"]) == (Channel(channel), Priority.LOW)


@given(st.sampled_from(_SELDOM), _ANY)
def test_other_members_are_left_to_the_schema(name: str, value: Any) -> None:
    assert plain_fields({"event_type": "a", name: value}) is None
