"""Due rows: the clock hands them over to workers, and takes back rows whose worker is lost.

Every live row has a `due_at`: a reminder whose hour has come, a retry, a row whose message Redis lost, a row whose
worker was killed. One query a queue finds them all, on the index (queue, due_at) of live rows. Any number of clocks may
run: each takes rows that the others have not locked.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, TextClause, text

from notifier.notifications.attempts import AbandonedClaim, may_be_out, record_worker_losses
from notifier.notifications.dead_letters import DeadLetterRequest, dead_letter, dead_letter_events
from notifier.notifications.retries import RetryPolicy
from notifier.observability import metrics
from notifier.observability.request_context import UNKNOWN, RequestContext
from notifier.vocabulary.deferrals import UNEXPLAINED_IN_SQL
from notifier.vocabulary.queues import BATCH, FAN_OUT
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import EventStatus, OnAmbiguous, Status

#: A notification whose worker died this often is dead: it may be the cause of those deaths.
MAX_WORKER_LOSSES: Final = 5
#: Once its workers died this often, its next send decides: of those only one is under way in a queue.
LAST_CHANCE: Final = MAX_WORKER_LOSSES - 1
#: Seconds for which a worker may stay silent when the lease of its rows is over.
GRACE: Final = 5.0
#: At most this many due notifications are handed over in one message. Fewer than of new ones: what arrives beside a
#: crowd waits until a thread of a worker is done with one of its messages.
DUE_BATCH: Final = 200
#: An event whose fan-out was begun this often, and did not end, is dead.
MAX_BEGUN: Final = 5


@dataclass(frozen=True, slots=True)
class Handover:
    """One message to the workers: ids of one queue with the same number of failed attempts, or of begun fan-outs."""

    queue: str
    ids: list[UUID]
    failures: int
    #: When the first of them became due, where the clock hands them over.
    due: datetime | None = None
    #: The request that brought them all, where one did and that is known.
    cause: RequestContext = UNKNOWN


_DUE: Final = text("""
    SELECT id, status, claims, attempts, tries, lost, on_ambiguous, due_at, silent_claim FROM notifications
    WHERE queue = :queue AND due_at <= now() ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
""")
# Not now(): the statement before may have waited for a lock, or for a frozen Postgres, since this transaction began.
_ASK: Final = text("""
    UPDATE notifications SET silent_claim = claims, due_at = clock_timestamp() + :grace * interval '1 second'
    WHERE id = ANY(:ids)
""")
_QUEUE: Final = text(f"""
    UPDATE notifications SET status = '{Status.QUEUED}', reason = NULL, {UNEXPLAINED_IN_SQL},
        tries = greatest(least(tries, :most), 0), due_at = now() + :lease * interval '1 second'
    WHERE id = ANY(:ids)
""")
# To count a lost worker and to take its row back is one act: a row that stayed `sending` would be counted again. A
# claim whose attempt was recorded has ended and is not counted: its worker died, or lost Postgres, afterwards.
_TAKE_BACK: Final = text(f"""
    UPDATE notifications SET lost = least(lost, 2147483646) + CASE WHEN id = ANY(:unrecorded) THEN 1 ELSE 0 END,
        attempts = least(attempts, 2147483646) + CASE WHEN id = ANY(:unrecorded) THEN 1 ELSE 0 END,
        status = CASE WHEN id = ANY(:dead) THEN status ELSE '{Status.QUEUED}' END, due_at = now()
    WHERE id = ANY(:ids)
""")
# As far ahead as leases may go: next year's reminders are not looked at.
_LAST_CHANCES_OUT: Final = text(f"""
    SELECT EXISTS (
        SELECT FROM notifications WHERE queue = :queue AND lost >= {LAST_CHANCE}
            AND due_at > now() AND due_at < now() + interval '1 hour'
            AND status IN ('{Status.QUEUED}', '{Status.SENDING}')
    )
""")
_DUE_EVENTS: Final = text("""
    SELECT id, handovers, due_at FROM events WHERE due_at <= now() ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
""")
_HAND_OVER_EVENTS: Final = text("""
    UPDATE events SET due_at = now() + :lease * interval '1 second' WHERE id = ANY(:ids)
