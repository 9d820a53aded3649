"""Email: Amazon SES (SendEmail of API v2). `ses://ACCESS_KEY:SECRET@default?region=eu-central-1`

| answer                                                       | outcome                                  |
|--------------------------------------------------------------|------------------------------------------|
| 200 with a MessageId                                         | accepted                                 |
| 200 without one                                              | ambiguous                                |
| TooManyRequestsException, LimitExceededException, Throttling… | unsent, throttled                       |
| AccountSuspendedException, SendingPausedException            | unsent, the provider's fault             |
| MailFromDomainNotVerifiedException, NotFoundException        | unsent, the provider's fault             |
| AccessDenied…, UnrecognizedClient…, ExpiredToken…, and all else about the signature | unsent, the provider's fault |
| MessageRejected: an address is not verified, the recipient's alone (sandbox) | unsent, a route's fault  |
| MessageRejected: an address is not verified, ours            | unsent, the provider's fault             |
| MessageRejected otherwise, BadRequestException               | rejected                                 |

A known name counts, with any status; without one, the status counts as in `providers.http.api`.

The API cannot recognise a repeated attempt, and writes a Message-ID of its own. Its events about an email have the tag
`notification_id`, where a configuration set publishes it.
"""

import logging
import re
from base64 import b64encode
from typing import Final, Protocol

import orjson

# It ships no types, and need not be there where no setting names it.
from botocore.auth import SigV4Auth  # type: ignore[import-untyped, import-not-found, unused-ignore]  # botocore ships no types, and may not be installed
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped, import-not-found, unused-ignore]  # botocore ships no types, and may not be installed
from botocore.credentials import Credentials  # type: ignore[import-untyped, import-not-found, unused-ignore]  # botocore ships no types, and may not be installed
from botocore.exceptions import (  # type: ignore[import-untyped, import-not-found, unused-ignore]  # botocore ships no types, and may not be installed
    BotoCoreError,
    ClientError,
)
from botocore.session import Session  # type: ignore[import-untyped, import-not-found, unused-ignore]  # botocore ships no types, and may not be installed

from notifier.providers.dsn import VISIBLE, Context, Dsn
from notifier.providers.formats.email_api import EmailApi, default_sender
from notifier.providers.formats.mailboxes import Mailbox
from notifier.providers.http.api import Answer, Verdict, accepted_as, by_status
from notifier.providers.http.headers import USER_AGENT
from notifier.providers.http.transfers import Request
from notifier.providers.protocol import Fault, Message, Outcome
from notifier.providers.vendors.ses_receipts import TAG, source

# At debug it logs the headers that it signs, the session token among them, and answers with credentials in them.
logging.getLogger("botocore").setLevel(logging.INFO)

_FORM: Final = "ses://ACCESS_KEY:SECRET@default?region=eu-central-1"
_PATH: Final = "/v2/email/outbound-emails"
_REGION: Final = re.compile(r"[a-z]{2,8}(-[a-z]+)+-[0-9]{1,2}")
_ERROR: Final = re.compile(r"[A-Za-z]{1,64}")

_UNVERIFIED: Final = re.compile(r"(?i)address(es)? (is|are) not verified")
_THROTTLED: Final = "too much at once"
_CREDENTIALS: Final = "the credentials are refused"
_CONTENT: Final = "the message is refused"
#: The meaning of errors, by name without "Exception": services and gateways do not agree on that ending.
_MEANINGS: Final[dict[str, tuple[Outcome, Fault | None, str]]] = {
    **dict.fromkeys(
        ("TooManyRequests", "LimitExceeded", "Throttling", "Throttled", "RequestThrottled", "RequestLimitExceeded"),
        (Outcome.UNSENT, Fault.THROTTLED, _THROTTLED),
    ),
    **dict.fromkeys(
        (
            "AccessDenied",
            "UnrecognizedClient",
            "InvalidClientTokenId",
            "InvalidSignature",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "ExpiredToken",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "MissingAuthenticationToken",
            "InvalidToken",
            "NotAuthorized",
            "OptInRequired",
        ),
        (Outcome.UNSENT, Fault.PROVIDER, _CREDENTIALS),
    ),
    "AccountSuspended": (Outcome.UNSENT, Fault.PROVIDER, "the account is suspended"),
    "SendingPaused": (Outcome.UNSENT, Fault.PROVIDER, "sending is paused"),
    "MailFromDomainNotVerified": (Outcome.UNSENT, Fault.PROVIDER, "the MAIL FROM domain is not verified"),
    "NotFound": (Outcome.UNSENT, Fault.PROVIDER, "something that is configured does not exist"),
    "MessageRejected": (Outcome.REJECTED, None, _CONTENT),
    "BadRequest": (Outcome.REJECTED, None, _CONTENT),
}


class CredentialSource(Protocol):
    """Credentials as botocore has them: its own class, or one that fetches new ones before they expire."""

    def get_frozen_credentials(self) -> object:
        """Return the credentials to sign with now."""
        ...


