"""Retries: how often a channel retries, how long it waits in between, and the wait itself (`due_at`)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from notifier.vocabulary.queues import retry_queue
from notifier.vocabulary.states import Channel, Status


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Celery's automatic retry options for one channel.

    The n-th retry (from 0) comes after `min(backoff_max, backoff * 2**n)` seconds, or, with jitter,
    after a uniformly drawn part of that.
    """

    #: Seconds before the first retry; 0 retries at once.
    backoff: int
    #: The longest wait in seconds.
    backoff_max: int
    #: Retries after the first attempt: max_retries + 1 attempts in all.
    max_retries: int
    #: Draw each wait between 0 and the full backoff, so that messages that failed together do not return together.
    jitter: bool = True

    def seconds(self, failures: int) -> float:
        """Return the seconds until the retry after so many failed attempts, the first of them not counted."""
        longest = float(min(self.backoff_max, self.backoff * 2**failures))
        return longest * random.random() if self.jitter else longest  # noqa: S311 -- it spreads load


@dataclass(frozen=True, slots=True)
class Wait:
    """A notification that is tried again in `seconds`: `claims` is the fence under which its worker holds it."""

    id: UUID
    claims: int
    seconds: float


_SCHEDULE_RETRY: Final = text(f"""
    WITH locked AS MATERIALIZED (
        SELECT id FROM notifications WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
    )
    UPDATE notifications n SET status = '{Status.RETRYING}', queue = :queue,
        due_at = now() + wait.seconds * interval '1 second'
    FROM unnest(CAST(:ids AS uuid[]), CAST(:claims AS integer[]), CAST(:seconds AS double precision[]))
        AS wait(id, claims, seconds) JOIN locked USING (id)
    WHERE n.id = ANY(:ids) AND n.id = wait.id AND n.claims = wait.claims AND n.status = '{Status.SENDING}'
""")


def schedule_retry(connection: Connection, channel: Channel, waits: Sequence[Wait]) -> None:
    """Let notifications wait for their retry, in the channel's retry queue, in the connection's transaction."""
    if waits:
        connection.execute(
            _SCHEDULE_RETRY,
            {
                "queue": retry_queue(channel),
                "ids": [wait.id for wait in waits],
                "claims": [wait.claims for wait in waits],
                "seconds": [wait.seconds for wait in waits],
            },
        )
