"""The clock's tasks, which beat sends, and the signs of life of worker processes."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, TypeVar

import structlog
from celery import shared_task
from celery.signals import worker_init, worker_ready, worker_shutting_down
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import SQLAlchemyError

from config.queues import is_own_queue
from config.wiring import wiring
from notifier import migrations
from notifier.notifications import delivery_receipts, holds
from notifier.observability import heartbeats, metrics
from notifier.people import erasure
from notifier.providers import breakers, rate_limits
from notifier.resending import dead_letter_acts, recovery
from notifier.runtime import memory
from notifier.runtime.isolation import contained, is_away, kind_of
from notifier.runtime.threads import start_lasting
from notifier.scheduling import clock_work, next_channel
from notifier.scheduling.clock_work import ClockWork, Part
from notifier.scheduling.due import hand_over
from notifier.storage import retention
from notifier.storage.deadlines import bound, patiently
from notifier.storage.partitions import make_partitions as make_missing_partitions
from notifier.vocabulary.queues import DELIVERY, FAN_OUT, channel_of, handover_queue
from notifier.vocabulary.states import ALL_CHANNELS
from notifier.webhooks import endpoint_health, release_waiting
from tasks import app, watchdog
from tasks.hints import LEASE, publish, room
from tasks.queue_depth import depth
from tasks.statistics import MinuteCounting

log = structlog.get_logger()

Done = TypeVar("Done")

#: A tick hands over for at most this long, in seconds; the next one goes on.
_TICK: Final = 0.9
#: Batches of recoveries that a tick does.
_RECOVERIES: Final = 5
#: Seconds for which a tick begins batches of acts on dead letters.
_ACTS: Final = 0.25

#: Seconds that the server has for a statement of a worker, and seconds until its connection is given up. Longer than
#: locks are held by anybody who means well.
_STATEMENT: Final = 25.0
_ANSWER: Final = 30.0

#: A purge goes on for at most this long, in seconds.
_PURGE: Final = 600.0

#: Between two batches of an erasure, in seconds at the most.
_LONGEST_REST: Final = 1.0

_erasing = threading.Lock()
_counting = MinuteCounting()


# It sends no events to Flower, where one a second would bury the deliveries.
@shared_task(name="tasks.hand_over_due", send_events=False)
def hand_over_due() -> None:
    """Hand over due rows, queue by queue in turns, while the queues have room and the tick has time."""
    try:
        with metrics.timed(metrics.TICK_SECONDS):
            _tick()
        heartbeats.sign(wiring().engine, heartbeats.CLOCK, heartbeats.CLOCK)
    except SQLAlchemyError as error:
        if not is_away(error):
            raise
        metrics.TICKS_FAILED.inc()
        log.warning("tick_failed", error=kind_of(error))
    except (BrokerError, *app.connection_for_write().recoverable_connection_errors) as error:
        metrics.TICKS_FAILED.inc()
        log.warning("tick_failed", error=type(error).__name__)


def _tick() -> None:
    wires = wiring()
    until = time.monotonic() + _TICK
    work = _look()
    done = {part: _step(part, do) for part, do in _parts().items() if part in work.parts}
    _step("statistics", partial(_counting.begin_if_due, wires.engine, _stopping))
    # They have made rows due.
    queues = (_look() if any(done.values()) else work).queues
    handed_over = 0
    with app.producer_or_acquire() as producer:
        rooms = {queue: room(producer.connection, handover_queue(queue)) for queue in queues}
        # Once in any case: what came before may have taken all of the time, and would again.
        while any(rooms.values()):
            for queue in [queue for queue, left in rooms.items() if left > 0]:
                lease = LEASE + depth(producer.connection, handover_queue(queue))
                policy = None if queue == FAN_OUT else wires.settings.of(channel_of(queue)).retry_policy
                give = partial(hand_over, wires.engine, queue, rooms[queue], lease, policy)
                messages = _step(f"hand_over {queue}", give) or []
                publish(app, [replace(each, queue=handover_queue(queue)) for each in messages], producer)
                rows = sum(len(message.ids) for message in messages)
                metrics.HANDOVERS.labels(queue).inc(rows)
                handed_over += rows
                rooms[queue] = rooms[queue] - len(messages) if messages else 0
            if time.monotonic() > until:
                break
    if handed_over or any(done.values()):
        log.info(
            "handed_over",
            rows=handed_over,
            queues=list(queues),
            released=done.get(Part.HOLDS, 0),
            next_channels=done.get(Part.NEXT_CHANNELS, 0),
            recovered=done.get(Part.RECOVERIES, 0),
            requeued=done.get(Part.DEAD_LETTER_ACTS, 0),
            let_go=sum(done.get(each, 0) for each in (Part.ENDPOINTS, Part.PROVIDERS, Part.LINES)),
            receipts=done.get(Part.RECEIPTS, 0),
        )


def _look() -> ClockWork:
    """Look for work. Where that fails, everything may have some."""
    queues = [*DELIVERY, FAN_OUT]
    return _step("look", partial(clock_work.look, wiring().engine, queues)) or ClockWork.all_of(queues)


def _parts() -> dict[Part, Callable[[], int]]:
    """Return how each part of a tick is done, in their order; each tells how many rows it has changed."""
    wires = wiring()
    return {
        Part.HOLDS: partial(holds.free_released, wires.engine),
        Part.NEXT_CHANNELS: partial(next_channel.take_over, wires.engine, wires.planner(lambda _: LEASE)),
        Part.ENDPOINTS: partial(release_waiting.release, wires.engine),
        Part.PROVIDERS: partial(breakers.release, wires.engine),
        Part.LINES: partial(rate_limits.move_up, wires.engine),
        Part.RECOVERIES: _go_on_recovering,
        Part.DEAD_LETTER_ACTS: _go_on_with_acts,
        Part.ERASURES: _begin_erasing,
        Part.RECEIPTS: partial(delivery_receipts.apply_waiting, wires.engine, wires.senders),
    }


def _step(name: str, work: Callable[[], Done]) -> Done | Literal[0]:
    """Do one part of a tick. An error in it, from a row's data or our code, does not stop the other parts."""
    try:
        return contained(work)
    except Exception as error:
        if is_away(error):
            raise
        metrics.TICKS_FAILED.inc()
        log.warning("tick_step_failed", step=name, error=kind_of(error))
        return 0


