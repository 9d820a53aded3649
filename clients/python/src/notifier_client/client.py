"""Client: an API of Notifier and a key to it."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import requests

from notifier_client.resources.content import Routes, Templates
from notifier_client.resources.events import Events
from notifier_client.resources.notifications import NotificationOperations
from notifier_client.resources.operating import DeadLetters, Holds, Operating
from notifier_client.resources.people import People, PreferenceOperations, Suppressions, Users
from notifier_client.resources.subscriptions import Subscriptions
from notifier_client.retries import RetryPolicy
from notifier_client.transport import Timeout, Transport


class Client:
    """An API of Notifier. Threads may share it; its operations stand in groups, as `client.events.send(…)`."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeout: Timeout = 15.0,
        retries: int | RetryPolicy = 3,
        new_session: Callable[[], requests.Session] = requests.Session,
    ) -> None:
        """Raise ValueError for a URL or a key that cannot be one; nothing is sent yet.

        `timeout`: seconds to connect, and of silence while an answer is awaited, or both as a pair.
        `retries`: how often a request is repeated, or a whole policy.
        `new_session`: makes the session of each process, for proxies or certificates of your own.
        """
        policy = retries if isinstance(retries, RetryPolicy) else RetryPolicy(retries=retries)
        self._transport = Transport(base_url, key=key, timeout=timeout, policy=policy, new_session=new_session)
        self.events = Events(self._transport)
        self.notifications = NotificationOperations(self._transport)
        self.users = Users(self._transport)
        self.preferences = PreferenceOperations(self._transport)
        self.suppressions = Suppressions(self._transport)
        self.people = People(self._transport)
        self.templates = Templates(self._transport)
        self.routes = Routes(self._transport)
        self.subscriptions = Subscriptions(self._transport)
        self.dead_letters = DeadLetters(self._transport)
        self.holds = Holds(self._transport)
        self.operating = Operating(self._transport)

    def __repr__(self) -> str:
        """Show where it leads, and no key."""
        return f"Client({self._transport.base_url!r})"

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes the connections."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()
