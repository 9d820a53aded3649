"""The audit log: who did what to what, when, and what came of it. A line an act, written once it is over.

Lines hold names, ids and codes: no payload, no address, and of a user's id no more than a part of its hash.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from notifier.ids import new_id
from notifier.models import AuditLine

#: What is kept of a text, in characters: nobody chooses how large the log grows.
_LONGEST: Final = 500
#: Hexadecimal digits that are kept of a hash: enough to find what one knows.
_DIGITS: Final = 16


def fingerprint(text: str) -> str:
    """What stands in the log for what must not: the first digits of its SHA-256."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def record(
    engine: Engine,
    actor: str,
    action: str,
    target: str | None,
    outcome: str,
    *,
    at: datetime,
    request_id: str | None = None,
) -> None:
    """Write one line, in a transaction of its own: the act is over. Raises SQLAlchemyError.

    `actor`: a key's name, or `shell:USER`. `at`: when it was done. What is too long is cut.
    """
    line = AuditLine(
        id=new_id(),
        at=at,
        actor=actor[:_LONGEST],
        action=action[:_LONGEST],
        target=target and target[:_LONGEST],
        outcome=outcome[:_LONGEST],
        request_id=request_id,
    )
    with Session(engine) as session, session.begin():
        session.add(line)


def lines(
    engine: Engine, *, since: datetime | None = None, actor: str | None = None, limit: int = 50
) -> Sequence[AuditLine]:
    """The newest lines, the newest first."""
    query = select(AuditLine).order_by(AuditLine.id.desc()).limit(limit)
    if since is not None:
        query = query.where(AuditLine.at >= since)
    if actor is not None:
        query = query.where(AuditLine.actor == actor)
    with Session(engine) as session:
        return session.scalars(query).all()
