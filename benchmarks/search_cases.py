"""The searches and filtered lists that benchmarks.search times, over the rows of benchmarks.varied_days."""

from typing import Final
from urllib.parse import urlencode

from sqlalchemy import Connection, text

#: Column → its values: one that five rows have, one that only the oldest day has, the most frequent, and none.
_VALUES: Final = {
    "event_type": ("rare-type", "old-type", "order.paid", "no.type"),
    "source": ("rare-source", "old-source", "shop", "no-source"),
}
_LISTS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "notifications": {
        **_VALUES,
        "channel": ("chat", "push", "email", "sms"),
        "provider": ("rare-provider", "old-provider", "smtp", "no-provider"),
        "status": ("expired", "failed", "delivered", "retrying", "queued", "sending", "skipped"),
        "reason": ("rare_reason", "too_old", "retries_exhausted", "no_reason"),
        "recipient": ("rare-recipient@example.com", "old-recipient@example.com", "https://hooks.example.com/in"),
        "user_id": ("rare-user", "old-user", "u_7", "nobody"),
        "dedup_key": ("dedup-3-11", "no-key"),
        "idempotency_key": ("key-5", "no-key"),
        "message_id": ("m-3-11", "no-message"),
    },
    "events": {
        **_VALUES,
        "status": ("failed", "accepted", "processed"),
        "user_id": ("rare-user", "old-user", "u_7", "nobody"),
        "recipient": (
            *("rare-recipient@example.com", "user7@example.com", "https://hooks.example.com/in", "nobody@example.com"),
        ),
        "message_id": ("m-3-11", "no-message"),
    },
    "users": {"address": ("user7@example.com", "device-7", "+4915100000007", "nobody@example.com")},
    "dead-letters": {
        "user_id": ("u_25881", "nobody"),
        "error": ("rare failure", "refused by the server", "no-failure"),
    },
    "suppressions": {"address": ("gone7@example.com", "nobody@example.com")},
    "subscriptions": {"url": ("https://receiver-7.example.com/in", "https://nobody.example.com/in")},
}
_SEARCHES: Final = (
    *("user7@example.com", "rare-recipient@example.com", "old-recipient@example.com", "https://hooks.example.com/in"),
    *("device-7", "+4915100000007", "u_7", "rare-user", "old-user", "req-3-11", "cancel-3-10", "dedup-3-11"),
    *("m-3-11", "key-5", "gone7@example.com", "https://receiver-7.example.com/in", "nothing-has-this"),
    *("00000000-0000-7000-8000-000000000003", "01900000-0000-7000-8000-000000000000"),
)
#: Filters beside a search.
_NARROWED: Final = (
    *({"status": "failed"}, {"status": "expired"}, {"reason": "too_old"}, {"event_type": "order.7"}),
    *({"channel": "chat"}, {"provider": "rare-provider"}, {"source": "rare-source"}),
)
_IDS: Final = {
    "notification": "SELECT id FROM notifications WHERE request_id = 'req-3-11'",
    "dead letter": "SELECT min(CAST(id AS text)) FROM dead_letters",
    "subscription": "SELECT min(CAST(id AS text)) FROM subscriptions",
}


def cases(connection: Connection) -> dict[str, str]:
    """Return the path of each case by its name."""
    paths: dict[str, str] = {}
    for resource, filters in _LISTS.items():
        for name, values in filters.items():
            paths |= {f"{resource} {name}={each}": _path(resource, **{name: each}) for each in values}
    paths |= {f"search {each}": _path("search", q=each) for each in _SEARCHES}
    for name, query in _IDS.items():
        paths[f"search {name} id"] = _path("search", q=str(connection.scalar(text(query))))
    for each in _NARROWED:
        words = " ".join(f"{name}={value}" for name, value in each.items())
        paths[f"search {words}"] = _path("search", q="https://hooks.example.com/in", **each)
    return paths


def _path(resource: str, **query: str) -> str:
    return f"/api/v1/{resource}?{urlencode(query)}"
