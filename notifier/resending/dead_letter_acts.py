"""Acts on dead letters: requeue or drop all that match some filters, in batches.

An act is a row with its progress, like a recovery. The first batch is done in the transaction that begins it, so that
the answer to a small one is its result; the clock does the others. Batches follow the letters' ids, and each takes a
bounded time whatever the filters are. Letters that are written after the beginning are not part of the act: a
notification that fails again is not requeued again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, get_args, get_type_hints
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, delete, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from notifier.models import DeadLetter, DeadLetterAct
from notifier.notifications.dead_letters import Died, Filters
from notifier.planning.plans import Lease
from notifier.resending.resend import DEFAULT, Standards, counted, requeue_in
from notifier.security.address_seals import AddressSeals, seals_of
from notifier.storage.time_limits import TooLong, in_time
from notifier.vocabulary.errors import Conflict, Forbidden
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.json_documents import to_json
from notifier.vocabulary.queues import BATCH
from notifier.vocabulary.timestamps import rfc3339

Hints = list[tuple[str, UUID]]

#: Seconds in which a batch may find its letters among all, and the letters that it looks at where that is too short:
#: with the slowest filters that takes some tenths of a second.
_QUICKLY: Final = 0.2
WINDOW: Final = 5_000
#: Seconds in which the letters of an act are counted: a request has seven for all that it asks of Postgres.
_COUNTING: Final = 3.0
#: The ids that a preview shows.
_SAMPLE: Final = 10

_BEGIN: Final = text("""
    INSERT INTO dead_letter_acts (id, act, filters, source, place, total, asked_by, created_at)
    VALUES (:id, :act, CAST(:filters AS jsonb), :source, :place, :total, :by, now())
""")
_UNFINISHED: Final = text("""
    SELECT * FROM dead_letter_acts
    WHERE finished_at IS NULL AND stopped_at IS NULL AND (CAST(:id AS uuid) IS NULL OR id = :id)
    ORDER BY worked_at NULLS FIRST LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_KEEP_PLACE: Final = text("""
    UPDATE dead_letter_acts SET place = :place, done = done + :done, worked_at = clock_timestamp(),
        refused = refused + :refused, refused_reasons = CAST(:reasons AS jsonb),
        finished_at = CASE WHEN :is_last THEN clock_timestamp() END WHERE id = :id
""")
_PASS_TURN: Final = text("UPDATE dead_letter_acts SET worked_at = clock_timestamp() WHERE id = :id")
_STOP: Final = text("""
    UPDATE dead_letter_acts SET stopped_at = clock_timestamp()
    WHERE id = :id AND finished_at IS NULL AND stopped_at IS NULL
""")
_RESUME: Final = text("UPDATE dead_letter_acts SET stopped_at = NULL WHERE id = :id AND finished_at IS NULL")


class Act(StrEnum):
    """Ways to act on letters."""

    #: Send their notifications and events again.
    REQUEUE = "requeue"
    #: Delete them for good; their notifications stay, as failed.
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Asked:
    """An act as somebody asks for it."""

    act: Act
    filters: Filters
    #: A key's name, or `shell:USER`.
    by: str
    #: The source whose letters the requester may act on; None: those of all sources.
    source: str | None = None

    @property
    def bounded(self) -> Filters:
        """Return the filters with the requester's bounds. Raises Forbidden where they name another source."""
        if self.source is None:
            return self.filters
        if self.filters.source not in {None, self.source}:
            raise Forbidden("source", f"This key may act only on what is of its own source, {self.source}.")
        return replace(self.filters, source=self.source)


@dataclass(frozen=True, slots=True)
class Preview:
    """The letters that an act would begin with."""

    total: int
    by_reason: Mapping[str, int]
    sample: Sequence[UUID]


