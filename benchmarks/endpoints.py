"""Sick endpoints: python -m benchmarks.endpoints [--endpoints 200] [--events 100] [--rate 2] [--addressed].

Does a twentieth of all endpoints that hang until the timeout slow down the others? Every event goes to all endpoints.
Measured without and with hanging ones, in one run, and always of the same endpoints, those that never hang: webhooks a
second while a crowd of events is worked off, and how long they take at a steady rate.
"""

import argparse
import time
from typing import Any

import requests
from rich.table import Table

from benchmarks.output import show
from benchmarks.stack import bench_folder, granian, stack
from deploy.child_process import wait_until
from notifier.security.secret_box import new_key

DRAIN = 300.0
#: Of each twenty endpoints one hangs.
SHARE = 20


class Bench:
    """A stack with subscriptions to all endpoints of a receiver."""

    def __init__(self, url: str, receiver: str, endpoints: int, *, addressed: bool) -> None:
        self._url = url
        self._receiver = receiver
        self._http = requests.Session()
        self._next = 0
        self.hanging = max(1, endpoints // SHARE)
        #: Endpoints that hang in one measurement or the other come first.
        self.healthy = range(2 * self.hanging, endpoints)
        self._addressed = [f"{receiver}/{endpoint}" for endpoint in range(endpoints)] if addressed else []
        for endpoint in range(0 if addressed else endpoints):
            self._post("subscriptions", {"url": f"{receiver}/{endpoint}", "event_types": ["bench"]})

    def _post(self, path: str, body: Any) -> None:
        self._http.post(f"{self._url}/api/v1/{path}", json=body, timeout=60).raise_for_status()

    def _post_events(self, count: int) -> None:
        numbers = range(self._next, self._next + count)
        self._next += count
        to: list[dict[str, Any]] = [{"recipient": each, "channel": "webhook"} for each in self._addressed] or [{}]
        events = [{"event_type": "bench", "payload": {"n": number}, **each} for number in numbers for each in to]
        for start in range(0, len(events), 1000):
            self._post("events/batch", {"events": events[start : start + 1000]})

    def _arrived(self) -> dict[tuple[int, int], float]:
        """When each event came to each healthy endpoint for the first time."""
        came: dict[tuple[int, int], float] = {}
        for endpoint, number, at in requests.get(f"{self._receiver}/all", timeout=60).json()["arrived"]:
            if endpoint in self.healthy:
                came.setdefault((endpoint, number), at)
        return came

    def _drained(self, first: int) -> dict[tuple[int, int], float]:
        """Wait for the webhooks of the events from a number on, and return when each came."""
        wanted = len(self.healthy) * (self._next - first)
        came: dict[tuple[int, int], float] = {}

        def all_there() -> bool:
            time.sleep(0.3)  # asking costs the machine more than it tells
            if requests.get(self._receiver, timeout=60).json()["count"] >= wanted:
                came.update({key: at for key, at in self._arrived().items() if key[1] >= first})
            return len(came) >= wanted

        wait_until(all_there, DRAIN)
        return came or {key: at for key, at in self._arrived().items() if key[1] >= first}

    def hang(self, which: range) -> None:
        """Let these endpoints hang, and forget what came."""
        requests.get(f"{self._receiver}/hang/{which.start}/{which.stop}", timeout=10).raise_for_status()

    def crowd(self, events: int) -> dict[str, float]:
        """Work off a crowd of events."""
        first, begun = self._next, time.time()
        self._post_events(events)
        came = self._drained(first)
        return {
            "a second": len(came) / (max(came.values()) - begun),
            "lost": len(self.healthy) * events - len(came),
        }

    def steady(self, seconds: float, rate: float) -> dict[str, float]:
        """Post events at a rate."""
        first, begun = self._next, time.time()
        posted: dict[int, float] = {}
        for place in range(int(seconds * rate)):
            due = begun + place / rate
            time.sleep(max(0.0, due - time.time()))
            posted[self._next] = due
            self._post_events(1)
        came = self._drained(first)
        took = sorted((at - posted[number]) * 1000 for (_, number), at in came.items())
        return {
            **{f"p{share}": took[min(len(took) - 1, len(took) * share // 100)] for share in (50, 95, 99)},
            "worst": took[-1],
            "lost": len(self.healthy) * len(posted) - len(came),
        }


def measure(endpoints: int, events: int, seconds: float, rate: float, *, addressed: bool) -> dict[str, Any]:
    """Every figure of one run."""
    with (
        bench_folder() as folder,
        granian(folder, "rsgi", "benchmarks.hanging_receiver:app") as receiver,
        stack(folder, NOTIFIER_SECRET_KEY=new_key()) as url,
    ):
        bench = Bench(url, receiver, endpoints, addressed=addressed)
        none, some, others = range(0), range(bench.hanging), range(bench.hanging, 2 * bench.hanging)
        bench.hang(none)
        bench.steady(3, rate)
        figures: dict[str, Any] = {"hanging": bench.hanging}
        # Each time they hang others begin to, that nobody has learnt yet to keep away from.
        for what, which in (("without", none), ("with", some)):
            bench.hang(which)
            figures[f"crowd {what}"] = bench.crowd(events)
        for what, which in (("without", none), ("with", others)):
            bench.hang(which)
            figures[f"steady {what}"] = bench.steady(seconds, rate)
        figures["ratio"] = figures["crowd with"]["a second"] / figures["crowd without"]["a second"]
        return figures


def _table(figures: dict[str, Any]) -> Table:
    table = Table("", title=f"Throughput with hanging endpoints: × {figures['ratio']:.2f}", title_justify="left")
    for column in ("webhooks/s", "p50 ms", "p95", "p99", "worst", "lost"):
        table.add_column(column, justify="right")
    for what, title in (("without", "all answer"), ("with", f"{figures['hanging']} hang")):
        crowd, steady = figures[f"crowd {what}"], figures[f"steady {what}"]
        late = (f"{steady[key]:,.0f}" for key in ("p50", "p95", "p99", "worst"))
        table.add_row(title, f"{crowd['a second']:,.0f}", *late, f"{crowd['lost'] + steady['lost']:,}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=200)
    parser.add_argument("--events", type=int, default=100, help="in the crowd")
    parser.add_argument("--seconds", type=float, default=45, help="at the steady rate; over the timeout of 30 s")
    parser.add_argument("--rate", type=float, default=2, help="events a second, each to all endpoints")
    parser.add_argument("--addressed", action="store_true", help="events that name the URLs, and no subscriptions")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.endpoints, options.events, options.seconds, options.rate, addressed=options.addressed)
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
