"""Erasure of a person: delete their data, keep the counts, and cancel their waiting notifications.

An erasure is a row with the person to search for and its progress. Rows that indexes find are erased while the request
waits. Then the clock goes through every table in batches (people.forgetting), for rows that no index finds and for
other mentions of the person. It does so twice, because data that was on its way when the first round began may have
arrived after it. Each batch is a transaction that saves its progress, so a process may die anywhere, and any number may
continue.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, Row, delete, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from notifier.models import Endpoint, Erasure
from notifier.people import suppressions
from notifier.people.forgetting import Sought, redact, tables
from notifier.people.identities import THEIRS, named_by
from notifier.people.mentions import Named
from notifier.people.users import addresses_in, users_at
from notifier.runtime.isolation import is_away, kind_of
from notifier.security.secret_box import Vault
from notifier.storage.personal_data import wipe
from notifier.vocabulary.addresses import endpoint_of
from notifier.vocabulary.deferrals import UNEXPLAINED_IN_SQL
from notifier.vocabulary.errors import Conflict
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import PENDING_IN_SQL, Channel, EventStatus, Status

log = structlog.get_logger()

#: The requester, if none is given.
NOBODY: Final = "unknown"

#: How long a row that was on its way may take to be written, in seconds: the second round begins so long afterwards.
_ON_ITS_WAY: Final = 60
_ROUNDS: Final = 2
#: For how many seconds a request erases rows.
_AT_ONCE: Final = 5.0
#: Rows that are erased in one transaction.
_PAGE: Final = 2000

_DELETE_USER: Final = text("""
    DELETE FROM users WHERE user_id = :user_id RETURNING email, phone, push_tokens, webhook_url, chat_url
""")
_BEGIN: Final = text("""
    INSERT INTO erasures (id, asked_by, created_at, named, round, erased, left_in, due_at)
    VALUES (:id, :by, :now, :named, 0, 0, '{}', now())
""")

_LOCK_NEXT: Final = text("""
    SELECT * FROM erasures WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_LOCK: Final = text("SELECT * FROM erasures WHERE id = :id FOR UPDATE")
_LOCK_UNFINISHED: Final = text("SELECT id, named FROM erasures WHERE named IS NOT NULL ORDER BY id FOR UPDATE")
_TRY_LATER: Final = text("""
    UPDATE erasures SET due_at = clock_timestamp() + interval '60 s' WHERE id = :id AND due_at IS NOT NULL
""")
_KEEP_PLACE: Final = text("""
    UPDATE erasures SET round = :round, stage = :stage, place = :place, erased = erased + :erased, left_in = :left_in,
        due_at = CASE WHEN :is_over THEN NULL
            WHEN :begins THEN greatest(clock_timestamp(), created_at + :rest * interval '1 second')
            ELSE clock_timestamp() END,
        finished_at = CASE WHEN :is_over THEN clock_timestamp() END,
        named = CASE WHEN :is_over THEN NULL ELSE named END
    WHERE id = :id
""")

