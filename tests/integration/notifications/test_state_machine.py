"""The state machine under random interleavings, on a real Postgres.

Hypothesis accepts, fans out, claims, records, cancels, requeues, resends, bounces, gives back, lets leases pass, hands
over and kills workers, one after the other and at once over several connections. After each step what must hold is
asked of the database. In the end everything that is alive is brought to its end: nothing may have vanished, and nothing
been sent twice without a cause.
"""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from notifier.content.templates import EMPTY
from notifier.events import fan_out as event_fan_out
from notifier.events.intake import Accepted, Intake
from notifier.models import attempt_id
from notifier.notifications.claims import give_back
from notifier.planning.drafts import draft_event
from notifier.planning.subscribers import SubscriberIndex
from notifier.providers.protocol import Outcome
from notifier.scheduling.due import MAX_BEGUN, MAX_WORKER_LOSSES, hand_over
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import FINISHED, EventStatus, Status
from tests.support.operations import (
    ADDRESSED,
    FOR_A_USER,
    LEASE,
    OURS,
    PLAIN,
    PLANNER,
    POLICY,
    QUEUES,
    ClaimedRow,
    NoHints,
    Operations,
)

#: Any of the rows or events that there are.
places = st.integers(0, 1_000)
outcomes = st.sampled_from([*Outcome, Outcome.ACCEPTED])
operations = st.sampled_from(
    ["fan_out", "claim", "record", "renew", "hand_over", "cancel", "requeue", "resend", "bounce"]
)


