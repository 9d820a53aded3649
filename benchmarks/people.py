"""Users with addresses, preferences and quiet hours, written many at a time."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import track
from sqlalchemy import Engine, insert, text

from api.schemas.users import PreferencesSchema
from notifier.models import User
from notifier.security.address_seals import seals_of
from notifier.vocabulary.addresses import normalised
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel

#: The category that they have switched on for webhooks, and off for the rest.
CATEGORY: Final = "order_updates"
_ZONES: Final = (
    *("Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Africa/Nairobi"),
    *("Asia/Kolkata", "Asia/Tokyo", "Australia/Sydney", "Pacific/Auckland"),
)
#: Quiet hours begin and end so long from now.
_QUIET: Final = (timedelta(hours=6), timedelta(hours=14))
_CHUNK: Final = 1000
#: Numbers beside each other have users far apart.
_STRIDE: Final = 7919


def user_of(number: int, users: int) -> str:
    """Return the id of the user whom the event of a number is for."""
    return f"u_{number * _STRIDE % users}"


def _preferences(zone: str) -> dict[str, Any]:
    """Return preferences that hold nothing up at the moment, in the form in which the API would store them."""
    now = datetime.now(ZoneInfo(zone))
    start, end = (f"{now + away:%H:%M}" for away in _QUIET)
    checked: dict[str, Any] = PreferencesSchema().load(
        {
            "channels": {"sms": False},
            "categories": {CATEGORY: {"webhook": True, "*": False}, "news": {"*": False}},
            "quiet_hours": [{"channels": ["webhook", "push"], "start": start, "end": end}],
        }
    )
    return checked


def _rows(users: int, address: str) -> Iterator[list[dict[str, Any]]]:
    now, preferences = datetime.now(UTC), {zone: _preferences(zone) for zone in _ZONES}
    for first in range(0, users, _CHUNK):
        zones = {number: _ZONES[number % len(_ZONES)] for number in range(first, min(users, first + _CHUNK))}
        yield [
            {
                **{"id": new_id(), "user_id": f"u_{number}", "push_tokens": [], "webhook_url": address},
                **{"timezone": zone, "attributes": "{}", "preferences": preferences[zone]},
                **{"created_at": now, "updated_at": now},
            }
            for number, zone in zones.items()
        ]


def add_users(engine: Engine, users: int, webhook_url: str) -> None:
    """Write users u_0, u_1, … who are reached at one webhook; with a bar on stderr."""
    address = seals_of(engine).kept(Channel.WEBHOOK, normalised(Channel.WEBHOOK, webhook_url))
    chunks = -(-users // _CHUNK)
    console = Console(file=sys.stderr)
    for rows in track(_rows(users, address), f"{users:,} users", total=chunks, console=console):
        with engine.begin() as connection:
            connection.execute(insert(User).values(rows))
    with engine.begin() as connection:
        connection.execute(text("ANALYZE users"))