def preview(engine: Engine, asked: Asked) -> Preview:
    """Count the letters that match, by reason, and show some of the oldest. Raises Invalid if that takes too long."""
    filters = asked.bounded
    by_reason: Any = select(DeadLetter.reason, func.count().label("letters")).group_by(DeadLetter.reason)
    with engine.begin() as connection, in_time(connection, "filter"):
        rows = connection.execute(filters.on(by_reason)).all()
        sample = connection.scalars(filters.on(select(DeadLetter.id)).order_by(DeadLetter.id).limit(_SAMPLE)).all()
    reasons = {row.reason: row.letters for row in sorted(rows, key=lambda row: (-row.letters, row.reason))}
    return Preview(sum(reasons.values()), reasons, sample)


def begin(
    engine: Engine, asked: Asked, lease: Lease, standards: Standards = DEFAULT, *, act_id: UUID | None = None
) -> tuple[UUID, Hints]:
    """Start an act; returns its id, and the (queue, id) of the rows of its first batch. `go_on` does the others.

    `act_id`: a new id, for a caller that must know it even if it is interrupted in here.
    """
    filters = asked.bounded
    total = _count(engine, filters)
    act_id = act_id or new_id()
    kept = to_json(as_document(filters, seals_of(engine)))
    values = {"id": act_id, "act": asked.act.value, "filters": kept, "by": asked.by, "source": asked.source}
    with engine.begin() as connection:
        connection.execute(_BEGIN, {**values, "place": UUID(int=0), "total": total})
        found = connection.execute(_UNFINISHED, {"id": act_id}).one()
        return act_id, _next_batch(connection, found, filters, lease, standards)


def _count(engine: Engine, filters: Filters) -> int | None:
    """Count the letters that match; None if that takes too long."""
    try:
        with engine.begin() as connection, in_time(connection, "filter", _COUNTING):
            total: int | None = connection.scalar(filters.on(select(func.count()).select_from(DeadLetter)))
            return total
    except TooLong:
        return None


def go_on(engine: Engine, lease: Lease, act_id: UUID | None = None, standards: Standards = DEFAULT) -> Hints | None:
    """Do the next batch of an act, by default of the one whose turn it is; None if there is none.

    Returns the (queue, id) of rows that are due now. Any number of processes may call it; each takes another act. A
    process that dies in between has done all or nothing of a batch. An act whose batch fails lets others go first.
    """
    taken: UUID | None = None
    try:
        with engine.begin() as connection:
            found = connection.execute(_UNFINISHED, {"id": act_id}).one_or_none()
            if found is None:
                return None
            taken = found.id
            filters = from_document(found.filters, seals_of(engine))
            return _next_batch(connection, found, filters, lease, standards)
    except Exception:
        if taken is not None:
            with suppress(SQLAlchemyError), engine.begin() as connection:
                connection.execute(_PASS_TURN, {"id": taken})
        raise


def stop(engine: Engine, act_id: UUID) -> None:
    """Stop an act: a batch that is being done is finished first. Raises Conflict if the whole act is finished."""
    with engine.begin() as connection:
        if not connection.execute(_STOP, {"id": act_id}).rowcount:
            _check_unfinished(connection, act_id)


def resume(engine: Engine, act_id: UUID) -> None:
    """Let a stopped act go on. Raises Conflict if it is finished."""
    with engine.begin() as connection:
        if not connection.execute(_RESUME, {"id": act_id}).rowcount:
            _check_unfinished(connection, act_id)


def _check_unfinished(connection: Connection, act_id: UUID) -> None:
    finished_at = select(DeadLetterAct.finished_at).where(DeadLetterAct.id == act_id)
    if connection.scalar(finished_at) is not None:
        raise Conflict("This act is finished: nothing of it is left to do.")


def _next_batch(connection: Connection, act: Row[Any], filters: Filters, lease: Lease, standards: Standards) -> Hints:
    """Do the next batch of a locked act, and keep its place."""
    ids, place = _next_letters(connection, act, filters)
    refused: Mapping[str, int] = {}
    hints: Hints = []
    if act.act == Act.DROP:
        done = _drop(connection, ids, filters)
    else:
        requeued = requeue_in(connection, ids, lease, act.asked_by, standards)
        done, refused, hints = len(requeued.letters), counted(requeued.refused.values()), requeued.hints
    progress = {
        "id": act.id,
        "place": place or act.id,
        "done": done,
        "refused": sum(refused.values()),
        "reasons": to_json(Counter(act.refused_reasons or {}) + Counter(refused)),
        "is_last": place is None,
    }
    connection.execute(_KEEP_PLACE, progress)
    return hints