class Machine(Operations):
    """One run, on a database that it empties at its end."""

    @initialize()
    def somebody(self) -> None:
        self.sql(
            "INSERT INTO users (id, user_id, phone, push_tokens, attributes, created_at, updated_at)"
            " VALUES (gen_random_uuid(), 'somebody', '+4915112345679', '{}', '{}', now(), now()) ON CONFLICT DO NOTHING"
        )

    @rule(addressed=st.booleans(), key=st.sampled_from([None, "one", "two"]))
    def accept(self, addressed: bool, key: str | None) -> None:
        fields = {**PLAIN, **(ADDRESSED if addressed else FOR_A_USER), "idempotency_key": key}
        print_of = f"{addressed}".encode()
        draft = draft_event("test", fields, b"{}", print_of, PLANNER, EMPTY, SubscriberIndex(1, ()))
        [answer] = self.intake.accept([draft], 10)
        if not isinstance(answer, Accepted):
            assert key in self.keys, answer  # it was used for the other kind
            return
        event_id = answer.ids[0]
        assert answer.duplicate == (key in self.keys)
        if key is not None:
            assert self.keys.setdefault(key, event_id) == event_id
        if not answer.duplicate:
            self.events.append(event_id)

    @precondition(lambda self: self.events)
    @rule(place=places)
    def fan_out(self, place: int) -> None:
        self.do_fan_out(place)

    @precondition(lambda self: self.events)
    @rule()
    def a_fan_out_dies(self) -> None:
        """Workers begin what the clock has handed over, and are killed before they end it."""
        for row in self.event_rows().values():
            begun = event_fan_out.begin(self.engine, [row.id], row.handovers, LEASE)
            self.begun.update(begun)

    @precondition(lambda self: self.events)
    @rule(place=places)
    def claim(self, place: int) -> None:
        self.do_claim(place)

    @precondition(lambda self: self.events)
    @rule(place=places)
    def call(self, place: int) -> None:
        self._call_one(place)

    def _call_one(self, place: int) -> None:
        """Call the provider for a row that is held; claim some where none is."""
        if not self._fresh():
            self.do_claim(place)
        if fresh := self._fresh():
            self._call(fresh[place % len(fresh)])

    def _fresh(self) -> list[ClaimedRow]:
        return [each for each in self.held if not each.called and not each.late]

    def _call(self, held: ClaimedRow) -> None:
        held.called = True
        self.seen[held.row.id].calls.add(held.row.claims)

    @precondition(lambda self: self.events)
    @rule(place=places, outcome=outcomes)
    def record(self, place: int, outcome: Outcome) -> None:
        if not any(each.called for each in self.held):
            self._call_one(place)
        self.do_record(place, outcome)

    @precondition(lambda self: self.events)
    @rule()
    def give_back(self) -> None:
        idle = [each for each in self.held if not each.called]
        with self.engine.begin() as connection:
            give_back(connection, [each.row for each in idle])
        self.held = [each for each in self.held if each.called]

    @precondition(lambda self: self.events)
    @rule(ticks=st.integers(1, 8), room=st.integers(0, 3), killed=st.booleans())
    def a_while_passes(self, ticks: int, room: int, killed: bool) -> None:
        """Workers are killed, or late and come back; the clock ticks, while queues have much room or none."""
        self._pass(killed=killed)
        for _ in range(ticks):
            self.do_hand_over(room)
            self._make_all_due()

    def _make_all_due(self) -> None:
        past = "now() - interval '1 second'"
        for table in ("events", "notifications"):
            self.sql(f"UPDATE {table} SET due_at = {past} WHERE due_at > now() AND {OURS}", **self.bounds)

    def _pass(self, *, killed: bool) -> None:
        """Let everything be due, whoever holds it."""
        self._make_all_due()
        rows = self.rows()
        for row in rows.values():
            self.seen[row.id].leases_lost += row.status == Status.SENDING
        for each in list(self.held):
            each.late = True
            if killed:
                self.held.remove(each)
                self.seen[each.row.id].taken += each.called
                self.seen[each.row.id].unheard += each.called

    @precondition(lambda self: self.events)
    @rule(place=places)
    def renew(self, place: int) -> None:
        self.do_renew(place)

    @precondition(lambda self: self.events)
    @rule(place=places)
    def cancel(self, place: int) -> None:
        self.do_cancel(place)

    @precondition(lambda self: self.events)
    @rule(place=places)
    def requeue(self, place: int) -> None:
        self.do_requeue(place)

    @precondition(lambda self: self.events)
    @rule(place=places)
    def resend(self, place: int) -> None:
        self.do_resend(place)

    @precondition(lambda self: self.events)
    @rule(place=places)
    def bounce(self, place: int) -> None:
        self.do_bounce(place)

    @precondition(lambda self: self.events)
    @rule(names=st.lists(operations, min_size=2, max_size=3, unique=True), place=places)
    def at_once(self, names: list[str], place: int) -> None:
        works: list[Callable[[int], None]] = [getattr(self, f"do_{name}") for name in names]
        for done in [self.pool.submit(work, place) for work in works]:
            done.result()

    # Invariants.

    @invariant()
    def everything_holds(self) -> None:
        rows = self.rows()
        self._accepted_events_are_there(rows)
        self._rows_only_go_forward(rows)
        self._a_crash_counts_once(rows)
        self._calls_that_are_over_left_attempts(rows)
        self.before = rows
        self.revivals_before = Counter({row_id: seen.revived + seen.bounced for row_id, seen in self.seen.items()})

    def _accepted_events_are_there(self, rows: dict[UUID, Any]) -> None:
        found = self.event_rows()
        assert set(self.events) == set(found)
        for row in found.values():
            assert (row.due_at is not None) == (row.status == EventStatus.ACCEPTED)
            assert row.status != EventStatus.FAILED or self.begun[row.id] >= MAX_BEGUN, "dead, and nobody had tried"
        made = Counter(row.event_id for row in rows.values())
        assert set(made.values()) <= {1}, "one event made two notifications"

    def _rows_only_go_forward(self, rows: dict[UUID, Any]) -> None:
        for row_id, old in self.before.items():
            new, seen = rows[row_id], self.seen[row_id]
            assert (new.due_at is None) == (new.status in FINISHED)
            assert new.claims >= old.claims
            assert new.attempts >= old.attempts
            if old.status in FINISHED and seen.revived + seen.bounced == self.revivals_before[row_id]:
                assert new.status in FINISHED, f"{old.status} became {new.status}, and nobody asked for it"

    def _a_crash_counts_once(self, rows: dict[UUID, Any]) -> None:
        for row in rows.values():
            assert row.lost <= self.seen[row.id].leases_lost, "it was counted as lost more often than a lease passed"
            assert row.reason != Reason.WORKER_LOST or self.seen[row.id].leases_lost >= MAX_WORKER_LOSSES

    def _calls_that_are_over_left_attempts(self, rows: dict[UUID, Any]) -> None:
        known = {row.id for row in self.sql(f"SELECT id FROM attempts WHERE {OURS}", **self.bounds)}
        held = {(each.row.id, each.row.claims) for each in self.held}
        for row in rows.values():
            for number in self.seen[row.id].calls:
                if number < row.claims and (row.id, number) not in held:
                    assert attempt_id(row.id, number) in known, "a call left no attempt"

    def teardown(self) -> None:
        try:
            self._bring_to_an_end()
        finally:
            self.pool.shutdown()
            with self.owner.begin() as connection:
                for table in ("attempts", "notifications", "events"):
                    connection.execute(text(f"DELETE FROM {table} WHERE {OURS}"), self.bounds)
                for table in ("dead_letters", "resends", "receipts", "taken_receipts", "idempotency_keys"):
                    connection.execute(text(f"DELETE FROM {table}"))

    def _bring_to_an_end(self) -> None:
        """All workers are killed, and others do what is left; then nothing is alive, and it adds up."""
        self.sql("DELETE FROM suppressions")
        self._pass(killed=True)
        for _ in range(3 * MAX_WORKER_LOSSES):
            rows = self.rows()
            live = [row for row in self.event_rows().values() if row.status == EventStatus.ACCEPTED]
            if not live and all(row.status in FINISHED for row in rows.values()):
                break
            for queue in QUEUES:
                hand_over(self.engine, queue, 64, LEASE, POLICY)
            self._make_all_due()
            self.do_fan_out(0)
            for failures in range(POLICY.max_retries + 1):
                self.do_claim(failures)
            for each in self.held:
                self._call(each)
            while self.held:
                self.do_record(0)
        events = self.event_rows().values()
        assert {row.status for row in events} <= {EventStatus.PROCESSED, EventStatus.FAILED}
        self._it_adds_up(self.rows(), {row.id for row in events if row.status == EventStatus.PROCESSED})

    def _it_adds_up(self, rows: dict[UUID, Any], processed: set[UUID]) -> None:
        assert {row.event_id for row in rows.values()} == processed, "an event led nowhere"
        for row in rows.values():
            seen = self.seen[row.id]
            assert row.status in FINISHED
            if row.status in {Status.SENT, Status.DELIVERED}:
                assert seen.taken or seen.confirmed, "it is said to be sent, and nobody took it"
            causes = seen.revived + seen.bounced + seen.leases_lost + seen.unheard
            assert seen.taken <= 1 + causes, f"taken {seen.taken} times without a cause"


@pytest.mark.timeout(300)
def test_whatever_happens_in_whatever_order_what_must_hold_holds(engine: Engine, owner_engine: Engine) -> None:
    intake = Intake(engine, NoHints(), idempotency_ttl=timedelta(hours=1))
    run_state_machine_as_test(
        lambda: Machine(engine, owner_engine, intake),
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            # A shorter story of the same end would take minutes to find.
            phases=[Phase.generate],
        ),
    )
