"""Grafana's dashboards, written as Python and kept as JSON in deploy/grafana/dashboards.

`make dashboards` (python -m deploy.dashboards) writes the files anew; a test holds them to what this makes.
"""

import json
from pathlib import Path
from typing import Final

from deploy.dashboards import dead_letters, delivery, overview, queues, story
from deploy.dashboards.panels import Json, dashboard

FOLDER: Final = Path(__file__).resolve().parents[1] / "grafana" / "dashboards"

#: uid → title, in the order of the links.
TITLES: Final = {
    "notifier-overview": "Overview",
    "notifier-delivery": "Delivery",
    "notifier-queues": "Queues and workers",
    "notifier-dead-letters": "Dead letters",
    story.UID: "A notification's story",
}


def _others(uid: str) -> dict[str, str]:
    return {other: title for other, title in TITLES.items() if other != uid}


def _made() -> list[Json]:
    overview_uid, delivery_uid, queues_uid, letters_uid, _ = TITLES
    return [
        dashboard(
            overview_uid,
            "Notifier: overview",
            "Is all well? Events that come in, outcomes of notifications, and those that wait.",
            overview.ROWS,
            others=_others(overview_uid),
        ),
        dashboard(
            delivery_uid,
            "Notifier: delivery by channel and provider",
            "How do providers do?",
            delivery.ROWS,
            others=_others(delivery_uid),
            variables=delivery.VARIABLES,
        ),
        dashboard(
            queues_uid,
            "Notifier: queues and workers",
            "Do workers and the clock keep up?",
            queues.ROWS,
            others=_others(queues_uid),
        ),
        dashboard(
            letters_uid,
            "Notifier: dead letters",
            "Which notifications failed for good, and why?",
            dead_letters.ROWS,
            others=_others(letters_uid),
            since="now-24h",
            refresh="30s",
        ),
        dashboard(
            story.UID,
            "Notifier: a notification's story",
            "The story of one notification, from event to receipt.",
            story.ROWS,
            others=_others(story.UID),
            variables=story.VARIABLES,
            refresh="10s",
        ),
    ]


def files() -> dict[str, str]:
    """Return the content of each file, by name."""
    return {
        f"{each['uid'].removeprefix('notifier-')}.json": json.dumps(each, indent=2, ensure_ascii=False) + "\n"
        for each in _made()
    }


def write() -> None:
    """Write the files, and delete those of removed dashboards."""
    wanted = files()
    for old in FOLDER.glob("*.json"):
        if old.name not in wanted:
            old.unlink()
    for name, content in wanted.items():
        (FOLDER / name).write_text(content)
