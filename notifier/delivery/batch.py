"""Deliver a batch of notifications of one channel: claim → gate → render → send → record.

    queued ──claim──> sending ──accepted──> sent | delivered
                         │ failed for now, or for good: left in `sending`, its attempt recorded and counted,
                         │ and given to the caller, who reschedules or dead-letters it
                         │ the gate ──> expired, skipped, cancelled, scheduled once more
                         └ not begun in time ──> queued again

What is true throughout: only the worker whose `claims` a row carries may change it, no transaction is open
while a provider is called, and every call leaves an attempt row whose id follows from the claim.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from notifier.delivery import load_sizes
from notifier.delivery.batch_failed import BatchFailed, FailedRow
from notifier.delivery.composer import CannotCompose, Composer, Composition
from notifier.delivery.gate import Gate, Passed
from notifier.delivery.gate_inputs import Facts, read
from notifier.delivery.recorder import LeaseKeeper, Recorder, Results
from notifier.delivery.telemetry import CLAIM, COMPOSE, GATE, RECORD, Meter
from notifier.notifications.attempts import Record, record
from notifier.notifications.claims import COMPOSING, Claimed, claim, give_back, make_due
from notifier.people.push_tokens import prune_tokens
from notifier.people.suppressions import Address, suppress
from notifier.planning.subscribers import Listeners
from notifier.providers.failover import Providers, Relay
from notifier.providers.masked_results import without_secrets
from notifier.providers.protocol import Fault, Message, Outcome, Result
from notifier.runtime.isolation import is_away, kind_of
from notifier.security.redaction import secrets_of
from notifier.storage.engines import autocommit_of
from notifier.vocabulary.event_types import told_as
from notifier.vocabulary.queues import channel_of
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel, OnAmbiguous, Status
from notifier.webhooks.endpoint_health import Watch

log = structlog.get_logger()

#: What a lease keeps over the longest send, in seconds: time enough to record it.
MARGIN: Final = 5.0
#: The most messages that are made at once, and from how many seconds on that is too slow for as many.
_MOST_AT_ONCE: Final = 16
_SLOW_COMPOSING: Final = 0.1
#: About so many bytes of attachments are under way at once in a batch: a worker has no memory for all of them.
_MOST_CARRIED: Final = 8 * 1024 * 1024
#: Seconds after which a send counts as late: a thread is not kept by those alone.
_LATE: Final = 1.0
#: Seconds between two looks, where a tenth is usual, that say that this process is slow itself.
_STALLED: Final = 0.3

#: Takes what is left of a batch off a worker's hands: whether it could, and then what failed in the end.
Detach = Callable[[Callable[[], list[FailedRow]], int], bool]


class Delivery:
    """Delivers over one channel. Used by several threads at once."""

    def __init__(
        self,
        engine: Engine,
        providers: Providers,
        gate: Gate,
        composer: Composer,
        listeners: Listeners,
        *,
        sending_window: float,
        disable_after: timedelta,
    ) -> None:
        self._transactions = engine
        #: Each statement is a transaction of its own: a third of the round trips.
        self._engine = autocommit_of(engine)
        self._providers = providers
        self._gate = gate
        self._composer = composer
        self._listeners = listeners
        self._finished = Status.DELIVERED if providers.confirms_delivery else Status.SENT
        self._window = sending_window
        self._disable_after = disable_after
        self._keeper = LeaseKeeper(engine)

    def deliver(
        self,
        ids: Sequence[UUID],
        tries: int,
        detach: Detach,
        *,
        patient: bool = False,
        due: datetime | None = None,
        came_by: str | None = None,
    ) -> None:
        """Deliver those of `ids` that are queued with `tries` failed attempts; the others are somebody else's.

        `patient`: the message came by a queue for what is slow. What keeps the batch waiting alone in the end is given
        to `detach`, which must see to what fails of it. `due`: when what the clock handed over became due, for what
        is measured. `came_by`: the message's traceparent. Raises BatchFailed where any failed until then. Whatever
        else is raised leaves rows to their lease.

        Large rows are claimed and read in parts, one after the other as long as the sending window lasts.
        """
        start_until = time.monotonic() + self._window
        failed: list[FailedRow] = []
        parts = load_sizes.of_notifications(self._engine, ids)
        for place, part in enumerate(parts):
            if place and time.monotonic() >= start_until:
                self._leave(parts[place:], tries)
                break
            meter = Meter(self._gate.channel, tries, due, came_by)
            try:
                failed += self._deliver(part, tries, detach, meter, start_until, patient=patient)
            except Exception as error:
                meter.close(error)
                if not failed:
                    raise
                log.warning("part_failed", error=kind_of(error), rows=len(part))
                break
            meter.close()
        if failed:
            raise BatchFailed(failed)

    def _leave(self, parts: Sequence[Sequence[UUID]], tries: int) -> None:
        """Leave the rest of a batch to other messages: high notifications must not wait for so large a one."""
        with self._engine.connect() as connection:
            make_due(connection, [row_id for part in parts for row_id in part], tries)

    def _deliver(
        self, ids: Sequence[UUID], tries: int, detach: Detach, meter: Meter, start_until: float, *, patient: bool
    ) -> list[FailedRow]:
        # The window began before the claim: a send begins only while the row is ours for a whole send and MARGIN more.
        lease = self._window + self._providers.timeout + MARGIN
        with meter.step(CLAIM), self._engine.connect() as connection:
            claimed = claim(connection, ids, tries, lease, patient=patient)
            if not claimed:
                return []
            several = len(self._providers.choices) > 1
            facts = read(connection, self._gate.channel, claimed, several_providers=several)
        meter.claimed(claimed)
        with meter.step(GATE):
            passed = self._gate.let_through(self._transactions, claimed, facts)
        failed = self._send(passed, facts, tries, start_until, detach, meter) if passed.rows else []
        meter.batch(passed=len(passed.rows), failed=len(failed))
        return failed

    def _send(
        self, passed: Passed, facts: Facts, tries: int, start_until: float, detach: Detach, meter: Meter
    ) -> list[FailedRow]:
        """Send what has passed the gate; returns what failed until only stragglers were left."""
        rows = passed.rows
        watch = Watch(self._transactions, facts.receivers, facts.slow, self._disable_after)
        composition = self._composer.begin(rows, facts.receivers)
        directory = self._listeners.at(self._transactions, facts.version)
        told = bool(directory.of(told_as(self._finished)))
        falling_back = {row.id for row in rows if row.on_ambiguous == OnAmbiguous.FALLBACK}
        relay = Relay(
            self._transactions,
            self._providers,
            facts.health,
            passed.probes,
            start_until=start_until,
            falls_back=falling_back.__contains__,
            bounced_by=facts.bounced_by if tries else {},
            without_route=facts.without_route,
        )
        finished = self._finished
        engine = self._transactions
        lease_ends = start_until + self._providers.timeout + MARGIN
        batch = _Batch(
            *(engine, relay, composition, watch, rows, tries, start_until, finished, meter, lease_ends), told=told
        )
        steps = self._keeper.keeping(batch, batch.steps())
        tried = False
        for _ in steps:
            late = batch.late()
            if not tried and batch.is_waiting_for(late):
                tried = True
                # The others are back: so it is these receivers that are slow, and not this process.
                for row in late:
                    if row.endpoint_id is not None:
                        self._gate.receivers.suspects.add(row.endpoint_id)
                failed = batch.take_failed()
                if detach(partial(_finish, batch, steps), tries):
                    return failed
                batch.put_failed(failed)
        return batch.take_failed()


def _failed(row: Claimed, result: Result) -> FailedRow:
    if result.outcome is Outcome.AMBIGUOUS and row.on_ambiguous == OnAmbiguous.HOLD:
        return FailedRow(row.id, row.claims, True, result.error, Reason.AMBIGUOUS)
    permanent = result.outcome is Outcome.REJECTED
    return FailedRow(row.id, row.claims, permanent, result.error, retry_after=result.retry_after)


def _finish(batch: "_Batch", steps: Iterator[None]) -> list[FailedRow]:
    for _ in steps:
        pass
    return batch.take_failed()


class _Batch:
    """One claimed batch on its way through the providers."""

    def __init__(
        self,
        engine: Engine,
        relay: Relay,
        composition: Composition,
        watch: Watch,
        claimed: Sequence[Claimed],
        tries: int,
        start_until: float,
        finished: Status,
        meter: Meter,
        lease_ends: float,
        *,
        told: bool,
    ) -> None:
        """`finished`: what becomes of a notification that is accepted. `lease_ends`: on the monotonic clock."""
        self._transactions = engine
        self._engine = autocommit_of(engine)
        self._told = told
        self._lease_ends = lease_ends
        self._relay = relay
        self._finished = finished
        self._meter = meter
        self._composition = composition
        self._watch = watch
        self._tries = tries
        self._start_until = start_until
        self._waiting = deque(claimed)
        #: How many messages are made at once: one, and twice as many each time that goes quickly.
        self._at_once = 1
        #: Bytes of attachments that the provider was given and may still hold.
        self._carried = 0
        self._begun: dict[UUID, tuple[Claimed, float]] = {}
        #: How many calls those have behind them that went on to another provider.
        self._calls: dict[UUID, int] = {}
        #: The credentials that they were sent with, which answers may repeat.
        self._secrets: dict[UUID, frozenset[str]] = {}
        #: Addresses whose owners told the provider to leave them alone.
        self._refused: list[Address] = []
        #: Users and their push tokens at which nobody is any more.
        self._gone: set[tuple[str, str]] = set()
        self._recorder = Recorder(self._write, self._reports, self._recorded)
        self._turned_at = time.monotonic()
        #: Attachments could not be read.
        self._postgres_is_away = False
        self._failed: list[FailedRow] = []

    def steps(self) -> Iterator[None]:
        """Send all that can begin in time, record it, and give the rest back; yields many times a second."""
        while self._waiting and self._may_begin():
            try:
                for results in self._relay.send(self._messages()):
                    self._note(results)
                    self._return(self._relay.take_unbegun())
                    self._recorder.go_on()
                    yield
            except Exception:
                # A provider broke: what has been taken until then must not be sent once more, and what has not need
                # not wait for a lease.
                self._give_back()
                self._recorder.finish()
                raise
            # Postgres may have gone meanwhile. What went out is recorded before anything more does.
            self._recorder.finish()
        self._give_back()
        self._recorder.finish()

    def to_renew(self, now: float, soon: float) -> list[tuple[UUID, int]]:
        """Return the claims of what is under way or not recorded yet, once their leases end within `soon` seconds.

        Results are held until they are recorded, however long Postgres is away. A send that does not come back, though
        it should have long before, is left to its lease.
        """
        if now < self._lease_ends - soon:
            return []
        begun = list(self._begun.values()) if now < self._lease_ends + MARGIN else []
        return [*self._recorder.held(), *((row.id, row.claims) for row, _ in begun)]

    def _return(self, unbegun: Sequence[UUID]) -> None:
        """Give back what no provider could begin."""
        for row_id in unbegun:
            row, _ = self._begun.pop(row_id)
            self._meter.returned(row)
            self._recorder.give_back([row])

    def late(self) -> list[Claimed]:
        """What was begun a while ago and is not back."""
        now = time.monotonic()
        if now - self._turned_at > _STALLED:
            # This process itself did not get on: that is held against nobody.
            gap = now - self._turned_at
            self._begun = {each: (row, begun + gap) for each, (row, begun) in self._begun.items()}
        self._turned_at = now
        since = now - _LATE
        return [row for row, begun in self._begun.values() if begun < since]

    def is_waiting_for(self, late: Sequence[Claimed]) -> bool:
        """Whether nothing is left but these."""
        if len(late) < len(self._begun) or not late or self._recorder.has_any:
            return False
        if self._waiting and self._may_begin():
            return False
        self._give_back()
        return True

    def take_failed(self) -> list[FailedRow]:
        """What has failed since this was asked last."""
        failed, self._failed = self._failed, []
        return failed

    def put_failed(self, failed: list[FailedRow]) -> None:
        """Keep what has failed for later."""
        self._failed = failed + self._failed

    def _give_back(self) -> None:
        self._recorder.give_back(self._waiting)
        self._waiting.clear()

    def _may_begin(self) -> bool:
        if self._postgres_is_away or self._recorder.is_behind:
            return False
        return time.monotonic() < self._start_until and not self._relay.is_shut

    def _messages(self) -> Iterator[Message]:
        """What the provider may begin now; ends early where time, Postgres or the room for attachments runs out."""
        self._carried = 0  # it is asked anew only when nothing is in flight
        while self._waiting and self._may_begin() and self._carried < _MOST_CARRIED:
            # What was made is sent, so that every claim gets on however slow its templates are.
            yield from self._made()

    def _made(self) -> Iterator[Message]:
        """Make the messages of the next few rows, and give them out; rows that cannot be made have failed."""
        began = time.monotonic()
        rows = self._composition.fitting(list(islice(self._waiting, self._at_once)), _MOST_CARRIED - self._carried)
        try:
            with self._meter.step(COMPOSE):
                made = self._composition.messages(rows)
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            log.warning("attachments_not_read", error=kind_of(error), messages=len(rows))
            self._postgres_is_away = True
            return
        took = time.monotonic() - began
        # A template may take seconds, and the lease goes on meanwhile.
        self._at_once = min(_MOST_AT_ONCE, 2 * self._at_once) if took < _SLOW_COMPOSING else 1
        for row, message in zip(rows, made, strict=True):
            if not self._waiting:
                return  # given back meanwhile
            if isinstance(message, CannotCompose):
                self._waiting.popleft()
                self._failed.append(FailedRow(row.id, row.claims, True, str(message)))
                continue
            grace = COMPOSING if row.template_id is not None else 0
            if self._postgres_is_away or time.monotonic() >= self._start_until + grace:
                return
            self._waiting.popleft()
            self._begun[row.id] = (row, time.monotonic())
            self._carried += sum(len(each.content) for each in message.attachments)
            if secrets := secrets_of(message.recipient, message.headers):
                self._secrets[row.id] = secrets
            yield self._meter.begin(row, message)

    def _note(self, results: Sequence[Result]) -> None:
        for found in results:
            row, _ = self._begun.pop(found.id)
            # Of what goes on to another provider they are needed again.
            secrets = self._secrets.get(row.id) if found.handed_on else self._secrets.pop(row.id, None)
            result = without_secrets(found, secrets) if secrets else found
            call = self._calls.pop(result.id, 0)
            self._watch.add(row, result)
            self._recorder.add(Record(result, row.claims, row.attempts + call + 1, self._tries + 1, call))
            if result.handed_on:
                self._calls[row.id] = call + 1
                self._begun[row.id] = (row, time.monotonic())
                continue
            self._meter.end(row, result, row.attempts + call + 1)
            if result.outcome is Outcome.ACCEPTED:
                self._meter.accepted(row, result)
            else:
                self._failed.append(_failed(row, result))
                if result.suppress is not None and row.recipient:
                    self._refused.append(Address(channel_of(row.queue), row.recipient, result.suppress))
                is_gone = result.outcome is Outcome.REJECTED and result.fault is Fault.RECIPIENT
                if is_gone and row.queue.startswith(Channel.PUSH) and row.user_id and row.recipient:
                    self._gone.add((row.user_id, row.recipient))

    def _write(self, results: Results) -> None:
        """Commit what has finished, and then what follows from it. Called in other threads too."""
        if results.records:
            with self._meter.step(RECORD):
                record(self._transactions, results.records, finished=self._finished, told=self._told)
        # These reports concern finished calls: if one fails, the calls still under way must not be lost with it.
        for tell in results.reports:
            try:
                tell()
            except Exception as error:
                log.warning("not_noted", error=kind_of(error))
        if results.returned:
            with self._engine.connect() as connection:
                give_back(connection, results.returned)

    def _reports(self) -> list[Callable[[], object]]:
        """Return the reports on what was seen beside the results since this was called last."""
        gone, self._gone = self._gone, set()
        refused, self._refused = self._refused, []
        return [
            self._watch.take(),
            self._relay.take(),
            partial(prune_tokens, self._transactions, gone),
            partial(suppress, self._transactions, refused),
        ]

    def _recorded(self, records: Sequence[Record]) -> None:
        self._meter.recorded(records, self._finished)
        self._postgres_is_away = False
