"""SMS: Vonage's SMS API (formerly Nexmo), which answers 200 to errors too.

| answer                                                              | outcome                           |
|---------------------------------------------------------------------|-----------------------------------|
| 200, every part's status 0                                          | accepted as the first part        |
| 1 (too fast), 10 (too many binds)                                   | unsent, throttled                 |
| 4 (credentials), 14, 32 (signature)                                 | unsent, the provider's fault      |
| 5 (internal), 8 (account barred), 9 (no credit), 11, 19 (not enabled) | unsent, the provider's fault    |
| 13 (communication failed)                                           | unsent, the provider's fault      |
| 15 (sender not allowed there), 29 (not on the demo account's list)  | unsent, a route's fault           |
| 6 (no route, or spam), 7 (barred), 33 (de-activated), 34 (no number) | rejected, the recipient's fault  |
| 101 (opted out)                                                     | the same, and suppressed: `stop`  |
| 2, 3 (parameters), 12 (too long), 16, 20, 22, 23, any other         | rejected                          |
| some parts taken and some not                                       | ambiguous: some of it is sent     |
| 2xx, but not of this shape                                          | ambiguous                         |
| another status of HTTP                                              | as in `http.api`                  |
| a text that is empty, or takes more than 10 segments                | rejected before anything goes out |

If no part was taken, the first one's status counts. A notification's id is its `client-ref`, which receipts repeat;
Vonage supports no idempotency key.
"""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from notifier.providers.dsn import Context, Dsn
from notifier.providers.formats.sms_segments import checked
from notifier.providers.http.api import Answer, HttpApi, Verdict, accepted_as, by_status
from notifier.providers.http.callback_urls import callback_url
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome
from notifier.providers.vendors.vonage_receipts import callback_query, source

_URL: Final = "https://rest.nexmo.com"
_USAGE: Final = "vonage://KEY:SECRET@default?from=Acme"

_HEADERS: Final = (
    "content-type: application/x-www-form-urlencoded",
    "accept: application/json",
    USER_AGENT,
    "expect:",
)

_RECIPIENT: Final = (Outcome.REJECTED, Fault.RECIPIENT)
_ROUTE: Final = (Outcome.UNSENT, Fault.ROUTE)
_THROTTLED: Final = (Outcome.UNSENT, Fault.THROTTLED)
_PROVIDER: Final = (Outcome.UNSENT, Fault.PROVIDER)
_REJECTED: Final = (Outcome.REJECTED, None)

_TAKEN: Final = "0"
#: The meaning of a part's status, and our error texts.
STATUSES: Final[dict[str, tuple[tuple[Outcome, Fault | None], str]]] = {
    "1": (_THROTTLED, "throttled"),
    "2": (_REJECTED, "a parameter is missing"),
    "3": (_REJECTED, "a parameter is invalid"),
    "4": (_PROVIDER, "credentials refused"),
    "5": (_PROVIDER, "internal error"),
    "6": (_RECIPIENT, "no route to the number"),
    "7": (_RECIPIENT, "number barred"),
    "8": (_PROVIDER, "account barred"),
    "9": (_PROVIDER, "out of credit"),
    "10": (_THROTTLED, "too many binds"),
    "11": (_PROVIDER, "account is not enabled for HTTP"),
    "12": (_REJECTED, "too long"),
    "13": (_PROVIDER, "communication failed"),
    "14": (_PROVIDER, "signature refused"),
    "15": (_ROUTE, "sender not allowed in its country"),
    "16": (_REJECTED, "time to live refused"),
    "19": (_PROVIDER, "facility not enabled"),
    "20": (_REJECTED, "message class refused"),
    "22": (_REJECTED, "network code refused"),
    "23": (_REJECTED, "callback refused"),
    "29": (_ROUTE, "not on the demo account's list"),
    "32": (_PROVIDER, "signature and secret together"),
    "33": (_RECIPIENT, "number de-activated"),
    "34": (_RECIPIENT, "no phone number"),
    "101": (_RECIPIENT, "opted out"),
}
#: The reason to suppress the recipient, by status.
SUPPRESSES: Final = {"101": "stop"}
_OTHER: Final = (_REJECTED, "unknown status")


