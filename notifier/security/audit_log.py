"""The audit log: actor, action, target, time, origin and outcome, one line an action, written once it is over.

Lines contain names, ids and codes: no payload, no recipient's address, and a user's id only as a keyed hash.

Each line is chained to the one before: its hash is an HMAC over its fields and the previous hash. Without
NOTIFIER_SECRET_KEY, nobody who can write to the database can change, insert or remove a line without `verify` detecting
it. The newest lines can be cut off together with the chain's end: keep the newest hash elsewhere to detect that.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, Row, Select, delete, func, literal, select, text, update
from sqlalchemy.orm import Session

from notifier.models import AuditChain, AuditLine
from notifier.security.secret_box import Vault
from notifier.security.signing_keys import signing_key
from notifier.vocabulary.errors import NotifierError
from notifier.vocabulary.ids import new_id

#: The purpose of the key.
PURPOSE: Final = "audit"
#: The longest text that is stored, in characters, so that no caller decides how large the log grows.
_LONGEST: Final = 500
#: Hexadecimal digits of a hash that are stored: enough to find a known value.
_DIGITS: Final = 16
_BATCH: Final = 1000
#: The fields that a line's hash covers, in their order.
_COVERED: Final = (*("number", "id", "at", "actor", "action", "target", "outcome", "request_id", "peer", "times"),)

_LOCK_END: Final = text("SELECT number, hash FROM audit_chain WHERE id = 1 FOR UPDATE")
_LOCK_BEGINNING: Final = text("SELECT deleted_number, deleted_hash FROM audit_chain WHERE id = 1 FOR UPDATE")
_DELETE_UNCHAINED: Final = text("""
    DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE number IS NULL AND at < :before LIMIT :limit)
""")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings of a walk along the chain."""

    #: Lines that are in the chain, and those that are not: of releases before, or where the key was not to be had.
    chained: int
    unchained: int
    #: The newest line's hash, in hexadecimal; empty where there is none.
    newest: str
    #: The fault, in words; None where all is as it was written.
    fault: str | None = None


