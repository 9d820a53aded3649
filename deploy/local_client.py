"""The Python client, for the API on this machine."""

import requests

from notifier_client import Client, RetryPolicy


def _direct() -> requests.Session:
    """Return a session without a proxy: none stands between this machine and itself."""
    session = requests.Session()
    session.trust_env = False
    return session


def local_client(url: str, *, timeout: float, retries: RetryPolicy | int = 0) -> Client:
    """Return a client of an API on this machine; the caller closes it. Keys are not asked for there."""
    return Client(url, timeout=timeout, retries=retries, new_session=_direct)
