"""Behind a backlog: python -m benchmarks.backlog [--rows 100000] [--rate 200] [--answer-ms 0] [--json].

Two questions. How soon does one high notification leave that comes behind 100,000 low ones of its channel? And when
100,000 reminders fall due in the same second: do all go out once, in the order of their due_at, and what becomes of
events that arrive meanwhile?
"""

import argparse
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from rich.table import Table

from benchmarks.output import show
from benchmarks.stack import bench_folder, granian, stack
from deploy.child_process import wait_until

BATCH = 1000
#: Numbers of fresh and of high events begin here, so that the receiver tells them apart.
FRESH = 10_000_000


def _post_all(url: str, rows: int, make: Any) -> None:
    with requests.Session() as session:
        for first in range(0, rows, BATCH):
            events = [make(number) for number in range(first, min(rows, first + BATCH))]
            answer = session.post(f"{url}/api/v1/events/batch", json={"events": events}, timeout=60)
            answer.raise_for_status()


def _event(hook: str, number: int, **fields: Any) -> dict[str, Any]:
    return {"event_type": "bench", "recipient": hook, "channel": "webhook", "payload": {"n": number}, **fields}


def _arrived(receiver: str) -> dict[int, float]:
    came = requests.get(f"{receiver}/all", timeout=60).json()["arrived"]
    return {int(number): at for number, at in came.items()}


def _count(receiver: str) -> int:
    return int(requests.get(receiver, timeout=60).json()["count"])


def priority(url: str, receiver: str, rows: int) -> dict[str, float]:
    """One high notification behind many low ones: how long it takes, and how many low ones had gone by then."""
    hook = f"{receiver}/hook"
    requests.get(f"{receiver}/reset", timeout=10)
    requests.put(f"{url}/api/v1/holds/webhook", timeout=10).raise_for_status()
    _post_all(url, rows, lambda number: _event(hook, number, priority="low"))
    requests.delete(f"{url}/api/v1/holds/webhook", timeout=10).raise_for_status()
    wait_until(lambda: _count(receiver) > rows // 50, 120)  # it is in full swing
    gone, posted = _count(receiver), time.time()
    high = _event(hook, FRESH, priority="high")
    requests.post(f"{url}/api/v1/events", json=high, timeout=10).raise_for_status()
    wait_until(lambda: FRESH in _arrived(receiver), 120)
    took = _arrived(receiver)[FRESH] - posted
    started = time.time()
    wait_until(lambda: _count(receiver) > rows, 600)
    return {"low gone before": gone, "high after s": took, "low left, drained in s": time.time() - started}


def reminders(url: str, receiver: str, rows: int, rate: float) -> dict[str, float]:
    """Reminders that fall due in one second, and so many fresh events a second meanwhile."""
    hook = f"{receiver}/hook"
    requests.get(f"{receiver}/reset", timeout=10)
    lead = timedelta(hours=1)
    due = datetime.now(UTC) + timedelta(seconds=15 + rows / 2500)
    spread = [due + timedelta(microseconds=number * 1_000_000 // rows) for number in range(rows)]
    _post_all(
        url,
        rows,
        lambda number: _event(hook, number, target_date=(spread[number] + lead).isoformat(), lead_time="PT1H"),
    )
    time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds() - 3))
    posted: dict[int, float] = {}
    done = threading.Event()

    def trickle() -> None:
        began = time.time()
        with requests.Session() as session:
            while not done.is_set():
                number = FRESH + len(posted)
                posted[number] = time.time()
                session.post(f"{url}/api/v1/events", json=_event(hook, number), timeout=30).raise_for_status()
                time.sleep(max(0.0, began + len(posted) / rate - time.time()))

    thread = threading.Thread(target=trickle)
    thread.start()
    wait_until(lambda: sum(number < FRESH for number in _arrived(receiver)) >= rows, 600)
    done.set()
    thread.join()
    wait_until(lambda: posted.keys() <= _arrived(receiver).keys(), 60)
    came, total = _arrived(receiver), requests.get(receiver, timeout=60).json()["requests"]
    order = sorted((number for number in came if number < FRESH), key=lambda number: came[number])
    behind = sorted(came[number] - at for number, at in posted.items() if at > due.timestamp())
    drained = max(came[number] for number in order) - due.timestamp()
    return {
        "drained in s": drained,
        "a second": rows / drained,
        "lost": rows - len(order),
        "twice": total - len(came),
        "places out of order, p99": sorted(abs(place - number) for place, number in enumerate(order))[rows * 99 // 100],
        "fresh p50 s": behind[len(behind) // 2],
        "fresh p99 s": behind[len(behind) * 99 // 100],
    }


def measure(rows: int, rate: float, answer_ms: int) -> dict[str, dict[str, float]]:
    """Every figure of one run."""
    with bench_folder() as folder:
        answers = {"ANSWER_MS": str(answer_ms)}
        with granian(folder, "rsgi", "benchmarks.receiver:app", **answers) as receiver, stack(folder) as url:
            return {
                "priority": priority(url, receiver, rows),
                "reminders": reminders(url, receiver, rows, rate),
            }


def _table(figures: dict[str, dict[str, float]]) -> Table:
    table = Table("", "")
    for title, found in figures.items():
        for figure, value in found.items():
            table.add_row(f"{title}: {figure}", f"{value:,.2f}" if isinstance(value, float) else f"{value:,}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=200, help="fresh events a second, while reminders go out")
    parser.add_argument("--answer-ms", type=int, default=0, help="how long the receiver takes to answer")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    show(measure(options.rows, options.rate, options.answer_ms), _table, as_json=options.json)


if __name__ == "__main__":
    main()
