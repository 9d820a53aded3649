"""Words for what a deferred notification waits for, as its column `waits_for` has them.

The clock finds the rows to release by these words. `reason` and `explanation` are for readers: no query depends on
their sentences.
"""

from collections.abc import Iterable
from typing import Final

#: Its recipient has had as many messages as one may: it waits until some time has passed.
RECIPIENT: Final = "recipient"
#: Its webhook endpoint: the row's `subscription_id` says which one.
ENDPOINT: Final = "endpoint"


def provider(name: str) -> str:
    """Return the word for a provider of the row's channel. The prefix keeps names apart from the other words."""
    return f"provider:{name}"


def providers(names: Iterable[str]) -> tuple[str, ...]:
    """Return the words for several providers, of which any one may send the row."""
    return tuple(provider(name) for name in names)


#: The explanation of a notification `n`. The release before inserts it as `rule` alone.
EXPLANATION_IN_SQL: Final = "coalesce(n.explanation, n.rule)"
#: SET clauses that forget why a notification was deferred; `reason` is the statement's own.
#: `rule` is `explanation` for the release before; the next release drops it.
UNEXPLAINED_IN_SQL: Final = "explanation = NULL, rule = NULL, waits_for = NULL"
