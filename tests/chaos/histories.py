"""All that is known of one notification: what is printed of one that was lost, dead or doubled."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from tests.chaos.load import Posted
from tests.chaos.receivers import Arrival
from tests.chaos.system import System

_LINES: Final = 40
_TABLES: Final = {
    "events": "id = :event",
    "notifications": "event_id = :event OR CAST(id AS text) = ANY(:ids)",
    "attempts": "CAST(notification_id AS text) = ANY(:ids)",
    "dead_letters": "event_id = :event OR CAST(notification_id AS text) = ANY(:ids)",
}


def _moment(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")


def dead_letters_since(system: System, since: float) -> int:
    """Count the dead letters that were written since a Unix time."""
    return int(
        system.sql("SELECT count(*) FROM dead_letters WHERE created_at >= to_timestamp(:since)", since=since)[0][0]
    )


def tuples(system: System) -> dict[str, tuple[int, int]]:
    """Return the live and the dead tuples of each table with over a thousand dead ones, as Postgres counts them."""
    rows = system.sql("SELECT relname, n_live_tup, n_dead_tup FROM pg_stat_user_tables WHERE n_dead_tup > 1000")
    return {row[0]: (row[1], row[2]) for row in rows}


def ambiguous_since(system: System, since: float) -> set[str]:
    """Return the notifications made since a Unix time that have an ambiguous attempt."""
    rows = system.sql(
        "SELECT DISTINCT CAST(notification_id AS text) FROM attempts JOIN notifications n ON n.id = notification_id"
        " WHERE outcome = 'ambiguous' AND n.created_at >= to_timestamp(:since)",
        since=since - 1,
    )
    return {row[0] for row in rows}


def of(system: System, posted: Posted) -> str:
    """Write the whole history of one event: its caller's, its rows, its arrivals, and what the logs say of it."""
    lines = [f"event {posted.number} ({posted.kind}), key {posted.key}, id {posted.event_id}"]
    lines += [f"  {_moment(at)} answered {status or 'nothing: the connection broke'}" for at, status in posted.answers]
    event = posted.event_id
    ids = (
        []
        if event is None
        else [str(row[0]) for row in system.sql("SELECT id FROM notifications WHERE event_id = :event", event=event)]
    )
    lines += _rows(system, event, ids)
    arrivals = [each for each in system.arrivals.all if each.number == posted.number]
    lines += [
        f"  {_moment(each.at)} came by {each.kind} as {each.notification}, was told {each.said}" for each in arrivals
    ]
    return "\n".join(lines + _logged(system, [event or posted.key, *ids]))


def of_dead(system: System, since: float, most: int) -> list[str]:
    """Write the histories of dead letters that were written since a Unix time."""
    rows = system.sql(
        "SELECT event_id, notification_id FROM dead_letters WHERE created_at >= to_timestamp(:since) LIMIT :most",
        **{"since": since, "most": most},
    )
    return [
        "\n".join([f"dead letter of {event or notification}", *_rows(system, event, [str(notification)])])
        for event, notification in rows
    ]


def of_doubled(system: System, doubles: Sequence[Sequence[Arrival]]) -> list[str]:
    """Write the histories of what came twice, each given by all its arrivals."""
    histories = []
    for came in doubles:
        ids = sorted({each.notification for each in came})
        events = system.sql("SELECT event_id FROM notifications WHERE CAST(id AS text) = ANY(:ids)", ids=ids)
        lines = [f"came {len(came)} times: {', '.join(ids)}"]
        lines += [f"  {_moment(each.at)} came by {each.kind}, was told {each.said}" for each in came]
        lines += _rows(system, events[0][0] if events else None, ids)
        histories.append("\n".join(lines + _logged(system, ids)))
    return histories


def _rows(system: System, event: Any, ids: Sequence[str]) -> list[str]:
    lines = []
    for table, which in _TABLES.items():
        found = system.sql(f"SELECT to_jsonb(t) FROM {table} t WHERE {which}", event=event, ids=list(ids))
        lines += [f"  {table}: {json.dumps(row[0], default=str)}" for row in found]
        lines += [] if found else [f"  {table}: no row"]
    return lines


def _logged(system: System, names: Sequence[str]) -> list[str]:
    def lines() -> Iterator[str]:
        for log in system.logs():
            for line in log.read_text(errors="replace").splitlines():
                if any(name in line for name in names):
                    yield f"  {log.name}: {line[:1000]}"

    return list(islice(lines(), _LINES))
