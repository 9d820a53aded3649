"""Preference checks: would a notification be sent, and which rule decides?"""

from datetime import UTC, datetime
from typing import Any

from flask import abort

from api.auth import requires
from api.resources import Resource
from api.schemas.users import DecisionSchema, PreferenceCheckSchema
from api.services import services
from notifier.people.preference_check import ask
from notifier.people.preferences import Decision
from notifier.security.api_keys import Scope
from notifier.vocabulary.reasons import Reason

blp = Resource(
    "preferences",
    __name__,
    url_prefix="/api/v1/preferences",
    description="Decisions of preferences.",
    shows_credentials=False,
)


@blp.route("/check", methods=["POST"])
@requires(Scope.READ)
@blp.arguments(PreferenceCheckSchema)
@blp.response(200, DecisionSchema)
@blp.alt_response(404, description="There is no such user.")
def check_preferences(asked: dict[str, Any]) -> Decision | dict[str, Any]:
    """Tell whether a notification to a user would be sent, when, and which rule decides."""
    wires = services().wiring
    try:
        decision = ask(
            wires.engine,
            asked["user_id"],
            asked["channel"],
            asked["category"],
            critical=asked["critical"],
            at=asked["at"] or datetime.now(UTC),
            zone=wires.settings.timezone,
        )
    except LookupError:
        abort(404, "There is no such user.")
    if decision is not None:
        return decision
    words = f"The user has no address for {asked['channel']}."
    return {"allowed": False, "at": None, "rule": Reason.NO_ADDRESS, "explanation": words}
