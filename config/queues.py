"""Which worker process serves which queues, and in what order."""

from collections.abc import Iterable, Sequence
from typing import Final

from notifier.vocabulary.queues import DELIVERY, DUE, FAN_OUT, HIGH, LOW, NORMAL, RETRY, SLOW

CLOCK: Final = "clock"
ALL: Final = (*DELIVERY, *DUE, FAN_OUT, CLOCK)

#: Neither the publisher nor the clock adds to a queue that holds this many messages: Redis stays small.
MAX_MESSAGES: Final = 64

#: The worker processes, and the queues that each consumes. In one shared pool a few hanging retries would
#: make fresh work wait, and everything would make the clock wait.
WORKERS: Final[dict[str, tuple[str, ...]]] = {
    "fresh": (*HIGH, FAN_OUT, *NORMAL, *DUE, *LOW),
    "retry": (*RETRY, SLOW),
    "clock": (CLOCK,),
}

_LEVEL: Final = {**dict.fromkeys(HIGH, 0), **dict.fromkeys((FAN_OUT, *NORMAL, *DUE), 1), **dict.fromkeys(LOW, 2)}


_OWN: Final = "canary."


def own_queue(node: str) -> str:
    """Return the name of a worker's own queue, for the canaries that it sends itself (tasks/watchdog.py)."""
    return _OWN + node


def is_own_queue(queue: str) -> bool:
    """Return whether a queue is for the canaries of one worker."""
    return queue.startswith(_OWN)


def level_of(queue: str) -> int:
    """Return how urgent a queue's messages are: the less, the sooner they are taken."""
    return -1 if is_own_queue(queue) else _LEVEL.get(queue, 1)


class PriorityOrder:
    """The order in which a worker looks into its queues: high before normal before low, in turns within each.

    Before all of them comes its own, whose rare canaries say whether it takes messages.

    Given to kombu as `queue_order_strategy`. Its own "priority" strategy would let a busy channel starve
    another of the same priority, its "round_robin" would let low work delay high.
    """

    def __init__(self, queues: Iterable[str] = ()) -> None:
        self._turns: list[str] = list(queues)

    def update(self, queues: Iterable[str]) -> None:
        """Take the queues that are consumed now; those already known keep their turn."""
        wanted = list(queues)
        self._turns = [queue for queue in self._turns if queue in wanted]
        self._turns += [queue for queue in wanted if queue not in self._turns]

    def consume(self, count: int) -> Sequence[str]:
        """Return the first `count` queues to read from, in order."""
        return sorted(self._turns, key=level_of)[:count]

    def rotate(self, last_used: str) -> str:
        """Move the queue that gave a message behind its equals."""
        if last_used in self._turns:
            self._turns.remove(last_used)
            self._turns.append(last_used)
        return last_used
