"""Stragglers: what keeps a batch waiting alone in the end is handed to another thread."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from uuid import UUID

from notifier.delivery.batch_failed import FailedRow
from notifier.delivery.outcomes import Outcomes
from notifier.delivery.sender import Sender

#: Hands the rest of a batch to another thread, given how many failed attempts its rows have behind them; returns False
#: if none is free. The callable goes on with the batch, and returns what failed of it.
Detach = Callable[[Callable[[], list[FailedRow]], int], bool]


def send_until_stragglers(
    sender: Sender,
    outcomes: Outcomes,
    steps: Iterator[None],
    *,
    detach: Callable[[Callable[[], list[FailedRow]]], bool],
    suspect: Callable[[Sequence[UUID]], None],
) -> list[FailedRow]:
    """Go through a batch's steps until they end, or another thread takes over; returns what failed until then.

    `suspect`: is told which endpoints keep the batch waiting.
    """
    tried = False
    for _ in steps:
        late = sender.late()
        if tried or not sender.is_waiting_for(late):
            continue
        tried = True
        # The others are back: so it is these endpoints that are slow, and not this process.
        suspect([row.endpoint_id for row in late if row.endpoint_id is not None])
        failed = outcomes.take_failed()
        if detach(partial(_finish, outcomes, steps)):
            return failed
        outcomes.put_failed(failed)
    return outcomes.take_failed()


def _finish(outcomes: Outcomes, steps: Iterator[None]) -> list[FailedRow]:
    for _ in steps:
        pass
    return outcomes.take_failed()
