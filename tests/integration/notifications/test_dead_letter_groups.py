"""Groups of dead letters: what is alike is one group, and counting is bounded."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text

from notifier.models import DeadLetter
from notifier.notifications import dead_letter_groups
from notifier.notifications.dead_letter_groups import DAYS, HOURS, Group, Trait, groups
from notifier.notifications.dead_letters import Filters
from notifier.resending import resend
from notifier.storage.partitions import make_day
from notifier.vocabulary.error_forms import FORM_IN_SQL
from notifier.vocabulary.ids import new_id
from tests.support.letters import Letters


@pytest.fixture
def letters(engine: Engine) -> Letters:
    return Letters(engine)


def counts(found: dead_letter_groups.Groups, *traits: Trait) -> dict[Any, int]:
    """The size of each group, by its value of a trait, or its values of several."""
    return {
        tuple(group.traits[trait] for trait in traits) if len(traits) > 1 else group.traits[traits[0]]: group.count
        for group in found.groups
    }


SAMPLES = {
    "timeout: no answer within 30 s, request 0193a1c2-1111-7222-8333-444455556666": "timeout: no answer within 30 s,"
    " request {id}",
    "http 503: https://user:pw@example.com/a?b=c is down": "http 503: {url} is down",
    "smtp 550: 5.1.1 <ada.l+x@example.com>: unknown": "smtp 550: 5.1.1 <{address}>: unknown",
    "http 400: To +49 151 123-456-78 is not valid": "http 400: To {n}is not valid",
    "http 429: wait 30.5 s, since 2026-11-29T13:00:00Z": "http 429: wait {n}, since {id}",
    "connect: 10.20.30.40 refused, port 54321": "connect: {n} refused, port {n}",
    "http 401: token eyJhbGciOiJIUzI1NiIsInR5cCI6 expired": "http 401: token {id} expired",
    "http 400: ses MessageRejectedForeverAndEver": "http 400: ses MessageRejectedForeverAndEver",
    "x" * 500: "x" * 200,
}


@pytest.mark.parametrize("error", SAMPLES)
def test_an_error_without_what_it_names_is_its_form(letters: Letters, error: str) -> None:
    letters.make(1, error=error)
    [group] = groups(letters.engine, Filters(), [Trait.ERROR]).groups
    assert group.traits[Trait.ERROR] == SAMPLES[error]
    assert group.filters == {"error": SAMPLES[error]}


def test_ten_thousand_timeouts_are_one_group(letters: Letters) -> None:
    letters.make(10_000)
    letters.make(3, error="http 503: #")
    found = groups(letters.engine, Filters(), [Trait.ERROR])
    assert counts(found, Trait.ERROR) == {"timeout: {id}": 10_000, "http 503: {id}": 3}
    assert [group.count for group in found.groups] == [10_000, 3]
    assert (found.counted, found.number, found.is_sample) == (10_003, 2, False)


def test_letters_are_grouped_by_several_traits_at_once(letters: Letters) -> None:
    letters.make(3)
    letters.make(2, reason="permanent_error", channel="email", recipient="a@example.com", provider="smtp")
    letters.make(1, provider=None, event_type="letters.other")
    every = groups(letters.engine, Filters(), list(Trait))
    assert counts(every, Trait.REASON, Trait.PROVIDER, Trait.EVENT_TYPE, Trait.CHANNEL) == {
        ("retries_exhausted", "outbox", "letters.made", "sms"): 3,
        ("permanent_error", "smtp", "letters.made", "email"): 2,
        ("retries_exhausted", None, "letters.other", "sms"): 1,
    }
    assert every.groups[2].filters is None, "no filter finds letters without a provider"
    assert counts(groups(letters.engine, Filters(), [Trait.REASON]), Trait.REASON) == {
        "retries_exhausted": 4,
        "permanent_error": 2,
    }
    largest = groups(letters.engine, Filters(), [Trait.EVENT_TYPE], limit=1)
    assert counts(largest, Trait.EVENT_TYPE) == {"letters.made": 5}
    assert (largest.number, largest.counted) == (2, 6)


@pytest.mark.parametrize("by", [list(Trait), *([trait] for trait in Trait)])
def test_the_filters_of_a_group_select_it(letters: Letters, by: list[Trait]) -> None:
    letters.make(3)
    letters.make(2, reason="permanent_error", channel="email", recipient="a@example.com", provider="smtp", error="#")
    letters.make(1, provider="twilio", event_type="letters.other", error="http 500: on # at 12:30")
    for group in groups(letters.engine, Filters(), by).groups:
        assert group.filters is not None
        query = Filters(**group.filters, requeued=False).on(select(DeadLetter.id))
        with letters.engine.connect() as connection:
            assert len(connection.scalars(query).all()) == group.count


def test_the_provider_is_that_of_the_last_attempt(letters: Letters) -> None:
    letters.make(1, provider="twilio")
    letters.sql(
        """INSERT INTO attempts (id, notification_id, number, provider, outcome)
        SELECT CAST(left(CAST(id AS text), 14) || '7fff-8000-000000000000' AS uuid), id, 2, 'vonage', 'unsent'
        FROM notifications"""
    )
    found = groups(letters.engine, Filters(), [Trait.PROVIDER])
    assert counts(found, Trait.PROVIDER) == {"vonage": 1}
    assert groups(letters.engine, Filters(provider="twilio"), [Trait.REASON]).counted == 1
    assert groups(letters.engine, Filters(last_provider="twilio"), [Trait.REASON]).counted == 0


def test_only_letters_that_stand_and_match_are_counted(letters: Letters) -> None:
    ids = letters.make(5)
    letters.make(2, channel="push", recipient="token")
    resend.requeue(letters.engine, ids[:2], lambda _: 60, "tester")
    assert groups(letters.engine, Filters(channel="sms"), [Trait.REASON]).counted == 3
    assert groups(letters.engine, Filters(channel="chat"), [Trait.REASON]).groups == []


def test_an_event_that_broke_fan_out_is_in_a_group(letters: Letters) -> None:
    letters.sql(
        """INSERT INTO dead_letters (id, event_id, claims, event_type, reason, attempts, created_at)
        VALUES (:id, :id, 0, 'x', 'fan_out_failed', 0, now())""",
        id=new_id(),
    )
    [group] = groups(letters.engine, Filters(), list(Trait)).groups
    assert [group.traits[trait] for trait in (Trait.CHANNEL, Trait.PROVIDER, Trait.ERROR)] == [None, None, None]


def trend_of(found: dead_letter_groups.Groups) -> Group:
    [group] = found.groups
    return group


def test_a_trend_counts_hours_and_days_up_to_now(letters: Letters) -> None:
    ages = {timedelta(minutes=5): 1, timedelta(hours=1, minutes=5): 2, timedelta(hours=23, minutes=50): 3}
    ages |= {timedelta(days=3, minutes=5): 4, timedelta(days=13, hours=23): 5, timedelta(days=20): 6}
    for ago, count in ages.items():
        letters.make(count, ago=ago, provider=None)
    group = trend_of(groups(letters.engine, Filters(), [Trait.REASON]))
    assert group.count == 21
    assert list(group.hourly) == [3, *[0] * (HOURS - 3), 2, 1]
    assert list(group.daily) == [5, *[0] * 9, 4, 0, 0, 6]
    assert len(group.daily) == DAYS
    assert timedelta(days=19) < group.last_at - group.first_at < timedelta(days=21)


@pytest.mark.parametrize("by", [Trait.REASON, Trait.ERROR])
def test_of_very_many_the_newest_are_counted(letters: Letters, by: Trait, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_groups, "_MOST", 5)
    monkeypatch.setattr(dead_letter_groups, "_MOST_OF_COSTLY", 5)
    letters.make(1, reason="permanent_error", error="http 500")
    letters.make(5)
    found = groups(letters.engine, Filters(), [by])
    assert (found.counted, found.is_sample, found.number) == (5, True, 1)
    assert trend_of(found).count == 5
    letters.sql("DELETE FROM dead_letters WHERE reason = 'permanent_error'")
    assert not groups(letters.engine, Filters(), [by]).is_sample


def test_an_attempt_is_looked_for_in_its_day_alone(letters: Letters, owner_engine: Engine) -> None:
    """With thirty days of attempts, each letter costs one look, and not thirty."""
    with owner_engine.begin() as connection:
        for days in range(2, 15):
            make_day(connection, "attempts", (datetime.now(UTC) - timedelta(days=days)).date())
    letters.make(50)
    with letters.engine.begin() as connection:
        plan = _plan_of(connection, lambda: groups(letters.engine, Filters(), [Trait.PROVIDER]), letters.engine)
    scans = [line for line in plan if " on attempts_2" in line]
    assert len(scans) > 14
    assert sum("never executed" not in line for line in scans) == 1, "\n".join(plan)


def test_letters_of_an_error_are_found_by_an_index(letters: Letters, owner_engine: Engine) -> None:
    """The newest of a rare error too, which Postgres took for a frequent one."""
    letters.make(3_000)
    letters.make(3, error="http 503: #")
    with owner_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE dead_letters"))
    with letters.engine.begin() as connection:
        where = f"FROM dead_letters WHERE {FORM_IN_SQL} = 'http 503: {{id}}'"
        newest = f"SELECT id {where} ORDER BY id DESC LIMIT 1"
        is_open = newest.replace("WHERE", "WHERE requeued_at IS NULL AND")
        for query in (f"SELECT count(*) {where}", newest, is_open):
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {query}").scalars())
            assert "dead_letters_error_form_newest_idx" in plan
            assert "Sort" not in plan


def _plan_of(connection: Any, ask: Any, engine: Engine) -> list[str]:
    """The plan of the longest statement of a call, with what was executed of it."""
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        asked.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    ask()
    event.remove(engine, "before_cursor_execute", note)
    statement, values = max(asked, key=lambda each: len(each[0]))
    return list(connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}", values).scalars())
