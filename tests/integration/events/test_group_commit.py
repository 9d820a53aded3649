"""Group commit, from inside: a group that is written again writes nothing twice."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.content.templates import EMPTY
from notifier.events.intake import Accepted, Intake
from notifier.planning.drafts import Draft, draft_event
from notifier.planning.plans import Planner
from notifier.planning.subscribers import SubscriberIndex
from notifier.vocabulary.errors import Invalid
from notifier.vocabulary.states import Channel, Priority

_FIELDS = {
    "event_type": "x",
    "recipient": "+4915112345678",
    "channel": Channel.SMS,
    "user_id": None,
    "category": None,
    "critical": False,
    "priority": Priority.NORMAL,
    "send_at": None,
    "expires_at": None,
    "target_date": None,
    "lead_time": None,
    "timezone": None,
    "template": None,
    "dedup_key": None,
    "dedup_window": None,
    "dedup_scope": None,
    "on_ambiguous": None,
    "cancellation_key": None,
    "occurred_at": None,
}


_PLANNER = Planner(lambda _: 5.0, frozenset(Channel))


class _NoHints:
    def hint(self, hints: Sequence[tuple[str, UUID]]) -> None:
        """Do nothing: no test depends on the hint."""


def _draft(key: str | None) -> Draft:
    return draft_event(
        "test", {**_FIELDS, "idempotency_key": key}, b"{}", b"fingerprint", _PLANNER, EMPTY, SubscriberIndex(1, ())
    )


def _count(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return [connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0 for table in ("events", "notifications")]


def test_a_group_whose_answer_was_lost_is_safely_written_again(engine: Engine) -> None:
    intake = Intake(engine, _NoHints(), idempotency_ttl=timedelta(hours=1))
    drafts = [_draft("key"), _draft(None)]
    expected = [Accepted(draft.ids, draft.created_at, duplicate=False) for draft in drafts]
    assert intake.accept(drafts, 10) == expected
    assert intake.accept(drafts, 10) == expected
    assert _count(engine) == [2, 2]


def test_a_connection_that_died_since_is_replaced_without_a_word(engine: Engine) -> None:
    intake = Intake(engine, _NoHints(), idempotency_ttl=timedelta(hours=1))
    assert isinstance(intake.accept([_draft(None)], 10)[0], Accepted)
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert isinstance(intake.accept([_draft(None)], 10)[0], Accepted)
    assert _count(engine) == [2, 2]


def test_a_draft_that_cannot_be_written_costs_no_other_its_place(engine: Engine) -> None:
    """Neither what no JSON can say, nor what Postgres calls an operational error: a key too long for its index."""
    intake = Intake(engine, _NoHints(), idempotency_ttl=timedelta(hours=1))
    bad = [
        {"category": "\ud800"},
        {"category": "\0"},
        {"category": 2**70},
        {"send_at": "nonsense"},
        {"recipient": "http://x/" + "".join(chr(0x10000 + number * 7919 % 0xFFFF) for number in range(2000))},
    ]
    drafts = [_draft(None) for _ in range(20)]
    for place, fields in enumerate(bad):
        poisoned = _draft(None)
        for row in (poisoned.event or {}, *poisoned.notifications):
            row.update(fields)
        drafts.insert(place * 3, poisoned)
    answers = intake.accept(drafts, 10)
    assert [place for place, answer in enumerate(answers) if isinstance(answer, Invalid)] == [0, 3, 6, 9, 12]
    assert sum(isinstance(answer, Accepted) for answer in answers) == 20
    assert _count(engine) == [20, 20]
