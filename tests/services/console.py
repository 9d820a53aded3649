"""A system whose API asks for keys, with everything there is to show, and the browser in front of its console."""

from dataclasses import dataclass
from typing import Any

import requests

from notifier_client import Client
from tests.services.samples import MARKED, Filler, Samples
from tests.support.callers import Caller, Callers
from tests.support.receivers import HttpReceiver, SmtpReceiver
from tests.support.running import Running, reaches


@dataclass(frozen=True, slots=True)
class Console:
    """A console, the keys of an operator and of somebody who may look, and what it has to show."""

    system: Running
    receiver: HttpReceiver
    operator: Caller
    reader: Caller
    samples: Samples

    @property
    def url(self) -> str:
        """Where the API is that asks for keys."""
        return self.operator.url

    def notification(self, name: str) -> str:
        """The path of the page of a notification, by its name in the samples."""
        return f"/console/notifications/{self.samples.notifications[name]}"

    def record(self, name: str) -> Any:
        """A notification as the API has it."""
        return self.system.notification(self.samples.notifications[name])

    def reaches(self, name: str, status: str) -> Any:
        """A notification as the API has it, once it has a state."""
        return reaches(self.system, self.samples.notifications[name], status)

    def session(self, key: str | None = None) -> requests.Session:
        """A program that is signed in, as the operator or with another key, and that sends what browsers do not."""
        session = requests.Session()
        answer = session.post(f"{self.url}/console/sign-in", data={"key": key or self.operator.key}, timeout=20)
        assert answer.ok, answer.text
        return session


def fill(system: Running, receiver: HttpReceiver, smtp: SmtpReceiver) -> Console:
    """Make everything there is to show, with markup in all of it."""
    callers = Callers(system)
    operator = callers.new(("send", "read", "admin"), name="operator")
    smtp.refuse("ben@example.com", f"550 5.1.1 No such mailbox {MARKED.address}")
    client = Client(operator.url, key=operator.key, timeout=30, retries=0)
    try:
        samples = Filler(client, receiver, MARKED).fill()
    finally:
        client.close()
    return Console(system, receiver, operator, callers.new(("read",), name="reader"), samples)
