"""Deferral: a rule puts a claimed row off. That spends no attempt, but ends after `max_age`."""

from datetime import datetime, timedelta

from notifier.notifications.claims import Aside, Claimed
from notifier.notifications.dead_letters import DeadLetterRequest
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Status
from notifier.vocabulary.timestamps import rfc3339


def of_use_until(deadline: datetime) -> str:
    """Return the explanation of an expired row."""
    return f"It was of use only until {rfc3339(deadline)}."


def defer(
    row: Claimed,
    until: datetime,
    words: str,
    reason: str,
    max_age: timedelta,
    waits_for: tuple[str, ...] | None = None,
) -> Aside | DeadLetterRequest:
    """Defer a row: scheduled until then, expired where that is too late, dead where it was deferred for too long.

    `words` say why, to people; `reason` does to programs. `waits_for`: what may release it before `until`.
    """
    if row.deadline is not None and row.deadline <= until:
        return Aside(row.id, row.claims, Status.EXPIRED, None, f"{words} {of_use_until(row.deadline)}")
    since = row.deferred_at or row.now
    if until - since > max_age:
        return DeadLetterRequest(row.id, row.claims, Reason.TOO_OLD, f"put off for over {max_age}: {words}")
    return Aside(row.id, row.claims, Status.SCHEDULED, reason, words, until, since, waits_for=waits_for)
