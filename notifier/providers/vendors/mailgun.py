"""Email: Mailgun's API. `mailgun://KEY@default/mg.example.com?region=eu`

| answer                                                        | outcome                           |
|---------------------------------------------------------------|-----------------------------------|
| 2xx with an `id`                                              | accepted                          |
| 400 about the `to` parameter                                  | rejected, the recipient's fault   |
| 400, 403 about "authorized recipients" (a sandbox domain)     | unsent, a route's fault           |
| 400 about the `from` parameter                                | unsent, the provider's fault      |
| 401, 402, 403, 404 (no such domain), 405                      | unsent, the provider's fault      |
| 400 about anything else, 413                                  | rejected                          |
| 429                                                           | unsent, throttled                 |
| 5xx                                                           | unsent, the provider's fault      |

Other answers: see `providers.http.api`. The message is sent as MIME, as by SMTP, to `messages.mime`. A notification's
id is its variable `notification_id`, which Mailgun's events repeat, and part of its Message-ID. Mailgun supports no
idempotency key. Codes: https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses
"""

import re
from base64 import b64encode
from typing import Final
from uuid import uuid4

from notifier.providers.dsn import Context, Dsn
from notifier.providers.formats.email_api import EmailApi, default_sender
from notifier.providers.formats.mailboxes import Mailbox
from notifier.providers.http.api import Answer, Verdict, accepted_as, by_status
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome

_URLS: Final = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}
_USAGE: Final = "mailgun://KEY@default/mg.example.com?region=eu"
_DOMAIN: Final = re.compile(r"/([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)/?")

_OF_RECIPIENT: Final = re.compile(r"(?i)\bto['\"`]? parameter")
_OF_SENDER: Final = re.compile(r"(?i)\bfrom['\"`]? parameter|\bsender\b")
_OF_ROUTE: Final = re.compile(r"(?i)authorized recipients")
_OURS: Final = {402: "payment required", 404: "no such domain", 405: "no such endpoint"}


class Mailgun(EmailApi):
    """Hands each email to one domain at Mailgun."""

    name = "mailgun"

    def __init__(self, *, url: str, key: str, domain: str, sender: Mailbox, timeout: float) -> None:
        """`url`: where the API is. `domain`: the sending domain. `sender`: whom an email is from that names nobody."""
        super().__init__(sender=sender, timeout=timeout)
        self._url = f"{url}/v3/{domain}/messages.mime"
        self._headers = (
            f"authorization: Basic {b64encode(f'api:{key}'.encode()).decode()}",
            "accept: application/json",
            USER_AGENT,
            "expect:",
        )

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        letter = self.letter(message)
        boundary = uuid4().hex  # nobody who writes a message can know it
        parts = (
            (b'name="to"', letter.recipient.encode()),
            (b'name="v:notification_id"', str(message.id).encode()),
            (b'name="message"; filename="message.mime"\r\nContent-Type: message/rfc822', letter.data),
        )
        separator = f"--{boundary}".encode()
        body = b"".join(
            b"%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (separator, head, value)
            for head, value in parts
        )
        lines = [*self._headers, f"content-type: multipart/form-data; boundary={boundary}"]
        return Request(message.id, self._url, lines, body + separator + b"--\r\n")

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300:
            return accepted_as(answer, answer.text("id"))
        said = str(answer.document.get("message") or "")[:1024]
        if answer.status in {400, 403} and _OF_ROUTE.search(said):
            error = f"http {answer.status}: mailgun sends to authorized recipients alone"
            return Verdict(Outcome.UNSENT, error, Fault.ROUTE)
        if answer.status == 400 and _OF_RECIPIENT.search(said):
            return Verdict(Outcome.REJECTED, "http 400: mailgun takes the recipient for no address", Fault.RECIPIENT)
        if answer.status == 400 and _OF_SENDER.search(said):
            return Verdict(Outcome.UNSENT, "http 400: mailgun refuses the sender", Fault.PROVIDER)
        if answer.status in _OURS:
            return Verdict(Outcome.UNSENT, f"http {answer.status}: {_OURS[answer.status]}", Fault.PROVIDER)
        return by_status(answer)


def provider(dsn: Dsn, context: Context) -> Mailgun:
    """Make the provider of `mailgun://`. Raises ValueError."""
    options = dsn.options("region")
    key = dsn.key(_USAGE)
    domain = _DOMAIN.fullmatch(dsn.path)
    if domain is None:
        raise ValueError(f"names no domain to send from: {_USAGE}")
    if dsn.host is None and dsn.port is not None:
        raise ValueError(f"has a port without a host: {_USAGE}")
    region = options.get("region", "us")
    if region not in _URLS:
        raise ValueError(f"has a region that is not one of {', '.join(sorted(_URLS))}")
    url, sender = dsn.base_url(_URLS[region]), default_sender(context)
    return Mailgun(url=url, key=key, domain=domain[1], sender=sender, timeout=context.timeout)