class Ses(EmailApi):
    """Hands each email to SES, as the MIME message that SMTP would carry."""

    name = "ses"

    def __init__(
        self,
        *,
        url: str,
        region: str,
        credentials: CredentialSource,
        sender: Mailbox,
        timeout: float,
        configuration_set: str | None = None,
    ) -> None:
        """`url`: where the API is. `sender`: whom email is from that names nobody."""
        super().__init__(sender=sender, timeout=timeout)
        self._url = f"{url}{_PATH}"
        self._region = region
        self._credentials = credentials
        self._configuration_set = configuration_set

    def request(self, message: Message) -> Request:
        """See HttpApi."""
        letter = self.letter(message)
        mail: dict[str, object] = {
            "FromEmailAddress": letter.sender,
            "Destination": {"ToAddresses": [letter.recipient]},
            "Content": {"Raw": {"Data": b64encode(letter.data).decode()}},
            "EmailTags": [{"Name": TAG, "Value": str(message.id)}],
        }
        if self._configuration_set is not None:
            mail["ConfigurationSetName"] = self._configuration_set
        body = orjson.dumps(mail)
        headers = [
            USER_AGENT,
            "expect:",  # libcurl would ask first whether a large body is welcome, and wait a second for the answer
            *self._signed(body),
        ]
        return Request(id=message.id, url=self._url, headers=headers, body=body)

    def judge(self, answer: Answer) -> Verdict:
        """See HttpApi."""
        if 200 <= answer.status < 300:
            return accepted_as(answer, answer.text("MessageId"))
        name = _error_name(answer)
        if name is None:
            return by_status(answer)
        meaning = _MEANINGS.get(name.removesuffix("Exception"))
        if meaning is None:
            return by_status(answer, f"ses {name}")
        if name == "MessageRejected" and _UNVERIFIED.search(_reason(answer)):
            return _unverified(answer)
        outcome, fault, words = meaning
        retry_after = answer.exchange.retry_after if outcome is Outcome.UNSENT else None
        return Verdict(outcome, f"http {answer.status}: ses {name}, {words}", fault, retry_after=retry_after)

    def _signed(self, body: bytes) -> list[str]:
        """Return the signed header lines, which authenticate the body and its sender."""
        request = AWSRequest(method="POST", url=self._url, data=body, headers={"Content-Type": "application/json"})
        try:
            credentials = self._credentials.get_frozen_credentials()
            SigV4Auth(credentials, "ses", self._region).add_auth(request)
        except (BotoCoreError, ClientError):
            # Temporary ones cannot be renewed now. That is no reason to give the message up: unsigned, it is
            # answered with a 403, which is what this comes to.
            del request.headers["Authorization"]
        return [f"{name}: {value}" for name, value in request.headers.items()]


def _reason(answer: Answer) -> str:
    said = answer.document.get("message") or answer.document.get("Message")
    return said if isinstance(said, str) else ""


def _unverified(answer: Answer) -> Verdict:
    """Tell whose address is not verified: SES lists those that failed the check. In its sandbox recipients must be."""
    error = f"http {answer.status}: ses MessageRejected"
    asked = orjson.loads(answer.exchange.request.body)
    named = _reason(answer).partition("failed the check")[2].lower()
    [recipient] = asked["Destination"]["ToAddresses"]
    if recipient.lower() in named and str(asked["FromEmailAddress"]).lower() not in named:
        return Verdict(Outcome.UNSENT, f"{error}, the recipient is not verified, as the sandbox wants", Fault.ROUTE)
    return Verdict(Outcome.UNSENT, f"{error}, the sender is not verified", Fault.PROVIDER)


def _error_name(answer: Answer) -> str | None:
    """Return an error's name, without a namespace before it (`com.amazonaws.ses#`) or a URL after it (`:http://…`)."""
    said = answer.header("x-amzn-errortype") or answer.text("__type") or answer.text("code") or ""
    name = said.partition(":")[0].rpartition("#")[2].strip()
    return name if _ERROR.fullmatch(name) else None


def provider(dsn: Dsn, context: Context) -> Ses:
    """Create the provider of `ses://`. Raises ValueError."""
    options = dsn.options("region", "session_token", "configuration_set", "topic")
    if (dsn.username is None) != (dsn.password is None):
        raise ValueError(f"has an access key without a secret, or the other way round: {_FORM}")
    if dsn.path not in {"", "/"}:
        raise ValueError(f"has a path: {_FORM}; a slash in the secret is %2F")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", options.get("configuration_set", "x")):
        raise ValueError("has a configuration_set that is not 1 to 64 letters, digits, dashes and underscores")
    source(dsn)  # which looks at the topic
    credentials, region = _account(dsn, options)
    if not _REGION.fullmatch(region):
        raise ValueError(f"has no region, or one like no other: {_FORM}")
    sender = default_sender(context)
    return Ses(
        url=dsn.base_url(f"https://email.{region}.amazonaws.com"),
        region=region,
        credentials=credentials,
        sender=sender,
        timeout=context.timeout,
        configuration_set=options.get("configuration_set"),
    )


def _account(dsn: Dsn, options: dict[str, str]) -> tuple[CredentialSource, str]:
    """Return the credentials and the region: from the DSN, or from the places where AWS's own tools look."""
    region = options.get("region", "")
    if dsn.username is not None:
        # A token is base64; where its plus signs are not percent-encoded, they have become spaces.
        token = options.get("session_token", "").replace(" ", "+") or None
        if not all(VISIBLE.fullmatch(part) for part in (dsn.username, dsn.password or "", token or "-")):
            raise ValueError("has credentials with other than visible ASCII characters")
        credentials: CredentialSource = Credentials(dsn.username, dsn.password, token)
        return credentials, region
    if "session_token" in options:
        raise ValueError(f"has a session_token without an access key: {_FORM}")
    try:
        session = Session()
        found: CredentialSource | None = session.get_credentials()
        region = region or str(session.get_config_variable("region") or "")
    except (BotoCoreError, ClientError) as error:
        raise ValueError(f"has no access key, and AWS's own settings are unusable: {type(error).__name__}") from None
    if found is None:
        raise ValueError(f"has no access key, and there is none in AWS's environment, files or metadata: {_FORM}")
    return found, region
