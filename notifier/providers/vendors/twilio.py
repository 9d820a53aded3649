"""SMS: Twilio's Programmable Messaging.

| answer                                                                | outcome                           |
|-----------------------------------------------------------------------|-----------------------------------|
| 2xx with a `sid`                                                      | accepted                          |
| 2xx without one                                                       | ambiguous                         |
| 429; 14107, 20429, 21611, 63038 (too much at once)                    | unsent, throttled                 |
| 21211, 21265, 21266, 21268, 21604, 21614, 21635 (no number for SMS)   | rejected, the recipient's fault   |
| 21610 (STOP)                                                          | the same, and suppressed: `stop`  |
| 21408 (country), 21608 (trial list), 21612, 21657, 21659, 21703 (not from this sender) | unsent, a route's fault |
| account, credentials, resources, senders and services (see below)     | unsent, the provider's fault      |
| 21602, 21619 (empty), 21605, 21617 (too long), 21618 (filtered), 21620, 21624, 21626, 21627 | rejected    |
| any other                                                             | by status, as in `http.api`       |
| a text that is empty, or takes more than 10 segments                  | rejected before anything goes out |

Twilio supports no idempotency key. Our id is in the URL of the status callback, by which Twilio reports the outcome of
the message (see `twilio_receipts`). Twilio refuses a message whose callback URL it cannot reach (21609): unless
NOTIFIER_PUBLIC_URL is on the internet, messages have no callback.
"""

import re
from base64 import b64encode
from typing import Final
from urllib.parse import quote, urlencode

from notifier.providers.dsn import Context, Dsn
from notifier.providers.formats.sms_segments import checked, sender_of
from notifier.providers.http.api import Answer, HttpApi, Verdict, accepted_as, by_status
from notifier.providers.http.callback_urls import callback_url
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome
from notifier.providers.vendors.twilio_receipts import NOTIFICATION, REPEATS, is_key, source

_URL: Final = "https://api.twilio.com"
_USAGE: Final = "twilio://SID:TOKEN@default?from=+15550100"
_KEY_USAGE: Final = "twilio://SK…:SECRET@default?account=AC…&receipt_token=TOKEN&from=+15550100"

_RECIPIENT: Final = (Outcome.REJECTED, Fault.RECIPIENT)
_ROUTE: Final = (Outcome.UNSENT, Fault.ROUTE)
_THROTTLED: Final = (Outcome.UNSENT, Fault.THROTTLED)
_PROVIDER: Final = (Outcome.UNSENT, Fault.PROVIDER)
_REJECTED: Final = (Outcome.REJECTED, None)

#: The meaning of Twilio's codes (its error dictionary of 2026), and our words: its own messages repeat the number.
CODES: Final[dict[str, tuple[tuple[Outcome, Fault | None], str]]] = {
    "21211": (_RECIPIENT, "not a phone number"),
    "21265": (_RECIPIENT, "a short code"),
    "21266": (_RECIPIENT, "the sender itself"),
    "21268": (_RECIPIENT, "a premium or information number"),
    "21604": (_RECIPIENT, "no phone number"),
    "21610": (_RECIPIENT, "opted out"),
    "21614": (_RECIPIENT, "not a mobile number"),
    "21635": (_RECIPIENT, "a landline"),
    "21408": (_ROUTE, "its country is not enabled"),
    "21608": (_ROUTE, "not on the account's list of verified numbers"),
    "21612": (_ROUTE, "not reachable from this sender"),
    "21657": (_ROUTE, "sender not supported in its country"),
    "21659": (_ROUTE, "sender not of its country, or not the account's"),
    "21703": (_ROUTE, "messaging service has no sender for it"),
    "14107": (_THROTTLED, "rate limit"),
    "20429": (_THROTTLED, "too many requests"),
    "21611": (_THROTTLED, "sender's queue is full"),
    "63038": (_THROTTLED, "the account's daily limit"),
    "10001": (_PROVIDER, "account is not active"),
    "20003": (_PROVIDER, "credentials refused"),
    "20005": (_PROVIDER, "account is not active"),
    "20006": (_PROVIDER, "access denied"),
    "20008": (_PROVIDER, "test credentials"),
    "20010": (_PROVIDER, "disabled for the account"),
    "20403": (_PROVIDER, "forbidden"),
    "20404": (_PROVIDER, "no such account or service"),
    "21212": (_PROVIDER, "sender is not a phone number"),
    "21267": (_PROVIDER, "no such sender on a trial account"),
    "21601": (_PROVIDER, "sender cannot send SMS"),
    "21603": (_PROVIDER, "no sender"),
    "21606": (_PROVIDER, "sender cannot send SMS"),
    "21607": (_PROVIDER, "sender is not the trial number"),
    "21609": (_PROVIDER, "status callback refused"),
    "21616": (_PROVIDER, "sender means several numbers"),
    "21660": (_PROVIDER, "sender is not the account's"),
    "21661": (_PROVIDER, "sender cannot send SMS"),
    "21662": (_PROVIDER, "sender not usable in this region"),
    "21663": (_PROVIDER, "sender not usable in this region"),
    "21668": (_PROVIDER, "sender not usable in this region"),
    "21701": (_PROVIDER, "no such messaging service"),
    "21702": (_PROVIDER, "messaging service cannot send now"),
    "21704": (_PROVIDER, "messaging service has no sender"),
    "21705": (_PROVIDER, "not a messaging service"),
    "21709": (_PROVIDER, "sender not allowed in the messaging service"),
    "21730": (_PROVIDER, "maintenance"),
    "21910": (_PROVIDER, "sender of another channel"),
    "21602": (_REJECTED, "empty"),
    "21605": (_REJECTED, "too long"),
    "21617": (_REJECTED, "too long"),
    "21618": (_REJECTED, "filtered by all carriers"),
    "21619": (_REJECTED, "empty"),
    "21620": (_REJECTED, "not a media URL"),
    "21624": (_REJECTED, "validity period refused"),
    "21626": (_REJECTED, "callback event refused"),
    "21627": (_REJECTED, "highest price refused"),
}
#: The reason to suppress the recipient, by code.
SUPPRESSES: Final = {"21610": "stop"}


