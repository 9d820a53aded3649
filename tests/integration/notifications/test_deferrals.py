"""A notification that is no longer deferred has no reason and no words for it, whichever statement changed it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from notifier.diagnostics.explanations import explain
from notifier.models import Notification
from notifier.notifications.cancellation import cancel
from notifier.notifications.claims import Aside, set_aside
from notifier.notifications.dead_letters import DeadLetterRequest, dead_letter
from notifier.notifications.retries import RetryPolicy
from notifier.resending.reschedule import move
from notifier.resending.resend import Asked, revive
from notifier.scheduling.due import hand_over
from notifier.vocabulary import deferrals
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import How, Status

WORDS = "The recipient has had as many messages as one may in that time."


def deferred(engine: Engine, status: str) -> UUID:
    """Insert a notification that waits for its recipient's limit, or has kept the words of that."""
    notification = Notification(
        id=new_id(), source="test", recipient="+4930123456", channel="sms", critical=False, priority="normal",
        queue="sms", status=status, reason=Reason.THROTTLED, explanation=WORDS, waits_for=[deferrals.RECIPIENT],
        due_at=datetime.now(UTC), created_at=datetime.now(UTC), claims=1,
    )  # fmt: skip
    with Session(engine, expire_on_commit=False) as session:
        session.add(notification)
        session.commit()
    return notification.id


def handed_over(engine: Engine, _: UUID) -> None:
    hand_over(engine, "sms", 10, 60, RetryPolicy(1, 1, 3))


def moved(engine: Engine, notification_id: UUID) -> None:
    move(engine, notification_id, {"send_at": datetime.now(UTC) + timedelta(hours=1)})


def cancelled(engine: Engine, notification_id: UUID) -> None:
    cancel(engine, notification_id)


def revived(engine: Engine, notification_id: UUID) -> None:
    with engine.begin() as connection:
        revive(connection, [notification_id], Asked(How.RECOVER, "test"), 60)


def expired(engine: Engine, notification_id: UUID) -> None:
    with engine.begin() as connection:
        set_aside(connection, [Aside(notification_id, 1, Status.EXPIRED)])


@pytest.mark.parametrize(
    ("status", "work"),
    [*(("scheduled", each) for each in (handed_over, moved, cancelled, revived)), ("sending", expired)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_waits_no_more_has_no_words_for_it(
    engine: Engine, status: str, work: Callable[[Engine, UUID], None]
) -> None:
    notification_id = deferred(engine, status)
    work(engine, notification_id)
    with engine.connect() as connection:
        row = connection.execute(text("SELECT reason, explanation, rule, waits_for FROM notifications")).one()
        kept = connection.scalar(text("SELECT explanation FROM resends"))
    assert tuple(row) == (None, None, None, None)
    assert kept == (WORDS if work is revived else None)


def test_a_dead_one_says_what_it_died_of(engine: Engine) -> None:
    notification_id = deferred(engine, "sending")
    with engine.begin() as connection:
        dead_letter(connection, [DeadLetterRequest(notification_id, 1, Reason.TOO_OLD, "put off for over 72:00:00")])
        row = connection.execute(text("SELECT reason, explanation, rule, waits_for FROM notifications")).one()
    assert tuple(row) == (Reason.TOO_OLD, *["put off for over 72:00:00"] * 2, None)


def test_what_the_release_before_inserted_is_explained_by_its_rule(engine: Engine) -> None:
    notification_id = deferred(engine, "scheduled")
    with engine.begin() as connection:
        connection.execute(text("UPDATE notifications SET explanation = NULL, waits_for = NULL"))
    with Session(engine) as session:
        notification = session.get_one(Notification, notification_id)
        assert WORDS in explain(notification)