# Live rows come first.
_LIVE: Final = "AND due_at IS NOT NULL"
_LOCK_NOTIFICATIONS: Final = text("SELECT id, event_id FROM notifications WHERE id = ANY(:ids) ORDER BY id FOR UPDATE")
_LOCK_EVENTS: Final = text("SELECT id FROM events WHERE id = ANY(:ids) ORDER BY id FOR UPDATE")
# No index finds events by their recipient. Few of them wait; the others have notifications.
_EVENTS_OF_USER: Final = text(f"""
    SELECT id FROM events WHERE id < :before AND user_id = ANY(:users)
    UNION SELECT id FROM events e WHERE id < :before AND due_at IS NOT NULL AND recipient = ANY(:forms)
        AND NOT EXISTS (SELECT FROM users WHERE users.user_id = e.user_id)
    ORDER BY id LIMIT {_PAGE}
""")
_DELETE_ATTACHMENTS: Final = text("""
    DELETE FROM attachments WHERE id IN (
        SELECT CAST(json_array_elements_text(content -> 'attachments') AS uuid) FROM notifications
        WHERE id = ANY(:ids) AND json_typeof(content -> 'attachments') = 'array'
    )
""")
# Notifications that are being sent lose their address too: a retry then has no recipient.
_ERASE_NOTIFICATIONS: Final = text(f"""
    UPDATE notifications SET user_id = NULL, recipient = NULL, content = NULL, {UNEXPLAINED_IN_SQL}, judged = NULL,
        next_channels = NULL, cancellation_key = NULL, dedup_key = NULL, dedup_window = NULL,
        status = CASE WHEN status IN {PENDING_IN_SQL} THEN '{Status.CANCELLED}' ELSE status END,
        reason = CASE WHEN status IN {PENDING_IN_SQL} THEN '{Reason.USER_DELETED}' ELSE reason END,
        due_at = CASE WHEN status IN {PENDING_IN_SQL} THEN NULL ELSE due_at END
    WHERE id = ANY(:ids)
""")
# The events that named them, and events without other recipients. An event before its fan-out creates nothing more.
_ERASE_EVENTS: Final = text(f"""
    UPDATE events e SET payload = '{{}}', recipient = NULL, user_id = NULL, due_at = NULL, error = NULL,
        cancellation_key = NULL, idempotency_key = NULL, dedup_key = NULL, dedup_window = NULL,
        status = CASE status WHEN '{EventStatus.ACCEPTED}' THEN '{EventStatus.PROCESSED}' ELSE status END
    WHERE e.id = ANY(:own) OR e.id = ANY(:heard) AND (recipient = ANY(:forms) OR NOT EXISTS (
        SELECT FROM notifications n WHERE n.event_id = e.id AND n.recipient IS NOT NULL
    ))
    RETURNING e.id
""")
# Callers make keys of addresses. Locked in the order in which intake writes them, else the two deadlock.
_DELETE_IDEMPOTENCY_KEYS: Final = text("""
    WITH theirs AS MATERIALIZED (
        SELECT source, key FROM idempotency_keys WHERE ids && CAST(:ids AS uuid[]) ORDER BY source, key FOR UPDATE
    )
    DELETE FROM idempotency_keys known USING theirs WHERE known.source = theirs.source AND known.key = theirs.key
""")

# A sealed address is named nowhere in words, so no text is searched for it.
_FORGET_IN_ACTS: Final = text("""
    UPDATE dead_letter_acts SET filters = jsonb_set(filters, '{recipient}', '["[erased]"]')
    WHERE id < :before AND filters -> 'recipient' ?| CAST(:forms AS text[])
""")


def erase_user(engine: Engine, vault: Vault, user_id: str, by: str = NOBODY) -> UUID | None:
    """Delete a user, and erase the rows that indexes find; returns the erasure, which the clock continues.

    Their data is removed from events, notifications, attachments, attempts, dead letters, receipts and the outbox, also
    where only an address of theirs is named, unless another user has it too. Keys that callers gave (idempotency,
    deduplication, cancellation) are removed as well: they often contain addresses.

    Rows and their states stay, for the counts. A hash of each suppression stays, and so do opt-outs: they keep people
    from being contacted, and an erasure must not undo that. Returns None if there is no such user. It is safe to
    repeat.
    """
    with engine.begin() as connection:
        # This waits for a fan-out that makes notifications for them (it keeps the user's row): those are then found.
        user = connection.execute(_DELETE_USER, {"user_id": user_id}).one_or_none()
        if user is None:
            return None
        erasure_id = _begin(connection, vault, [user_id], addresses_in(user), by)
    _erase_own(engine, vault, erasure_id)
    return erasure_id