def _next_letters(connection: Connection, act: Row[Any], filters: Filters) -> tuple[list[UUID], UUID | None]:
    """Return the next letters that match, at most a batch, and the last one that was looked at; None: all were.

    Where nothing finds them quickly, the next window of letters is looked at, whether any in it matches or not.
    """
    is_left = (DeadLetter.id > act.place, DeadLetter.id < act.id)
    ids = _found_quickly(connection, filters.on(select(DeadLetter.id)).where(*is_left))
    if ids is not None:
        return ids, ids[-1] if len(ids) == BATCH else None
    every: Any = select(DeadLetter.id, DeadLetter.notification_id, DeadLetter.event_id).where(*is_left)
    window = Filters(requeued=filters.requeued).on(every).order_by(DeadLetter.id).limit(WINDOW)
    looked_at = connection.execute(window).all()
    if not looked_at:
        return [], None
    last = looked_at[-1].id
    notifications = [row.notification_id for row in looked_at if row.notification_id]
    events = [row.event_id for row in looked_at if not row.notification_id]
    within = filters.on(select(DeadLetter.id), Died(notifications, events))
    within = within.where(DeadLetter.id > act.place, DeadLetter.id <= last).order_by(DeadLetter.id).limit(BATCH)
    ids = list(connection.scalars(within))
    if len(ids) == BATCH:
        return ids, ids[-1]
    return ids, last if len(looked_at) == WINDOW else None


def _found_quickly(connection: Connection, query: Any) -> list[UUID] | None:  # noqa: ANN401 -- a Select of ids
    """Return the first ids of a query; None if that takes too long. The transaction goes on as before."""
    savepoint = connection.begin_nested()
    try:
        with in_time(connection, "filter", _QUICKLY):
            return list(connection.scalars(query.order_by(DeadLetter.id).limit(BATCH)))
    except TooLong:
        return None
    finally:
        savepoint.rollback()  # and with it the limit


def _drop(connection: Connection, ids: Sequence[UUID], filters: Filters) -> int:
    """Delete letters, locked in the order in which a requeue locks them; returns how many there were."""
    query = Filters(requeued=filters.requeued).on(select(DeadLetter.id).where(DeadLetter.id.in_(ids)))
    found = connection.scalars(query.order_by(DeadLetter.id).with_for_update()).all()
    return connection.execute(delete(DeadLetter).where(DeadLetter.id.in_(found))).rowcount


def as_document(filters: Filters, seals: AddressSeals) -> dict[str, Any]:
    """Return filters as JSON; those that are not given are left out. Addresses are in their kept form."""
    given = {each.name: value for each in fields(filters) if (value := getattr(filters, each.name)) is not None}
    if filters.recipient is not None:
        given["recipient"] = list(dict.fromkeys(seals.kept(None, form) for form in filters.recipient))
    shown = {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in given.items()}
    return {name: str(value) if isinstance(value, UUID) else value for name, value in shown.items()}


def from_document(document: Mapping[str, Any], seals: AddressSeals) -> Filters:
    """Return the filters of a document, with all forms of its addresses."""
    given = {name: _parsed(name, value) for name, value in document.items()}
    if "recipient" in given:
        forms = (form for each in given["recipient"] for form in seals.forms(None, each))
        given["recipient"] = tuple(dict.fromkeys(forms))
    return Filters(**given)


_TYPES: Final = {name: get_args(hint) for name, hint in get_type_hints(Filters).items()}


def _parsed(name: str, value: Any) -> Any:  # noqa: ANN401 -- a JSON value, and a filter's
    if UUID in _TYPES[name]:
        return UUID(value)
    return datetime.fromisoformat(value) if datetime in _TYPES[name] else value
