"""The exporter: gauges of shared state, read from Postgres and the broker at each scrape.

One process is enough, however many scrape it: what was read is kept for some seconds, and longer where reading took
long, so that no more than a twentieth of the time goes into it. Once a minute it sends a canary through every queue.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import structlog
from kombu.exceptions import OperationalError as BrokerError
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from config.queues import ALL, WORKERS
from config.wiring import Wiring
from notifier.observability import gauges, metrics
from notifier.observability.gauges import SystemSnapshot
from notifier.runtime.threads import start_lasting
from notifier.vocabulary.states import LIVE, Channel
from tasks import app, canary
from tasks.queue_depth import depth

log = structlog.get_logger()

#: Readings stay valid for so many seconds, and for so many times as long as reading took.
_FRESH: Final = 3.0
_TIMES: Final = 20

#: The values of labels, as a tuple → a gauge's value.
Values = Mapping[Any, float]

_NOTHING: Final = SystemSnapshot({}, {}, 0, {}, {}, frozenset(), [], None, {}, 0)


def _gauge(name: str, words: str, labels: tuple[str, ...], values: Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _single(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, value=value)


class Standings(Collector):
    """Collects the gauges; one that cannot be read now is left out, and `_up` says so."""

    def __init__(self, wires: Wiring) -> None:
        """Raises SettingsError where there is no database."""
        self._engine: Engine = wires.engine
        self._reading = threading.Lock()
        self._kept: list[GaugeMetricFamily] = []
        self._good_until = 0.0
        #: Seconds until the next reading.
        self._pause = _FRESH

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges, at most some seconds old."""
        with self._reading:
            if time.monotonic() >= self._good_until:
                self._pause = _FRESH
                self._kept = [*self._of_postgres(), *self._of_the_broker()]
                self._good_until = time.monotonic() + self._pause
            kept = self._kept
        yield from kept

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges without values."""
        yield from (*_postgres_gauges(_NOTHING), *_broker_gauges({}))

    def _of_postgres(self) -> Iterator[GaugeMetricFamily]:
        began = time.monotonic()
        try:
            standing = gauges.read(self._engine)
        except SQLAlchemyError as error:
            log.warning("postgres_not_read", error=type(getattr(error, "orig", None) or error).__name__)
            yield _up("postgres", is_up=False)
            return
        self._pause = max(_FRESH, _TIMES * (time.monotonic() - began))
        yield from _postgres_gauges(standing)

    def _of_the_broker(self) -> Iterator[GaugeMetricFamily]:
        try:
            with app.connection_for_write() as connection:
                depths = {(queue,): float(depth(connection, queue)) for queue in ALL}
        except (BrokerError, *app.connection_for_write().recoverable_connection_errors) as error:
            log.warning("broker_not_read", error=type(error).__name__)
            yield _up("broker", is_up=False)
            return
        yield from _broker_gauges(depths)


def _up(what: str, *, is_up: bool) -> GaugeMetricFamily:
    return _single(f"notifier_{what}_up", f"Whether the exporter could read {what}.", is_up)


def _broker_gauges(depths: Values) -> Iterator[GaugeMetricFamily]:
    yield _up("broker", is_up=True)
    yield _gauge("notifier_queue_messages", "Messages in a queue of the broker; 64 at the most.", ("queue",), depths)


def _postgres_gauges(found: SystemSnapshot) -> Iterator[GaugeMetricFamily]:
    yield _up("postgres", is_up=True)
    yield _gauge(
        "notifier_queue_oldest_due_seconds",
        "For how long the row of a queue that is due first has been due; 0 where none is.",
        ("queue",),
        {(queue,): late for queue, late in found.lateness.items()},
    )
    yield _single(
        "notifier_scheduler_lag_seconds",
        "The most of that over all queues: how far the clock is behind.",
        max(found.lateness.values(), default=0),
    )
    none = {(channel.value, status.value): 0 for channel in Channel for status in LIVE}
    yield _gauge(
        "notifier_live_notifications", "Notifications not finished.", ("channel", "status"), {**none, **found.live}
    )
    yield _single("notifier_live_events", "Events that wait for their fan-out.", found.events)
    yield _gauge(
        "notifier_dead_letters",
        "Dead letters that stand: neither requeued nor purged.",
        ("channel", "reason"),
        found.letters,
    )
    yield _gauge(
        "notifier_breaker_state",
        "0 closed, 1 half open, 2 open.",
        ("channel", "provider"),
        # One that does well has no row, and one that is set no longer may have one: the workers know which are set.
        {pair: found.breakers.get(pair, 0) for pair in found.providers},
    )
    yield _single("notifier_holds", "Holds that stand.", found.holds)
    yield from _signs_of_life(found)


def _signs_of_life(found: SystemSnapshot) -> Iterator[GaugeMetricFamily]:
    yield _gauge(
        "notifier_workers_alive",
        "Worker processes that were seen lately, by the lane that they serve.",
        ("lane",),
        {(role,): sum(each >= set(queues) for each in found.workers) for role, queues in WORKERS.items()},
    )
    yield _single(
        "notifier_workers_stuck",
        "Workers that were found to take no messages in the last 5 minutes, and ended themselves.",
        len(found.stuck),
    )
    yield _gauge(
        "notifier_clock_last_tick_age_seconds",
        "Seconds since a clock ticked last; missing where none has.",
        (),
        {} if found.tick_age is None else {(): found.tick_age},
    )
    yield _gauge(
        "notifier_canary_age_seconds",
        "Seconds since a canary arrived through a queue; one is sent each minute. Missing where none has.",
        ("queue",),
        {(queue,): age for queue, age in found.canaries.items()},
    )


def registry_of(wires: Wiring) -> CollectorRegistry:
    """Return the registry that the exporter serves. Raises SettingsError without a database."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics.build_info(registry)
    registry.register(Standings(wires))
    return registry


def send_canaries() -> None:
    """Send canaries for ever, from a thread that ends with the process."""

    def send() -> None:
        while True:
            try:
                canary.send(app)
            except BaseException as error:
                # Whatever it is, the gauges must go on; a canary that does not come tells of it.
                log.warning("canaries_not_sent", error=type(error).__name__)
            time.sleep(canary.INTERVAL)

    start_lasting("canaries", send)
