"""The first provider is down: python -m benchmarks.failover [--messages 2000] [--rate 200] [--hang].

Posts SMS at a steady rate while the first of two providers answers 503 (or hangs, and its messages go to the next
one all the same), counts at the second what came, how often and how late, and then lets the first one recover: how long
until it is used again.
"""

import argparse
import time
from collections import Counter
from typing import Any

import requests
from rich.table import Table

from benchmarks.output import show
from benchmarks.stack import bench_folder, granian, stack
from deploy.child_process import wait_until

DRAIN = 60.0
#: Events in one request.
BATCH = 20


def _number(place: int) -> str:
    return f"+1555{place:07}"


class Bench:
    """A stack with two stand-ins for a vendor."""

    def __init__(self, url: str, first: str, second: str, *, falls_back: bool) -> None:
        self._url = url
        self._first = first
        self._second = second
        self._fields = {"event_type": "bench", "channel": "sms", "on_ambiguous": "fallback" if falls_back else None}
        self._http = requests.Session()
        self._next = 0

    def tell_first(self, mode: str) -> None:
        """Let the first vendor be up, down or hang."""
        requests.get(f"{self._first}/{mode}", timeout=10).raise_for_status()

    def post(self, count: int) -> dict[str, float]:
        """Post so many, and return when each recipient's was."""
        numbers = [_number(place) for place in range(self._next, self._next + count)]
        self._next += count
        events = [{**self._fields, "recipient": number} for number in numbers]
        posted = time.time()
        answer = self._http.post(f"{self._url}/api/v1/events/batch", json={"events": events}, timeout=60)
        answer.raise_for_status()
        return dict.fromkeys(numbers, posted)

    def taken(self) -> list[tuple[str, float]]:
        """Return the messages that both vendors took."""
        vendors = (self._first, self._second)
        answers = [requests.get(f"{each}/taken", timeout=60).json()["taken"] for each in vendors]
        return [(number, at) for answer in answers for number, at in answer]

    def count(self, which: str) -> int:
        """How many one of them took."""
        url = self._first if which == "first" else self._second
        taken: int = requests.get(url, timeout=60).json()["count"]
        return taken

    def refused(self) -> int:
        """How many the first one refused."""
        refused: int = requests.get(self._first, timeout=60).json()["refused"]
        return refused


def measure(messages: int, rate: float, *, hang: bool) -> dict[str, Any]:
    """Every figure of one run."""
    with bench_folder() as folder:
        (folder / "first").mkdir()
        with (
            granian(folder / "first", "rsgi", "benchmarks.fake_twilio:app") as first,
            granian(folder, "rsgi", "benchmarks.fake_twilio:app") as second,
        ):
            dsns = (
                f"twilio://AC1:x@{each.removeprefix('http://')}?from=%2B15550100&tls=none" for each in (first, second)
            )
            with stack(folder, NOTIFIER_SMS=", ".join(dsns), NOTIFIER_SMS_TIMEOUT="2") as url:
                bench = Bench(url, first, second, falls_back=hang)
                bench.post(BATCH)
                wait_until(lambda: bench.count("first") == BATCH, DRAIN)  # everything is warm
                return _run(bench, messages, rate, "hang" if hang else "down")


def _run(bench: Bench, messages: int, rate: float, mode: str) -> dict[str, Any]:
    bench.tell_first(mode)
    posted: dict[str, float] = {}
    begun = time.time()
    while len(posted) < messages:
        time.sleep(max(0.0, begun + len(posted) / rate - time.time()))
        posted |= bench.post(min(BATCH, messages - len(posted)))
    wait_until(lambda: bench.count("second") >= messages, DRAIN)
    came: dict[str, list[float]] = {}
    for number, at in bench.taken():
        if number in posted:
            came.setdefault(number, []).append(at)
    took = sorted((min(at) - posted[number]) * 1000 for number, at in came.items())
    figures = {
        "messages": messages,
        "arrived": len(came),
        "twice": sum(count - 1 for count in Counter(len(at) for at in came.values()).elements()),
        **{f"p{share}": took[min(len(took) - 1, len(took) * share // 100)] for share in (50, 95, 99)},
        "worst": took[-1],
        "tried first": bench.refused(),
    }
    bench.tell_first("up")
    recovered, before = time.time(), bench.count("first")

    def is_taken_back() -> bool:
        bench.post(1)
        time.sleep(0.2)
        return bench.count("first") > before + 5

    wait_until(is_taken_back, 120)
    return {**figures, "taken back after": time.time() - recovered}


def _table(figures: dict[str, Any]) -> Table:
    title = f"The first provider is down: {figures['arrived']:,} of {figures['messages']:,} went out by the second"
    table = Table(title=title, title_justify="left")
    columns = ("twice", "tried first", "p50 ms", "p95", "p99", "worst", "taken back after")
    for column in columns:
        table.add_column(column, justify="right")
    late = (f"{figures[key]:,.0f}" for key in ("p50", "p95", "p99", "worst"))
    back = f"{figures['taken back after']:.1f} s"
    table.add_row(f"{figures['twice']:,}", f"{figures['tried first']:,}", *late, back)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=200, help="messages a second")
    parser.add_argument(
        "--hang", action="store_true", help="it hangs until the timeout of 2 s, instead of answering 503"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.messages, options.rate, hang=options.hang)
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
