"""BatchFailed: the rows of a batch that failed, for the task that retries or dead-letters them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from notifier.vocabulary.errors import NotifierError


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A notification whose attempt failed; still in `sending` under `claims`. Pickles, as Celery requires."""

    id: UUID
    claims: int
    #: No retry can help.
    permanent: bool
    error: str | None
    #: Why it is dead then, where that is not simply a permanent error.
    reason: str | None = None
    #: Seconds that the provider asked to wait, as a floor under the backoff.
    retry_after: float | None = None


class BatchFailed(NotifierError):
    """Some rows of a batch failed. All state is in `args`, so that it survives pickling."""

    def __init__(self, rows: Sequence[FailedRow]) -> None:
        super().__init__(tuple(rows))

    @property
    def rows(self) -> tuple[FailedRow, ...]:
        """The notifications that failed."""
        rows: tuple[FailedRow, ...] = self.args[0]
        return rows

    def __str__(self) -> str:
        permanent = sum(row.permanent for row in self.rows)
        return f"{len(self.rows)} failed, {permanent} of them for good"

    def __repr__(self) -> str:
        return f"BatchFailed({self})"  # short: it goes to logs and to Flower
