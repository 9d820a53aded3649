"""Addresses with credentials in them: sealed in every table, whole where they are sent to, masked where they are shown.

Each secret has SECRET in it.
"""

import base64
import json
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from notifier.notifications.resealing import make_key, seal_stored
from notifier.people import erasure, export, preference_check, suppressions, users
from notifier.security.address_seals import PURPOSE, AddressSeals, seals_of, with_seals
from notifier.security.secret_box import Vault, new_key
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.masking import masked, seal_of
from notifier.vocabulary.states import Channel
from notifier.vocabulary.time_zones import UTC_ZONE
from tests.conftest import clean_environment
from tests.support.commands import manage, succeed
from tests.support.dumps import dump, still_in
from tests.support.people import event, insert, notification
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, made, reaches, wait_for

SECRET: Final = "qzrest"
TOKEN: Final = f"token={SECRET}-token"
NOTIFICATIONS: Final = "/api/v1/notifications"


def with_password(url: str, user: str) -> str:
    """A receiver's URL with credentials in it."""
    return url.replace("://", f"://{user}:{SECRET}-password@") + f"?{TOKEN}"


def chat(name: str) -> str:
    return f"slack://{SECRET}{name}A/{SECRET}{name}B/{SECRET}{name}C"


def test_no_table_has_a_credential_of_an_address_and_all_is_delivered(system: Running, http: HttpReceiver) -> None:
    hook, other, broken = (with_password(http.url(f"/{name}"), name) for name in ("rest", "rest2", "broken"))
    http.answer(f"/broken?{TOKEN}", 500)
    person = {"webhook_url": hook, "chat_url": chat("person")}
    assert system.http.put(f"{system.url}/api/v1/users/at-rest", json=person).status_code == 201
    ids = [system.event(user_id="at-rest"), system.event(recipient=other, channel="webhook")]
    ids.append(system.event(recipient=chat("event"), channel="chat", dedup_key="at-rest", dedup_window="PT1H"))
    made(system, recipient=chat("alone"), channel="chat")
    failed = made(system, recipient=broken, channel="webhook")
    twice = system.event(recipient=chat("event"), channel="chat", dedup_key="at-rest", dedup_window="PT1H")
    suppressed = {"channel": "chat", "address": chat("quiet"), "reason": "manual"}
    assert system.post("/api/v1/suppressions", suppressed).status_code == 201
    quiet = made(system, recipient=chat("quiet"), channel="chat")

    for event_id in ids[:2]:
        for row in wait_for(lambda each=event_id: system.notifications(each)):
            reaches(system, row["id"], "sent", "delivered")
    assert reaches(system, quiet, "skipped")["reason"] == "suppressed"
    [doubled] = wait_for(lambda: system.notifications(twice))
    [first] = wait_for(lambda: system.notifications(ids[2]))
    outcomes = {reaches(system, each, "sent", "skipped")["status"] for each in (doubled["id"], first["id"])}
    assert outcomes == {"sent", "skipped"}
    assert reaches(system, failed, "failed")["attempts"] == 3

    for user in ("rest", "rest2"):
        [received] = http.received(f"/{user}?{TOKEN}")
        basic = base64.b64encode(f"{user}:{SECRET}-password".encode()).decode()
        assert received.headers["authorization"] == f"Basic {basic}"
    with_secrets = {name: found for name, found in dump(system.engine).items() if SECRET in found}
    assert {name: found[max(found.find(SECRET) - 200, 0) :][:300] for name, found in with_secrets.items()} == {}

    # A search by the whole address finds its rows, and an answer shows no credential unless it is asked for.
    for path, address, found in (
        (NOTIFICATIONS, other, ids[1]),
        ("/api/v1/events", other, ids[1]),
        (NOTIFICATIONS, chat("event"), ids[2]),
    ):
        listed = system.get(path, params={"recipient": address}).json()["items"]
        assert found in {each.get("event_id") or each["id"] for each in listed}
        assert {each["recipient"] for each in listed} == {masked(address)}
        shown = system.get(path, params={"recipient": address, "reveal": "1"}).json()["items"]
        assert {each["recipient"] for each in shown} == {address}
    [user] = system.get("/api/v1/users", params={"address": hook}).json()["items"]
    assert (user["user_id"], user["webhook_url"]) == ("at-rest", masked(hook))
    user = system.get("/api/v1/users/at-rest", params={"reveal": "1"}).json()
    assert (user["webhook_url"], user["chat_url"]) == (hook, chat("person"))
    assert len(system.get("/api/v1/suppressions", params={"address": chat("quiet")}).json()["items"]) == 1
    exported = system.get("/api/v1/users/at-rest/export").text
    assert SECRET not in exported
    assert "sealed:" not in exported
    revealed = system.get("/api/v1/users/at-rest/export", params={"reveal": "1"}).json()
    assert revealed["user"]["webhook_url"] == hook
    assert {each["recipient"] for each in revealed["notifications"]} == {hook, chat("person")}

    for command in (["why", other], ["outbox", "--recipient", chat("alone")], ["why", quiet]):
        told = succeed(*command, environment=system.environment)
        assert SECRET not in told
        assert "sealed:" not in told
    told = succeed("outbox", "--recipient", chat("alone"), "--reveal", environment=system.environment)
    assert chat("alone") in told
    assert "on the suppression list" in succeed("why", quiet, environment=system.environment)

    lifted = system.http.delete(
        f"{system.url}/api/v1/suppressions", params={"channel": "chat", "address": chat("quiet")}
    )
    assert lifted.status_code == 204
    reaches(system, made(system, recipient=chat("quiet"), channel="chat"), "sent")


