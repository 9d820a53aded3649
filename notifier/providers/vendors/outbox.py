"""The local outbox: stores messages in Postgres, for channels that have no other provider yet."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from notifier.providers.dsn import Context, Dsn
from notifier.providers.protocol import Message, Outcome, Result
from notifier.security.address_seals import seals_of
from notifier.vocabulary.states import Channel

#: Messages that go into one INSERT.
ROWS: Final = 100

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
        while batch := list(islice(messages, ROWS)):
            started_at, began = datetime.now(UTC), time.monotonic()
            kept = keep(self._engine, self._channel, batch)
            took = (time.monotonic() - began) * 1000
            yield [
                Result(message.id, outcome, self.name, started_at, took, error=error)
                for message, (outcome, error) in zip(batch, kept, strict=True)
            ]

    def close(self) -> None:
        """Do nothing: connections belong to the engine."""


def keep(
    engine: Engine,
    channel: Channel,
    batch: Sequence[Message],
    also: Callable[[Connection, Sequence[Message]], None] | None = None,
) -> list[tuple[Outcome, str | None]]:
    """Keep messages, all in one INSERT, and what `also` writes of them in the same transaction; what became of each."""
    try:
        recipients = [seals_of(engine).kept(channel, message.recipient) for message in batch]
        with engine.begin() as connection:
            connection.execute(
                _KEEP,
                {
                    "channel": channel.value,
                    "ids": [message.id for message in batch],
                    "recipients": recipients,
                    "subjects": [message.subject for message in batch],
                    "texts": [message.text for message in batch],
                    "htmls": [message.html for message in batch],
                },
            )
            if also:
                also(connection, batch)
    except SQLAlchemyError as error:
        return [(Outcome.UNSENT, f"postgres: {type(error).__name__}")] * len(batch)
    except ValueError as error:  # text that Postgres cannot hold: a NUL, a lone surrogate
        if len(batch) > 1:  # it fails alone, its neighbours do not
            return [kept for message in batch for kept in keep(engine, channel, [message], also)]
        return [(Outcome.REJECTED, f"text: {type(error).__name__}")]
    return [(Outcome.ACCEPTED, None)] * len(batch)


def provider(dsn: Dsn, context: Context) -> Outbox:
    """Create the provider of `outbox:`."""
    del dsn
    return Outbox(context.channel, context.engine)
