"""SMS: MessageBird's (Bird's) SMS Messaging API. `messagebird://KEY@default?from=Acme`

| answer                                                        | outcome                          |
|---------------------------------------------------------------|----------------------------------|
| 2xx with an `id`                                              | accepted                         |
| code 9 or 10 (missing, invalid) about `recipient(s)`          | rejected, the recipient's fault  |
| code 9 or 10 about `originator`                               | unsent, the provider's fault     |
| code 9, 10, 21 about anything else                            | rejected                         |
| code 2 (access key), 20 (not found), 25 (balance), 98, 99     | unsent, the provider's fault     |
| 429                                                           | unsent, throttled                |
| 401, 402, 403, 404, 405, 5xx                                  | unsent, the provider's fault     |
| a text that is empty, or takes more than 10 segments          | rejected before anything goes out |

Other answers: see `providers.http.api`; the first error counts. A notification's id is its `reference`, which reports
repeat; MessageBird supports no idempotency key. Codes: https://developers.messagebird.com/api/#errors
"""

import re
from typing import Final

import orjson

from notifier.providers.dsn import Context, Dsn
from notifier.providers.formats.sms_segments import checked, sender_of
from notifier.providers.http.api import Answer, HttpApi, Verdict, accepted_as, by_status
from notifier.providers.http.headers import JSON_HEADERS
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome

_URL: Final = "https://rest.messagebird.com"
_USAGE: Final = "messagebird://KEY@default?from=Acme"

_PROVIDER: Final = (Outcome.UNSENT, Fault.PROVIDER)
_REJECTED: Final = (Outcome.REJECTED, None)
#: The outcome and the fault of each code, and our words for it.
_CODES: Final[dict[str, tuple[tuple[Outcome, Fault | None], str]]] = {
    "2": (_PROVIDER, "access key refused"),
    "9": (_REJECTED, "a parameter is missing"),
    "10": (_REJECTED, "a parameter is invalid"),
    "20": (_PROVIDER, "no such resource"),
    "21": (_REJECTED, "bad request"),
    "25": (_PROVIDER, "not enough balance"),
    "98": (_PROVIDER, "no such API"),
    "99": (_PROVIDER, "internal error"),
}
#: The outcome and the fault of a missing or invalid parameter that is not the message's own.
_PARAMETERS: Final[dict[str, tuple[Outcome, Fault | None]]] = {
    "recipient": (Outcome.REJECTED, Fault.RECIPIENT),
    "recipients": (Outcome.REJECTED, Fault.RECIPIENT),
    "originator": _PROVIDER,
}
_OURS: Final = frozenset({402, 404, 405})


class MessageBird(HttpApi):
    """One account at MessageBird."""

    name = "messagebird"

    def __init__(self, *, url: str, key: str, sender: str, timeout: float) -> None:
        """`sender`: a number or a name of up to 11 letters and digits."""
        super().__init__(timeout=timeout)
        self._url = f"{url}/messages"
        self._sender = sender
        self._headers = (
            f"authorization: AccessKey {key}",
            *JSON_HEADERS,
        )

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        checked(message.text)
        body = {
            "originator": self._sender,
            "recipients": [message.recipient.removeprefix("+")],
            "body": message.text,
            "datacoding": "auto",  # by default what is outside GSM 7 bit would become a question mark
            "reference": str(message.id),
        }
        return Request(message.id, self._url, [*self._headers], orjson.dumps(body))

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300:
            return accepted_as(answer, answer.text("id"))
        code = answer.text("errors", 0, "code") or ""
        parameter = answer.text("errors", 0, "parameter") or ""
        if answer.status == 429 or answer.status >= 500 or not re.fullmatch(r"[0-9]{1,4}", code):
            if answer.status in _OURS:
                return Verdict(Outcome.UNSENT, f"http {answer.status}", Fault.PROVIDER)
            return by_status(answer)
        if code not in _CODES:
            return by_status(answer, f"messagebird {code}")
        meaning, words = _CODES[code]
        if code in {"9", "10"} and parameter in _PARAMETERS:
            meaning, words = _PARAMETERS[parameter], f"{words}: {parameter}"
        outcome, fault = meaning
        return Verdict(outcome, f"http {answer.status}: messagebird {code}, {words}", fault)


def provider(dsn: Dsn, context: Context) -> MessageBird:
    """Make the provider of `messagebird://`. Raises ValueError."""
    options = dsn.options("from")
    key = dsn.key(_USAGE)
    dsn.refuse_more_than_a_host(_USAGE)
    if "from" not in options:
        raise ValueError(f"needs a from: {_USAGE}")
    sender = sender_of(options["from"])
    return MessageBird(url=dsn.base_url(_URL), key=key, sender=sender, timeout=context.timeout)
