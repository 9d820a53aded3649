"""Find what became of a message: one box for every kind of id, key and address, and filters beside it."""

import re
from typing import Any, Final

from flask import Response, request

from api.console.asking import API, Refused, ask
from api.console.pages import page, put_showing_on_record, show
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel, Status

#: The filters beside the box, as the API names them.
_FILTERS: Final = (
    *("status", "reason", "channel", "provider", "event_type", "source", "created_after", "created_before"),
)
#: Filters that links set, of notifications that have a text in one field.
_EXACT: Final = (
    *("recipient", "user_id", "event_id", "request_id", "subscription_id", "cancellation_key", "dedup_key"),
    *("idempotency_key", "message_id"),
)
_LIMIT: Final = 50
#: Of a time that says itself where it is from.
_OFFSET: Final = re.compile(r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})$")


def _asked() -> dict[str, str]:
    """Return the filters that were given. A time from a browser's field has no offset: it is in UTC."""
    given = {name: request.args.get(name, "").strip() for name in _FILTERS}
    for name in ("created_after", "created_before"):
        if given[name] and not _OFFSET.search(given[name]):
            given[name] += "Z" if given[name].count(":") == 2 else ":00Z"
    return {name: value for name, value in given.items() if value}


@show("/find")
def find_messages() -> Response:
    """Show what the box and the filters find: with a text in the box a search, else the newest notifications."""
    wanted, filters = request.args.get("q", "").strip(), _asked()
    exact = {name: value for name in _EXACT if (value := request.args.get(name, "").strip())}
    found: dict[str, Any] = {}
    error = None
    try:
        if wanted:
            found = ask("GET", f"{API}/search", query={"q": wanted, **filters})
        elif filters or exact or request.args.get("cursor") or "latest" in request.args:
            asked = {**filters, **exact, "limit": _LIMIT, "cursor": request.args.get("cursor")}
            listed = ask("GET", f"{API}/notifications", query=asked)
            items = [{"type": "notification", "matched": [], **each} for each in listed["items"]]
            found = {"items": items, "next_cursor": listed["next_cursor"]}
    except Refused as refused:
        error = refused.words
    put_showing_on_record("page=find")
    return page(
        "find.html",
        title="Find",
        wanted=wanted,
        filters=filters,
        exact=exact,
        found=found,
        error=error,
        statuses=[each.value for each in Status],
        channels=[each.value for each in Channel],
        reasons=sorted(each.value for each in Reason),
    )
