"""Demo: sends sample events to a running stack, and shows their notifications."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from deploy.local_client import local_client
from deploy.ports import ADDRESS
from deploy.terminal import say, show_table
from notifier_client import Client, NotifierError, RetryPolicy
from notifier_client.types import Channel, NotificationWithAttempts

_TIMEOUT: Final = 30.0
_INTERVAL: Final = 0.2
_FINISHED: Final = {"sent", "delivered", "failed", "cancelled", "expired", "skipped"}


class _Receiver(BaseHTTPRequestHandler):
    """A webhook endpoint that accepts everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is the supervisor's."""


@contextlib.contextmanager
def _receiver() -> Iterator[str]:
    """A webhook endpoint on this machine; gives its URL."""
    server = ThreadingHTTPServer((ADDRESS, 0), _Receiver)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://{ADDRESS}:{server.server_port}/hook"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def show(api: str, wait: Callable[[float], None], *, email: bool) -> None:
    """Post an event for an email and one for a webhook, wait for both, and print how they went.

    `email` is False where a mail server is configured: the example's recipient is nobody to write to in earnest.
    `wait` is called between looks; what it raises ends the demo.
    """
    try:
        policy = RetryPolicy(sleep=wait)
        with local_client(api, timeout=_TIMEOUT, retries=policy) as client, _receiver() as endpoint:
            ids = [_post(client, "ada@example.com", "email")] if email else []
            ids.append(_post(client, endpoint, "webhook"))
            found = _wait_for(client, ids, wait)
    except NotifierError as error:
        say(f"The demo failed: {error}", fg="red")
        return
    if not found:
        say(f"The demo's events came to no notification within {_TIMEOUT:g} s.", fg="red")
        return
    _show_overview(found)
    _show_attempts(found)


def _post(client: Client, recipient: str, channel: Channel) -> str:
    payload = {"name": "Ada"}
    accepted = client.events.send(
        {"event_type": "user.signup", "payload": payload, "recipient": recipient, "channel": channel}
    )
    return accepted["id"]


def _wait_for(client: Client, events: list[str], wait: Callable[[float], None]) -> list[NotificationWithAttempts]:
    """Return the notifications of events with their attempts, once finished or when the time is over."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        notifications = [each for event in events for each in client.events.get(event)["notifications"]]
        done = len(notifications) >= len(events) and all(each["status"] in _FINISHED for each in notifications)
        if done or time.monotonic() > deadline:
            return [client.notifications.get(each["id"]) for each in notifications]
        wait(_INTERVAL)


def _show_overview(notifications: list[NotificationWithAttempts]) -> None:
    rows = []
    for each in notifications:
        status = f"{each['status']} ({each['reason']})" if each["reason"] else each["status"]
        rows.append((each["id"], each["channel"], each["recipient"], status, each["attempts"], _took(each)))
    headers = ("notification", "channel", "recipient", "status", "attempts", "sent after")
    show_table(headers, rows, title="Notifications")


def _show_attempts(notifications: list[NotificationWithAttempts]) -> None:
    rows = [
        (
            *(each["channel"], attempt["number"], attempt["provider"], attempt["outcome"], attempt["started_at"]),
            f"{attempt['duration_ms'] or 0:.1f}",
        )
        for each in notifications
        for attempt in each["attempt_log"]
    ]
    show_table(("channel", "number", "provider", "outcome", "started", "ms"), rows, title="Attempts")


def _took(notification: NotificationWithAttempts) -> str:
    if not notification["sent_at"]:
        return "–"
    accepted, sent = map(datetime.fromisoformat, (notification["created_at"], notification["sent_at"]))
    return f"{(sent - accepted).total_seconds() * 1000:.0f} ms"
