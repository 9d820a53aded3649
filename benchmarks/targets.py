"""The figures that have a target, each a ratio to a yardstick of the same run, or a bound that people notice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Target:
    """One figure out of those of all parts, and the value that it should have."""

    work: str
    unit: str
    wanted: float
    figure: Callable[[dict[str, Any]], float]
    at_most: bool = False

    def is_met(self, found: float) -> bool:
        """Return whether a figure is at least, or at the most, the wanted one."""
        return found <= self.wanted if self.at_most else found >= self.wanted


def _peers(peer: str, kind: str, figure: str) -> Callable[[dict[str, Any]], float]:
    """Give ours as a multiple of a peer's, of one figure under one kind of load."""

    def ratio(figures: dict[str, Any]) -> float:
        peers = figures["peers"]
        return float(peers["ours"][kind][figure] / peers[peer][kind][figure])

    return ratio


def _batches_by_textbook(figures: dict[str, Any]) -> float:
    peers = figures["peers"]
    return float(peers["ours"]["batch"]["end_to_end"] / peers["textbook"]["full"]["end_to_end"])


def _reminders(figures: dict[str, Any]) -> float:
    return float(figures["backlog"]["reminders"]["a second"] / figures["peers"]["ours"]["batch"]["end_to_end"])


def _rows_behind(figures: dict[str, Any]) -> float:
    *_, most = points = list(figures["curves"]["rows_behind"].values())
    return float(points[0]["delivered"] / most["delivered"])


def _grown(figures: dict[str, Any], processes: str) -> float:
    return float(figures["growth"]["processes"][processes]["delivered_ratio"])


def _pooled(figures: dict[str, Any], load: str) -> float:
    return float(figures["pooler"][load]["ratio"]["end_to_end"])


TARGETS: Final = (
    Target("one event a POST, end to end", "× textbook", 12, _peers("textbook", "full", "end_to_end")),
    Target("one event a POST, end to end", "× bullmq", 1.2, _peers("bullmq", "full", "end_to_end")),
    Target("500 a POST, end to end", "× textbook, one a POST", 45, _batches_by_textbook),
    Target("500 a POST, end to end", "× the bare limit", 0.8, _peers("limit", "batch", "end_to_end")),
    Target("intake alone", "× without a database", 0.5, lambda all_: all_["ingest"]["ratio"]),
    Target("p50 at 100 a second", "× bullmq", 1, _peers("bullmq", "calm", "p50"), at_most=True),
    Target("p99 at 100 a second", "× bullmq", 1, _peers("bullmq", "calm", "p99"), at_most=True),
    Target("p99 under full load", "ms", 1000, lambda all_: all_["peers"]["ours"]["full"]["p99"], at_most=True),
    Target("CPU a notification, full load", "× bullmq", 1.2, _peers("bullmq", "full", "cpu_ms"), at_most=True),
    Target("CPU a notification, 100 a second", "× bullmq", 1.2, _peers("bullmq", "calm", "cpu_ms"), at_most=True),
    Target("memory at the start", "MB PSS", 500, lambda all_: all_["memory"]["start"]["sum"], at_most=True),
    Target("memory after a load", "× the start", 1.1, lambda all_: all_["memory"]["growth"]["sum"], at_most=True),
    Target("email by SMTP", "× smtplib", 0.3, lambda all_: all_["email"]["ratio"]),
    Target("one event to all subscriptions", "× 500 a POST", 0.7, lambda all_: all_["fan_out"]["ratio"]),
    Target("its first delivery", "s", 1, lambda all_: all_["fan_out"]["first_after"], at_most=True),
    Target("reminders of one second", "× 500 a POST", 0.7, _reminders),
    Target("events beside them, p99", "s", 3, lambda all_: all_["backlog"]["reminders"]["fresh p99 s"], at_most=True),
    Target(
        "preferences, quiet hours",
        "× CPU without",
        1.25,
        lambda all_: all_["preferences"]["cost_ratios"]["known"],
        at_most=True,
    ),
    Target("empty tables", "× many rows behind", 1.2, _rows_behind, at_most=True),
    Target("two of each process", "× one of each", 1.7, lambda all_: _grown(all_, "2")),
    Target("four of each process", "× one of each", 3, lambda all_: _grown(all_, "4")),
    Target("by PgBouncer, one a POST", "× directly", 0.9, lambda all_: _pooled(all_, "single")),
    Target("by PgBouncer, 500 a POST", "× directly", 0.9, lambda all_: _pooled(all_, "batch")),
    Target("p99 of 10 million a day", "s", 3, lambda all_: all_["day"]["p99_s"], at_most=True),
    Target("lost of 10 million a day", "", 0, lambda all_: all_["day"]["lost"], at_most=True),
)


def table(figures: dict[str, Any], targets: Sequence[Target]) -> Table:
    """Return a row for each target whose part was measured."""
    rows = Table("", "", title="Targets", title_justify="left")
    for column in ("found", "target"):
        rows.add_column(column, justify="right")
    rows.add_column("")
    for target in targets:
        try:
            found = target.figure(figures)
        except KeyError:
            continue
        sign = "≤" if target.at_most else "≥"
        is_met = "" if target.is_met(found) else "missed"
        rows.add_row(target.work, target.unit, f"{found:,.2f}", f"{sign} {target.wanted:g}", is_met)
    return rows
