"""Dead push tokens: those of apps that were removed and of browsers that unsubscribed."""

from collections.abc import Collection
from typing import Final

import structlog
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

log = structlog.get_logger()

# Found by their users, who have an index; locked in one order, against deadlocks.
_PRUNE: Final = text("""
    WITH gone AS MATERIALIZED (
        SELECT user_id, array_agg(token) AS tokens
        FROM unnest(CAST(:user_ids AS text[]), CAST(:tokens AS text[])) AS pair(user_id, token) GROUP BY user_id
    ), locked AS MATERIALIZED (
        SELECT u.id, gone.tokens FROM users u JOIN gone USING (user_id) WHERE u.push_tokens && gone.tokens
        ORDER BY u.user_id FOR NO KEY UPDATE OF u
    )
    UPDATE users u SET updated_at = now(), push_tokens = ARRAY(
        SELECT token FROM unnest(u.push_tokens) WITH ORDINALITY AS kept(token, place)
        WHERE token <> ALL(locked.tokens) ORDER BY place
    ) FROM locked WHERE u.id = locked.id
""")


def prune_tokens(engine: Engine, gone: Collection[tuple[str, str]]) -> int:
    """Remove tokens, each from one user: pairs of user_id and token. Returns how many users had any of them.

    If another user has registered the same token meanwhile, they keep it. Database errors are not raised: the next
    message to a remaining token finds it again.
    """
    if not gone:
        return 0
    values = {"user_ids": [user_id for user_id, _ in gone], "tokens": [token for _, token in gone]}
    try:
        with engine.begin() as connection:
            pruned = connection.execute(_PRUNE, values).rowcount
    except SQLAlchemyError as error:
        log.warning("push_tokens_not_pruned", error=type(error).__name__, tokens=len(gone))
        return 0
    log.info("push_tokens_pruned", tokens=len(gone), users=pruned)
    return pruned
