"""The public face of Notifier for packages of handlers and providers: they import this module and no other of ours.

Its names keep their meaning within a major version; anything else may move in any release. docs/handlers.md and
docs/providers.md have an example of each use.

- Handlers: `Plan`, `Strategy`, `Channel`, `Priority`.
- Providers: `Provider`, or `HttpApi` for a vendor with an HTTP API; `Message`, `Result`, `Outcome`, `Fault`,
  `Attachment`.
  The factory takes `Dsn` and `Context`. HTTP: `Request`, `Answer`, `Verdict`, `accepted_as`, `by_status`.
- Receipts: `ReceiptSource`, `Callback`, `Report`, `Receipt`, `Kind`, `AddressStatus`, `SuppressionReason`, `NotSigned`,
  `Malformed`.
- Receivers of our webhooks: `verify` and `key_of`.
"""

from notifier.planning.plans import Plan, Strategy
from notifier.providers.dsn import Context, Dsn
from notifier.providers.http.api import Answer, HttpApi, Verdict, accepted_as, by_status
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Attachment, Fault, Message, Outcome, Provider, Result
from notifier.providers.receipts import (
    AddressStatus,
    Callback,
    Kind,
    Malformed,
    NotSigned,
    Receipt,
    ReceiptSource,
    Report,
    SuppressionReason,
)
from notifier.security.webhook_signatures import key_of, verify
from notifier.vocabulary.states import Channel, Priority

__all__ = [
    "AddressStatus",
    "Answer",
    "Attachment",
    "Callback",
    "Channel",
    "Context",
    "Dsn",
    "Fault",
    "HttpApi",
    "Kind",
    "Malformed",
    "Message",
    "NotSigned",
    "Outcome",
    "Plan",
    "Priority",
    "Provider",
    "Receipt",
    "ReceiptSource",
    "Report",
    "Request",
    "Result",
    "Strategy",
    "SuppressionReason",
    "Verdict",
    "accepted_as",
    "by_status",
    "key_of",
    "verify",
]
