"""The cost of preferences and quiet hours: python -m benchmarks.preferences [--users 100000] [--events 20000] [--json].

The same events go to the same receiver, addressed in four ways that take turns:

- direct: a recipient and no user;
- known: a recipient and a user, whose preferences and quiet hours are looked at;
- user: a user alone, whose address fan-out finds as well;
- routed: neither, and a route that finds the user in the payload.

Every user has a time zone, preferences, and quiet hours that do not hold at the moment.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import requests
from rich.table import Table

from benchmarks.client import Members, payload_of
from benchmarks.main_path import measure_load
from benchmarks.output import show
from benchmarks.people import CATEGORY, add_users, user_of
from benchmarks.processor_time import descendants, seconds_of_descendants
from benchmarks.stack import bench_folder, granian, settings_of, stack
from config.settings import read_settings
from config.wiring import Wiring

_BATCH: Final = 500
_CONNECTIONS: Final = 4
_WARM: Final = 2000
#: Seconds in which all posts are answered at the latest.
_LONGEST: Final = 120
#: Seconds for what is still recorded once the receiver has all.
_SETTLE: Final = 1.0
_ROUTED: Final = "bench.routed"
_TITLES: Final = {
    "direct": "a recipient and no user",
    "known": "a recipient and a user",
    "user": "a user",
    "routed": "a route to a user",
}


def _members(hook: str, users: int) -> dict[str, Members]:
    direct = {"recipient": hook, "channel": "webhook", "category": CATEGORY}

    def routed(number: int) -> dict[str, object]:
        payload = {**payload_of(number), "user_id": user_of(number, users)}
        return {"event_type": _ROUTED, "category": CATEGORY, "payload": payload}

    return {
        "direct": lambda _: direct,
        "known": lambda number: {**direct, "user_id": user_of(number, users)},
        "user": lambda number: {"user_id": user_of(number, users), "category": CATEGORY},
        "routed": routed,
    }


def _prepare(folder: Path, url: str, hook: str, users: int) -> None:
    """Write the users and the route."""
    engine = Wiring(read_settings({**os.environ, **settings_of(folder)})).engine
    add_users(engine, users, hook)
    engine.dispose()
    route = {"event_type": _ROUTED, "to": {"user_id": "payload.user_id"}, "channels": ["webhook"]}
    requests.put(f"{url}/api/v1/routes/bench", json=route, timeout=30).raise_for_status()


def _load(url: str, receiver: str, besides: frozenset[int], events: int, members: Members) -> dict[str, float]:
    """Post a load, and return how it went, with the CPU of all processes but some for each delivered notification."""
    before = seconds_of_descendants(besides)
    how = {"seconds": _LONGEST, "connections": _CONNECTIONS, "batch": _BATCH, "most": events, "members": members}
    load = measure_load(f"{url}/api/v1/events/batch", receiver, **how)
    time.sleep(_SETTLE)
    used = seconds_of_descendants(besides) - before
    return {
        "accepted": load["ingest"],
        "delivered": load["end_to_end"],
        "cpu_ms": used / load["arrived"] * 1000,
        **{key: load[key] for key in ("lost", "duplicates", "refused")},
    }


def measure(users: int, events: int, rounds: int) -> dict[str, Any]:
    """Every figure of one run: medians of rounds, and what each way costs as a multiple of the direct one."""
    with bench_folder() as folder, granian(folder, "rsgi", "benchmarks.receiver:app") as receiver:
        besides = descendants()
        with stack(folder) as url:
            _prepare(folder, url, f"{receiver}/hook", users)
            ways = _members(f"{receiver}/hook", users)
            for members in ways.values():
                _load(url, receiver, besides, min(events, _WARM), members)
            each: list[dict[str, dict[str, float]]] = []
            for number in range(rounds):
                print(f"Round {number + 1} of {rounds}", file=sys.stderr)
                order = list(ways) if number % 2 == 0 else list(reversed(ways))
                each.append({way: _load(url, receiver, besides, events, ways[way]) for way in order})
    middle = {way: {key: statistics.median(one[way][key] for one in each) for key in each[0][way]} for way in _TITLES}
    direct = middle["direct"]
    return {
        **middle,
        "cost_ratios": {way: middle[way]["cpu_ms"] / direct["cpu_ms"] for way in _TITLES},
        "delivered_ratios": {way: middle[way]["delivered"] / direct["delivered"] for way in _TITLES},
        "rounds": each,
        "users": users,
    }


def _table(figures: dict[str, Any]) -> Table:
    title = f"{figures['users']:,} users"
    table = Table("addressed by", title=title, title_justify="left")
    for column in ("accepted/s", "delivered/s", "× direct", "CPU ms each", "× direct", "lost", "duplicates", "refused"):
        table.add_column(column, justify="right")
    for way, words in _TITLES.items():
        each = figures[way]
        table.add_row(
            words,
            *(f"{each['accepted']:,.0f}", f"{each['delivered']:,.0f}", f"{figures['delivered_ratios'][way]:.2f}"),
            *(f"{each['cpu_ms']:.2f}", f"{figures['cost_ratios'][way]:.2f}"),
            *(f"{each[key]:g}" for key in ("lost", "duplicates", "refused")),
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=20_000, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.users, options.events, options.rounds)
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
