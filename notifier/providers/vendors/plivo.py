"""SMS: Plivo's Message API. `plivo://AUTH_ID:AUTH_TOKEN@default?from=+15550100`

| answer                                                   | outcome                          |
|----------------------------------------------------------|----------------------------------|
| 2xx with a `message_uuid`                                | accepted                         |
| 400 whose error is about `dst`                           | rejected, the recipient's fault  |
| 400 whose error is about `src` or the powerpack          | unsent, the provider's fault     |
| other 400                                                | rejected                         |
| 401, 402 (credit), 403, 404, 405                         | unsent, the provider's fault     |
| 429                                                      | unsent, throttled                |
| 5xx                                                      | unsent, the provider's fault     |
| a text that is empty, or takes more than 10 segments     | rejected before anything goes out |

Other answers: see `providers.http.api`. Plivo supports no idempotency key. Codes:
https://docs.plivo.com/docs/messaging/api/response
"""

import re
from base64 import b64encode
from typing import Final

import orjson

from notifier.providers.dsn import Context, Dsn
from notifier.providers.formats.sms_segments import checked, sender_of
from notifier.providers.http.api import Answer, HttpApi, Verdict, accepted_as, by_status
from notifier.providers.http.headers import JSON_HEADERS
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome

_URL: Final = "https://api.plivo.com"
_USAGE: Final = "plivo://AUTH_ID:AUTH_TOKEN@default?from=+15550100"
_OF_RECIPIENT: Final = re.compile(r"(?i)\bdst\b|destination")
_OF_SENDER: Final = re.compile(r"(?i)\bsrc\b|powerpack|sender")
_OURS: Final = {402: "out of credit", 404: "no such account", 405: "no such endpoint"}


class Plivo(HttpApi):
    """One account, which sends from a number of its own or by a powerpack."""

    name = "plivo"

    def __init__(self, *, url: str, auth_id: str, auth_token: str, sender: tuple[str, str], timeout: float) -> None:
        """`sender`: the field that names it, `src` or `powerpack_uuid`, and its value."""
        super().__init__(timeout=timeout)
        self._url = f"{url}/v1/Account/{auth_id}/Message/"
        self._sender = sender
        self._headers = (
            f"authorization: Basic {b64encode(f'{auth_id}:{auth_token}'.encode()).decode()}",
            *JSON_HEADERS,
        )

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        checked(message.text)
        field, value = self._sender
        body = {field: value, "dst": message.recipient.removeprefix("+"), "text": message.text}
        return Request(message.id, self._url, [*self._headers], orjson.dumps(body))

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300:
            return accepted_as(answer, answer.text("message_uuid", 0))
        said = str(answer.document.get("error") or "")[:1024]
        if answer.status == 400 and _OF_RECIPIENT.search(said):
            return Verdict(Outcome.REJECTED, "http 400: plivo refuses the number", Fault.RECIPIENT)
        if answer.status == 400 and _OF_SENDER.search(said):
            return Verdict(Outcome.UNSENT, "http 400: plivo refuses the sender", Fault.PROVIDER)
        if answer.status in _OURS:
            return Verdict(Outcome.UNSENT, f"http {answer.status}: {_OURS[answer.status]}", Fault.PROVIDER)
        return by_status(answer)


def provider(dsn: Dsn, context: Context) -> Plivo:
    """Make the provider of `plivo://`. Raises ValueError."""
    options = dsn.options("from", "powerpack")
    if not dsn.username or not re.fullmatch(r"[A-Za-z0-9]+", dsn.username):
        raise ValueError(f"has no auth id of letters and digits: {_USAGE}")
    if not dsn.password:
        raise ValueError(f"has no auth token: {_USAGE}")
    dsn.refuse_more_than_a_host(_USAGE)
    if ("from" in options) == ("powerpack" in options):
        raise ValueError(f"needs one of from and powerpack, and only one: {_USAGE}")
    if "powerpack" in options and not re.fullmatch(r"[0-9a-fA-F-]{36}", options["powerpack"]):
        raise ValueError("has a powerpack that is not a UUID")
    sender = ("powerpack_uuid", options["powerpack"]) if "powerpack" in options else ("src", sender_of(options["from"]))
    return Plivo(
        url=dsn.base_url(_URL),
        auth_id=dsn.username,
        auth_token=dsn.password,
        sender=sender,
        timeout=context.timeout,
    )
