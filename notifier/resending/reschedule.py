"""Reschedule or resend an existing notification."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, text

from notifier.notifications.status_events import emit_status_events
from notifier.observability import metrics
from notifier.people.users import people
from notifier.planning.plans import Lease
from notifier.planning.reminders import deadline_of, moment_before, schedule
from notifier.resending.resend import (
    DEFAULT,
    REVIVED_IN_SQL,
    Asked,
    Refusal,
    Refused,
    Standards,
    keep,
    lock_letters_of,
    locked,
    refusals,
    take_letters_of,
)
from notifier.vocabulary.durations import parse_iso
from notifier.vocabulary.errors import Conflict, Invalid
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import FINISHED, Channel, How, Status
from notifier.vocabulary.time_zones import UTC_ZONE, first_known

_LOCK: Final = text("SELECT * FROM notifications WHERE id = :id FOR UPDATE")
_MOVE: Final = text("""
    UPDATE notifications SET send_at = :send_at, target_date = :target_date, expires_at = :expires_at,
        status = :status, due_at = :due_at, reason = :reason, explanation = :explanation, rule = :explanation,
        waits_for = :waits_for, deferred_at = :deferred_at
    WHERE id = :id
""")


def _locked(connection: Connection, notification_id: UUID) -> dict[str, Any]:
    row = connection.execute(_LOCK, {"id": notification_id}).mappings().one_or_none()
    if row is None:
        raise LookupError(notification_id)
    return dict(row)


def move(
    engine: Engine, notification_id: UUID, changes: Mapping[str, datetime | None], *, zone: ZoneInfo = UTC_ZONE
) -> None:
    """Give a scheduled notification another `send_at`, `target_date` or `expires_at`.

    A reminder keeps its lead time; `zone` is where its days are counted, where its own time zone is not known any more.
    Where it could then only go past its deadline it is expired at once. Raises Conflict where it is not scheduled,
    Invalid where a change makes no sense, LookupError where there is none.
    """
    with engine.begin() as connection:
        row = _locked(connection, notification_id)
        if row["status"] != Status.SCHEDULED:
            raise Conflict(f"Only what is scheduled can be moved; this notification is {row['status']}.")
        if changes.get("target_date", row["target_date"]) is None and row["target_date"] is not None:
            raise Invalid({"target_date": ["A reminder needs its target; cancel it instead."]})
        if "target_date" in changes and row["target_date"] is None:
            raise Invalid({"target_date": ["This notification is no reminder: it has no target to move."]})
        moved = _moved(row, changes, zone)
        connection.execute(_MOVE, {"id": notification_id, **moved})
        emit_status_events(connection, [notification_id])  # where it is expired now
    metrics.count_finished([{**row, **moved}])


def _moved(row: Mapping[str, Any], changes: Mapping[str, datetime | None], zone: ZoneInfo) -> dict[str, Any]:
    """Return the columns of a rescheduled notification."""
    times = {name: changes.get(name, row[name]) for name in ("send_at", "target_date", "expires_at")}
    now = datetime.now(UTC)
    deferral = {name: row[name] for name in ("reason", "explanation", "waits_for", "deferred_at")}
    if deferral["explanation"] is None:  # the release before inserted it
        deferral["explanation"] = row["rule"]
    # A held one is due already; its `due_at` is only when it is looked at again.
    held = row["reason"] == Reason.HELD
    due_at = now if held else row["due_at"]
    chosen = None
    if "send_at" in changes:
        due_at = times["send_at"]
    elif "target_date" in changes:
        chosen = first_known((row["timezone"],), zone)
        try:
            due_at = moment_before(times["target_date"], parse_iso(row["lead_time"]), chosen.zone)
        except OverflowError:
            raise Invalid({"target_date": ["The reminder would come before the calendar begins."]}) from None
    if "send_at" in changes or "target_date" in changes:
        # It waits for another hour now, and for no rule any more: that is asked anew when the hour has come.
        deferral = {**dict.fromkeys(deferral), "explanation": chosen.note if chosen else None}
    deadline = deadline_of(times["expires_at"], times["target_date"], row["lead_time"])
    timing = schedule(now, due_at, deadline)
    if timing.status is Status.EXPIRED:
        return {**times, **dict.fromkeys(deferral), "status": Status.EXPIRED, "due_at": None}
    if held and deferral["reason"] == Reason.HELD:
        return {
            **times,
            **deferral,
            "status": Status.SCHEDULED,
            "due_at": min(row["due_at"], deadline or row["due_at"]),
        }
    # A notification that is due now is left to the clock, like every scheduled one.
    return {**times, **deferral, "status": Status.SCHEDULED, "due_at": timing.due_at or now}


_RESEND: Final = text(f"""
    UPDATE notifications SET {REVIVED_IN_SQL}, recipient = :recipient, target_date = NULL, lead_time = NULL,
        expires_at = CASE WHEN expires_at > now() THEN expires_at END,
        due_at = now() + :lease * interval '1 second'
    WHERE id = :id RETURNING queue
""")


def resend(
    engine: Engine,
    notification_id: UUID,
    lease: Lease,
    by: str,
    standards: Standards = DEFAULT,
    *,
    how: How = How.RESEND,
) -> tuple[str, UUID]:
    """Send a finished notification again, or a retrying one now: the same id, its full number of attempts.

    Somebody asked for it: so it is sent although it has expired, and a reminder whatever became of its target. `how`:
    RESEND, or ANOTHER_PROVIDER, which the next delivery reads. Returns the (queue, id) that is due now.

    Raises Refused where a rule would stop it (preferences, the suppression list, its subscription, a double); Conflict
    where it waits, is being sent or was cancelled, or where nobody can be reached; LookupError where there is none.
    Then nothing is changed.
    """
    with engine.begin() as connection:
        # Its letters before the row, as a requeue takes them: two at once must not wait for each other.
        lock_letters_of(connection, [notification_id])
        row = locked(connection, [notification_id]).get(notification_id)
        if row is None:
            raise LookupError(notification_id)
        if row["status"] == Status.CANCELLED:
            why = f" ({row['reason']})" if row["reason"] else ""
            raise Refused(Refusal("cancelled", f"It was cancelled{why}, and what is cancelled stays so."))
        if row["status"] not in {*FINISHED, Status.RETRYING}:
            raise Conflict(f"This notification is {row['status']}: it goes out by itself.")
        recipient = row["recipient"] or _address(connection, row)
        if recipient is None:
            raise Refused(Refusal(Reason.NO_ADDRESS, "There is still no address for it."))
        # A notification that is sent again drops a deadline that has passed, and is no longer a reminder.
        expires_at = row["expires_at"] if row["expires_at"] and row["expires_at"] > row["now"] else None
        as_resent = {"recipient": recipient, "expires_at": expires_at, "target_date": None, "lead_time": None}
        if refused := refusals(connection, [{**row, **as_resent}], standards):
            raise Refused(refused[notification_id])
        keep(connection, [notification_id], Asked(how, by))
        take_letters_of(connection, [notification_id])
        values = {"id": notification_id, "recipient": recipient, "lease": lease(row["queue"])}
        queue = connection.scalar(_RESEND, values)
    return str(queue), notification_id


def _address(connection: Connection, row: Mapping[str, Any]) -> str | None:
    """Return the user's current address on the notification's channel."""
    person = people(connection, [row["user_id"]]).get(row["user_id"] or "")
    addresses = person.addresses(Channel(row["channel"])) if person and row["channel"] else ()
    return addresses[0] if addresses else None