class Vonage(HttpApi):
    """One account and one sender."""

    name = "vonage"

    def __init__(
        self,
        *,
        url: str,
        key: str,
        secret: str,
        sender: str,
        timeout: float,
        callback: Callable[[UUID], str] | None = None,
    ) -> None:
        """`sender`: a number without its plus, or a name. `timeout`: seconds that one message may take in all.
        `callback`: where a notification's receipts go, where the account's own address is not enough.
        """
        super().__init__(timeout=timeout)
        self._url = f"{url}/sms/json"
        self._callback = callback
        self._fields = (("api_key", key), ("api_secret", secret), ("from", sender))

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        needed = checked(message.text)
        fields = [
            *self._fields,
            ("to", message.recipient.removeprefix("+")),
            ("text", message.text),
            # Without this Vonage puts question marks where its alphabet ends.
            ("type", "unicode" if needed.encoding == "ucs-2" else "text"),
            ("client-ref", str(message.id)),
        ]
        if self._callback is not None:
            fields.append(("callback", self._callback(message.id)))
        return Request(message.id, self._url, [*_HEADERS], urlencode(fields).encode())

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if not 200 <= answer.status < 300:
            return by_status(answer)
        statuses = _statuses(answer)
        if not statuses:
            return accepted_as(answer, None)
        refused = [status for status in statuses if status != _TAKEN]
        if not refused:
            return accepted_as(answer, answer.text("messages", 0, "message-id"))
        (outcome, fault), words = STATUSES.get(refused[0], _OTHER)
        error = f"http {answer.status}: vonage {refused[0]}, {words}"
        if len(refused) < len(statuses):
            some = f"{len(refused)} of {len(statuses)} parts refused"
            return Verdict(Outcome.AMBIGUOUS, f"{error}; {some}", Fault.PROVIDER)
        return Verdict(outcome, error, fault, suppress=SUPPRESSES.get(refused[0]))


def _statuses(answer: Answer) -> list[str]:
    """Return each part's status; none if the answer is not as documented."""
    parts: Any = answer.document.get("messages")
    if not isinstance(parts, list):
        return []
    statuses = [answer.text("messages", at, "status") or "" for at in range(len(parts))]
    return statuses if all(re.fullmatch(r"[0-9]{1,3}", status) for status in statuses) else []


def provider(dsn: Dsn, context: Context) -> Vonage:
    """Create the provider of `vonage://`. Raises ValueError."""
    if not dsn.username:
        raise ValueError(f"has no key: {_USAGE}")
    if not dsn.password:
        raise ValueError(f"has no secret: {_USAGE}")
    dsn.refuse_more_than_a_host(_USAGE)
    options = dsn.options("from", "signature_secret", "receipts")
    # A plus that is not percent-encoded is a space to a query; Vonage wants neither.
    sender = re.sub(r"^[ +](?=[0-9])", "", options.get("from", ""))
    if not sender:
        raise ValueError(f"has no from: {_USAGE}")
    if not re.fullmatch(r"[0-9]{3,15}|(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9 ]{0,10}", sender):
        raise ValueError("has a from that is neither a number nor a name of at most 11 letters and digits")
    return Vonage(
        url=dsn.base_url(_URL),
        key=dsn.username,
        secret=dsn.password,
        sender=sender,
        timeout=context.timeout,
        callback=_callback(dsn, context.public_url),
    )


def _callback(dsn: Dsn, public_url: str) -> Callable[[UUID], str] | None:
    """Return the maker of callback URLs for receipts; None if receipts cannot be checked or Vonage cannot reach us."""
    url = callback_url(dsn, public_url, Vonage.name) if source(dsn) is not None else None
    return None if url is None else lambda notification_id: f"{url}?{callback_query(dsn, notification_id)}"
