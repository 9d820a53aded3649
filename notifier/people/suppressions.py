"""The suppression list: addresses that receive nothing over a channel, not even critical notifications."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, text
from sqlalchemy.orm import Session

from notifier.models import Suppression
from notifier.security.address_seals import seals_of
from notifier.vocabulary.addresses import folded, hash_of
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.states import Channel

_ADD_OR_CHANGE: Final = text("""
    INSERT INTO suppressions (id, channel, address, folded, reason, until, created_at)
    VALUES (:id, :channel, :address, :folded, :reason, :until, :now)
    ON CONFLICT (channel, folded) DO UPDATE SET address = excluded.address, reason = excluded.reason,
        until = excluded.until
    RETURNING id
""")
# An operator's own reason is not a vendor's to change; but one that ends gives way to one that does not.
_ADD_NEW: Final = text("""
    INSERT INTO suppressions AS known (id, channel, address, folded, reason, created_at)
    SELECT id, channel, address, folded, reason, now()
    FROM json_to_recordset(CAST(:given AS json)) AS given(id uuid, channel text, address text, folded text, reason text)
    ORDER BY channel, folded
    ON CONFLICT (channel, folded) DO UPDATE SET address = excluded.address, reason = excluded.reason, until = NULL,
        created_at = excluded.created_at WHERE known.until IS NOT NULL
""")
_LIFT: Final = text("""
    DELETE FROM suppressions s
    USING json_to_recordset(CAST(:given AS json)) AS given(channel text, folded text, reason text)
    WHERE s.channel = given.channel AND s.folded = given.folded AND s.reason = given.reason
""")

#: The address that is kept of an erased person, and the prefix of its hash, by which addresses are compared.
NO_ADDRESS: Final = "[erased]"
_HASHED: Final = "sha256:"
_LOCK_LISTED: Final = text("""
    SELECT id, channel, folded, reason FROM suppressions
    WHERE (channel, folded) IN (SELECT * FROM unnest(CAST(:channels AS text[]), CAST(:addresses AS text[])))
    ORDER BY channel, folded FOR UPDATE
""")
_HASH: Final = text("""
    UPDATE suppressions SET address = :address, folded = :hashed, reason = :reason WHERE id = :id
""")


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a channel, normalised, and why it is not to be written to."""

    channel: Channel
    address: str
    reason: str


def compared(channel: Channel, address: str) -> tuple[str, str]:
    """Return the two forms of an address in the list: folded, and hashed for a person who was erased."""
    return folded(channel, address), f"{_HASHED}{hash_of(channel, address).hex()}"


def listed(database: Engine | Connection | Session, channel: Channel, addresses: Iterable[str]) -> dict[str, str]:
    """Return each form in which the list may have some addresses, with the address that was given."""
    seals = seals_of(database)
    return {
        form: address
        for address in addresses
        for each in seals.forms(channel, address)
        for form in compared(channel, each)
    }


def hash_addresses(
    connection: Connection, addresses: Iterable[tuple[Channel, str]], words: Callable[[str], str]
) -> int:
    """Replace some addresses by their hashes, in the connection's transaction; returns how many there were.

    They stay suppressed. `words` returns a reason without the parts that name the person.
    """
    theirs = sorted({(channel.value, folded(channel, each)) for channel, each in addresses})
    values = {"channels": [channel for channel, _ in theirs], "addresses": [address for _, address in theirs]}
    found = connection.execute(_LOCK_LISTED, values).all()
    for row in found:
        _, hashed = compared(Channel(row.channel), row.folded)
        # One that was put on the list and erased before gives way.
        connection.execute(delete(Suppression).where(_is_one_of(row.channel, [hashed])))
        new = {"id": row.id, "address": NO_ADDRESS, "hashed": hashed, "reason": words(row.reason)}
        connection.execute(_HASH, new)
    return len(found)


def add(engine: Engine, fields: Mapping[str, Any]) -> Suppression:
    """Suppress an address on a channel; where it is already, with the new reason and end."""
    channel = Channel(fields["channel"])
    kept = seals_of(engine).kept(channel, fields["address"])
    values = {**fields, "channel": channel.value, "address": kept, "folded": folded(channel, kept)}
    with Session(engine, expire_on_commit=False) as session, session.begin():
        added = session.execute(_ADD_OR_CHANGE, {**values, "id": new_id(), "now": datetime.now(UTC)}).scalar_one()
        return session.get_one(Suppression, added)


def add_new(connection: Connection, addresses: Sequence[Address]) -> None:
    """Suppress addresses for ever, in the connection's transaction; one that is so already stays as it is."""
    given = {
        (each.channel.value, folded(each.channel, each.address)): {"address": each.address, "reason": each.reason}
        for each in reversed(addresses)  # of several reasons the first one stands
    }
    if given:
        rows = [{"id": new_id(), "channel": key[0], "folded": key[1], **row} for key, row in given.items()]
        connection.execute(_ADD_NEW, {"given": to_json(rows)})


def suppress(engine: Engine, addresses: Sequence[Address]) -> None:
    """Suppress addresses permanently, as a provider's answers say. Raises the database's errors.

    If an address is not stored, the provider refuses it again, and it is stored then.
    """
    if addresses:
        with engine.begin() as connection:
            add_new(connection, addresses)


def lift(connection: Connection, addresses: Sequence[Address]) -> None:
    """Lift the suppressions of addresses, in the connection's transaction, where they have the same reason."""
    if addresses:
        rows = [
            {"channel": each.channel, "folded": form, "reason": each.reason}
            for each in addresses
            for form in compared(each.channel, each.address)
        ]
        connection.execute(_LIFT, {"given": to_json(rows)})


def remove(engine: Engine, channel: Channel, address: str) -> bool:
    """Lift a suppression; false where there is none."""
    with engine.begin() as connection:
        forms = sorted(listed(connection, channel, [address]))
        return connection.execute(delete(Suppression).where(_is_one_of(channel.value, forms))).rowcount > 0


def remove_by_id(engine: Engine, suppression_id: UUID) -> bool:
    """Lift a suppression by its id; false where there is none."""
    with engine.begin() as connection:
        return connection.execute(delete(Suppression).where(Suppression.id == suppression_id)).rowcount > 0


def _is_one_of(channel: str, forms: Sequence[str]) -> ColumnElement[bool]:
    return and_(Suppression.channel == channel, Suppression.folded.in_(forms))
