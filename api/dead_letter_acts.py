"""Acts on many dead letters: requeue or drop all that match, with progress."""

from typing import Any, Final
from uuid import UUID

from flask import abort, current_app
from sqlalchemy import select

from api.audit import action, put_on_record
from api.auth import caller, requires
from api.database import db
from api.pagination import page
from api.permits import check_use
from api.resources import Resource
from api.schemas.dead_letter_acts import (
    DeadLetterActFilterSchema,
    DeadLetterActPageSchema,
    DeadLetterActSchema,
    DeadLetterPreviewSchema,
    NewDeadLetterActSchema,
)
from api.schemas.pagination import PageQuery
from api.services import services
from notifier.models import DeadLetterAct
from notifier.notifications.dead_letters import Filters
from notifier.resending import dead_letter_acts
from notifier.resending.dead_letter_acts import Act, Asked
from notifier.security.api_keys import Scope
from notifier.vocabulary.errors import Forbidden
from notifier.vocabulary.reasons import Reason

blp = Resource(
    "dead letter acts",
    __name__,
    url_prefix="/api/v1/dead-letters/acts",
    description="Requeues and drops of many dead letters at once.",
)

_MISSING: Final = "There is no such act."
_NAMES: Final = tuple(DeadLetterActFilterSchema._declared_fields)
#: Filters that hold nothing personal, and stand in the audit log.
_ON_RECORD: Final = ("channel", "reason", "event_type")


def _shown(act: DeadLetterAct) -> dict[str, Any]:
    """Return an act as an answer has it."""
    given = {name: value[0] if isinstance(value, list) else value for name, value in act.filters.items()}
    return {
        **{name: getattr(act, name) for name in DeadLetterActSchema._declared_fields if name != "filter"},
        "refused_reasons": act.refused_reasons or {},
        "filter": {name: given.get(name) for name in _NAMES},
    }


def _find(act_id: UUID) -> DeadLetterAct:
    return db.get_or_404(DeadLetterAct, act_id, description=_MISSING)


def _check_may(act: str, channel: str | None, event_type: str | None) -> None:
    """Raise Forbidden where the caller may not do this with such letters."""
    if act == Act.DROP and not caller().may(Scope.ADMIN):
        words = f"This key may not drop dead letters: it lacks the scope '{Scope.ADMIN}'."
        raise Forbidden("act", words, Scope.ADMIN)
    check_use([channel] if channel else [], event_type)


def _record(act: str, filters: dict[str, Any], **more: object) -> None:
    """Put an act on record: what it does with which letters, without anything personal."""
    named: dict[str, object] = {"act": act, **more, **{name: filters.get(name) for name in _ON_RECORD}}
    if named["reason"] not in list(Reason):
        named["reason"] = None  # any text of the caller's
    put_on_record(action(), " ".join(f"{name}={value}" for name, value in named.items() if value is not None))


@blp.route("", methods=["POST"])
@requires(Scope.REQUEUE)
@blp.arguments(NewDeadLetterActSchema)
@blp.response(202, DeadLetterActSchema)
@blp.alt_response(200, schema=DeadLetterPreviewSchema, description="With `dry_run`: which letters it would be.")
def begin_dead_letter_act(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- what the schema of its status dumps
    """Requeue or drop all dead letters that stand and match a filter.

    The first some hundreds at once, so that most acts are finished with the answer; the rest batch by batch, as the act
    says. A notification that a rule forbids to send is left as it is, and counted as `refused`. `drop` deletes the
    letters for good; their notifications stay, as failed.

    A key without the scope `admin` requeues those of its own source alone; one that is limited to some channels or
    event types, those of the `channel` and `event_type` that it names.
    """
    chosen: dict[str, Any] = asked["filter"] or {}
    act = Act(asked["act"])
    _check_may(act, chosen.get("channel"), chosen.get("event_type"))
    new = Asked(act, Filters(**chosen, requeued=False), caller().name, caller().bounds)
    if asked["dry_run"]:
        _record(act, chosen, dry_run="yes")
        return _preview(new)
    _record(act, chosen)
    here = services()
    act_id, hints = dead_letter_acts.begin(here.wiring.engine, new, here.publisher.lease, here.wiring.standards)
    here.publisher.hint(hints)
    _record(act, chosen, act_id=act_id)
    return _shown(_find(act_id)), 202, {"Location": f"{blp.url_prefix}/{act_id}"}


def _preview(new: Asked) -> Any:  # noqa: ANN401 -- Flask's response
    found = dead_letter_acts.preview(services().wiring.engine, new)
    shown = {"act": new.act, "total": found.total, "by_reason": found.by_reason, "sample": found.sample}
    return current_app.json.response(DeadLetterPreviewSchema().dump(shown))


@blp.route("")
@requires(Scope.READ)
@blp.arguments(PageQuery, location="query", as_kwargs=False)
@blp.response(200, DeadLetterActPageSchema)
def list_dead_letter_acts(asked: dict[str, Any]) -> dict[str, Any]:
    """List acts on dead letters, newest first."""
    found = page(select(DeadLetterAct), DeadLetterAct.id, asked)
    return {**found, "items": [_shown(act) for act in found["items"]]}


@blp.route("/<uuid:act_id>")
@requires(Scope.READ)
@blp.response(200, DeadLetterActSchema)
@blp.alt_response(404, description="There is no such act.")
def get_dead_letter_act(act_id: UUID) -> dict[str, Any]:
    """Read how far an act is."""
    return _shown(_find(act_id))


@blp.route("/<uuid:act_id>/stop", methods=["POST"])
@requires(Scope.REQUEUE)
@blp.response(200, DeadLetterActSchema)
@blp.alt_response(404, description="There is no such act.")
@blp.alt_response(409, description="It is finished.")
def stop_dead_letter_act(act_id: UUID) -> dict[str, Any]:
    """Stop an act. A batch that is being done is finished first; the letters that are left stand as before.

    An act of another source is unknown (404) to a key without the scope `admin`.
    """
    _check_own(act_id)
    dead_letter_acts.stop(services().wiring.engine, act_id)
    return _shown(_find(act_id))


@blp.route("/<uuid:act_id>/resume", methods=["POST"])
@requires(Scope.REQUEUE)
@blp.response(200, DeadLetterActSchema)
@blp.alt_response(404, description="There is no such act.")
@blp.alt_response(409, description="It is finished.")
def resume_dead_letter_act(act_id: UUID) -> dict[str, Any]:
    """Let a stopped act go on, with the same letters as at its beginning.

    An act of another source is unknown (404) to a key without the scope `admin`.
    """
    _check_own(act_id)
    dead_letter_acts.resume(services().wiring.engine, act_id)
    return _shown(_find(act_id))


def _check_own(act_id: UUID) -> None:
    """Make sure that the caller may stop or resume an act, and put that on record."""
    found = _find(act_id)
    if not caller().owns(found.source):
        abort(404, _MISSING)
    db.session.remove()
    _check_may(found.act, found.filters.get("channel"), found.filters.get("event_type"))
    _record(found.act, found.filters, act_id=act_id)
