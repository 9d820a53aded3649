"""Dead letters: what failed for good, and its way back."""

from collections import Counter
from typing import Any, Final
from uuid import UUID

from flask import abort
from sqlalchemy import select

from api.auth import caller, requires
from api.database import db
from api.pagination import page
from api.permits import check_use
from api.resources import Resource
from api.schemas.dead_letter_groups import DeadLetterGroupsSchema, GroupQuery
from api.schemas.dead_letters import (
    DeadLetterPageSchema,
    DeadLetterQuery,
    DeadLetterSchema,
    RequeuedSchema,
    RequeueSchema,
)
from api.services import services
from notifier.models import DeadLetter, Event, Notification
from notifier.notifications import dead_letter_groups, dead_letters
from notifier.notifications.dead_letters import Filters
from notifier.resending import resend
from notifier.resending.resend import Refused, Requeued, counted
from notifier.security.api_keys import Scope
from notifier.vocabulary.errors import Conflict

blp = Resource(
    "dead letters",
    __name__,
    url_prefix="/api/v1/dead-letters",
    description="Events and notifications that failed for good.",
)

_MISSING: Final = "There is no such dead letter."


def _find(letter_id: UUID) -> DeadLetter:
    return db.get_or_404(DeadLetter, letter_id, description=_MISSING)


def _check_own(letter_id: UUID) -> None:
    """Make sure that the caller may requeue a dead letter. Answers 404, as for an unknown id, where it is another's.

    Raises Forbidden where its key is limited to other channels or event types.
    """
    letter = _find(letter_id)
    _check_source(letter)
    db.session.remove()
    check_use([letter.channel], letter.event_type)


def _check_source(letter: DeadLetter) -> None:
    if caller().bounds is None:
        return
    model, died = (Notification, letter.notification_id) if letter.notification_id else (Event, letter.event_id)
    if not caller().owns(db.session.scalar(select(model.source).where(model.id == died))):
        abort(404, _MISSING)


def _requeue(ids: list[UUID]) -> Requeued:
    wires, publisher = services().wiring, services().publisher
    done = resend.requeue(wires.engine, ids, publisher.lease, caller().name, wires.standards)
    publisher.hint(done.hints)
    return done


@blp.route("")
@requires(Scope.READ)
@blp.arguments(DeadLetterQuery, location="query", as_kwargs=False)
@blp.response(200, DeadLetterPageSchema)
def list_dead_letters(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List dead letters, newest first; those that were requeued have `requeued_at`."""
    filters = Filters(**{name: value for name, value in asked.items() if name not in {"limit", "cursor"}})
    return page(filters.on(select(DeadLetter)), DeadLetter.id, asked)


@blp.route("/groups")
@requires(Scope.READ)
@blp.arguments(GroupQuery, location="query", as_kwargs=False)
@blp.response(200, DeadLetterGroupsSchema)
def group_dead_letters(asked: dict[str, Any]) -> dict[str, Any]:
    """Count the dead letters that stand, grouped by what they have in common, the largest group first.

    Errors are grouped without the ids, addresses and numbers that they name. Of very many letters the newest are
    counted: half a million of them, or fifty thousand where they are grouped by `error` or `provider`; `is_sample` says
    so.
    """
    by, limit = asked.pop("by"), asked.pop("limit")
    found = dead_letter_groups.groups(services().wiring.engine, Filters(**asked), by, limit)
    items = [
        {
            **group.traits,
            **{name: getattr(group, name) for name in ("count", "first_at", "last_at", "hourly", "daily")},
            "filter": group.filters,
        }
        for group in found.groups
    ]
    return {"by": by, "items": items, "groups": found.number, "counted": found.counted, "is_sample": found.is_sample}


@blp.route("/<uuid:letter_id>")
@requires(Scope.READ)
@blp.response(200, DeadLetterSchema)
@blp.alt_response(404, description="There is no such dead letter.")
def get_dead_letter(letter_id: UUID) -> DeadLetter:
    """Read a dead letter."""
    return _find(letter_id)


@blp.route("/<uuid:letter_id>/requeue", methods=["POST"])
@requires(Scope.REQUEUE)
@blp.response(202, DeadLetterSchema)
@blp.alt_response(404, description="There is no such dead letter.")
@blp.alt_response(
    409,
    description="It was requeued before, or a rule forbids to send it (`reason`: `opted_out`, `suppressed`, `expired`"
    " …). Nothing was changed.",
)
def requeue_dead_letter(letter_id: UUID) -> DeadLetter:
    """Send it once more: the same notification and id, with its full number of attempts.

    One of another source is unknown (404) to a key without the scope `admin`.
    """
    _check_own(letter_id)
    done = _requeue([letter_id])
    if done.refused:
        raise Refused(done.refused[letter_id])
    if not done.letters:
        raise Conflict("This dead letter was requeued before.")
    return _find(letter_id)


@blp.route("/requeue", methods=["POST"])
@requires(Scope.REQUEUE)
@blp.arguments(RequeueSchema)
@blp.response(202, RequeuedSchema)
def requeue_dead_letters(asked: dict[str, Any]) -> dict[str, Any]:
    """Requeue all that match and still stand; for all of them say `"all": true`.

    A key without the scope `admin` requeues those of its own source alone; one that is limited to some channels or
    event types, those of the `channel` and `event_type` that it names. A notification that a rule forbids to
    send is left as it is, and counted as `refused`.
    """
    check_use([asked["channel"]] if asked["channel"] else [], asked["event_type"])
    if (bounds := caller().bounds) is not None:
        if asked["source"] not in {None, bounds}:
            return {"requeued": 0, "refused": 0, "refused_reasons": {}}
        asked = {**asked, "source": bounds}
    filters = Filters(**asked, requeued=False)
    requeued, reasons = 0, Counter[str]()
    for ids in dead_letters.matching(services().wiring.engine, filters):
        done = _requeue(ids)
        requeued += len(done.letters)
        reasons.update(counted(done.refused.values()))
    return {"requeued": requeued, "refused": reasons.total(), "refused_reasons": dict(reasons.most_common())}


@blp.route("/<uuid:letter_id>", methods=["DELETE"])
@requires(Scope.ADMIN)
@blp.response(204)
@blp.alt_response(404, description="There is no such dead letter.")
def delete_dead_letter(letter_id: UUID) -> None:
    """Delete it for good; its notification stays, as failed."""
    if not dead_letters.purge(services().wiring.engine, [letter_id]):
        abort(404, _MISSING)