def test_what_waits_follows_a_user_to_a_new_sealed_address(system: Running, http: HttpReceiver) -> None:
    before, after = (with_password(http.url(f"/{name}"), name) for name in ("moves-from", "moves-to"))
    for url in (before, before, after):
        assert system.http.put(f"{system.url}/api/v1/users/moves", json={"webhook_url": url}).ok
        if url == before:
            later = made(system, user_id="moves", channel="webhook", send_at="2090-01-01T00:00:00Z")
    row = system.get(f"{NOTIFICATIONS}/{later}", params={"reveal": "1"}).json()
    assert (row["status"], row["recipient"]) == ("scheduled", after)
    system.post(f"{NOTIFICATIONS}/{later}/cancel")


def test_a_template_sees_whole_addresses(system: Running) -> None:
    address = chat("template")
    body = {"channel": "sms", "text": "{{ user.chat_url }}"}
    assert system.http.put(f"{system.url}/api/v1/templates/at-rest", json=body).ok
    person = {"chat_url": address, "phone": "+4915123450077"}
    assert system.http.put(f"{system.url}/api/v1/users/in-template", json=person).ok
    row = made(system, user_id="in-template", channel="sms", template="at-rest", body=None, data={})
    reaches(system, row, "sent")
    [[said]] = system.sql("SELECT text FROM outbox WHERE notification_id = CAST(:id AS uuid)", id=row)
    assert said == address


# An installation that a release before has filled.