""")
_LAST_EVENT_OUT: Final = text(f"""
    SELECT EXISTS (
        SELECT FROM events WHERE handovers >= {MAX_BEGUN - 1} AND due_at > now() AND due_at < now() + interval '1 hour'
    )
""")


def hand_over(engine: Engine, queue: str, room: int, lease: float, policy: RetryPolicy | None) -> list[Handover]:
    """Hand over at most one batch of due rows of a queue, oldest first; returns at most `room` messages to publish.

    The rows are given a lease of `lease` seconds first, so that a message that is not published, or is lost, only costs
    that time. `policy` is the channel's; None for events.
    """
    if queue == FAN_OUT:
        with engine.begin() as connection:
            return _hand_over_events(connection, room, lease)
    if policy is None:
        raise ValueError(f"{queue} needs the retry policy of its channel")
    while True:
        messages, is_more = _hand_over_batch(engine, queue, room, lease, policy)
        if messages or not is_more:
            return messages


def _hand_over_batch(
    engine: Engine, queue: str, room: int, lease: float, policy: RetryPolicy
) -> tuple[list[Handover], bool]:
    """Hand over one batch; returns messages, and whether more may be due behind rows whose workers were only asked."""
    with engine.begin() as connection:
        due = connection.execute(_DUE, {"queue": queue, "limit": DUE_BATCH}).all()
        asked = _ask(connection, [row for row in due if row.status == Status.SENDING])
        abandoned = [row for row in due if row.status == Status.SENDING and row.id not in asked]
        dead = _take_back(connection, abandoned, policy)
        alive = [row for row in due if row.id not in dead and row.id not in asked]
        last = [row.id for row in alive if _worker_losses(row) >= LAST_CHANCE]
        waiting = _waiting(last, lambda: connection.scalar(_LAST_CHANCES_OUT, {"queue": queue}))
        alive = [row for row in alive if row.id not in waiting]
        messages = list(islice(_messages(queue, alive, policy.max_retries), room))
        _put_in_queue(connection, _QUEUE, messages, lease, most=policy.max_retries)
    metrics.LOST_ROWS.labels(queue).inc(len(abandoned))
    return messages, bool(asked) and len(due) == DUE_BATCH


def _ask(connection: Connection, held: Sequence[Row[Any]]) -> set[UUID]:
    """Ask the workers of rows whose leases are over whether they still hold them; returns those that are asked now.

    A live worker records a row or renews its lease at once; one that is silent for GRACE seconds more is gone. So a
    lease that ended while Postgres hung, or was locked, or was away, counts as no worker loss: each worker that waited
    for the same Postgres answers first.
    """
    asked = [row.id for row in held if row.silent_claim != row.claims]
    if asked:
        connection.execute(_ASK, {"ids": sorted(asked), "grace": GRACE})
    return set(asked)


def _put_in_queue(
    connection: Connection, statement: TextClause, messages: Sequence[Handover], lease: float, **more: int
) -> None:
    if messages:
        ids = sorted(row_id for message in messages for row_id in message.ids)
        connection.execute(statement, {"ids": ids, "lease": lease, **more})


def _messages(queue: str, due: Sequence[Row[Any]], most: int) -> Iterator[Handover]:
    """Group rows into messages by their number of failed attempts; suspects go alone.

    A suspect is a row whose worker died: if it kills the next one too, no other row goes with it. `most`: the retries
    that the settings allow. A row with more failures, after they were lowered or a manual change, has one attempt left:
    Celery computes two to that power.
    """

    def failures(row: Row[Any]) -> int:
        return max(0, min(int(row.tries), most))

    suspects = {row.id for row in due if _worker_losses(row)}
    others = sorted((row for row in due if row.id not in suspects), key=failures)
    for number, group in groupby(others, key=failures):
        rows = list(group)
        yield Handover(queue, [row.id for row in rows], number, min(row.due_at for row in rows))
    yield from (Handover(queue, [row.id], failures(row), row.due_at) for row in due if row.id in suspects)


def _waiting(last: Sequence[UUID], is_one_out: Callable[[], bool | None]) -> set[UUID]:
    """Return the rows that wait for their last chance: all but one, or all while another one's is under way.

    Rows in flight together fail together, and a dead worker counts against each of them: the last chance counts against
    one row alone.
    """
    return set(last) if last and is_one_out() else set(last[1:])


def _worker_losses(row: Row[Any]) -> int:
    """Return how many workers died while they held a due row, with the one from which it is being taken back."""
    return int(row.lost) + int(row.status == Status.SENDING)


def _take_back(connection: Connection, held: Sequence[Row[Any]], policy: RetryPolicy) -> set[UUID]:
    """Take rows back from workers that are gone, all whatever room there is; returns those that are dead now."""
    if not held:
        return set()
    unrecorded = record_worker_losses(connection, [AbandonedClaim(row.id, row.claims, row.attempts) for row in held])
    requests = _dead_letter_requests(connection, held, unrecorded, policy)
    dead = {request.id for request in requests}
    values = {"ids": sorted(row.id for row in held), "unrecorded": sorted(unrecorded), "dead": sorted(dead)}
    connection.execute(_TAKE_BACK, values)
    dead_letter(connection, requests)
    return dead


def _dead_letter_requests(
    connection: Connection, held: Sequence[Row[Any]], unrecorded: Container[UUID], policy: RetryPolicy
) -> list[DeadLetterRequest]:
    """Return dead letter requests for rows whose workers are gone and that must not be retried.

    `unrecorded`: rows without a recorded attempt.
    """
    wary = [AbandonedClaim(row.id, row.claims, row.attempts) for row in held if row.on_ambiguous == OnAmbiguous.HOLD]
    ambiguous = may_be_out(connection, wary)
    requests = []
    for row in held:
        if row.id in ambiguous:
            requests.append(
                DeadLetterRequest(row.id, row.claims, Reason.AMBIGUOUS, "worker lost: it may have been sent")
            )
        elif row.id in unrecorded and _worker_losses(row) >= MAX_WORKER_LOSSES:
            requests.append(
                DeadLetterRequest(row.id, row.claims, Reason.WORKER_LOST, "its worker died again and again")
            )
        elif row.tries > policy.max_retries:
            # The worker recorded the last attempt and died before it could say that it was the last.
            requests.append(
                DeadLetterRequest(row.id, row.claims, Reason.RETRIES_EXHAUSTED, "worker lost after the last attempt")
            )
    return requests


def _hand_over_events(connection: Connection, room: int, lease: float) -> list[Handover]:
    """Hand events over. The counter of begun fan-outs is raised by the worker that begins one."""
    due = connection.execute(_DUE_EVENTS, {"limit": BATCH}).all()
    dead_letter_events(connection, [row.id for row in due if row.handovers >= MAX_BEGUN])
    fresh = [row for row in due if row.handovers <= 0]
    messages = [Handover(FAN_OUT, [row.id for row in fresh], 0, fresh[0].due_at)] if fresh else []
    # An event whose fan-out did not end may be what breaks its batch: it goes alone.
    begun = [row for row in due if 0 < row.handovers < MAX_BEGUN]
    last = [row.id for row in begun if row.handovers == MAX_BEGUN - 1]
    waiting = _waiting(last, lambda: connection.scalar(_LAST_EVENT_OUT))
    messages += [Handover(FAN_OUT, [row.id], row.handovers, row.due_at) for row in begun if row.id not in waiting]
    _put_in_queue(connection, _HAND_OVER_EVENTS, messages[:room], lease)
    return messages[:room]


_OLDEST: Final = text(f"""
    SELECT queue, status, count(*) AS rows, min(due_at) AS oldest FROM notifications
    WHERE due_at IS NOT NULL GROUP BY queue, status
    UNION ALL
    SELECT '{FAN_OUT}', '{EventStatus.ACCEPTED}', count(*), min(due_at) FROM events
    WHERE due_at IS NOT NULL HAVING count(*) > 0
    ORDER BY 1, 2
""")


@dataclass(frozen=True, slots=True)
class LiveRows:
    """How many rows of a queue are in one status, and when the oldest of them is due."""

    queue: str
    status: str
    rows: int
    oldest: datetime


def live_rows(engine: Engine) -> list[LiveRows]:
    """Count the live rows, by queue and status."""
    with engine.connect() as connection:
        return [LiveRows(**row) for row in connection.execute(_OLDEST).mappings()]
