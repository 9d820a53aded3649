"""Acts on many dead letters: each letter once, whatever happens in between."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from notifier.models import DeadLetterAct
from notifier.notifications.dead_letters import Filters
from notifier.people import erasure
from notifier.resending import dead_letter_acts, resend
from notifier.resending.dead_letter_acts import Act, Asked, as_document, from_document
from notifier.security.address_seals import NO_SEALS, PURPOSE, AddressSeals, with_seals
from notifier.security.secret_box import Vault, new_key
from notifier.security.signing_keys import signing_key
from notifier.vocabulary.errors import Conflict, Forbidden
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.support.letters import Letters

ALL = Filters(requeued=False)


@pytest.fixture
def letters(engine: Engine) -> Letters:
    return Letters(engine)


def begin(engine: Engine, act: Act = Act.REQUEUE, filters: Filters = ALL, **asked: Any) -> UUID:
    act_id, _ = dead_letter_acts.begin(engine, Asked(act, filters, "tester", **asked), lambda _: 60)
    return act_id


def go_on(engine: Engine, act_id: UUID | None = None) -> Any:
    return dead_letter_acts.go_on(engine, lambda _: 60, act_id)


def found(engine: Engine, act_id: UUID) -> DeadLetterAct:
    with Session(engine) as session:
        act = session.get(DeadLetterAct, act_id)
    assert act is not None
    return act


def finish(engine: Engine, act_id: UUID) -> DeadLetterAct:
    while found(engine, act_id).status == "running":
        go_on(engine)
    return found(engine, act_id)


def test_ten_thousand_are_requeued_once_each_by_several_processes(letters: Letters) -> None:
    letters.make(10_000)
    act_id = begin(letters.engine)
    first = found(letters.engine, act_id)
    assert (first.total, first.done, first.status) == (10_000, 500, "running")

    def work() -> None:
        while found(letters.engine, act_id).status == "running":
            go_on(letters.engine)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work) for _ in range(3)]:
            done.result(120)
    last = found(letters.engine, act_id)
    assert (last.total, last.done, last.refused, last.status) == (10_000, 10_000, 0, "finished")
    assert (letters.standing(), letters.queued(), letters.resends()) == (0, 10_000, 10_000)
    assert letters.sql("SELECT DISTINCT how, asked_by FROM resends") == [("requeue", "tester")]


def test_a_small_act_is_finished_with_its_beginning(letters: Letters) -> None:
    letters.make(3)
    act_id, hints = dead_letter_acts.begin(letters.engine, Asked(Act.REQUEUE, ALL, "tester"), lambda _: 60)
    act = found(letters.engine, act_id)
    assert (act.total, act.done, act.status) == (3, 3, "finished")
    assert act.finished_at is not None
    assert sorted(each for _, each in hints) == sorted(row.id for row in letters.sql("SELECT id FROM notifications"))
    assert go_on(letters.engine) is None


def test_an_act_on_nothing_is_finished(letters: Letters) -> None:
    assert found(letters.engine, begin(letters.engine)).status == "finished"


def test_only_letters_that_match_are_part_of_it(letters: Letters) -> None:
    chosen = letters.make(2, error="http 503: no server for #")
    letters.make(2, error="http 500: no server for #")
    letters.make(2, channel="email", recipient="a@example.com", error="http 503: no server for #")
    other = letters.make(2, provider="twilio", error="http 503: no server for #")
    filters = Filters(channel="sms", error="http 503: no server for {id}", last_provider="outbox", requeued=False)
    act = finish(letters.engine, begin(letters.engine, filters=filters))
    assert (act.total, act.done) == (2, 2)
    requeued = {row.id for row in letters.sql("SELECT id FROM dead_letters WHERE requeued_at IS NOT NULL")}
    assert requeued == set(chosen)
    dropped = finish(letters.engine, begin(letters.engine, Act.DROP, Filters(last_provider="twilio", requeued=False)))
    assert dropped.done == 2
    assert letters.sql("SELECT 1 FROM dead_letters WHERE id = ANY(:ids)", ids=other) == []


def test_matches_that_are_far_apart_are_all_found(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are not found quickly, each batch looks at a bounded number of letters, whether any matches or not."""
    monkeypatch.setattr(dead_letter_acts, "_QUICKLY", 0.001)
    monkeypatch.setattr(dead_letter_acts, "WINDOW", 600)
    for _ in range(3):
        letters.make(900)
        letters.make(1, provider="rare")
    act_id = begin(letters.engine, filters=Filters(last_provider="rare", requeued=False))
    assert (found(letters.engine, act_id).done, found(letters.engine, act_id).status) == (0, "running")
    act = finish(letters.engine, act_id)
    assert (act.done, act.total) == (3, 3)
    assert letters.standing() == 2_700
    assert finish(letters.engine, begin(letters.engine)).done == 2_700, "a full batch goes on behind its last letter"


