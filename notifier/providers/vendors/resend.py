"""Email: Resend's API. `resend://KEY@default`

| answer                                                               | outcome                                      |
|----------------------------------------------------------------------|----------------------------------------------|
| 2xx with an `id`                                                     | accepted                                     |
| 422 `invalid_parameter`, 400 `validation_error` about `to`           | rejected, the recipient's fault              |
| 403 `validation_error` (no domain verified: only one's own address)  | unsent, a route's fault                      |
| 400 `validation_error` about the key, 401, 403, 404, 405, 451        | unsent, the provider's fault                 |
| `invalid_from_address` (any status)                                  | unsent, the provider's fault                 |
| 409 `invalid_idempotent_request` (taken before, with other words)    | ambiguous: that one may have been sent       |
| 409 `concurrent_idempotent_requests`                                 | unsent: an earlier call is under way         |
| 429 `rate_limit_exceeded`                                            | unsent, throttled                            |
| 429 `daily_quota_exceeded`, `monthly_quota_exceeded`                 | unsent, the provider's fault                 |
| other 400, 422                                                       | rejected                                     |
| 5xx                                                                  | unsent, the provider's fault                 |

Other answers: see `providers.http.api`. A notification's id is its `Idempotency-Key`, which Resend remembers for 24
hours: within them a call whose answer was lost can be repeated without a second email. Codes:
https://resend.com/docs/api-reference/errors
"""

import re
from base64 import b64encode
from typing import Final

import orjson

from notifier.providers.dsn import Context, Dsn
from notifier.providers.formats.email_api import EmailApi, default_sender
from notifier.providers.formats.email_headers import subject_text
from notifier.providers.formats.mailboxes import Mailbox
from notifier.providers.formats.mime import own_fields
from notifier.providers.http.api import Answer, Verdict, accepted_as, by_status
from notifier.providers.http.headers import JSON_HEADERS
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome

_URL: Final = "https://api.resend.com"
_USAGE: Final = "resend://KEY@default"
_NO_SUBJECT: Final = "(no subject)"
_NAME: Final = re.compile(r"[a-zA-Z_]{1,64}")
_OF_RECIPIENT: Final = re.compile(r"(?i)\binvalid [`'\"]?to[`'\"]? field|[`'\"]to[`'\"]")
_OF_KEY: Final = re.compile(r"(?i)\bAPI key\b")

#: The name of an error → what it means, and our words for it; where the status alone does not say it.
_ERRORS: Final[dict[str, tuple[Outcome, Fault | None, str]]] = {
    "invalid_from_address": (Outcome.UNSENT, Fault.PROVIDER, "not an address to send from"),
    "daily_quota_exceeded": (Outcome.UNSENT, Fault.PROVIDER, "the day's quota is used up"),
    "monthly_quota_exceeded": (Outcome.UNSENT, Fault.PROVIDER, "the month's quota is used up"),
    "not_found": (Outcome.UNSENT, Fault.PROVIDER, "no such endpoint"),
    "method_not_allowed": (Outcome.UNSENT, Fault.PROVIDER, "no such endpoint"),
    "security_error": (Outcome.UNSENT, Fault.PROVIDER, "refused for security"),
    "invalid_idempotent_request": (Outcome.AMBIGUOUS, None, "an earlier call with other words was taken"),
    "concurrent_idempotent_requests": (Outcome.UNSENT, None, "an earlier call is under way"),
}


class Resend(EmailApi):
    """Hands each email to Resend."""

    name = "resend"

    def __init__(self, *, url: str, key: str, sender: Mailbox, timeout: float) -> None:
        """`url`: where the API is. `sender`: whom an email is from that names nobody."""
        super().__init__(sender=sender, timeout=timeout)
        self._url = f"{url}/emails"
        self._headers = (
            f"authorization: Bearer {key}",
            *JSON_HEADERS,
        )

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        parties = self.parties(message)
        sender, recipient, reply_to = parties.sender, parties.recipient, parties.reply_to
        mail: dict[str, object] = {
            "from": str(sender),
            "to": [recipient.addr_spec],
            "subject": subject_text(message.subject or "") or _NO_SUBJECT,
            "text": message.text,
            "headers": own_fields(message, sender),
            "tags": [{"name": "notification_id", "value": str(message.id)}],
        }
        if message.html is not None:
            mail["html"] = message.html
        if reply_to is not None:
            mail["reply_to"] = str(reply_to)
        if message.attachments:
            mail["attachments"] = [
                {"filename": each.name, "content_type": each.content_type, "content": b64encode(each.content).decode()}
                for each in message.attachments
            ]
        lines = [*self._headers, f"idempotency-key: {message.id}"]
        return Request(message.id, self._url, lines, orjson.dumps(mail))

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300:
            return accepted_as(answer, answer.text("id"))
        name = answer.text("name") or ""
        if not _NAME.fullmatch(name):
            return by_status(answer)
        said = f"http {answer.status}: resend {name}"
        if name in _ERRORS:
            outcome, fault, words = _ERRORS[name]
            return Verdict(outcome, f"{said}, {words}", fault, retry_after=answer.exchange.retry_after)
        reason = answer.text("message") or ""
        if name == "validation_error" and answer.status == 403:
            return Verdict(Outcome.UNSENT, f"{said}, no domain is verified for this recipient", Fault.ROUTE)
        if name == "validation_error" and _OF_KEY.search(reason):
            return Verdict(Outcome.UNSENT, f"{said}, the key", Fault.PROVIDER)
        if answer.status in {400, 422} and _OF_RECIPIENT.search(reason):
            return Verdict(Outcome.REJECTED, f"{said}, the recipient", Fault.RECIPIENT)
        return by_status(answer, f"resend {name}")


def provider(dsn: Dsn, context: Context) -> Resend:
    """Make the provider of `resend://`. Raises ValueError."""
    dsn.options()
    dsn.refuse_more_than_a_host(_USAGE)
    key = dsn.key(_USAGE)
    return Resend(url=dsn.base_url(_URL), key=key, sender=default_sender(context), timeout=context.timeout)