def _begin_erasing() -> int:
    """Continue erasures in a thread, unless one runs already: they read every table, which would delay ticks."""
    if _erasing.acquire(blocking=False):
        threading.Thread(target=patiently()(_erase), name="erasures", daemon=True).start()
    return 0


def _erase() -> None:
    """Continue erasures while any are unfinished. Safe to interrupt anywhere."""
    wires = wiring()
    try:
        began = time.monotonic()
        while not _stopping.is_set() and erasure.go_on(wires.engine, wires.vault):
            # Leave half of the time to others.
            time.sleep(min(time.monotonic() - began, _LONGEST_REST))
            began = time.monotonic()
    except BaseException as error:
        log.warning("erasures_failed", error=kind_of(error))
    finally:
        _erasing.release()


def _go_on_recovering() -> int:
    """Do the next batches of recoveries; returns the number of rows that became due."""
    done = 0
    for _ in range(_RECOVERIES):
        hints = recovery.go_on(wiring().engine, lambda _: 0, standards=wiring().standards)
        if hints is None:
            break
        done += len(hints)
    return done


def _go_on_with_acts() -> int:
    """Do the next batches of acts on dead letters; returns the number of rows that became due."""
    until, due = time.monotonic() + _ACTS, 0
    while time.monotonic() < until:
        hints = dead_letter_acts.go_on(wiring().engine, lambda _: 0, standards=wiring().standards)
        if hints is None:
            break
        due += len(hints)
    return due


