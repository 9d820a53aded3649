"""The callback URL for receipts, for vendors that take one with each message."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from notifier.providers.dsn import Dsn


def callback_url(dsn: Dsn, public_url: str, name: str) -> str | None:
    """The address for a vendor's callbacks; None where it could not reach that, and might refuse messages for it.

    Another host that stands in for a vendor may be told any address.
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
