"""The API, answering without its database: python -m benchmarks.no_database --port 8000, with an API's environment.

The same process and the same code, from `api.serving` on: its HTTP server, the fast path, validation, drafting, the
answer and the log line. Two parts of the wiring are others: the intake answers at once and writes nothing, and nobody
has subscribed. So it is the most that the API could accept if Postgres cost nothing.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import Future
from unittest.mock import patch

from sqlalchemy import Engine

from api.serving.__main__ import main as serve
from config.wiring import Wiring
from notifier.events.intake import Accepted, Answer, Intake, Publisher
from notifier.planning.drafts import Draft
from notifier.planning.subscribers import SubscriberCache, SubscriberIndex


class _IntakeAtOnce(Intake):
    """An intake that answers as if it had written."""

    def submit(self, drafts: Sequence[Draft]) -> "Future[list[Answer]]":
        """Accept drafts at once."""
        answers: Future[list[Answer]] = Future()
        answers.set_result([Accepted(draft.ids, draft.created_at, duplicate=False) for draft in drafts])
        return answers


class _NoSubscribers(SubscriberCache):
    """A directory in which nobody stands, without a thread that would read it."""

    _nobody = SubscriberIndex(1, ())

    def recent(self, engine: Engine) -> SubscriberIndex:
        """Return the empty index."""
        del engine
        return self._nobody


class WithoutDatabase(Wiring):
    """The parts of an API process that never asks Postgres about an event."""

    @functools.cached_property
    def subscribers(self) -> SubscriberCache:
        """Return the empty directory."""
        return _NoSubscribers()

    def intake(self, publisher: Publisher) -> Intake:
        """Make the intake that writes nothing."""
        return _IntakeAtOnce(self.engine, publisher, idempotency_ttl=self.settings.idempotency_ttl)


def main() -> None:
    """Serve as `python -m api.serving` does, with these parts."""
    with patch("config.wiring.Wiring", WithoutDatabase):
        serve()


if __name__ == "__main__":
    main()