class Twilio(HttpApi):
    """One account, which sends from a number of its own or by a messaging service."""

    name = "twilio"

    def __init__(
        self,
        *,
        url: str,
        account: str,
        user: str,
        token: str,
        sender: tuple[str, str],
        callback: str | None,
        timeout: float,
    ) -> None:
        """`user`: the account too, or an API key.

        `sender`: the field that names it, From or MessagingServiceSid, and its value. `callback`: for receipts.
        """
        super().__init__(timeout=timeout)
        self._url = f"{url}/2010-04-01/Accounts/{quote(account, safe='')}/Messages.json"
        self._sender = sender
        self._callback = callback
        self._headers = (
            f"authorization: Basic {b64encode(f'{user}:{token}'.encode()).decode()}",
            "content-type: application/x-www-form-urlencoded",
            USER_AGENT,
            "expect:",
        )

    def request(self, message: Message) -> Request:
        """Build the request. Ten segments are at most 1,530 characters: Twilio's own limit is 1,600."""
        checked(message.text)
        fields = [("To", message.recipient), self._sender, ("Body", message.text)]
        if self._callback is not None:
            fields.append(("StatusCallback", f"{self._callback}?{NOTIFICATION}={message.id}#{REPEATS}"))
        return Request(message.id, self._url, [*self._headers], urlencode(fields).encode())

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300:
            return accepted_as(answer, answer.text("sid"))
        code = answer.text("code") or ""
        if not re.fullmatch(r"[0-9]{1,6}", code):
            return by_status(answer)
        if code not in CODES:
            return by_status(answer, f"twilio {code}")
        (outcome, fault), words = CODES[code]
        detail = f"twilio {code}, {words}"
        if not 400 <= answer.status < 500 or answer.status == 429:
            return by_status(answer, detail)
        return Verdict(outcome, f"http {answer.status}: {detail}", fault, suppress=SUPPRESSES.get(code))


def provider(dsn: Dsn, context: Context) -> Twilio:
    """Create the provider of `twilio://`. Raises ValueError."""
    if not dsn.username:
        raise ValueError(f"has no account: {_USAGE}")
    if not re.fullmatch(r"[A-Za-z0-9]+", dsn.username):
        raise ValueError(f"has an account that is not a SID of letters and digits: {_USAGE}")
    if not dsn.password:
        raise ValueError(f"has no token: {_USAGE}")
    dsn.refuse_more_than_a_host(_USAGE)
    options = dsn.options("from", "service", "account", "receipt_token")
    account = options.get("account", dsn.username)
    if is_key(dsn) and "account" not in options:
        raise ValueError(f"has an API key without its account: {_KEY_USAGE}")
    if "account" in options and not re.fullmatch(r"AC[A-Za-z0-9]+", account):
        raise ValueError(f"has an account that is not a SID, AC…: {_KEY_USAGE}")
    return Twilio(
        url=dsn.base_url(_URL),
        account=account,
        user=dsn.username,
        token=dsn.password,
        sender=_sender(options.get("from"), options.get("service")),
        # Without a token to check receipts with, there are none.
        callback=callback_url(dsn, context.public_url, Twilio.name) if source(dsn) is not None else None,
        timeout=context.timeout,
    )


def _sender(number: str | None, service: str | None) -> tuple[str, str]:
    if (number is None) == (service is None):
        raise ValueError(f"needs one of from and service, and only one: {_USAGE}")
    if service is not None:
        if not re.fullmatch(r"MG[A-Za-z0-9]+", service):
            raise ValueError("has a service that is not a SID, MG…")
        return "MessagingServiceSid", service
    return "From", sender_of(number or "")
