"""Search: one text finds all that has it as an id, an address or a key, and the lists of the rest."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import pytest
from sqlalchemy import update

from api.app import create_app
from config.settings import read_settings
from config.wiring import Wiring
from notifier.diagnostics import search as searching
from notifier.models import IdempotencyKey, Subscription
from notifier.notifications.resealing import make_key
from notifier.people import suppressions, users
from notifier.storage.engines import autocommit_of
from notifier.vocabulary.states import Channel
from tests.conftest import QUICK
from tests.support.known_rows import FAR, Known

SECRET: Final = "qzfoundsecret"
HOOK: Final = f"https://hooks.example.com/in?token={SECRET}"
CHAT: Final = f"slack://{SECRET}A/{SECRET}B/{SECRET}C"


@pytest.fixture
def known(database_url: str) -> Iterator[Known]:
    wires = Wiring(read_settings({**QUICK, "DATABASE_URL": database_url, "NOTIFIER_AUTH": "required"}))
    yield Known(create_app(wires).test_client(), wires)
    wires.template_process.close()
    wires.engine.dispose()
    autocommit_of(wires.engine).dispose()


def test_ids_find_their_records_and_those_that_belong_to_them(known: Known) -> None:
    event, subscription = known.event(), known.subscription("https://shop.example.com/hook")
    notification = known.notification("failed", event_id=event, subscription_id=subscription)
    letter = known.letter(notification_id=notification, event_id=event)
    of = {name: ("notification", str(notification), (name,)) for name in ("id", "event_id", "subscription_id")}
    dead = {name: ("dead_letter", str(letter), (name,)) for name in ("id", "event_id", "notification_id")}
    assert known.found(str(notification)) == {of["id"], dead["notification_id"]}
    assert known.found(str(event)) == {("event", str(event), ("id",)), of["event_id"], dead["event_id"]}
    assert known.found(str(letter)) == {dead["id"]}
    assert known.found(str(subscription)) == {
        ("subscription", str(subscription), ("id",)),
        of["subscription_id"],
    }
    # In every way in which an id is written.
    assert known.found(f"{{{str(letter).upper()}}}") == {dead["id"]}
    assert known.found(str(uuid4())) == set()


def test_keys_and_ids_of_requests_find_what_has_them(known: Known) -> None:
    keys = {"request_id": "req-1", "cancellation_key": "cancel-1", "dedup_key": "dedup-1"}
    event = known.event(**keys)
    notification = known.notification(event_id=event, message_id="m+1@provider", **keys)
    now = datetime.now(UTC)
    times = {"fingerprint": b"x", "created_at": now, "expires_at": now + timedelta(hours=1)}
    direct = known.notification()
    known.add(
        IdempotencyKey(source="shop", key="once-1", ids=[event], **times),
        IdempotencyKey(source="another", key="once-1", ids=[direct], **times),
        IdempotencyKey(source="between", key="once-2", ids=[uuid4()], **times),
    )
    for name, value in keys.items():
        assert known.found(value) == {("event", str(event), (name,)), ("notification", str(notification), (name,))}
    assert known.found("m+1@provider") == {("notification", str(notification), ("message_id",))}
    assert known.found("once-1") == {
        ("event", str(event), ("idempotency_key",)),
        ("notification", str(notification), ("idempotency_key",)),
        ("notification", str(direct), ("idempotency_key",)),
    }
    assert known.found("once-2") == set()
    assert known.found("once-") == set()


def test_one_text_may_be_several_things(known: Known) -> None:
    both = known.notification(
        recipient="ada@example.com", user_id="ada@example.com", cancellation_key="ada@example.com"
    )
    known.user("ada@example.com", email="ada@example.com")
    assert known.found("ada@example.com") == {
        ("notification", str(both), ("cancellation_key", "recipient", "user_id")),
        ("user", "ada@example.com", ("email", "user_id")),
    }


def test_addresses_are_found_in_any_form(known: Known) -> None:
    phone, email = "+4915112345678", "Ada@example.com"
    device = known.notification(channel="push", recipient="device-1")
    texted = known.notification(channel="sms", recipient=phone)
    mailed = known.notification(recipient=email)
    known.user("u-1", email=email, phone=phone, push_tokens=["device-1", "device-2"])
    for each in (phone, "+49 1511 2345678", " 4915112345678"):
        assert known.found(each) == {("notification", str(texted), ("recipient",)), ("user", "u-1", ("phone",))}
    assert known.found("Ada@EXAMPLE.com") == {
        ("notification", str(mailed), ("recipient",)),
        ("user", "u-1", ("email",)),
    }
    assert known.found("ada@example.com") == {("user", "u-1", ("email",))}
    [user] = known.search("ada@example.com")["items"]
    assert (user["recipient"], user["user_id"], user["channel"]) == (email, "u-1", "email")
    assert known.found("device-1") == {("notification", str(device), ("recipient",)), ("user", "u-1", ("push_tokens",))}
    assert known.found("device-2") == {("user", "u-1", ("push_tokens",))}


def test_events_that_name_an_address_are_found_whatever_became_of_them(known: Known) -> None:
    to = {"channel": "email", "recipient": "ada@example.com"}
    told, waiting, broken = known.event(**to), known.event("accepted", **to), known.event("failed", **to)
    known.event(channel="email", recipient="bob@example.com")
    notification = known.notification(event_id=told, **to)
    known.letter(event_id=broken, channel=None, reason="fan_out_failed")
    assert known.found("ada@example.com") == {
        ("notification", str(notification), ("recipient",)),
        *(("event", str(each), ("recipient",)) for each in (told, waiting, broken)),
    }
    listed = known.ask("/api/v1/events", recipient="ada@example.com").get_json()["items"]
    assert [each["id"] for each in listed] == [str(each) for each in (broken, waiting, told)]


@pytest.mark.parametrize("sealed", [True, False])
def test_addresses_with_credentials_are_found_whole_and_shown_masked(known: Known, sealed: bool) -> None:
    engine, seals = known.wires.engine, known.wires.seals
    if sealed:
        make_key(engine, known.wires.vault)
        seals.read_key()
    subscription = known.subscription(HOOK)
    known.subscription(HOOK.replace(SECRET, "another"))
    known.user("u-1", webhook_url=HOOK, chat_url=CHAT)
    suppressions.add(engine, {"channel": "chat", "address": CHAT, "reason": "manual", "until": None})
    hooked = known.notification(channel="webhook", recipient=seals.kept(Channel.WEBHOOK, HOOK))
    chatted = known.notification(channel="chat", recipient=seals.kept(Channel.CHAT, CHAT))
    before = known.notification(channel="chat", recipient=CHAT)  # as a release kept it that sealed nothing
    assert known.found(HOOK) == {
        ("notification", str(hooked), ("recipient",)),
        ("user", "u-1", ("webhook_url",)),
        ("subscription", str(subscription), ("url",)),
    }
    found = known.search(CHAT)
    assert {(each["type"], tuple(each["matched"])) for each in found["items"]} == {
        ("notification", ("recipient",)),
        ("user", ("chat_url",)),
        ("suppression", ("address",)),
    }
    assert {each["id"] for each in found["items"]} > {str(chatted), str(before), "u-1"}
    for text in (HOOK, CHAT):
        answer = known.ask("/api/v1/search", q=text, limit=1)
        assert SECRET not in answer.text
        assert known.ask("/api/v1/search", q=text, reveal="1").status_code == 403
        shown = known.ask("/api/v1/search", "read,admin", q=text, reveal="1").get_json()["items"]
        assert {each["recipient"] for each in shown} == {text}
    assert {each["recipient"] for each in found["items"]} == {"slack://***"}
    # What is shown of a subscription finds those that look like it.
    listed = known.ask("/api/v1/subscriptions", url=HOOK).get_json()["items"]
    assert [each["id"] for each in listed] == [str(subscription)]
    masked = [each for each in known.search(HOOK.replace(SECRET, "***"))["items"] if each["type"] == "subscription"]
    assert len(masked) == 2


def test_a_subscription_that_cannot_be_decrypted_is_not_found_and_harms_nothing(known: Known) -> None:
    known.subscription(HOOK)
    with known.wires.engine.begin() as connection:
        connection.execute(update(Subscription).values(sealed_url=b"broken"))
    assert known.found(HOOK) == set()


def test_suppressed_addresses_are_found_also_of_the_erased(known: Known) -> None:
    engine = known.wires.engine
    for address in ("ada@example.com", "bob@example.com"):
        suppressions.add(engine, {"channel": "email", "address": address, "reason": "complaint", "until": None})
    with engine.begin() as connection:
        suppressions.hash_addresses(connection, [(Channel.EMAIL, "bob@example.com")], lambda reason: reason)
    [ada] = known.search("ADA@example.com")["items"]
    assert (ada["type"], ada["recipient"], ada["reason"]) == ("suppression", "ada@example.com", "complaint")
    [bob] = known.search("bob@example.com")["items"]
    assert (bob["type"], bob["recipient"]) == ("suppression", "[erased]")


def test_an_item_has_what_a_page_of_results_shows(known: Known) -> None:
    event = known.event(user_id="u-1", channel="email", request_id="req-1")
    notification = known.notification("skipped", user_id="u-1", event_id=event, reason="opted_out", request_id="req-1")
    told, happened = known.search("req-1")["items"]
    none = dict.fromkeys(("notification_id", "subscription_id"))
    assert told == {
        **{"type": "notification", "id": str(notification), "matched": ["request_id"], "status": "skipped", **none},
        **{"reason": "opted_out", "channel": "email", "event_type": "order.paid", "source": "shop", "user_id": "u-1"},
        **{"recipient": "nobody@example.com", "event_id": str(event), "created_at": told["created_at"]},
    }
    assert (happened["type"], happened["status"], happened["user_id"]) == ("event", "processed", "u-1")
    letter = known.letter(notification_id=notification, event_id=event, requeued_at=datetime.now(UTC))
    [dead] = known.search(str(letter))["items"]
    assert {name: dead[name] for name in ("status", "reason", "channel", "notification_id", "event_id")} == {
        **{"status": "requeued", "reason": "retries_exhausted", "channel": "email"},
        **{"notification_id": str(notification), "event_id": str(event)},
    }
    known.subscription("https://shop.example.com/hook")
    [heard] = known.search("https://shop.example.com/hook")["items"]
    assert (heard["status"], heard["recipient"]) == ("enabled", "https://shop.example.com/hook")


def test_filters_narrow_the_notifications(known: Known) -> None:
    same: dict[str, Any] = {"user_id": "u-1"}
    known.user("u-1")
    mailed = known.notification(**same)
    texted = known.notification("failed", channel="sms", reason="bounced", provider="twilio", source="crm", **same)
    asked = known.notification("scheduled", event_type="order.due", **same)
    user = ("user", "u-1", ("user_id",))
    for filters, ids in (
        ({"status": "failed"}, [texted]),
        ({"reason": "bounced"}, [texted]),
        ({"channel": "sms"}, [texted]),
        ({"provider": "twilio"}, [texted]),
        ({"source": "crm"}, [texted]),
        ({"event_type": "order.due"}, [asked]),
        ({"event_type": "order.paid", "channel": "email"}, [mailed]),
        ({"created_after": "2099-01-01T00:00:00Z"}, []),
        ({"created_before": "2020-01-01T00:00:00Z"}, []),
        ({"created_after": "2020-01-01T00:00:00Z"}, [mailed, texted, asked]),
    ):
        expected = {user, *(("notification", str(each), ("user_id",)) for each in ids)}
        assert known.found("u-1", **filters) == expected, filters
    for name in (str(texted), "texted-message"):
        assert known.found(name, channel="email") == set()


def test_the_newest_are_shown_and_the_list_of_the_others_is_named(known: Known) -> None:
    recipient = "a+b c@example.com"
    ids = [known.notification(recipient=recipient, user_id="u-1") for _ in range(5)]
    for _ in range(4):
        known.event(user_id="u-1")
    known.notification("failed", recipient=recipient)
    found = known.search(recipient, limit=3, status="sent")
    assert [each["id"] for each in found["items"]] == [str(each) for each in reversed(ids[2:])]
    path = f"/api/v1/notifications?recipient={quote('a+b c@example.com', safe='').replace('%20', '+')}&status=sent"
    assert found["more"] == [{"type": "notification", "matched": "recipient", "path": path}]
    listed = known.ask(path).get_json()["items"]
    assert [each["id"] for each in listed] == [str(each) for each in reversed(ids)]
    found = known.search("u-1", limit=3)
    assert sorted(each["path"] for each in found["more"]) == [
        "/api/v1/events?user_id=u-1",
        "/api/v1/notifications?user_id=u-1",
    ]
    assert len(found["items"]) == 6
    assert known.search("u-1", limit=5)["more"] == []


def test_every_list_that_is_named_has_them_all(known: Known) -> None:
    now = datetime.now(UTC)
    event, subscription = known.event(), known.subscription("https://one.example.com/")
    keys = {"request_id": "many", "cancellation_key": "many", "dedup_key": "many", "user_id": "many"}
    for place in range(3):
        each = known.event(channel="push", recipient="many", **keys)
        known.notification(event_id=each, recipient="many", message_id="many", channel="push", **keys)
        known.notification(event_id=event, subscription_id=subscription)
        known.letter(event_id=event, notification_id=uuid4())
        known.user(f"u-{place}", push_tokens=["many"])
        known.add(IdempotencyKey(
            source=f"s{place}", key="many", ids=[each], fingerprint=b"x", created_at=now, expires_at=FAR
        ))  # fmt: skip
        suppressions.add(known.wires.engine, {
            "channel": ("email", "sms", "push")[place], "address": "many", "reason": "manual", "until": None
        })  # fmt: skip
    named = set()
    for text in ("many", str(event), str(subscription)):
        for more in known.search(text, limit=1)["more"]:
            listed = known.ask(more["path"])
            assert listed.status_code == 200, more
            if (more["type"], more["matched"]) != ("event", "idempotency_key"):
                assert len(listed.get_json()["items"]) == 3, more
            named.add((more["type"], more["matched"]))
    assert named == {
        *(("notification", name) for name in (*keys, "recipient", "message_id", "idempotency_key")),
        *(("event", name) for name in (*keys, "recipient", "idempotency_key")),
        *(("notification", "event_id"), ("notification", "subscription_id"), ("dead_letter", "event_id")),
        *(("user", "push_tokens"), ("suppression", "address")),
    }


def test_a_list_is_not_named_by_a_credential(known: Known) -> None:
    for _ in range(2):
        known.notification(channel="webhook", recipient=HOOK)
    assert known.search(HOOK, limit=1)["more"] == [{"type": "notification", "matched": "recipient", "path": None}]
    revealed = known.ask("/api/v1/search", "read,admin", q=HOOK, limit=1, reveal="1").get_json()["more"]
    assert [each["path"] for each in revealed] == [f"/api/v1/notifications?recipient={quote(HOOK, safe='')}"]


def test_everybody_who_reads_finds_what_the_lists_show(known: Known) -> None:
    notification = known.notification(source="another", request_id="req-1")
    assert known.found("req-1") == {("notification", str(notification), ("request_id",))}
    assert known.ask("/api/v1/search", "send", q="req-1").status_code == 403


@pytest.mark.parametrize("q", ["", "   ", "a\nb", "a\x00b", "a\x7f", "x" * 2049])
def test_a_text_that_nothing_can_have_is_refused(known: Known, q: str) -> None:
    answer = known.ask("/api/v1/search", q=q)
    assert answer.status_code == 422
    assert list(answer.get_json()["errors"]) == ["q"]


@pytest.mark.parametrize("query", [{}, {"q": "a", "limit": 0}, {"q": "a", "limit": 101}, {"q": "a", "x": 1}])
def test_parameters_are_checked(known: Known, query: dict[str, Any]) -> None:
    assert known.ask("/api/v1/search", **query).status_code == 422


@pytest.mark.parametrize(
    "q",
    [
        "' OR 1=1 --", "%", "_", "*", "\\", "{}", "[]", "a,b", "\"", "$1", ":q", "%s", "%(q)s", "NULL", "0", "..",
        "ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-000000000000", "http://", "://", "a:/",
        "https://[", "https://x sealed:y", "slack://x sealed:" + "A" * 500, "😀" * 500, "ß" * 2048, "é@é.é",
        "Ａｄａ@example.com", "+4915", "{\"endpoint\":", "ey" + "A" * 400, "***", "https://***@x/", "x" * 2048,
    ],
)  # fmt: skip
def test_hostile_texts_find_nothing(known: Known, q: str) -> None:
    known.notification(recipient="ada@example.com", user_id="u-1", request_id="r", message_id="m")
    known.user("u-1", email="ada@example.com")
    known.subscription(HOOK)
    assert known.search(q) == {"items": [], "more": []}


def test_waiting_events_are_looked_at_up_to_a_bound(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_LOOKED_AT", 1)
    to = {"channel": "email", "recipient": "ada@example.com"}
    known.event("accepted", due_at=FAR - timedelta(days=1))
    late = known.event("accepted", **to)
    assert known.found("ada@example.com") == set()
    assert known.found(str(late)) == {("event", str(late), ("id",))}


def test_filters_find_the_oldest_of_many_with_one_key(known: Known) -> None:
    """As of an event with thousands of subscriptions, of which one notification failed."""
    event, key = known.event(), "many-keys"
    keys = {"request_id": key, "cancellation_key": key, "dedup_key": key, "event_id": event}
    failed = known.notification("failed", **keys)
    for _ in range(searching._MOST):
        known.notification(**keys)
    now = datetime.now(UTC)
    known.add(IdempotencyKey(source="shop", key=key, ids=[event], fingerprint=b"x", created_at=now, expires_at=FAR))
    names = ("cancellation_key", "dedup_key", "idempotency_key", "request_id")
    [found] = [each for each in known.found(key, status="failed") if each[0] == "notification"]
    assert found == ("notification", str(failed), names)
    [found] = [each for each in known.found(str(event), status="failed") if each[0] == "notification"]
    assert found == ("notification", str(failed), ("event_id",))
    assert len(known.search(key, limit=100)["items"]) == 101


def test_an_address_that_many_users_share_finds_them_all(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "_SHARED", 3)
    address = "https://chat.example.com/room"
    for place in range(5):
        known.user(f"in-room-{place}", chat_url=address)
    known.user("by-token", push_tokens=[address])
    known.user("elsewhere", chat_url="https://chat.example.com/another")
    seen, path = [], f"/api/v1/users?address={quote(address, safe='')}&limit=2"
    page = known.ask(path, "read,admin").get_json()
    while page["next_cursor"]:
        seen += page["items"]
        page = known.ask(f"{path}&cursor={page['next_cursor']}", "read,admin").get_json()
    seen += page["items"]
    assert [each["user_id"] for each in seen] == ["by-token", *(f"in-room-{place}" for place in reversed(range(5)))]
