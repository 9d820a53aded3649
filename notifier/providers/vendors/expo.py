"""Push to apps by Expo's push service. `expo:` or `expo://ACCESS_TOKEN@default`

| answer                                                             | outcome                          |
|--------------------------------------------------------------------|----------------------------------|
| 200 with a ticket `ok`                                             | accepted as the ticket's id      |
| ticket `DeviceNotRegistered`                                       | rejected, the recipient's fault  |
| ticket `MessageTooBig`                                             | rejected                         |
| ticket `MessageRateExceeded`                                       | unsent, throttled                |
| ticket `MismatchSenderId`, `InvalidCredentials`                    | unsent, a route's fault (one app's) |
| 400 `VALIDATION_ERROR` about the token                             | rejected, the recipient's fault  |
| 429                                                                | unsent, throttled                |
| another error of a ticket, other 400                               | rejected                         |
| 401, 403, 5xx                                                      | unsent, the provider's fault     |

Other answers: see `providers.http.api`. Expo's own receipts, with the results of Apple and Google, are not read. An app
recognises a repeat by `notification_id`. Codes: https://docs.expo.dev/push-notifications/sending-notifications/
"""

import re
from typing import Final

import orjson

from notifier.providers.dsn import VISIBLE, Context, Dsn
from notifier.providers.http.api import Answer, HttpApi, Verdict, accepted_as, by_status, shortened
from notifier.providers.http.headers import JSON_HEADERS
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome

_URL: Final = "https://exp.host"
_USAGE: Final = "expo://ACCESS_TOKEN@default"
_TOKEN: Final = re.compile(r"Expo(nent)?PushToken\[[^\]]+\]")
_CODE: Final = re.compile(r"[A-Za-z_]{1,64}")
#: The largest payload, in bytes of JSON: Apple and Google take 4,096 in all, and Expo adds its own data.
_TITLE_AT_MOST: Final = 1000
_BOTH_AT_MOST: Final = 3600

#: The outcome and the fault of each error of a ticket, and our words for it.
_TICKETS: Final[dict[str, tuple[Outcome, Fault | None, str]]] = {
    "DeviceNotRegistered": (Outcome.REJECTED, Fault.RECIPIENT, "the app is not installed any more"),
    "MessageTooBig": (Outcome.REJECTED, None, "too large"),
    "MessageRateExceeded": (Outcome.UNSENT, Fault.THROTTLED, "too many messages to this device"),
    "MismatchSenderId": (Outcome.UNSENT, Fault.ROUTE, "the app's FCM credentials are another's"),
    "InvalidCredentials": (Outcome.UNSENT, Fault.ROUTE, "the app's push credentials are refused"),
}
_OF_TOKEN: Final = re.compile(r"(?i)not a (valid|registered) expo push")


class Expo(HttpApi):
    """Sends notifications to Expo push tokens."""

    name = "expo"

    def __init__(self, *, url: str, token: str | None, timeout: float) -> None:
        """`token`: an access token, which projects with enhanced security ask for."""
        super().__init__(timeout=timeout)
        self._url = f"{url}/--/api/v2/push/send"
        authorization = [f"authorization: Bearer {token}"] if token else []
        self._headers = (
            *authorization,
            *JSON_HEADERS,
        )

    def takes(self, recipient: str) -> bool:
        """Return whether it is an Expo push token."""
        return _TOKEN.fullmatch(recipient) is not None

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        title = shortened(message.subject or "", _TITLE_AT_MOST)
        body = {
            "to": message.recipient,
            "body": shortened(message.text, _BOTH_AT_MOST - len(orjson.dumps(title))),
            "data": {"notification_id": str(message.id)},
            **({"title": title} if title else {}),
        }
        return Request(message.id, self._url, [*self._headers], orjson.dumps(body))

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300 and answer.text("data", "status") != "error":
            is_ok = answer.text("data", "status") == "ok"
            return accepted_as(answer, answer.text("data", "id") if is_ok else None)
        if 200 <= answer.status < 300:
            code = answer.text("data", "details", "error") or ""
            code = code if _CODE.fullmatch(code) else "error"
            outcome, fault, words = _TICKETS.get(code, (Outcome.REJECTED, None, "refused"))
            return Verdict(outcome, f"http {answer.status}: expo {code}, {words}", fault)
        code = answer.text("errors", 0, "code") or ""
        if answer.status == 400 and _OF_TOKEN.search(answer.text("errors", 0, "message") or ""):
            return Verdict(Outcome.REJECTED, "http 400: expo, not a push token", Fault.RECIPIENT)
        return by_status(answer, f"expo {code}" if _CODE.fullmatch(code) else None)


def provider(dsn: Dsn, context: Context) -> Expo:
    """Make the provider of `expo:`. Raises ValueError."""
    dsn.options()
    dsn.refuse_more_than_a_host(_USAGE)
    if dsn.password or (dsn.username and not VISIBLE.fullmatch(dsn.username)):
        raise ValueError(f"has more than an access token of visible ASCII characters: {_USAGE}")
    return Expo(url=dsn.base_url(_URL), token=dsn.username, timeout=context.timeout)
