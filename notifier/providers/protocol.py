"""The provider protocol: the interface between notifications and a vendor's API.

A provider takes messages one by one as it has capacity for them, and returns the result of each as it finishes. It
knows nothing of Postgres, retries or queues: it distinguishes outcomes, and the rest of the system decides.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

#: How much of a provider's answer is kept, in characters.
EXCERPT = 1024


class Outcome(StrEnum):
    """The outcome of one call to a provider."""

    #: The provider has taken the message over.
    ACCEPTED = "accepted"
    #: The provider refuses this message permanently (an unknown mailbox, a 4xx).
    REJECTED = "rejected"
    #: Certainly not sent; worth trying again (refused connection, 5xx, throttled).
    UNSENT = "unsent"
    #: The answer was lost after the message went out: it may have been sent.
    AMBIGUOUS = "ambiguous"


class Fault(StrEnum):
    """The party at fault when a message is not accepted, if that is known."""

    #: The provider's own, or of how we use it: it is down, or refuses our credentials. Another one may do better.
    PROVIDER = "provider"
    #: Nobody's: it is too much at once. The same provider takes it later.
    THROTTLED = "throttled"
    #: This account or sender cannot reach the address (its country, a trial's list), though both are well. Another
    #: provider takes over at once, and no breaker counts it.
    ROUTE = "route"
    #: The address's: nobody is there. No other provider will find anybody either.
    RECIPIENT = "recipient"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file attached to an email."""

    #: As the recipient sees it: no path, no control characters.
    name: str
    #: `type/subtype`, and perhaps parameters, `; name=value`.
    content_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One rendered notification. Providers send its `id` along, the same in every attempt."""

    #: The notification's id.
    id: UUID
    #: An address of the channel: a mailbox, an E.164 number, a push token, a URL.
    recipient: str
    #: A subject or title, where the channel has one.
    subject: str | None
    #: The text; for a webhook the JSON body, byte for byte the same in every attempt.
    text: str
    #: The same content as HTML, where there is one (email).
    html: str | None = None
    #: The sender and where answers go, `name@domain` or `Name <name@domain>`, where they are not the channel's own.
    sender: str | None = None
    reply_to: str | None = None
    #: Where one click ends messages of this kind (RFC 8058), where the channel can say so.
    unsubscribe: str | None = None
    #: The keys that sign a webhook, the newest first, where they are not the channel's; and headers of its receiver.
    keys: tuple[bytes, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    #: The 4xx by which a webhook's receiver refuses it permanently, beside 410.
    permanent_statuses: frozenset[int] = frozenset()
    #: Its position in a trace (W3C's traceparent), sent along if the provider speaks HTTP.
    traceparent: str | None = None
    #: Attachments, where the channel can carry them (email).
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one message in one call to a provider."""

    #: The message's id.
    id: UUID
    outcome: Outcome
    #: The provider's name, as attempts record it.
    provider: str
    #: When the call began, with a time zone.
    started_at: datetime
    duration_ms: float
    #: The HTTP or SMTP code, where there was an answer.
    status_code: int | None = None
    #: Who is at fault, if it was not accepted and that is known.
    fault: Fault | None = None
    #: The reason to suppress the recipient (`stop`), where the provider says that its owner wants no messages.
    suppress: str | None = None
    #: Another provider takes the message over at once: this is not the last word on it.
    handed_on: bool = False
    #: The provider's id of the message, if it gives one: its receipts refer to it.
    message_id: str | None = None
    #: A class and a safe detail in a few words, where it was not accepted: "timeout: connect took over 10 s".
    error: str | None = None
    #: The beginning of the answer, at most EXCERPT characters, with no NUL in it.
    response_excerpt: str | None = None
    #: Seconds that the provider asks us to wait, as a floor under the backoff.
    retry_after: float | None = None
    #: Of an HTTP call: the headers that we set, secrets masked, and those that came back; dicts, lower-case names.
    request_headers: Mapping[str, str] | None = None
    response_headers: Mapping[str, str] | None = None
    #: `dns_ms`, `connect_ms`, `tls_ms`, `first_byte_ms`, `total_ms`: milliseconds from the call's beginning to the end
    #: of each phase; None where it was not reached or did not happen.
    timing: Mapping[str, float | None] | None = None

    @property
    def ended_at(self) -> datetime:
        """When the call ended."""
        return self.started_at + timedelta(milliseconds=self.duration_ms)


class Provider(Protocol):
    """One vendor on one channel. Used by several threads at once."""

    #: As recorded in attempts: "smtp", "webhook", "outbox".
    name: str
    #: A positive answer means that it has arrived, not merely been taken over (a webhook's 2xx).
    confirms_delivery: bool
    #: The longest that one message may take in all, in seconds. Holds whatever the other side does.
    timeout: float

    def takes(self, recipient: str) -> bool:
        """Return whether this provider sends to an address of this kind (such as one push service's tokens)."""
        ...

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        """Send the messages that `messages` yields, and yield results as they finish.

        Takes the next message only when it can start it at once: a message taken is a message begun, and each one taken
        comes back in exactly one Result. Yields at least ten times a second while anything is in flight, an empty
        sequence if nothing finished, so that the caller can record finished messages. Ends when `messages` has ended
        and nothing is in flight. Never raises because of a message: its error is its Result. When the caller closes the
        generator early, messages in flight are dropped.
        """
        ...

    def close(self) -> None:
        """Close idle connections."""
        ...
