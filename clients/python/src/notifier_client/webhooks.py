"""Webhooks that Notifier sends: verifies them by the standardwebhooks package, and parses them.

It needs the extra: `pip install 'notifier-client[webhooks]'`.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypedDict, cast

from notifier_client.errors import NotifierError


class Headers(Protocol):
    """Headers as web frameworks have them: a mapping, or something like one."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return names and values."""


class Webhook(TypedDict):
    """The body of a webhook, unless its senders gave it a template."""

    type: str
    timestamp: str
    id: str
    data: Any


class WebhookNotVerified(NotifierError):
    """A webhook is not signed with the secret, or its timestamp is off: answer 401, and do nothing with it."""


def verify_webhook(body: bytes | str, headers: Headers, secret: str | Sequence[str]) -> Webhook:
    """Verify a webhook's signature and return its body, parsed.

    `body` is the body as it came, before anything parses it; `headers` are the request's, with names in any case.
    `secret` is `whsec_…`, or several, while you change yours. Raises WebhookNotVerified where none of them fits, or the
    timestamp is over five minutes off; ValueError for a secret that cannot be one, and for a body that is signed but
    no JSON, as a template may make it; ImportError where standardwebhooks is not installed.
    """
    from standardwebhooks.webhooks import Webhook as Verifier  # noqa: PLC0415 -- an extra

    secrets = [secret] if isinstance(secret, str) else list(secret)
    verifiers = [Verifier(_checked(each)) for each in secrets]
    if not any(_fits(each, body, headers) for each in verifiers):
        raise WebhookNotVerified("the webhook is not signed with this secret, or its timestamp is too far off")
    return cast(Webhook, json.loads(body))


def _checked(secret: str) -> str:
    if not secret.removeprefix("whsec_"):
        raise ValueError("a webhook secret is empty")
    return secret


def _fits(verifier: Any, body: bytes | str, headers: Headers) -> bool:  # noqa: ANN401 -- an extra's class
    from standardwebhooks.webhooks import WebhookVerificationError  # noqa: PLC0415 -- an extra

    try:
        verifier.verify(body, dict(headers.items()), json_parse=False)
    except (WebhookVerificationError, ValueError):  # the latter for signatures and bodies that are no text at all
        return False
    return True
