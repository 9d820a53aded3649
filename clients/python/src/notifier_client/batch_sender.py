"""BatchSender: collects events of many threads, sends them in batches from one thread, and loses none.

An event is either accepted by the API, or handed back: to `on_refused`, or by Unsent, which `close` raises.
"""

import atexit
import itertools
import logging
import os
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import util as multiprocessing_util
from types import TracebackType
from typing import Final, Self

from notifier_client.batches import is_refused, is_too_large, may_pass, post, prepare
from notifier_client.buffer import Buffer, Entry, Limits
from notifier_client.client import Client
from notifier_client.errors import ApiError, NoAnswer, NotifierError, Unsent
from notifier_client.retries import RETRIED, doubled
from notifier_client.types import BatchItem, Event

log = logging.getLogger(__name__)

Refused = tuple[Event, BatchItem]

#: Seconds until a batch that failed for now is sent again: at most so many first, then twice as many, up to the last.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
#: The longest `Retry-After` that is waited for in whole.
_LONGEST_RETRY_AFTER: Final = 300.0


class BufferFull(NotifierError):
    """As many events wait as may; this one was not taken."""


class BatchSender:
    """Sends events in batches. Threads may share it; `close`, the end of its block or of the process sends the rest.

    A batch that fails for now is sent until it goes out: meanwhile the buffer fills, and `add` waits. One that fails
    for good, as with a revoked key, ends the sender: `add` then raises what went wrong, and `close` hands all back.
    """

    def __init__(
        self,
        client: Client,
        *,
        limits: Limits | None = None,
        on_refused: Callable[[Event, BatchItem], None] | None = None,
        on_unsent: Callable[[Unsent], None] | None = None,
        close_timeout: float = 30.0,
    ) -> None:
        """Nothing is sent yet.

        `on_refused` is called in the sender's thread with each event that the API refuses, and its item of the answer;
        without it they are kept for `close`.
        `on_unsent` gets at the end of the process what could not be sent, if nobody called `close`; without it the
        error is printed.
        `close_timeout`: the seconds that `close` takes at most, where it is given none.
        """
        self._transport = client._transport  # of the same package: callers need no raw requests
        self._limits = limits or Limits()
        self._on_refused = on_refused
        self._on_unsent = on_unsent
        self._close_timeout = close_timeout
        self.forget()
        _senders.add(self)

    def forget(self) -> None:
        """Be as new, with nothing to send and no thread: for a forked process, whose parent sends what was added."""
        self._lock = threading.Lock()
        self._buffer = Buffer(self._limits)
        self._refused: list[Refused] = []
        self._failure: NotifierError | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def __len__(self) -> int:
        """Return how many events are not answered yet."""
        return len(self._buffer)

    def add(self, event: Event, *, timeout: float | None = None) -> None:
        """Take an event to be sent. Where the buffer is full, wait for room, for `timeout` seconds or for ever.

        Raises BufferFull where there is none in that time, ValueError or TypeError for what is no JSON, RuntimeError
        once closed, and what went wrong where the sender ended. In none of these cases was the event taken.
        """
        taken = prepare(event)
        self._start()
        if not self._buffer.put(taken, timeout):
            if self._failure is not None:
                raise self._failure.with_traceback(None)  # it would grow with each caller
            if self._closed:
                raise RuntimeError("this BatchSender is closed")
            raise BufferFull(f"{len(self)} events wait to be sent")

    def _start(self) -> None:
        """Start the thread, once a process."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="notifier-batch-sender", daemon=True)
                self._thread.start()
                # Either runs: processes of multiprocessing end without atexit.
                atexit.register(_at_exit, weakref.ref(self), os.getpid())
                multiprocessing_util.Finalize(self, _at_exit, (weakref.ref(self), os.getpid()), exitpriority=0)

    def flush(self, timeout: float | None = None) -> bool:
        """Send what was added before now; return whether all of it is answered within `timeout` seconds."""
        return self._buffer.flush(timeout) and self._failure is None

    def close(self, timeout: float | None = None) -> None:
        """Send the rest, for `timeout` seconds at most, and take no more.

        Raises Unsent, once, where events are left: with those that may be sent again, their idempotency keys in them,
        and those that the API refused, if there is no `on_refused`.
        """
        self._closed = True
        self._buffer.close()
        if self._thread is not None and self._failure is None:
            self._buffer.wait_until_empty(self._close_timeout if timeout is None else timeout)
        with self._lock:
            left, refused = self._buffer.drain(), self._refused
            self._refused = []
        if left or refused:
            raise Unsent(self._failure, events=[each.event for each in left], refused=refused) from self._failure

    def close_at_exit(self) -> None:
        """Close it for the last time: give what could not be sent to `on_unsent`, or raise it, to be printed."""
        try:
            self.close()
        except Unsent as error:
            if self._on_unsent is None:
                raise
            self._on_unsent(error)

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _run(self) -> None:
        """Send batches until it is closed and empty, or has ended."""
        failures = 0
        while batch := self._buffer.take():
            try:
                back, error = self._send(batch)
            except Exception as bug:  # the batch stays in flight, and `close` hands it back
                self._end(NotifierError(f"the sender's thread failed with {type(bug).__name__}"))
                raise
            self._buffer.settle(back)
            if error is not None and not _is_passing(error):
                self._end(error)
                return
            failures = failures + 1 if back else 0
            if back:
                self._buffer.pause(_pause_after(failures, error))

    def _send(self, batch: Sequence[Entry]) -> tuple[list[Entry], NotifierError | None]:
        """Post a batch, in parts where it is too large. Return those that are to be sent again, and what failed."""
        back: list[Entry] = []
        waiting = deque([list(batch)])
        while waiting:
            part = waiting.popleft()
            try:
                items = post(self._transport, [each.event for each in part])
            except NotifierError as error:
                if is_too_large(error, len(part)):
                    middle = len(part) // 2
                    waiting.extendleft([part[middle:], part[:middle]])
                    continue
                return [*back, *part, *itertools.chain.from_iterable(waiting)], error
            for each, item in zip(part, items, strict=True):
                if may_pass(item):
                    back.append(each)
                elif is_refused(item):
                    self._hand_back(each.event.event, item)
        return back, None

    def _hand_back(self, event: Event, item: BatchItem) -> None:
        """Give a refused event to whom it concerns, or keep it for `close`."""
        try:
            if self._on_refused is not None:
                self._on_refused(event, item)
                return
        except Exception:
            log.exception("on_refused failed; the event is kept for close")
        with self._lock:
            self._refused.append((event, item))
        if len(self._refused) >= self._limits.capacity:
            self._end(NotifierError(f"{len(self._refused)} events were refused, and nobody takes them (on_refused)"))

    def _end(self, error: NotifierError) -> None:
        """Send no more: whoever adds hears why, and `close` hands back what is left."""
        self._failure = error
        self._buffer.stop()


def _pause_after(failures: int, error: NotifierError | None) -> float:
    """Return the seconds until a batch is sent again, after so many failures in a row."""
    asked_for = min(getattr(error, "retry_after", None) or 0.0, _LONGEST_RETRY_AFTER)
    most = doubled(_FIRST_PAUSE, failures - 1, _LONGEST_PAUSE)
    return asked_for + random.uniform(0, most)  # noqa: S311 -- spreads load, and guards nothing


def _is_passing(error: NotifierError) -> bool:
    """Return whether the same batch may go out later."""
    if isinstance(error, NoAnswer):
        return error.may_pass
    return isinstance(error, ApiError) and (error.status in RETRIED or error.status >= 500)


def _at_exit(reference: "weakref.ref[BatchSender]", process: int) -> None:
    """Close a sender at the end of its process."""
    sender = reference()
    if sender is not None and process == os.getpid():
        sender.close_at_exit()


#: All senders of this process.
_senders: "weakref.WeakSet[BatchSender]" = weakref.WeakSet()


def _forget_in_child() -> None:
    """Empty the senders of a forked process: their events are the parent's, which sends them, and so is the thread."""
    for sender in list(_senders):
        sender.forget()


os.register_at_fork(after_in_child=_forget_in_child)
