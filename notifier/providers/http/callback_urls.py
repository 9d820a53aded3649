"""Callback URLs for receipts, for vendors that take one with each message."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from notifier.providers.dsn import Dsn


def callback_url(dsn: Dsn, public_url: str, name: str) -> str | None:
    """Return the URL for a vendor's callbacks; None if it cannot reach it, and might refuse messages for it.

    A host that replaces a vendor's own may be given any URL.
    """
    is_vendors = dsn.host is None
    if is_vendors and not _is_on_the_internet(urlsplit(public_url).hostname or ""):
        return None
    return f"{public_url}/api/v1/receipts/{name}"


def _is_on_the_internet(host: str) -> bool:
    try:
        return ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(".localhost")
