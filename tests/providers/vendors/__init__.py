"""Each vendor's wire: real shapes and codes, from their references; one vendor a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.states import Channel
from tests.providers.receivers import Received


@dataclass(frozen=True)
class Case:
    """An answer of the vendor's, and what it must come to."""

    label: str
    #: Raw HTTP, as tests.providers.receivers.response makes it.
    answer: bytes
    outcome: Outcome
    fault: Fault | None = None
    retry_after: float | None = None


@dataclass(frozen=True)
class Vendor:
    """All that the conformance suite must know of a vendor."""

    name: str
    channel: Channel
    #: The DSN of a server on 127.0.0.1 at a port, without TLS.
    dsn: Callable[[int], str]
    #: An address that the provider takes.
    recipient: str
    #: The vendor's yes, and the message id that it names (None where it names none).
    success: bytes
    message_id: str | None
    #: Every documented class of error, authentication and throttling among them.
    errors: Sequence[Case]
    #: Asserts that a request says what a message says, as the vendor wants it.
    check: Callable[[Received, Message], Any]
    #: A 2xx that is not as documented is no proof of anything; False where the vendor's yes is the status alone.
    needs_body: bool = True
    #: Whose fault it is where it is down or refuses us; None where strangers say whom we turn to.
    own_fault: Fault | None = Fault.PROVIDER
