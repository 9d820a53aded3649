"""Metrics of a process: the API serves them at GET /metrics, each worker on its metrics address.

A name says what is counted and in which unit. A label is one of a few words that the code or the settings know: never
an id, an address, a user, an event type or a URL. The exporter (deploy/exporter.py) reads shared state (queues,
breakers, dead letters) from Postgres and the broker. docs/metrics.md lists all metrics.

Counters are increased for a batch or a group at once, after its commit.
"""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, PlatformCollector, ProcessCollector

from notifier import VERSION
from notifier.vocabulary.states import FINISHED, Status

#: Stands where a notification has no channel: nobody can be reached.
NONE: Final = "none"

# A second series for each counter, with its creation time, would double the size of a scrape.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library is untyped there

#: Of this process. Not the library's default one, which Flower shows as its own.
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SENDING: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# An alert asks for 3 s (deploy/prometheus/alerts.yml): with a bucket that ends there it need not guess.
_WAITING: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 900, 3600)
_RECEIPTS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


def _counter(name: str, words: str, *labels: str) -> Counter:
    return Counter(name, words, labels, registry=REGISTRY)


def _histogram(name: str, words: str, *labels: str, buckets: tuple[float, ...] = _QUICK) -> Histogram:
    return Histogram(name, words, labels, buckets=buckets, registry=REGISTRY)


def build_info(registry: CollectorRegistry) -> None:
    """Say in a registry which version runs."""
    Info("notifier_build", "The version that runs.", registry=registry).info({"version": VERSION})


build_info(REGISTRY)

# --- The API

REQUEST_SECONDS: Final = _histogram(
    "notifier_http_request_seconds",
    "HTTP requests, by route template, method and class of status.",
    *("route", "method", "code"),
)
EVENTS_ACCEPTED: Final = _counter("notifier_events_accepted_total", "Events that were committed.")
NOTIFICATIONS_ACCEPTED: Final = _counter(
    "notifier_notifications_accepted_total", "Notifications without an event that were committed.", "channel"
)
DUPLICATES: Final = _counter(
    "notifier_duplicates_total", "Events and requests for notifications that repeated an earlier one by their key."
)
EVENTS_REJECTED: Final = _counter(
    "notifier_events_rejected_total",
    "Events, and whole requests that should have brought some, that were refused, by the status of the problem.",
    "status",
)
NOTIFICATIONS_REJECTED: Final = _counter(
    "notifier_notifications_rejected_total",
    "Requests for notifications that were refused, by the status of the problem.",
    "status",
)
GROUP_SIZE: Final = _histogram(
    "notifier_intake_group_size", "Events and requests for notifications that shared one commit.", buckets=_SIZES
)
GROUP_SECONDS: Final = _histogram("notifier_intake_commit_seconds", "How long one group took to be committed.")
HINTS_DROPPED: Final = _counter(
    "notifier_hints_dropped_total", "Rows of which the workers could not be told at once; the clock hands them over."
)

# --- Outcomes of notifications

NOTIFICATIONS: Final = _counter(
    "notifier_notifications_total",
    "Notifications that came to this status: finished, or scheduled once more by a rule.",
    *("channel", "status", "reason"),
)
ATTEMPTS: Final = _counter(
    "notifier_attempts_total", "Calls to providers, by their outcome.", "channel", "provider", "outcome"
)
RETRIES: Final = _counter("notifier_retries_total", "Notifications that failed for now and wait.", "channel")
DEAD_LETTERS: Final = _counter("notifier_dead_letters_total", "Dead letters that were written.", "channel", "reason")
DELIVERY_LATENCY: Final = _histogram(
    "notifier_delivery_latency_seconds",
    "From the moment a notification may go to the moment its provider accepted it.",
    "channel",
    buckets=_WAITING,
)
RECEIPT_LATENCY: Final = _histogram(
    "notifier_receipt_latency_seconds",
    "From a provider's acceptance to the moment at which its receipt says it was delivered.",
    "channel",
    buckets=_RECEIPTS,
)

# --- Workers

BATCH_SIZE: Final = _histogram(
    "notifier_batch_size", "Notifications that were claimed at once.", "channel", buckets=_SIZES
)
BATCH_SECONDS: Final = _histogram(
    "notifier_batch_seconds",
    "How long a batch held its thread, from its claim on.",
    "channel",
    buckets=_SENDING,
)
STEP_SECONDS: Final = _histogram(
    "notifier_batch_step_seconds",
    "Steps of a batch: claim and gate once, compose and record as often as there is something to do.",
    *("channel", "step"),
)
SEND_SECONDS: Final = _histogram(
    "notifier_send_seconds", "How long a provider took for one call.", "channel", "provider", buckets=_SENDING
)
FAN_OUT_SECONDS: Final = _histogram("notifier_fan_out_seconds", "How long the fan-out of a batch of events took.")
BREAKER_TRANSITIONS: Final = _counter(
    "notifier_breaker_transitions_total",
    "Breakers of providers that came to this state: open, half_open or closed.",
    *("channel", "provider", "state"),
)
CANARY_WAIT: Final = _histogram(
    "notifier_canary_wait_seconds",
    "How long the exporter's canaries were under way to a worker; both clocks count.",
    "queue",
    buckets=_WAITING,
)

# --- The clock

HANDOVERS: Final = _counter("notifier_handovers_total", "Rows that the clock handed over to the workers.", "queue")
LOST_ROWS: Final = _counter(
    "notifier_lost_rows_total", "Rows that the clock took back from workers that were gone.", "queue"
)
TICK_SECONDS: Final = _histogram("notifier_tick_seconds", "How long a tick of the clock took.")
TICKS_FAILED: Final = _counter("notifier_ticks_failed_total", "Ticks that Postgres, the broker or an error cut short.")


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Observe how long the block takes, however it ends."""
    began = perf_counter()
    try:
        yield
    finally:
        histogram.observe(perf_counter() - began)


def begin(counter: Counter, labels: Iterable[tuple[str, ...]]) -> None:
    """Begin the counters that alerts watch at 0: Prometheus sees no increase in a counter's first value."""
    for values in labels:
        counter.labels(*values)


def count(counter: Counter, labels: Iterable[tuple[str, ...]]) -> None:
    """Count one for each set of labels, each of those sets at once."""
    for values, times in Tally(labels).items():
        counter.labels(*values).inc(times)


def count_finished(rows: Iterable[Mapping[str, Any]]) -> None:
    """Count the rows of new notifications that are finished as they are made: skipped or expired."""
    finished = (row for row in rows if row["status"] in FINISHED and row["status"] != Status.CANCELLED)
    count(NOTIFICATIONS, ((row["channel"] or NONE, row["status"], row.get("reason") or "") for row in finished))
