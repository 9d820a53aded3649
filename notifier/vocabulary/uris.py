"""URLs in ASCII (RFC 3986), as HTTP carries them; internationalised URLs arrive as IRIs (RFC 3987)."""

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import quote, unquote

from notifier.vocabulary.domains import ascii_domain

# The parts of any URI (RFC 3986, appendix B); of its authority the last @ ends the user, and the last colon the host.
_PARTS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(?:(.*)@)?(\[[^\[\]@]*\]|[^\[\]@:]*)(:[0-9]*)?", re.DOTALL)
#: The port of one host; the last part of an IPv6 address is in brackets.
_PORT_ZERO: Final = re.compile(r":0+$")
#: Characters that end a URL in a text: they are never meant as a part of it.
_BREAKS: Final = re.compile(r"[\s\x00-\x1f\x7f]")
#: Characters to percent-encode, by part; a percent sign only where it does not begin an encoded octet.
_UNRESERVED: Final = r"A-Za-z0-9._~!$&'()*+,;=\-"
_STRAY: Final = "%(?![0-9A-Fa-f]{2})"
_NOT_OF_USER: Final = re.compile(rf"{_STRAY}|[^{_UNRESERVED}:%]")
_NOT_OF_PATH: Final = re.compile(rf"{_STRAY}|[^{_UNRESERVED}:@/%]")
_NOT_OF_QUERY: Final = re.compile(rf"{_STRAY}|[^{_UNRESERVED}:@/?%]")

#: Ports that a URL need not name.
_USUAL_PORTS: Final = {"http": "80", "https": "443"}


@lru_cache(maxsize=2048)
def ascii_uri(url: str) -> str:
    """Convert a URL to an ASCII URI: A-labels in the host, percent-encoded UTF-8 for characters that are not allowed.

    Percent-encoded text is kept, and a URL that is such a URI is returned unchanged. Raises ValueError with a sentence
    for the caller as its message.
    """
    parts = _PARTS.fullmatch(url)
    authority = _AUTHORITY.fullmatch(parts[2]) if parts else None
    # To some readers a backslash in there is a slash.
    if parts is None or authority is None or "\\" in parts[2] or _BREAKS.search(url):
        raise ValueError("Not a URL with a host.")
    scheme, _, path, query, fragment = parts.groups()
    user, host, port = authority.groups()
    return "".join(
        (
            f"{scheme}://",
            "" if user is None else f"{_encoded(user, _NOT_OF_USER)}@",
            _ascii_host(host),
            port or "",
            _encoded(path, _NOT_OF_PATH),
            "" if query is None else f"?{_encoded(query[1:], _NOT_OF_QUERY)}",
            "" if fragment is None else f"#{_encoded(fragment[1:], _NOT_OF_QUERY)}",
        )
    )


def with_ascii_host(url: str) -> str:
    """Return a URL of any scheme with its host in ASCII and the rest unchanged. Raises ValueError."""
    parts = _PARTS.fullmatch(url)
    authority = _AUTHORITY.fullmatch(parts[2]) if parts else None
    if parts is None or authority is None or authority[2].isascii():
        return url
    begins = parts.start(2) + authority.start(2)
    return f"{url[:begins]}{ascii_domain(authority[2])}{url[begins + len(authority[2]) :]}"


@lru_cache(maxsize=2048)
def host_and_port(url: str) -> str:
    """Return the normalised host of a URL: A-labels in lower case, and the port unless it is the scheme's default.

    A text without a scheme is a host with an optional port. Raises ValueError with a sentence as its message.
    """
    parts = _PARTS.fullmatch(url if "://" in url else f"any://{url}")
    authority = _AUTHORITY.fullmatch(parts[2]) if parts else None
    if parts is None or authority is None or not authority[2] or "\\" in parts[2] or _BREAKS.search(url):
        raise ValueError("Not a URL with a host.")
    host, port = authority[2], (authority[3] or "")[1:].lstrip("0")
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except ValueError:
            raise ValueError("Not a URL with a host: what stands in brackets is no IPv6 address.") from None
    else:
        host = ascii_domain(unquote(host)).removesuffix(".")
    return host if port in {"", _USUAL_PORTS.get(parts[1].lower())} else f"{host}:{port}"


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case, or nothing.

    For URLs of several hosts (see Redis' sentinels): urllib refuses them where any but the first is an IPv6 address.
    """
    scheme, colon, _ = url.partition(":")
    return scheme.lower() if colon else ""


def has_port_zero(url: str) -> bool:
    """Tell whether a URL names port 0, on which nothing can listen, for one of its hosts (see Redis' sentinels)."""
    parts = _PARTS.match(url)
    hosts = parts[2].rpartition("@")[2] if parts else ""
    return any(_PORT_ZERO.search(each) for each in hosts.split(","))


def _ascii_host(host: str) -> str:
    if not host.startswith("["):
        in_ascii = ascii_domain(host)
        return host if in_ascii == host.lower() and "xn--" not in in_ascii else in_ascii
    try:
        IPv6Address(host[1:-1].replace("%25", "%", 1))
    except ValueError:
        raise ValueError("Not a URL with a host: what stands in brackets is no IPv6 address.") from None
    return host


def _encoded(text: str, unfit: re.Pattern[str]) -> str:
    try:
        return unfit.sub(lambda found: quote(found[0], safe=""), text)
    except UnicodeEncodeError:
        raise ValueError("Not a URL: it has half a surrogate pair.") from None