class AuditLog:
    """Writes, reads, verifies and shortens the audit log of one installation. Used by several threads at once."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault
        self._key: bytes | None = None

    def _chain_key(self) -> bytes:
        """Return the key of hashes. Raises CannotDecrypt, Conflict if it cannot be read, and SQLAlchemyError."""
        if self._key is None:
            self._key = signing_key(self._engine, self._vault, PURPOSE, seal=True)
        return self._key

    def fingerprint(self, text: str) -> str:
        """Return a stand-in for text that must not be in the log: digits of a keyed hash. Raises SQLAlchemyError.

        Without a readable key (a process without NOTIFIER_SECRET_KEY) it reveals nothing about the text.
        """
        try:
            key = self._chain_key()
        except NotifierError:
            return "hmac:unreadable-key"
        return f"hmac:{hmac.digest(key, b'fingerprint:' + text.encode(), 'sha256').hex()[:_DIGITS]}"

    def record(
        self,
        actor: str,
        action: str,
        target: str | None,
        outcome: str,
        *,
        at: datetime,
        request_id: str | None = None,
        peer: str | None = None,
        times: int = 1,
    ) -> None:
        """Write one line for an action that is over, in a transaction of its own. Raises SQLAlchemyError.

        `actor`: a key's name, or `shell:USER`. `at`: the time of the action. Long texts are cut.
        """
        line = AuditLine(
            id=new_id(),
            at=at,
            actor=actor[:_LONGEST],
            action=action[:_LONGEST],
            target=target and target[:_LONGEST],
            outcome=outcome[:_LONGEST],
            request_id=request_id,
            peer=peer and peer[:_LONGEST],
            times=times,
        )
        try:
            key = self._chain_key()
        except NotifierError:
            key = None  # a line outside of the chain is better than none, and `verify` counts it
        with Session(self._engine) as session, session.begin():
            if key is not None:
                # Locked until the transaction ends: every process appends to the same chain, one line after the other.
                end = session.execute(_LOCK_END).one()
                line.number = end.number + 1
                line.hash = _hash(key, bytes(end.hash), line)
                session.execute(update(AuditChain).where(AuditChain.id == 1).values(number=line.number, hash=line.hash))
            session.add(line)

    def lines(
        self, *, since: datetime | None = None, actor: str | None = None, target: str | None = None, limit: int = 50
    ) -> Sequence[AuditLine]:
        """Return the newest lines, newest first."""
        with Session(self._engine) as session:
            return session.scalars(
                filtered(since, None, actor, target).order_by(AuditLine.id.desc()).limit(limit)
            ).all()

    def export(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[AuditLine]:
        """Yield all lines of a period, oldest first, reading a batch at a time."""
        query, last = filtered(since, until, None, None).order_by(AuditLine.id).limit(_BATCH), None
        while True:
            with Session(self._engine, expire_on_commit=False) as session:
                batch = session.scalars(query if last is None else query.where(AuditLine.id > last)).all()
            yield from batch
            if len(batch) < _BATCH:
                return
            last = batch[-1].id

    def count(self) -> int:
        """Count the lines."""
        with self._engine.connect() as connection:
            return int(connection.scalar(select(func.count()).select_from(AuditLine)) or 0)

    def verify(self, expected: str | None = None) -> Iterator[int | Verdict]:
        """Walk along the chain: yields how many lines each step read, and in the end a Verdict.

        `expected`: a hash that was the newest once, and must still be there. Raises CannotDecrypt, Conflict where the
        key cannot be read.
        """
        key = self._chain_key()
        with self._engine.connect() as connection:
            # One snapshot, so that lines written or deleted meanwhile are not reported as errors.
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            end = connection.execute(select(AuditChain.__table__)).one()
            total, chained = connection.execute(select(func.count(), func.count(AuditLine.number))).one()
            walk = _Walk(key, end, expected)
            while batch := _after(connection, walk.number):
                walk.take(batch)
                yield len(batch)
                if walk.fault:
                    break
            fault = walk.fault or walk.fault_at_the_end(chained)
            yield Verdict(walk.chained, total - chained, bytes(end.hash).hex(), fault)

    def expire(self, before: datetime) -> int:
        """Delete a batch of lines older than that, and note where the chain begins now. Returns how many.

        Where the key cannot be read, only lines outside of the chain go.
        """
        with self._engine.begin() as connection:
            deleted = connection.execute(_DELETE_UNCHAINED, {"before": before, "limit": _BATCH}).rowcount
            try:
                key = self._chain_key()
            except NotifierError:
                return deleted
            beginning = connection.execute(_LOCK_BEGINNING).one()
            old = None
            for row in _after(connection, beginning.deleted_number):
                if row.at >= before:
                    break
                old, deleted = row, deleted + 1
            if old is not None:
                seal = _seal(key, old.number, bytes(old.hash))
                connection.execute(delete(AuditLine).where(AuditLine.number <= old.number))
                begins = {"deleted_number": old.number, "deleted_hash": bytes(old.hash), "deleted_seal": seal}
                connection.execute(update(AuditChain).where(AuditChain.id == 1).values(begins))
        return deleted

    def count_expired(self, before: datetime) -> int:
        """Count the lines that are older than that."""
        with self._engine.connect() as connection:
            return int(connection.scalar(select(func.count()).where(AuditLine.at < before)) or 0)


def filtered(
    since: datetime | None, until: datetime | None, actor: str | None, target: str | None
) -> Select[AuditLine]:
    """Select the lines of a period, of an actor, or with a word in their target."""
    query = select(AuditLine)
    if since is not None:
        query = query.where(AuditLine.at >= since)
    if until is not None:
        query = query.where(AuditLine.at < until)
    if actor is not None:
        query = query.where(AuditLine.actor == actor)
    if target is not None:
        query = query.where(literal(target) == func.any(func.string_to_array(AuditLine.target, " ")))
    return query


def _after(connection: Connection, number: int) -> Sequence[Row[Any]]:
    table = AuditLine.__table__
    query = select(table).where(table.c.number > number).order_by(table.c.number).limit(_BATCH)
    return connection.execute(query).all()


def _hash(key: bytes, before: bytes, line: AuditLine | Row[Any]) -> bytes:
    """Compute the keyed hash of a line, chained to the hash of the line before."""
    fields = [getattr(line, name) for name in _COVERED]
    fields[_COVERED.index("at")] = line.at.astimezone(UTC).isoformat(timespec="microseconds")
    fields[_COVERED.index("id")] = str(line.id)
    return hmac.digest(key, b"line:" + before + orjson.dumps(fields), hashlib.sha256)


def _seal(key: bytes, number: int, hashed: bytes) -> bytes:
    return hmac.digest(key, b"deleted:" + str(number).encode() + b":" + hashed, hashlib.sha256)


class _Walk:
    """One walk along the chain, from its beginning."""

    def __init__(self, key: bytes, end: Row[Any], expected: str | None) -> None:
        self._key, self._end, self._expected = key, end, expected
        self.number, self._hash = int(end.deleted_number), bytes(end.deleted_hash)
        self.chained, self.fault = 0, None if self._is_sealed() else "the chain's beginning was moved"
        self._has_met = expected is None or self._hash.hex() == expected

    def _is_sealed(self) -> bool:
        if not self.number:
            return True
        seal = _seal(self._key, self.number, self._hash)
        return hmac.compare_digest(seal, bytes(self._end.deleted_seal or b""))

    def take(self, batch: Sequence[Row[Any]]) -> None:
        """Check the next lines, up to the first that is not as it was written."""
        for row in batch if self.fault is None else ():
            if row.number != self.number + 1:
                self.fault = f"line {self.number + 1} is missing, before {row.id} of {row.at:%Y-%m-%d %H:%M:%S}"
            elif not hmac.compare_digest(_hash(self._key, self._hash, row), bytes(row.hash or b"")):
                self.fault = f"line {row.number} ({row.id}) is not as it was written"
            if self.fault:
                return
            self.number, self._hash, self.chained = row.number, bytes(row.hash), self.chained + 1
            self._has_met = self._has_met or self._hash.hex() == self._expected

    def fault_at_the_end(self, chained: int) -> str | None:
        """Return the fault once all lines were taken. `chained`: how many say that they are in the chain."""
        if (self.number, self._hash) != (self._end.number, bytes(self._end.hash)):
            return f"the newest lines are missing: the last is {self.number}, and {self._end.number} was written"
        if chained != self.chained:
            return f"{chained - self.chained} lines were added with a number that another has"
        if not self._has_met:
            return "no line has the hash that was expected: the newest lines were cut off, or it is another log's"
        return None
