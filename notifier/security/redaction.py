"""Redaction: texts, JSON documents and vendors' answers as they may be shown, with `***` for their credentials.

`notifier.vocabulary.masking` finds the credentials in an address; this module finds addresses in the surrounding text.
"""

import base64
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from notifier.vocabulary.masking import MASK, is_masked, masked, masked_headers, with_seal

#: Members of JSON documents that are an address, whatever its scheme.
_ADDRESSES: Final = frozenset({"recipient", "address", "folded", "push_tokens", "webhook_url", "chat_url"})
_NAMES: Final = """
    slack discord tgram gchat webex wxteams guilded flock lark feishu dingtalk msteams workflow workflows rocket rockets
    mmost mmosts matrix matrixs zulip twist twitter telegram ntfy ntfys gotify gotifys pushover pover pbul pushed pushy
    prowl ifttt notify notifiarr notifico join line kook qq wechat wecom wecombot whatsapp signal signals threema viber
    revolt ryver spike stackfield zoom zcliq cliq mastodon mastodons toot toots bluesky bsky reddit apprise apprises
    mailto mailtos mailgun sendgrid resend sparkpost ses sns vonage nexmo twilio plivo msgbird clickatell sinch
    json jsons xml xmls form forms opsgenie pagerduty pagertree victorops splunk squadcast onesignal fcm
"""
#: Schemes of chat services, whose URLs hold tokens. In a text other schemes are links into apps.
_CHAT: Final = frozenset(_NAMES.split())
_KNOWN: Final = _CHAT | {"http", "https"}
#: A URL within a text, also where JSON has escaped its slashes, up to a variable of a template.
_URL: Final = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*:(?:\\?/){2}(?:[^\s"'<>`|^{]|\{(?![{%]))+""")
#: Punctuation that ends a sentence rather than a URL.
_AFTER: Final = ".,;:!?)]}"

_SEAL_MARK: Final = with_seal("", "")
_SEALED: Final = re.compile(rf"\S+{_SEAL_MARK}\S+")

_STRING: Final = re.compile(r'"((?:[^"\\]+|\\.)*)"(\s*:)?', re.DOTALL)
#: A document without any of these contains nothing to mask.
_MAY_HAVE_SECRETS: Final = re.compile(r':\\?/|\\u00|PushToken\[|"eyJ|endpoint')

#: A shorter secret would match too much other text.
_SHORTEST: Final = 4
_LONG_WORD: Final = 8
_BETWEEN_PARTS: Final = re.compile(r"[/:@?&=#;,\[\]{}\"]+")
_WORDS: Final = """
    services webhooks webhook webhookb2 incomingwebhook spaces messages workflows triggers manual paths invoke hooks
    catch sendmessage threadkey true false https http default endpoint keys auth p256dh
"""
#: Words in the paths of incoming webhooks, which are no secrets.
_PLAIN: Final = frozenset(_WORDS.split())


def masked_text(text: str) -> str:
    """Return a text with the credentials in its URLs masked, and its sealed addresses without their seals."""
    if _SEAL_MARK in text:
        text = opened_text(text, masked)
    return _URL.sub(_masked_in_text, text) if ":/" in text or ":\\/" in text else text


def opened_text(text: str, opened: Callable[[str], str]) -> str:
    """Return a text with its sealed addresses as `opened` shows them."""
    return _SEALED.sub(lambda found: opened(found[0]), text)


def opened_json(document: str, opened: Callable[[str], str]) -> str:
    """Return a JSON document with the sealed addresses in its strings as `opened` shows them."""
    if _SEAL_MARK not in document:
        return document

    def show(found: re.Match[str]) -> str:
        written, is_name = found.groups()
        if is_name or _SEAL_MARK not in written:
            return found[0]
        return json.dumps(opened_text(str(json.loads(f'"{written}"', strict=False)), opened))

    return _STRING.sub(show, document)


def holds_mask(value: object) -> bool:
    """Return whether a URL in a text, or in the texts of a JSON value, shows `***`: we masked it."""
    if isinstance(value, str):
        return "***" in value and any(is_masked(each.rstrip(_AFTER)) for each in _URL.findall(value))
    if isinstance(value, Mapping):
        return any(holds_mask(each) for each in value.values())
    return isinstance(value, list | tuple) and any(holds_mask(each) for each in value)


def masked_json(document: str, secrets: Collection[str] = ()) -> str:
    """Return a JSON document with the credentials in its strings masked, and the rest unchanged.

    `secrets`: known secrets, masked wherever they occur.
    """
    if not secrets and not _MAY_HAVE_SECRETS.search(document):
        return document
    name = ""

    def mask(found: re.Match[str]) -> str:
        nonlocal name
        written, is_name = found.groups()
        text = str(json.loads(f'"{written}"', strict=False)) if "\\" in written else written
        if is_name:
            name = text
            return found[0]
        shown = masked(text) if name in _ADDRESSES or _SEAL_MARK in text else text
        shown = without(secrets, shown)
        return found[0] if shown == text else json.dumps(shown)

    return _STRING.sub(mask, document)


def without(secrets: Collection[str], text: str) -> str:
    """Return a text without some secrets, and with the credentials in its URLs masked."""
    for each in sorted(secrets, key=len, reverse=True):
        text = text.replace(each, MASK)
    return masked_text(text)


def secrets_of(address: str, headers: Iterable[tuple[str, str]] = ()) -> frozenset[str]:
    """Return the credentials that a message is sent with, in the forms in which an answer may repeat them."""
    secrets = {value.strip() for name, value in headers if masked_headers({name: value})[name] == MASK}
    secrets |= {value.partition(" ")[2].strip() for value in secrets}
    shown = masked(address)
    if shown != address:
        # A part that is shown, such as the host, is none.
        visible = set(_BETWEEN_PARTS.split(shown))
        secrets |= {each for each in set(_BETWEEN_PARTS.split(address)) - visible if each.lower() not in _PLAIN}
        secrets |= {unquote(each) for each in secrets}
        secrets = secrets - _plain_users(address) | _basic(address)
    return frozenset(each for each in secrets if len(each) >= _SHORTEST)


def without_beginning(text: str, secrets: Iterable[str]) -> str:
    """Return a text that was cut off without the beginning of a secret at its end."""
    for each in secrets:
        for length in range(len(each) - 1, _SHORTEST - 1, -1):
            if text.endswith(each[:length]):
                return text[:-length] + MASK
    return text


def _masked_in_text(found: re.Match[str]) -> str:
    url = found[0].rstrip(_AFTER)
    address = url.replace("\\/", "/")
    scheme, _, rest = address.partition("://")
    # Of a link into an app as much is shown as of one to a host.
    is_known = scheme.lower() in _KNOWN
    shown = masked(address) if is_known else masked(f"https://{rest}").replace("https", scheme, 1)
    return found[0] if shown == address else shown + found[0][len(url) :]


def _basic(address: str) -> set[str]:
    """Return the password of a URL, and the user with it as Basic authorization has them."""
    user, password = _user_and_password(address)
    return {base64.b64encode(f"{user}:{password}".encode()).decode(), password} if user or password else set()


def _plain_users(address: str) -> set[str]:
    """Return the user of a URL where it is no more than a word, which an answer may use for anything."""
    user, password = _user_and_password(address)
    return {user} if password and user.isalpha() and len(user) < _LONG_WORD else set()


def _user_and_password(address: str) -> tuple[str, str]:
    try:
        parts = urlsplit(address)
        return unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        return "", ""