def test_whatever_the_filters_ask_a_batch_is_bounded(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the notifications, only those of the letters that a batch looks at are read."""
    monkeypatch.setattr(dead_letter_acts, "_QUICKLY", 0.001)
    monkeypatch.setattr(dead_letter_acts, "WINDOW", 300)
    letters.make(2_000, source="shop")
    letters.make(700, source="billing")
    _an_event_that_broke_fan_out(letters, "billing")
    filters = Filters(source="billing", provider="outbox", requeued=False)
    act = finish(letters.engine, begin(letters.engine, filters=filters))
    assert act.done == 700
    assert finish(letters.engine, begin(letters.engine, filters=Filters(source="billing", requeued=False))).done == 1
    assert letters.standing() == 2_000


def test_letters_that_take_long_to_count_are_not_counted(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_acts, "_COUNTING", 0.001)
    letters.make(2_000)
    act = finish(letters.engine, begin(letters.engine, filters=Filters(last_provider="outbox", requeued=False)))
    assert (act.total, act.done) == (None, 2_000)


def test_few_of_many_letters_are_done_at_once(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_acts, "WINDOW", 4)
    letters.make(50)
    letters.make(1, event_type="letters.rare")
    act = found(letters.engine, begin(letters.engine, filters=Filters(event_type="letters.rare", requeued=False)))
    assert (act.done, act.status) == (1, "finished")


def test_letters_written_later_are_not_part_of_it(letters: Letters) -> None:
    letters.make(700)
    act_id = begin(letters.engine)
    letters.make(5)
    assert finish(letters.engine, act_id).done == 700
    assert letters.standing() == 5


def test_letters_requeued_or_deleted_by_somebody_else_are_left_out(letters: Letters) -> None:
    ids = letters.make(700)
    act_id = begin(letters.engine)
    resend.requeue(letters.engine, ids[-2:], lambda _: 60, "somebody else")
    letters.sql("DELETE FROM dead_letters WHERE id = :id", id=ids[-3])
    act = finish(letters.engine, act_id)
    assert (act.total, act.done, act.refused) == (700, 697, 0)
    assert letters.resends() == 699


def test_a_letter_that_is_being_requeued_is_not_requeued_twice(letters: Letters) -> None:
    """Another transaction holds it while the batch begins."""
    [letter] = letters.make(1)
    with letters.engine.begin() as other, ThreadPoolExecutor(1) as pool:
        resend.requeue_in(other, [letter], lambda _: 60, "somebody else")
        begun = pool.submit(begin, letters.engine)
        _wait_for_a_lock(letters)
        other.commit()
        act = found(letters.engine, begun.result(30))
    assert (act.total, act.done, act.status) == (1, 0, "finished")
    assert letters.resends() == 1


def test_a_letter_that_is_being_requeued_is_not_dropped(letters: Letters) -> None:
    [letter] = letters.make(1)
    with letters.engine.begin() as other, ThreadPoolExecutor(1) as pool:
        resend.requeue_in(other, [letter], lambda _: 60, "somebody else")
        begun = pool.submit(begin, letters.engine, Act.DROP)
        _wait_for_a_lock(letters)
        other.commit()
        assert found(letters.engine, begun.result(30)).done == 0
    assert letters.sql("SELECT count(*) FROM dead_letters")[0][0] == 1


def _wait_for_a_lock(letters: Letters) -> None:
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    until = datetime.now(UTC) + timedelta(seconds=30)
    while not letters.sql(waits)[0][0]:
        assert datetime.now(UTC) < until, "nobody waits for the letter"


@pytest.mark.parametrize("statement", ["UPDATE dead_letters", "INSERT INTO resends", "UPDATE dead_letter_acts"])
def test_a_crash_in_between_loses_and_repeats_nothing(letters: Letters, statement: str) -> None:
    """Whichever statement of a batch is its last one, the batch is done wholly or not at all."""
    letters.make(1_200)
    act_id = begin(letters.engine)
    before = (found(letters.engine, act_id).done, letters.queued(), letters.standing())
    with _crash_at(letters.engine, statement), pytest.raises(RuntimeError, match="killed"):
        go_on(letters.engine)
    assert (found(letters.engine, act_id).done, letters.queued(), letters.standing()) == before == (500, 500, 700)
    act = finish(letters.engine, act_id)
    assert (act.done, letters.queued(), letters.resends(), letters.standing()) == (1_200, 1_200, 1_200, 0)


class _crash_at:  # noqa: N801 -- reads as a function
    """Raise where a statement of this beginning was executed, once."""

    def __init__(self, engine: Engine, statement: str) -> None:
        self._engine, self._statement = engine, statement

    def _raise(self, *given: Any) -> None:
        if given[2].split()[: len(self._statement.split())] == self._statement.split():
            event.remove(self._engine, "after_cursor_execute", self._raise)
            raise RuntimeError("killed")

    def __enter__(self) -> None:
        event.listen(self._engine, "after_cursor_execute", self._raise)

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            event.remove(self._engine, "after_cursor_execute", self._raise)


def test_an_act_that_cannot_begin_leaves_nothing(letters: Letters) -> None:
    letters.make(3)
    with _crash_at(letters.engine, "UPDATE dead_letter_acts"), pytest.raises(RuntimeError, match="killed"):
        begin(letters.engine)
    assert letters.sql("SELECT 1 FROM dead_letter_acts") == []
    assert (letters.standing(), letters.queued()) == (3, 0)


def test_acts_take_turns_and_one_that_fails_lets_others_go_first(letters: Letters) -> None:
    letters.make(1_200)
    letters.make(1_200, channel="email", recipient="a@example.com")
    broken = begin(letters.engine, filters=Filters(channel="sms", requeued=False))
    other = begin(letters.engine, filters=Filters(channel="email", requeued=False))
    letters.sql("UPDATE dead_letter_acts SET filters = '{\"unknown\": 1}' WHERE id = :id", id=broken)
    failures = 0
    while found(letters.engine, other).status == "running":
        try:
            go_on(letters.engine)
        except KeyError:
            failures += 1
            assert failures < 5, "the act that fails goes first again and again"
    assert failures == 2
    assert found(letters.engine, other).done == 1_200


def test_a_stopped_act_does_nothing_until_it_is_resumed(letters: Letters) -> None:
    letters.make(1_200)
    act_id = begin(letters.engine)
    dead_letter_acts.stop(letters.engine, act_id)
    dead_letter_acts.stop(letters.engine, act_id)  # again, without harm
    assert found(letters.engine, act_id).status == "stopped"
    assert go_on(letters.engine) is None
    assert go_on(letters.engine, act_id) is None
    assert letters.standing() == 700
    dead_letter_acts.resume(letters.engine, act_id)
    dead_letter_acts.resume(letters.engine, act_id)
    act = finish(letters.engine, act_id)
    assert (act.done, act.status, act.stopped_at) == (1_200, "finished", None)
    for change in (dead_letter_acts.stop, dead_letter_acts.resume):
        with pytest.raises(Conflict, match="finished"):
            change(letters.engine, act_id)


def test_notifications_that_a_rule_forbids_are_counted_and_stand(letters: Letters) -> None:
    letters.make(600, expires_at=datetime.now(UTC) - timedelta(hours=1))
    letters.make(2)
    letters.make(1, recipient="+4915199999999")
    insert = """INSERT INTO suppressions (id, channel, address, folded, reason, created_at)
        VALUES (gen_random_uuid(), 'sms', '+4915199999999', '+4915199999999', 'test', now())"""
    letters.sql(insert)
    act = finish(letters.engine, begin(letters.engine))
    assert (act.total, act.done, act.refused) == (603, 2, 601)
    assert act.refused_reasons == {"expired": 600, "suppressed": 1}
    assert letters.standing() == 601


def test_a_drop_deletes_letters_and_leaves_notifications(letters: Letters) -> None:
    letters.make(1_100)
    requeued = letters.make(1)
    resend.requeue(letters.engine, requeued, lambda _: 60, "somebody else")
    act = finish(letters.engine, begin(letters.engine, Act.DROP))
    assert (act.total, act.done, act.refused) == (1_100, 1_100, 0)
    assert [row.id for row in letters.sql("SELECT id FROM dead_letters")] == requeued
    assert letters.sql("SELECT count(*) FROM notifications WHERE status = 'failed'")[0][0] == 1_100
    assert finish(letters.engine, begin(letters.engine, Act.DROP, Filters())).done == 1


def test_an_act_is_of_its_requesters_source(letters: Letters) -> None:
    letters.make(600, source="billing")
    letters.make(600, source="shop")
    act = finish(letters.engine, begin(letters.engine, source="shop"))
    assert (act.total, act.done, act.source) == (600, 600, "shop")
    assert letters.sql("SELECT DISTINCT source FROM notifications WHERE status = 'queued'") == [("shop",)]


def test_another_source_than_the_requesters_is_refused(letters: Letters) -> None:
    letters.make(2, source="shop")
    for ask in (begin, lambda engine, **given: dead_letter_acts.preview(engine, Asked(Act.DROP, by="x", **given))):
        with pytest.raises(Forbidden, match="own source"):
            ask(letters.engine, filters=Filters(source="billing", requeued=False), source="shop")
    assert letters.standing() == 2


def _an_event_that_broke_fan_out(letters: Letters, source: str) -> None:
    event_id = new_id()
    letters.sql(
        """INSERT INTO events (id, event_type, source, status, payload, critical, priority, created_at, handovers)
        VALUES (:id, 'x', :source, 'failed', '{}', false, 'normal', now(), 5)""",
        id=event_id,
        source=source,
    )
    letters.sql(
        """INSERT INTO dead_letters (id, event_id, claims, event_type, reason, attempts, created_at)
        VALUES (:id, :event, 0, 'x', 'fan_out_failed', 0, now())""",
        id=new_id(),
        event=event_id,
    )


def test_an_event_that_broke_fan_out_is_accepted_again(letters: Letters) -> None:
    _an_event_that_broke_fan_out(letters, "test")
    assert finish(letters.engine, begin(letters.engine, filters=Filters(source="test", requeued=False))).done == 1
    assert letters.sql("SELECT status, handovers FROM events") == [("accepted", 0)]


def test_a_preview_counts_by_reason_and_changes_nothing(letters: Letters) -> None:
    ids = letters.make(12)
    letters.make(3, reason="permanent_error")
    preview = dead_letter_acts.preview(letters.engine, Asked(Act.DROP, ALL, "tester"))
    assert (preview.total, preview.by_reason) == (15, {"retries_exhausted": 12, "permanent_error": 3})
    assert list(preview.sample) == ids[:10]
    bounded = Asked(Act.DROP, ALL, "tester", source="other")
    assert dead_letter_acts.preview(letters.engine, bounded).total == 0
    assert letters.standing() == 15
    assert letters.sql("SELECT 1 FROM dead_letter_acts") == []


def test_filters_come_back_as_they_were(engine: Engine) -> None:
    filters = Filters(
        channel="sms", event_id=new_id(), created_after=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), requeued=False,
        recipient=("+4915112345678", "x"), error="timeout: {id}",
    )  # fmt: skip
    assert from_document(as_document(filters, NO_SEALS), NO_SEALS) == filters
    assert as_document(Filters(), NO_SEALS) == {}
    assert from_document({}, NO_SEALS) == Filters()


def test_an_address_with_credentials_is_kept_sealed_and_found(letters: Letters) -> None:
    vault = Vault((new_key(),))
    with_seals(letters.engine, vault)
    signing_key(letters.engine, vault, PURPOSE, seal=True)
    seals = AddressSeals(letters.engine, vault)
    url = "https://someone:secret-word@example.com/hook"
    letters.make(600, channel="webhook", recipient=seals.kept(Channel.WEBHOOK, url))
    forms = seals.forms_sought(Channel.WEBHOOK, url)
    act_id = begin(letters.engine, Act.DROP, Filters(recipient=forms, requeued=False))
    [(kept,)] = letters.sql("SELECT CAST(filters AS text) FROM dead_letter_acts")
    assert "secret-word" not in kept
    assert finish(letters.engine, act_id).done == 600
    erasure.erase_address(letters.engine, vault, Channel.WEBHOOK, url)
    [(kept,)] = letters.sql("SELECT CAST(filters AS text) FROM dead_letter_acts")
    assert "sealed" not in kept
    assert found(letters.engine, act_id).filters["recipient"] == ["[erased]"]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (Filters(recipient=("ada@example.com", "Ada@example.com")), {"recipient": ["[erased]"]}),
        (Filters(user_id="u-77"), {"user_id": "[erased]"}),
        (Filters(cancellation_key="mail ada@example.com"), {"cancellation_key": "mail [erased]"}),
    ],
)
def test_an_erased_person_is_in_no_act_and_the_act_matches_nobody(
    letters: Letters, filters: Filters, left: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An act that is not finished must not take other people's letters instead."""
    monkeypatch.setattr(erasure, "_ON_ITS_WAY", 0)
    vault = Vault((new_key(),))
    letters.make(600, user_id="u-77", channel="email", recipient="ada@example.com")
    act_id = begin(letters.engine, filters=filters)
    letters.make(3, user_id="u-78", channel="email", recipient="bob@example.com")
    if filters.user_id:
        erasure.erase_id(letters.engine, vault, filters.user_id)
    else:
        erasure.erase_address(letters.engine, vault, Channel.EMAIL, "ada@example.com")
    while erasure.go_on(letters.engine, vault):
        pass
    act = finish(letters.engine, act_id)
    assert {name: value for name, value in act.filters.items() if name in left} == left
    assert letters.sql("SELECT count(*) FROM notifications WHERE user_id = 'u-78' AND status = 'queued'") == [(0,)]
