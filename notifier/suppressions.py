"""The suppression list: addresses that get nothing over a channel, whoever asks, critical or not."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from notifier.addresses import folded
from notifier.channels import Channel
from notifier.ids import new_id
from notifier.models import Suppression

_ADD: Final = text("""
    INSERT INTO suppressions (id, channel, address, folded, reason, until, created_at)
    VALUES (:id, :channel, :address, :folded, :reason, :until, :now)
    ON CONFLICT (channel, folded) DO UPDATE SET address = excluded.address, reason = excluded.reason,
        until = excluded.until
    RETURNING id
""")
_REMOVE: Final = text("DELETE FROM suppressions WHERE channel = :channel AND folded = :folded")


def add(engine: Engine, fields: Mapping[str, Any]) -> Suppression:
    """Suppress an address on a channel; where it is already, with the new reason and end."""
    channel = Channel(fields["channel"])
    values = {**fields, "channel": channel.value, "folded": folded(channel, fields["address"])}
    with Session(engine, expire_on_commit=False) as session, session.begin():
        added = session.execute(_ADD, {**values, "id": new_id(), "now": datetime.now(UTC)}).scalar_one()
        return session.get_one(Suppression, added)


def remove(engine: Engine, channel: Channel, address: str) -> bool:
    """Lift a suppression; false where there is none."""
    with engine.begin() as connection:
        values = {"channel": channel.value, "folded": folded(channel, address)}
        return connection.execute(_REMOVE, values).rowcount > 0


def remove_by_id(engine: Engine, suppression_id: UUID) -> bool:
    """Lift a suppression by its id; false where there is none."""
    with engine.begin() as connection:
        return connection.execute(text("DELETE FROM suppressions WHERE id = :id"), {"id": suppression_id}).rowcount > 0
