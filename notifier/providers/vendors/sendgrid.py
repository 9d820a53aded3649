"""Email: SendGrid's Mail Send API (v3). `sendgrid://KEY@default?region=eu`

| answer                                      | outcome                                                       |
|---------------------------------------------|---------------------------------------------------------------|
| 202, empty                                  | accepted; its name is in X-Message-Id                         |
| 400 about `personalizations.….to.….email`   | rejected, the recipient's fault                               |
| 400 about `from.…`                          | unsent, the provider's fault                                  |
| 400 about anything else, 413 (over 30 MB)   | rejected                                                      |
| 404, 405                                    | unsent, the provider's fault                                  |
| 401 (the key, or out of credits)            | unsent, the provider's fault                                  |
| 403 (scope of the key, sender not verified, blocked for bad requests) | unsent, the provider's fault        |
| 429                                         | unsent, throttled: Retry-After, else until X-RateLimit-Reset  |
| 5xx                                         | unsent, the provider's fault                                  |

Other answers: see `providers.http.api`. Every message has its id in its Message-ID and as the custom argument
`notification_id`, which each of SendGrid's events repeats (see `sendgrid_receipts`).
"""

import math
import re
import time
from base64 import b64encode
from typing import Final

import orjson

from notifier.providers.dsn import VISIBLE, Context, Dsn
from notifier.providers.formats.email_api import EmailApi, default_sender
from notifier.providers.formats.email_headers import subject_text
from notifier.providers.formats.mailboxes import Mailbox
from notifier.providers.formats.mime import own_fields
from notifier.providers.http.api import Answer, Verdict, by_status
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome
from notifier.providers.vendors.sendgrid_receipts import source

_URLS: Final = {"global": "https://api.sendgrid.com", "eu": "https://api.eu.sendgrid.com"}
_FORM: Final = "sendgrid://KEY@default?region=eu"

_NO_SUBJECT: Final = "(no subject)"

#: The names of fields in the API's errors; any other text there may be an address.
_FIELD: Final = re.compile(r"[a-z_]+(\.([a-z_]+|[0-9]+))*")
_SENDER: Final = re.compile(r"from\b.*")
_RECIPIENT: Final = re.compile(r"personalizations\.[0-9]+\.to\b.*")
#: The longest wait that is honoured, in seconds; as with Retry-After.
_WAIT_AT_MOST: Final = 24 * 3600.0


class SendGrid(EmailApi):
    """Hands each email to SendGrid."""

    name = "sendgrid"

    def __init__(self, *, url: str, key: str, sender: Mailbox, timeout: float) -> None:
        """`url`: where the API is. `sender`: whom email is from that names nobody."""
        super().__init__(sender=sender, timeout=timeout)
        self._url = f"{url}/v3/mail/send"
        self._headers = [
            f"authorization: Bearer {key}",
            "content-type: application/json",
            "accept: application/json",
            USER_AGENT,
            "expect:",  # libcurl would ask first whether a large body is welcome, and wait a second for the answer
        ]

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        parties = self.parties(message)
        sender, recipient, reply_to = parties.sender, parties.recipient, parties.reply_to
        mail: dict[str, object] = {
            "personalizations": [{"to": [_person(recipient)]}],
            "from": _person(sender),
            "content": _content(message),
            "headers": own_fields(message, sender),
            "custom_args": {"notification_id": str(message.id)},
            # The API takes no email without one.
            "subject": subject_text(message.subject or "") or _NO_SUBJECT,
        }
        if reply_to is not None:
            mail["reply_to"] = _person(reply_to)
        if message.attachments:
            mail["attachments"] = _attachments(message)
        return Request(id=message.id, url=self._url, headers=self._headers, body=orjson.dumps(mail))

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        status = answer.status
        if 200 <= status < 300:
            return Verdict(Outcome.ACCEPTED, message_id=answer.header("x-message-id"))
        field = answer.text("errors", 0, "field")
        field = field if field and _FIELD.fullmatch(field) else None
        if status == 400 and field and _RECIPIENT.fullmatch(field):
            error = "http 400: sendgrid takes the recipient for no address"
            return Verdict(Outcome.REJECTED, error, Fault.RECIPIENT)
        if status == 400 and field and _SENDER.fullmatch(field):
            return Verdict(Outcome.UNSENT, "http 400: sendgrid refuses the sender", Fault.PROVIDER)
        if status in {404, 405}:
            return Verdict(Outcome.UNSENT, f"http {status}: no such endpoint", Fault.PROVIDER)
        if status == 429:
            wait = answer.exchange.retry_after
            wait = _until_reset(answer) if wait is None else wait
            return Verdict(Outcome.UNSENT, "http 429", Fault.THROTTLED, retry_after=wait)
        return by_status(answer, field and f"sendgrid complains about {field}")


def _person(address: Mailbox) -> dict[str, str]:
    name = {"name": address.display_name} if address.display_name else {}
    return {"email": address.addr_spec, **name}


def _content(message: Message) -> list[dict[str, str]]:
    """Return the parts of a message, plainest first, as the API demands; empty parts are left out."""
    parts = (("text/plain", message.text), ("text/html", message.html))
    return [{"type": kind, "value": value} for kind, value in parts if value]


def _attachments(message: Message) -> list[dict[str, str]]:
    return [
        {
            "content": b64encode(attachment.content).decode(),
            "filename": attachment.name,
            "type": attachment.content_type,
            "disposition": "attachment",
        }
        for attachment in message.attachments
    ]


def _until_reset(answer: Answer) -> float | None:
    """Return the seconds until the moment of X-RateLimit-Reset, which is in seconds since 1970."""
    moment = answer.header("x-ratelimit-reset")
    if moment is None or not re.fullmatch(r"[0-9]{1,12}", moment):
        return None
    return min(max(math.ceil(int(moment) - time.time()), 0.0), _WAIT_AT_MOST)


def provider(dsn: Dsn, context: Context) -> SendGrid:
    """Create the provider of `sendgrid://`. Raises ValueError."""
    options = dsn.options("region", "webhook_key")
    if not dsn.username:
        raise ValueError(f"has no key: {_FORM}")
    if dsn.password:
        raise ValueError(f"has a password, but a key is all there is: {_FORM}")
    if not VISIBLE.fullmatch(dsn.username):
        raise ValueError("has a key with other than visible ASCII characters")
    if dsn.path not in {"", "/"}:
        raise ValueError(f"has a path: {_FORM}")
    region = options.get("region", "global")
    if region not in _URLS:
        raise ValueError(f"has a region that is not one of {', '.join(sorted(_URLS))}")
    source(dsn)  # which looks at the webhook_key
    url, sender = dsn.base_url(_URLS[region]), default_sender(context)
    return SendGrid(url=url, key=dsn.username, sender=sender, timeout=context.timeout)