def release_before(engine: Engine) -> None:
    """Take the key away: an older release had none."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM signing_keys WHERE purpose = :purpose"), {"purpose": PURPOSE})


@pytest.fixture
def vault() -> Vault:
    return Vault([new_key()])


@pytest.fixture
def old(engine: Engine, vault: Vault) -> Engine:
    """A database without the key, with addresses that are kept whole."""
    release_before(engine)
    with_seals(engine, vault)
    fields = dict.fromkeys(("email", "phone", "timezone", "locale"))
    users.put(engine, "old", {**fields, "push_tokens": [], "webhook_url": HOOK, "chat_url": chat("old")}, b"{}")
    for channel, address in ((Channel.WEBHOOK, HOOK), (Channel.CHAT, chat("old")), (Channel.EMAIL, "a@example.com")):
        suppressions.add(engine, {"channel": channel, "address": address, "reason": "manual", "until": None})
        row = notification(engine, "old", channel=channel, recipient=address)
        insert(engine, "outbox", notification_id=row, channel=channel, recipient=address, text="x", created_at=NOW)
        dedup = {"key": "s/k", "notification_id": row, "until": NOW, "scope": "s"}
        insert(engine, "dedup_keys", channel=channel, address=address, **dedup)
        with engine.begin() as connection:
            values = {"id": event(engine, "old"), "recipient": address, "channel": channel.value}
            update = "UPDATE events SET recipient = :recipient, channel = :channel WHERE id = :id"
            connection.execute(text(update), values)
    return engine


NOW: Final = datetime(2090, 1, 1, tzinfo=UTC)
HOOK: Final = f"https://old:{SECRET}-old@example.com/hook"


def is_left_alone(engine: Engine, channel: Channel) -> bool:
    asked = preference_check.ask(engine, "old", channel, None, critical=True, at=datetime.now(UTC), zone=UTC_ZONE)
    assert asked is not None
    return not asked.allowed


def test_nothing_is_sealed_until_a_key_is_made_and_then_everything(old: Engine, vault: Vault) -> None:
    places = {"suppressions", "users", "events", "notifications", "outbox", "dedup_keys"}
    assert {name.partition("_2")[0] for name in still_in(old, SECRET)} == places
    assert is_left_alone(old, Channel.CHAT)
    assert make_key(old, vault)
    assert not make_key(old, vault)
    with_seals(old, vault)  # as each process does some seconds later
    assert is_left_alone(old, Channel.CHAT)  # its address is whole yet, and so is the list's
    with old.connect() as connection:
        for form in (HOOK, seals_of(old).kept(Channel.WEBHOOK, HOOK)):
            assert users.users_at(connection, Channel.WEBHOOK, form) == ["old"]
    assert sum(seal_stored(old)) == 2 * 6
    assert still_in(old, SECRET) == []
    assert is_left_alone(old, Channel.CHAT)
    assert is_left_alone(old, Channel.WEBHOOK)
    assert sum(seal_stored(old)) == 0
    with old.connect() as connection:
        rows = connection.execute(text("SELECT channel, address, key FROM dedup_keys ORDER BY channel")).all()
        assert [row.channel for row in rows if row.address.startswith("sealed:")] == ["chat", "webhook"]
        assert connection.scalar(text("SELECT count(*) FROM notifications WHERE recipient = 'a@example.com'")) == 1
        assert users.users_at(connection, Channel.WEBHOOK, HOOK) == ["old"]


def test_of_an_address_that_is_listed_in_both_forms_one_is_kept(old: Engine, vault: Vault) -> None:
    make_key(old, vault)
    with_seals(old, vault)
    suppressions.add(old, {"channel": "chat", "address": chat("old"), "reason": "by hand", "until": None})
    with old.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM suppressions WHERE channel = 'chat'")) == 2
    for _ in seal_stored(old):
        pass
    with old.connect() as connection:
        [(address, folded, reason)] = connection.execute(
            text("SELECT address, folded, reason FROM suppressions WHERE channel = 'chat'")
        )
    assert (address, reason) == (folded, "by hand")
    assert suppressions.remove(old, Channel.CHAT, chat("old"))
    assert not is_left_alone(old, Channel.CHAT)


def test_what_was_kept_before_its_form_was_normalised_is_found_by_the_normal_one(old: Engine, vault: Vault) -> None:
    given, normal = (f"https://u:{SECRET}@{host}/x" for host in ("exämple.com", "xn--exmple-cua.com"))
    suppressed = {"channel": "webhook", "address": given, "folded": normal, "reason": "stop", "created_at": NOW}
    insert(old, "suppressions", id=new_id(), **suppressed)
    bare = "https://exämple.com/x"  # it has nothing to seal, and stays
    row = notification(old, None, channel="webhook", recipient=bare)
    make_key(old, vault)
    with_seals(old, vault)
    for _ in seal_stored(old):
        pass
    assert suppressions.remove(old, Channel.WEBHOOK, normal)
    assert still_in(old, SECRET) == []
    with old.connect() as connection:
        assert connection.scalar(text("SELECT recipient FROM notifications WHERE id = :id"), {"id": row}) == bare


def test_what_waits_for_a_sealed_address_moves_though_the_user_is_kept_whole(old: Engine, vault: Vault) -> None:
    make_key(old, vault)
    with_seals(old, vault)
    kept = seals_of(old).kept(Channel.CHAT, chat("old"))
    waits = notification(old, "old", channel="chat", recipient=kept, status="queued", due_at=NOW)
    fields = dict.fromkeys(("email", "phone", "timezone", "locale", "webhook_url"))
    users.put(old, "old", {**fields, "push_tokens": [], "chat_url": chat("new")}, b"{}")
    with old.connect() as connection:
        moved = connection.scalar(text("SELECT recipient FROM notifications WHERE id = :id"), {"id": waits})
    assert seals_of(old).opened(moved) == chat("new")
    assert seal_of(moved) is not None


@pytest.mark.parametrize("sealed_before", [False, True])
def test_a_person_is_exported_and_erased_in_both_forms(old: Engine, vault: Vault, sealed_before: bool) -> None:
    make_key(old, vault)
    with_seals(old, vault)
    seals = seals_of(old)
    mention = event(old, None, json.dumps({"to": chat("old")}))
    bare = notification(old, None, channel="chat", recipient=seals.kept(Channel.CHAT, chat("old")))
    if sealed_before:
        for _ in seal_stored(old):
            pass
    pieces = export.export(old, "old", reveals=True)
    assert pieces is not None
    exported = json.loads(b"".join(pieces))
    assert {each["recipient"] for each in exported["notifications"]} == {HOOK, chat("old"), "a@example.com"}
    assert str(bare) in {each["id"] for each in exported["notifications"]}
    assert {each["address"] for each in exported["suppressions"]} >= {HOOK, chat("old")}
    masks = export.export_address(old, Channel.CHAT, chat("old"))
    assert SECRET not in b"".join(masks).decode()

    erasure_id = erasure.erase_address(old, vault, Channel.CHAT, chat("old"))
    with old.begin() as connection:
        connection.execute(text("UPDATE erasures SET created_at = now() - interval '1 day'"))
    while erasure.go_on(old, vault):
        with old.begin() as connection:
            connection.execute(text("UPDATE erasures SET due_at = now() WHERE due_at IS NOT NULL"))
    found = erasure.find(old, erasure_id)
    assert found is not None
    assert found.finished_at is not None
    assert still_in(old, SECRET, "sealed:") == []
    with old.connect() as connection:
        assert connection.scalar(text("SELECT CAST(payload AS text) FROM events WHERE id = :id"), {"id": mention})
    # The list goes on to hold, whichever form comes.
    assert suppressions.listed(old, Channel.CHAT, [chat("old")])
    with old.connect() as connection:
        forms = sorted(suppressions.listed(connection, Channel.CHAT, [chat("old")]))
        held = text("SELECT count(*) FROM suppressions WHERE channel = 'chat' AND folded = ANY(:forms)")
        assert connection.scalar(held, {"forms": forms}) == 1


def test_rekey_makes_the_key_and_seals_what_is_there(old: Engine, database_url: str, vault: Vault) -> None:
    key = new_key()
    environment = {**clean_environment(), "DATABASE_URL": database_url, "NOTIFIER_SECRET_KEY": key}
    notes = manage("doctor", environment=environment).stdout
    assert "addresses with credentials are kept as they are" in " ".join(notes.split())
    told = succeed("rekey", environment=environment)
    assert "Sealed 12 addresses that had credentials in them." in told
    assert still_in(old, SECRET) == []
    assert AddressSeals(old, Vault([key])).opened(_recipient(old)) == HOOK


def _recipient(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.scalar(text("SELECT recipient FROM notifications WHERE channel = 'webhook'")))


def test_without_the_right_key_a_row_fails_alone_and_says_why(system: Running) -> None:
    foreign = AddressSeals(None, Vault(()))
    assert foreign.opened_or_kept("slack://*** sealed:x") == "slack://*** sealed:x"
    row, good = new_id(), made(system, recipient=chat("beside"), channel="chat")
    columns: dict[str, Any] = {"id": row, "origin_id": uuid4(), "channel": "chat", "queue": "chat", "status": "queued"}
    columns |= {"source": "s", "critical": False, "priority": "normal", "created_at": datetime.now(UTC)}
    content = json.dumps({"body": "x"})
    insert(system.engine, "notifications", **columns, recipient="slack://*** sealed:x", content=content, due_at=NOW)
    with system.engine.begin() as connection:
        connection.execute(text("UPDATE notifications SET due_at = now() WHERE id = :id"), {"id": row})
    dead = reaches(system, str(row), "failed")
    assert dead["reason"] == "permanent_error"
    assert "secret: An address is sealed with another key" in json.dumps(system.get(f"{NOTIFICATIONS}/{row}").json())
    reaches(system, good, "sent")
