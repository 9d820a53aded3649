"""Masking: addresses and headers as they may be shown, with `***` in place of their credentials.

A credential is enough to act in somebody's name: a user and password in a URL, a query parameter such as `token`, a
chat service's URL (its tokens are in the host and the path), an incoming webhook with a secret path, a browser's push
subscription, a token of Expo's push service. A mailbox, a phone number and a device token for FCM or APNs (useless
without the app's own credentials) are addresses: scopes decide who may see those.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

#: The placeholder for a hidden value.
MASK: Final = "***"

# A scheme with one slash is taken for a chat service's too (`notifier.vocabulary.addresses`).
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://?)([^/?#\\]*)(.*)", re.DOTALL)
_WEB: Final = frozenset({"http", "https"})
_HOST: Final = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
_MASKED_PART: Final = re.compile(r"""(?:^|[/:@=\["])\*\*\*(?:$|[/:@?&;#\]"])""")
_QUERY: Final = re.compile(r"(?=[?#])")
_BETWEEN_PARAMETERS: Final = re.compile(r"([&;#])")

#: Incoming webhooks of these hosts and their subdomains: the URL alone is enough to post there.
_CAPABILITY_HOSTS: Final = (
    *("hooks.slack.com", "hooks.slack-gov.com", "discord.com", "discordapp.com", "media.guilded.gg"),
    *("webhook.office.com", "outlook.office.com", "outlook.office365.com", "logic.azure.com", "powerplatform.com"),
    *("chat.googleapis.com", "api.telegram.org", "webexapis.com", "api.ciscospark.com", "hooks.chime.aws"),
    *("open.feishu.cn", "open.larksuite.com", "oapi.dingtalk.com", "qyapi.weixin.qq.com", "api.flock.com"),
    *("hooks.zapier.com", "hook.integromat.com", "maker.ifttt.com", "alert.victorops.com"),
    *(f"hook.{zone}.make.com" for zone in ("eu1", "eu2", "us1", "us2")),
    *("events.pagerduty.com", "ntfy.sh", "webhook.site", "fcm.googleapis.com", "push.services.mozilla.com"),
    *("notify.windows.com", "push.apple.com"),
)
#: Paths that are a secret on any host, since such services are also self-hosted or run behind proxies.
_CAPABILITY_PATH: Final = re.compile(
    r"/(?:services/T\w+/B\w+/\w+|api/(?:v\d+/)?webhooks/\d+/[\w.-]+|(?:file/)?bot\d+:[\w-]+"
    r"|hooks/(?:\w+/)?[A-Za-z0-9]{17,})"
)

_SECRET_IN_NAME: Final = re.compile(r"token|secret|passw|passphrase|apikey|accesskey|signature|credential|session")
_SECRET_WORDS: Final = frozenset(
    {
        *("auth", "authentication", "authorization", "bearer", "code", "hmac", "jwt", "key", "keys", "otp", "pass"),
        *("pat", "pin", "pw", "pwd", "sas", "sid", "sig", "sign"),
    }
)
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

#: An address as the database keeps it (`notifier.security.address_seals`): its masked form, and all of it encrypted.
_SEALED: Final = re.compile(r"(\S+) sealed:(\S+)")
_SEAL: Final = " sealed:"
_EXPO: Final = re.compile(r"(Expo(?:nent)?PushToken)\[.*\]", re.DOTALL)

#: Headers whose values describe a message's transport, and authorise nobody.
_HARMLESS_HEADERS: Final = frozenset(
    {
        *("accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "connection"),
        *("content-encoding", "content-language", "content-length", "content-type", "date", "expect", "priority"),
        *("user-agent", "webhook-id", "webhook-timestamp"),
    }
)


def masked(address: str) -> str:
    """Return an address with `***` in place of its credentials; an address without any is returned unchanged.

    Masking twice equals masking once. It raises nothing: of an unreadable URL it keeps the scheme alone. Of a sealed
    address it returns the readable part.
    """
    if _SEAL in address and (sealed := _SEALED.fullmatch(address)):
        return sealed[1]
    if _URL.fullmatch(address):
        return _masked_url(address)
    if address.startswith(("{", "ey")):
        return _masked_browser(address)
    expo = _EXPO.fullmatch(address)
    return address if expo is None else f"{expo[1]}[{MASK}]"


def seal_of(address: str) -> str | None:
    """Return the encrypted part of an address that is sealed; None for one that is kept as it is."""
    sealed = _SEALED.fullmatch(address) if _SEAL in address else None
    return sealed and sealed[2]


def with_seal(shown: str, seal: str) -> str:
    """Return the form in which a sealed address is kept. No address has a space in it, so that none looks like it."""
    return f"{shown}{_SEAL}{seal}"


def is_masked(address: str) -> bool:
    """Return whether `***` replaces a whole part of an address: then we have shown it, and it reaches nobody."""
    is_mailbox = _URL.fullmatch(address) is None and "@" in address
    return not is_mailbox and _MASKED_PART.search(address) is not None


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers that somebody set with their values masked, but for a few whose values are surely no secret."""
    return {
        name: MASK if value.strip() and name.strip().lower() not in _HARMLESS_HEADERS else value
        for name, value in headers.items()
    }


@lru_cache(maxsize=4096)
def _masked_url(url: str) -> str:
    parts = _URL.fullmatch(url)
    if parts is None:
        return url
    scheme, slashes, authority, rest = parts.groups()
    if scheme.lower() not in _WEB:
        return f"{scheme}://{MASK}"
    _, at, host = authority.rpartition("@")
    # Some readers take a backslash for a slash, or a single one for two: to them the host is another.
    if slashes == ":/" or "\\" in rest or not _HOST.fullmatch(host):
        return f"{scheme}://{MASK}"
    shown = f"{scheme}://{MASK}@{host}" if at else f"{scheme}://{host}"
    path, *query = _QUERY.split(rest, maxsplit=1)
    if _is_capability(host, path):
        return f"{shown}/{MASK}"
    return shown + "".join(map(_masked_parameter, _BETWEEN_PARAMETERS.split("".join((path, *query)))))


def _is_capability(host: str, path: str) -> bool:
    name = re.sub(r":[0-9]*$", "", host).rstrip(".").lower()
    is_known = any(name == each or name.endswith(f".{each}") for each in _CAPABILITY_HOSTS)
    return path not in {"", "/"} and (is_known or _CAPABILITY_PATH.search(unquote(path)) is not None)


def _masked_parameter(text: str) -> str:
    """Mask the text between two separators; after a question mark in it another parameter may begin."""
    pieces = text.split("?")
    for index, piece in enumerate(pieces):
        name, _, value = piece.partition("=")
        if value and (_is_secret_name(name) or _has_credentials(value)):
            return "?".join((*pieces[:index], f"{name}={MASK}"))
    return text


def _is_secret_name(name: str) -> bool:
    name = unquote(name)
    words = {word.lower() for word in _WORDS.findall(name)}
    return bool(words & _SECRET_WORDS) or _SECRET_IN_NAME.search(re.sub(r"[^a-z]", "", name.lower())) is not None


def _has_credentials(value: str) -> bool:
    """Return whether a parameter's value is itself an address with credentials in it."""
    plain = unquote(value)
    return _URL.fullmatch(plain) is not None and _masked_url(plain) != plain


def _masked_browser(address: str) -> str:
    """Return a browser's push subscription without its keys and with its endpoint's host only."""
    document = _json(address if address.startswith("{") else _decoded(address))
    if document is None:
        return MASK if address.startswith("{") else address
    if not isinstance(document.get("endpoint"), str):
        return MASK if address.startswith("{") else address
    scheme, _, rest = document["endpoint"].partition("://")
    host = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    return json.dumps({"endpoint": f"{scheme[:8]}://{host}/{MASK}", "keys": MASK}, separators=(",", ":"))


def _decoded(text: str) -> str:
    try:
        raw = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
        return raw.decode()
    except (binascii.Error, ValueError):
        return ""


def _json(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
