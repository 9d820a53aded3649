"""Hooks of Schemathesis (it loads them by SCHEMATHESIS_HOOKS): what no schema can say of a request.

`positive_data_acceptance` holds the API to accepting whatever its description allows. A 422 may all the same be right
where it speaks of what is kept, of two places of one request, or of what OpenAPI 3.0 has no words for. Those messages
stand in KNOWN; any other one is a failure.
"""

import json
import re
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi.checks import positive_data_acceptance

#: Messages of a 422, and why the description does not know of them.
KNOWN = {
    r"There is no such template\.": "what is kept",
    r"The template has no version for \w+\.": "what is kept",
    r"Neither 'all', a channel .* nor the name of a route\.": "what is kept",
    r"This key was already used with a different body\.": "what is kept",
    r"This notification is no reminder: it has no target to move\.": "what is kept",
    r"A reminder needs its target; cancel it instead\.": "what is kept",
    r"[\w.-]+ v\d+, (?:subject|text|html).*": "what a kept template needs of its data",
    r"It differs from the Idempotency-Key header\.": "two places",
    r"It ends when it starts: .*": "two members that differ",
    r"It is not before the end of the span\.": "two parameters that differ",
    r"(?:Figures|Minutes) are kept for .*": "the time of the day",
    r"(?:\w+, )?line \d+: .*": "Jinja's grammar",
    r"Not the name of a header\.": "names of members",
    r"A header stands there twice: .*": "names of members",
    r"This header is ours\.": "names of members",
    r"Length must be between 1 and 64\.": "names of members",
    r"(?:A text|A name) may not contain the NUL character\.": "the inside of free documents",
    r"An integer may have at most 64 bits\.": "the inside of free documents",
    r"A number is too large\.": "the inside of free documents",
}
_KNOWN = re.compile("|".join(f"(?:{each})" for each in KNOWN), re.DOTALL)


def _is_known(content: bytes) -> bool:
    """Return whether a problem speaks of nothing but what the description cannot know."""
    try:
        errors: Any = json.loads(content)["errors"]
    except (ValueError, KeyError, TypeError):
        return False
    return all(_KNOWN.fullmatch(message) for messages in errors.values() for message in messages)


@schemathesis.check
def accepts_what_is_described(ctx: Any, response: Any, case: Any) -> bool | None:
    """Check as `positive_data_acceptance` does, but for the messages in KNOWN."""
    try:
        return positive_data_acceptance(ctx, response, case)
    except Failure:
        if response.status_code == 422 and _is_known(response.content):
            return None
        raise
