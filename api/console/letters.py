"""Dead letters: groups of what failed for good; requeueing or dropping many, with a look first and with progress."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from flask import Response, request

from api.auth import caller
from api.console.asking import Refused, ask, path
from api.console.pages import Notice, act, acted, back, page, put_showing_on_record, show
from notifier.security.api_keys import Scope
from notifier.vocabulary.reasons import DEAD_LETTER_REASONS
from notifier.vocabulary.states import Channel

#: The filters of the page, as the API names them.
_FILTERS: Final = (
    *("reason", "channel", "event_type", "last_provider", "error", "source", "user_id", "template"),
    *("notification_id", "event_id", "subscription_id", "request_id", "created_after", "created_before"),
)
_GROUPINGS: Final = ("reason,error", "reason", "provider,error", "event_type", "channel,provider", "reason,event_type")
_LONGEST_IN_LINK: Final = 500
#: Seconds after which the page of an act that runs is loaded again.
_REFRESH: Final = 2


def _filters(given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name in _FILTERS if (value := given.get(name, "").strip())}


@show("/dead-letters")
def dead_letters() -> Response:
    """Show the dead letters that stand: groups of them, a form to choose some, and the newest of those."""
    filters = _filters(request.args)
    by = request.args.get("by", _GROUPINGS[0])
    grouped = ask("GET", path("dead-letters", "groups"), query={**filters, "by": by})
    listed = ask(
        "GET",
        path("dead-letters"),
        query={**filters, "requeued": "false", "limit": 50, "cursor": request.args.get("cursor")},
    )
    return page(
        "dead_letters.html",
        title="Dead letters",
        filters=filters,
        by=by,
        groupings=_GROUPINGS,
        grouped=grouped,
        listed=listed,
        reasons=sorted(DEAD_LETTER_REASONS),
        channels=[channel.value for channel in Channel],
        acts=ask("GET", path("dead-letters", "acts"), query={"limit": 5})["items"],
    )


@show("/dead-letters/<uuid:letter_id>")
def dead_letter(letter_id: UUID) -> Response:
    """Show one dead letter."""
    record = ask("GET", path("dead-letters", letter_id))
    put_showing_on_record(f"letter_id={letter_id}")
    return page("dead_letter.html", title="Dead letter", record=record)


@act("/dead-letters/<uuid:letter_id>/requeue")
def requeue(letter_id: UUID) -> Response:
    """Requeue one dead letter."""
    target = path("dead-letters", letter_id, "requeue")
    return acted("dead_letter", "It is requeued.", "POST", target, letter_id=letter_id)


@act("/dead-letters/acts")
def act_on_letters() -> Response:
    """Requeue or drop all that match a filter; the first press shows how many they are, the second does it."""
    filters = _filters(request.form)
    chosen = {"act": request.form.get("act", ""), **({"filter": filters} if filters else {"all": True})}
    is_sure = request.form.get("sure") == "1"
    try:
        answer = ask("POST", path("dead-letters", "acts"), body={**chosen, "dry_run": not is_sure})
    except Refused as refused:
        # A browser follows no link that is much longer.
        kept = {name: value for name, value in filters.items() if len(value) <= _LONGEST_IN_LINK}
        return back("dead_letters", Notice("failed", refused.words), **kept)
    if is_sure:
        return back("dead_letter_act", Notice("done", "It has begun."), act_id=answer["id"])
    return page("act_preview.html", title="Are these the ones?", preview=answer, filters=filters)


@show("/dead-letters/acts/<uuid:act_id>")
def dead_letter_act(act_id: UUID) -> Response:
    """Show how far an act is; while it runs the page loads itself again where scripts run."""
    record = ask("GET", path("dead-letters", "acts", act_id))
    refresh = _REFRESH if record["status"] == "running" else None
    return page("act.html", title="Act on dead letters", record=record, refresh=refresh, may_steer=_may_steer(record))


def _may_steer(record: Mapping[str, Any]) -> bool:
    """Tell whether the caller may stop an act and let it go on: one of its own source; a drop needs more."""
    who, needed = caller(), Scope.ADMIN if record["act"] == "drop" else Scope.REQUEUE
    return who.may(needed) and who.owns(record["source"])


@act("/dead-letters/acts/<uuid:act_id>/<any(stop, resume):what>")
def steer(act_id: UUID, what: str) -> Response:
    """Stop an act, or let a stopped one go on."""
    done = "It is stopped." if what == "stop" else "It goes on."
    return acted("dead_letter_act", done, "POST", path("dead-letters", "acts", act_id, what), act_id=act_id)