def erase_id(engine: Engine, vault: Vault, user_id: str, by: str = NOBODY) -> UUID:
    """Erase a user as `erase_user` does, or, if there is none, the data that names the id."""
    erasure_id = erase_user(engine, vault, user_id, by)
    if erasure_id is None:
        with engine.begin() as connection:
            erasure_id = _begin(connection, vault, [user_id], [], by)
        _erase_own(engine, vault, erasure_id)
    return erasure_id


def erase_address(engine: Engine, vault: Vault, channel: Channel, address: str, by: str = NOBODY) -> UUID:
    """Erase the person at an address, known as a user or not. Raises Conflict if several users have it."""
    with engine.connect() as connection:
        found = users_at(connection, channel, address)
    if len(found) > 1:
        raise Conflict(f"{len(found)} users have this address. Delete those who are meant, or take it from the others.")
    if found:
        erasure_id = erase_user(engine, vault, found[0], by)
        if erasure_id is not None:
            return erasure_id
    with engine.begin() as connection:
        erasure_id = _begin(connection, vault, [], [(channel, address)], by)
    _erase_own(engine, vault, erasure_id)
    return erasure_id


def find(engine: Engine, erasure_id: UUID) -> Erasure | None:
    """Return an erasure and its progress, or None."""
    with Session(engine) as session:
        return session.get(Erasure, erasure_id)


def _begin(
    connection: Connection, vault: Vault, user_ids: Sequence[str], known: Iterable[tuple[Channel, str]], by: str
) -> UUID:
    named, erasure_id = named_by(connection, user_ids, known), new_id()
    sealed = _sealed(vault, named.to_json())
    connection.execute(_BEGIN, {"id": erasure_id, "by": by, "now": datetime.now(UTC), "named": sealed})
    listed = [(each.channel, each.text) for each in named.addresses]
    suppressions.hash_addresses(connection, listed, named.taken_out_of)
    endpoints = [endpoint_of(each.text) for each in named.addresses if each.channel is Channel.WEBHOOK]
    connection.execute(delete(Endpoint).where(Endpoint.id.in_(endpoints)))
    return erasure_id


def _sealed(vault: Vault, document: str) -> bytes:
    """Encrypt the identity of an erasure; without a key, store it as it is while the erasure runs."""
    try:
        return vault.encrypt(document)
    except Conflict:
        return document.encode()


def _opened(vault: Vault, sealed: bytes) -> Named:
    document = sealed.decode() if sealed.startswith(b"{") else vault.decrypt(sealed)
    return Named.from_json(document)


def _erase_own(engine: Engine, vault: Vault, erasure_id: UUID) -> None:
    """Erase what indexes find before the request is answered; leave longer work, and failures, to the clock.

    The erasure is on record by now, so the caller is told so even where this fails.
    """
    until = time.monotonic() + _AT_ONCE
    try:
        while time.monotonic() < until:
            with engine.begin() as connection:
                erasure = connection.execute(_LOCK, {"id": erasure_id}).one()
                if erasure.round > 0 or erasure.named is None:
                    return
                _step(connection, vault, erasure)
    except SQLAlchemyError as error:
        log.warning("erasure_left_to_the_clock", erasure=str(erasure_id), error=kind_of(error))


def rekey(engine: Engine, vault: Vault) -> int:
    """Re-encrypt the identities of unfinished erasures; returns how many there are. Raises CannotDecrypt, Conflict."""
    with engine.begin() as connection:
        found = connection.execute(_LOCK_UNFINISHED).all()
        for row in found:
            sealed = bytes(row.named)
            new = vault.encrypt(sealed.decode()) if sealed.startswith(b"{") else vault.rotate(sealed)
            connection.execute(update(Erasure).where(Erasure.id == row.id).values(named=new))
    return len(found)


def go_on(engine: Engine, vault: Vault) -> bool:
    """Do the next batch of the erasure whose turn it is; False if there is none. Any number of processes may.

    A failing erasure is tried again later, and delays no other. Raises the errors of an unavailable database.
    """
    erasure = None
    try:
        with engine.begin() as connection:
            erasure = connection.execute(_LOCK_NEXT).one_or_none()
            if erasure is not None:
                _step(connection, vault, erasure)
    except Exception as error:
        if erasure is None or is_away(error):
            raise
        log.warning("erasure_failed", erasure=str(erasure.id), error=kind_of(error))
        with engine.begin() as connection:
            connection.execute(_TRY_LATER, {"id": erasure.id})
    return erasure is not None


