"""One event for many: python -m benchmarks.fan_out [--subscriptions 10000] [--rounds 3] [--connections 4] [--json].

Posts one event without a recipient that many webhook subscriptions listen to, all at one receiver under paths of their
own: how long until the first has it, until all have it, and deliveries a second. The yardstick of each round is as many
events that name one URL, posted 500 a request; beside it stand as many that name those same URLs.

Limits that apply: a subscription has no rate limit unless it asks for one (`rate_limit_per_second`), so none waits as
throttled; breakers open after five failures in a row, and this receiver answers 204 to everything. A worker has 64
requests in flight in each of its 4 threads (NOTIFIER_WORKER_CONCURRENCY). All loads have the same of each. An event is
fanned out in transactions of at most 5,000 notifications. A subscription signs with a secret of its own, which is
decrypted for every delivery; direct webhooks sign with a key derived for the host.
"""

import argparse
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import requests
from rich.table import Table

from benchmarks.main_path import DRAIN, measure_load
from benchmarks.output import progress, show
from benchmarks.stack import bench_folder, granian, stack
from deploy.child_process import wait_until

BATCH: Final = 500
#: Subscriptions that hear of the event by which everything gets warm.
WARM: Final = 100
_LISTENED: Final = "bench.fan_out"
_WARMING: Final = "bench.warm"
_SUBSCRIBERS: Final = 8


def _subscribe(url: str, receiver: str, subscriptions: int) -> float:
    """Make the subscriptions over a few connections; returns the seconds that took."""
    began, own = time.time(), threading.local()

    def subscribe(number: int) -> None:
        if not hasattr(own, "http"):
            own.http = requests.Session()
        types = [_LISTENED, _WARMING] if number < WARM else [_LISTENED]
        body = {"url": f"{receiver}/at/{number}", "event_types": types}
        own.http.post(f"{url}/api/v1/subscriptions", json=body, timeout=60).raise_for_status()

    threads = ThreadPoolExecutor(_SUBSCRIBERS)
    try:
        with progress() as bars:
            for _ in bars.track(threads.map(subscribe, range(subscriptions)), subscriptions, description="subscribe"):
                pass
    finally:
        threads.shutdown(cancel_futures=True)
    return time.time() - began


def _fan_out(url: str, receiver: str, event_type: str, subscriptions: int) -> dict[str, Any]:
    """Post one event, and wait until all subscriptions have it."""
    requests.get(f"{receiver}/reset", timeout=10).raise_for_status()
    event = {"event_type": event_type, "payload": {"order_id": "A123", "amount": 12.5}}
    posted = time.time()
    requests.post(f"{url}/api/v1/events", json=event, timeout=60).raise_for_status()
    accepted = time.time()
    wait_until(lambda: bool(requests.get(receiver, timeout=60).json()["count"] >= subscriptions), DRAIN)
    came = requests.get(f"{receiver}/all", timeout=60).json()
    arrived = sorted(came["arrived"].values()) or [float("inf")]
    return {
        "accepted_after": accepted - posted,
        "first_after": arrived[0] - posted,
        "half_after": arrived[len(arrived) // 2] - posted,
        "all_after": arrived[-1] - posted,
        "rate": len(came["arrived"]) / (arrived[-1] - posted),
        "lost": subscriptions - len(came["arrived"]),
        "duplicates": came["requests"] - len(came["arrived"]),
    }


def _to_one(url: str, receiver: str, events: int, connections: int, **how: Any) -> dict[str, Any]:
    size = {"seconds": DRAIN, "connections": connections, "batch": BATCH, "most": events}
    return measure_load(f"{url}/api/v1/events/batch", receiver, **size, **how)


def _to_own(url: str, receiver: str, events: int, connections: int) -> dict[str, Any]:
    def members(number: int) -> dict[str, object]:
        return {"recipient": f"{receiver}/at/{number}", "channel": "webhook"}

    return _to_one(url, receiver, events, connections, members=members)


def _ratio(rounds: list[dict[str, Any]], yardstick: str) -> float:
    """Return the median over the rounds of the deliveries a second of the fan-out to those of a yardstick."""
    return float(statistics.median(each["fan_out"]["rate"] / each[yardstick]["end_to_end"] for each in rounds))


def measure(subscriptions: int, rounds: int, connections: int) -> dict[str, Any]:
    """Every figure of one run."""
    with (
        bench_folder() as folder,
        granian(folder, "rsgi", "benchmarks.receiver:app") as receiver,
        stack(folder) as url,
    ):
        took = _subscribe(url, receiver, subscriptions)
        _to_one(url, receiver, BATCH, connections)
        _fan_out(url, receiver, _WARMING, min(WARM, subscriptions))
        done = [
            {
                "fan_out": _fan_out(url, receiver, _LISTENED, subscriptions),
                "one_url": _to_one(url, receiver, subscriptions, connections),
                "own_urls": _to_own(url, receiver, subscriptions, connections),
            }
            for _ in range(rounds)
        ]
    return {
        "subscriptions": subscriptions,
        "subscribed_a_second": subscriptions / took,
        "first_after": max(each["fan_out"]["first_after"] for each in done),
        "all_after": statistics.median(each["fan_out"]["all_after"] for each in done),
        "ratio": _ratio(done, "one_url"),
        "ratio_own_urls": _ratio(done, "own_urls"),
        "rounds": done,
    }


def _table(figures: dict[str, Any]) -> Table:
    title = (
        f"One event for {figures['subscriptions']:,} subscriptions: × {figures['ratio']:.2f} of as many events,"
        f" × {figures['ratio_own_urls']:.2f} where they have URLs of their own;"
        f" the first after {figures['first_after']:.2f} s at worst"
    )
    table = Table("round", title=title, title_justify="left")
    rates = ("deliveries/s", "direct/s", "to own URLs/s")
    for column in ("first after s", "half", "all", *rates, "lost", "duplicates", "refused"):
        table.add_column(column, justify="right")
    for place, each in enumerate(figures["rounds"], 1):
        fanned, direct = each["fan_out"], (each["one_url"], each["own_urls"])
        table.add_row(
            str(place),
            *(f"{fanned[key]:.2f}" for key in ("first_after", "half_after", "all_after")),
            f"{fanned['rate']:,.0f}",
            *(f"{load['end_to_end']:,.0f}" for load in direct),
            *(str(sum(load[key] for load in (fanned, *direct))) for key in ("lost", "duplicates")),
            str(sum(load["refused"] for load in direct)),
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscriptions", type=int, default=10_000, help="in full batches of 500")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=4, help="that post batches")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.subscriptions, options.rounds, options.connections)
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
