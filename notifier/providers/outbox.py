"""The local outbox: keeps messages in Postgres, for channels that have no other provider yet."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from notifier.channels import Channel
from notifier.providers import Message, Outcome, Result
from notifier.providers.dsn import Context, Dsn

#: Messages that go into one INSERT.
_ROWS: Final = 100

_KEEP: Final = text("""
    INSERT INTO outbox (notification_id, channel, recipient, subject, text, html)
    SELECT id, :channel, recipient, subject, text, html FROM unnest(CAST(:ids AS uuid[]), CAST(:recipients AS text[]),
        CAST(:subjects AS text[]), CAST(:texts AS text[]), CAST(:htmls AS text[]))
        AS message(id, recipient, subject, text, html)
""")


class Outbox:
    """A provider that sends nothing: `manage.py outbox` shows what it kept."""

    name = "outbox"
    confirms_delivery = False
    #: One INSERT is bounded by Postgres, not by us.
    timeout = 10.0

    def __init__(self, channel: Channel, engine: Engine) -> None:
        self._channel = channel
        self._engine = engine

    def takes(self, recipient: str) -> bool:
        """See Provider."""
        del recipient
        return True

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """Keep messages, a hundred at a time."""
        while batch := list(islice(messages, _ROWS)):
            started_at, began = datetime.now(UTC), time.monotonic()
            kept = self._keep(batch)
            took = (time.monotonic() - began) * 1000
            yield [
                Result(message.id, outcome, self.name, started_at, took, error=error)
                for message, (outcome, error) in zip(batch, kept, strict=True)
            ]

    def close(self) -> None:
        """Nothing to close: connections are the engine's."""

    def _keep(self, batch: Sequence[Message]) -> list[tuple[Outcome, str | None]]:
        """What became of each message; all of them go in one INSERT."""
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    _KEEP,
                    {
                        "channel": self._channel.value,
                        "ids": [message.id for message in batch],
                        "recipients": [message.recipient for message in batch],
                        "subjects": [message.subject for message in batch],
                        "texts": [message.text for message in batch],
                        "htmls": [message.html for message in batch],
                    },
                )
        except SQLAlchemyError as error:
            return [(Outcome.UNSENT, f"postgres: {type(error).__name__}")] * len(batch)
        except ValueError as error:  # text that Postgres cannot hold: a NUL, a lone surrogate
            if len(batch) > 1:  # it fails alone, its neighbours do not
                return [kept for message in batch for kept in self._keep([message])]
            return [(Outcome.REJECTED, f"text: {type(error).__name__}")]
        return [(Outcome.ACCEPTED, None)] * len(batch)


def provider(dsn: Dsn, context: Context) -> Outbox:
    """The factory of `outbox:`."""
    del dsn
    return Outbox(context.channel, context.engine)