def _step(connection: Connection, vault: Vault, erasure: Row[Any]) -> None:
    sought = Sought(_opened(vault, bytes(erasure.named)), erasure.id, erasure.created_at)
    if erasure.stage is None:
        connection.execute(_FORGET_IN_ACTS, {"forms": sought.named.forms, "before": sought.erasure})
        erased = _erase_page(connection, sought)
        moved = {} if erased else {"round": max(erasure.round, 1), "stage": tables()[0]}
        _keep_place(connection, erasure, erased=erased, **moved)
        return
    batch = redact(connection, erasure.stage, erasure.place, sought)
    erased = batch.changed + _erase_rows(connection, batch.notifications, batch.events, sought)
    left_in = sorted({*erasure.left_in, *([erasure.stage] if batch.is_left else ())})
    moved = {"place": batch.place, "left_in": left_in}
    if batch.place is None:
        moved |= _after(erasure)
    _keep_place(connection, erasure, erased=erased, **moved)


def _after(erasure: Row[Any]) -> dict[str, Any]:
    """Return the place after the last row of a table: the next table, the next round, or the end."""
    names = tables()
    behind = names[names.index(erasure.stage) + 1 :] if erasure.stage in names else names
    if behind:
        return {"stage": behind[0]}
    is_over = erasure.round >= _ROUNDS
    return {"stage": None, "round": erasure.round if is_over else erasure.round + 1, "is_over": is_over}


def _keep_place(connection: Connection, erasure: Row[Any], **changes: Any) -> None:  # noqa: ANN401 -- values of any column
    kept = {name: getattr(erasure, name) for name in ("id", "round", "stage", "left_in")}
    values = {**kept, "place": None, "is_over": False, **changes}
    begins = values["round"] > max(erasure.round, 1)
    connection.execute(_KEEP_PLACE, {**values, "begins": begins, "rest": _ON_ITS_WAY})


def _erase_page(connection: Connection, sought: Sought) -> int:
    """Erase the next rows that an index finds; returns how many. Waiting notifications are cancelled first."""
    values = {"users": sorted(sought.named.user_ids), "forms": sought.named.forms, "before": sought.erasure}
    events = list(connection.scalars(_EVENTS_OF_USER, values))
    ids: list[UUID] = []
    for and_live in (_LIVE, ""):
        ids = ids or list(connection.scalars(text(f"{THEIRS.format(more=and_live)} ORDER BY id LIMIT {_PAGE}"), values))
    return _erase_rows(connection, ids, events, sought)


def _erase_rows(connection: Connection, ids: Sequence[UUID], event_ids: Sequence[UUID], sought: Sought) -> int:
    """Erase notifications and events, and the records about them; returns how many there were."""
    if not ids and not event_ids:
        return 0
    # Wait for a fan-out of the event: the notifications that it makes are found afterwards.
    own = list(connection.scalars(_LOCK_EVENTS, {"ids": list(event_ids)}))
    rows = connection.execute(_LOCK_NOTIFICATIONS, {"ids": list(ids)}).all()
    locked = [row.id for row in rows]
    connection.execute(_DELETE_ATTACHMENTS, {"ids": locked})
    connection.execute(_ERASE_NOTIFICATIONS, {"ids": locked})
    wipe(connection, locked)
    heard = sorted({row.event_id for row in rows if row.event_id})
    events = connection.scalars(_ERASE_EVENTS, {"own": own, "heard": heard, "forms": sought.named.forms}).all()
    connection.execute(_DELETE_IDEMPOTENCY_KEYS, {"ids": [*locked, *events]})
    return len(locked) + len(own)