@shared_task(name="tasks.make_partitions")
@patiently()
def make_partitions() -> None:
    """Create the partitions of the coming days, and forget endpoints that have recovered."""
    made = make_missing_partitions(wiring().engine)
    forgotten = endpoint_health.delete_healthy(wiring().engine)
    if made or forgotten:
        log.info("kept_house", partitions=made, endpoints_forgotten=forgotten)


@shared_task(name="tasks.purge")
def purge() -> None:
    """Purge old rows in a thread, unless one runs already: this worker's one thread is for ticks."""
    if _purging.acquire(blocking=False):
        threading.Thread(target=patiently()(_purge), name="purge", daemon=True).start()


def _purge() -> None:
    """Purge until nothing is left or time is up; the next hour continues. Safe to interrupt anywhere."""
    wires, until = wiring(), time.monotonic() + _PURGE
    dropped: list[str] = []
    compacted: dict[str, int] = {}
    deleted: Counter[str] = Counter()
    try:
        for step in retention.purge(wires.engine, wires.retention):
            if step.kept is not None:
                compacted[step.table] = step.kept
            elif step.rows is None:
                dropped.append(step.table)
            else:
                deleted[step.table] += step.rows
            if time.monotonic() > until or _stopping.is_set():
                break
    except retention.PurgedElsewhere:
        pass
    except BaseException as error:
        log.warning("purge_failed", error=kind_of(error))
    finally:
        _purging.release()
    if dropped or compacted or deleted.total():
        log.info(
            "purged", dropped=dropped, kept=compacted, deleted={table: rows for table, rows in deleted.items() if rows}
        )


_purging = threading.Lock()
_stopping = threading.Event()


@worker_init.connect
def _begin(**_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    """Prepare the worker, before it takes its first message."""
    bound(wiring().engine, _ANSWER, statement=_STATEMENT)
    _wait_for_migrations()
    _hold_if_asked()


def _wait_for_migrations() -> None:
    """Wait while the database lacks a migration of this release: sends could not be recorded in it."""
    while True:
        try:
            missing = migrations.pending(wiring().engine)
        except SQLAlchemyError:
            return  # Postgres is away: each message finds that out for itself
        if missing is None:
            return
        log.warning("not_migrated", missing=missing, run="manage.py migrate")
        time.sleep(heartbeats.INTERVAL)


def _hold_if_asked() -> None:
    """Place the hold of NOTIFIER_HOLD before the first message; wait for Postgres as long as needed."""
    if not wiring().settings.hold:
        return
    while True:
        try:
            is_new = holds.hold(wiring().engine, ALL_CHANNELS, "NOTIFIER_HOLD")
        except SQLAlchemyError as error:
            log.warning("hold_failed", error=kind_of(error))
            time.sleep(heartbeats.INTERVAL)
        else:
            log.warning("held" if is_new else "held_already", target=ALL_CHANNELS, until="manage.py release")
            return


@worker_ready.connect
def _start_heartbeat(sender: Any, **_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    queues = sorted(queue.name for queue in sender.task_consumer.queues if not is_own_queue(queue.name))
    start_lasting("heartbeat", partial(_sign_for_ever, sender.hostname, queues))
    if watchdog.own is not None:
        watchdog.own.start()
    memory.settle()


@worker_shutting_down.connect
def _stop_heartbeat(**_: Any) -> None:  # noqa: ANN401 -- a signal's arguments
    _stopping.set()
    if watchdog.own is not None:
        watchdog.own.stop()


def _sign_for_ever(name: str, queues: list[str]) -> None:
    engine, providers = wiring().engine, wiring().provider_names
    while True:
        try:
            if watchdog.own is not None and watchdog.own.is_stuck:
                return None  # it signs that itself, to its end
            if _stopping.is_set():
                return heartbeats.sign_off(engine, name)
            heartbeats.sign(engine, name, heartbeats.WORKER, queues, providers)
            if watchdog.own is not None:
                watchdog.own.signed()
        except SQLAlchemyError as error:
            log.warning("heartbeat_failed", error=kind_of(error))
        _stopping.wait(heartbeats.INTERVAL)
