"""Attachments on their way through a batch: a few at once, and none where Postgres goes away meanwhile."""

import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, make_url, text

from config.settings import read_settings
from config.wiring import Wiring
from notifier.content import attachments
from notifier.content.templates import EMPTY
from notifier.planning.drafts import as_document, insert_notifications
from notifier.planning.plans import Origin, Plan, Planner
from notifier.providers.protocol import Attachment
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.receivers import Received
from tests.providers.vendors import sendgrid

MOST = 5 * 1024 * 1024


class Vendor:
    """Takes emails over HTTP: counts what is under way, and does something before it answers the second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        #: Set by a third that begins while two are under way.
        self._crowded = threading.Event()
        self.most_under_way = 0
        self.recipients: list[str] = []
        self.at_the_second: Callable[[], object] = lambda: None

    def answer(self, request: Received) -> bytes:
        """Its yes."""
        [personalization] = orjson.loads(request.body)["personalizations"]
        with self._lock:
            self._under_way += 1
            self.most_under_way = max(self.most_under_way, self._under_way)
            self.recipients.append(personalization["to"][0]["email"])
            if len(self.recipients) == 2:
                self.at_the_second()
            if self._under_way > 2:
                self._crowded.set()
        self._crowded.wait(0.2)  # so long others may begin, if they will
        with self._lock:
            self._under_way -= 1
        return sendgrid.VENDOR.success


@pytest.fixture
def vendor() -> Vendor:
    """Where email goes."""
    return Vendor()


@pytest.fixture
def wires(database_url: str, owner_engine: Engine, vendor: Vendor) -> Iterator[Wiring]:
    """A process that sends email, and waits for no lock for long."""
    with owner_engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {make_url(database_url).database} SET lock_timeout = '100ms'"))
    with receivers.http(vendor.answer) as (listener, _):
        settings = {"NOTIFIER_EMAIL": sendgrid.VENDOR.dsn(listener.port), "NOTIFIER_SENDING_WINDOW": "20"}
        made = Wiring(read_settings({"DATABASE_URL": database_url, **settings}))
        yield made
        made.engine.dispose()


def make(wires: Wiring, emails: int) -> list[UUID]:
    """Emails with a file each; returns their ids."""
    rows = []
    for number in range(emails):
        [file] = attachments.store(wires.engine, [Attachment("file", "a/b", b"x" * MOST)])
        content = {"body": "Hello.", "attachments": [file]}
        plan = Plan(recipient=f"{number}@example.com", channels=(Channel.EMAIL,), content=content)
        rows += Planner(lambda _: 60.0, frozenset(Channel)).rows(plan, Origin(new_id(), "test"), None, EMPTY)
    with wires.engine.begin() as connection:
        connection.execute(text(insert_notifications()), {"notifications": as_document(rows)})
    return [row["id"] for row in rows]


def deliver(wires: Wiring, ids: list[UUID]) -> list[tuple[str, int]]:
    """Deliver a batch; returns the status and the attempts of each."""
    wires.deliveries[Channel.EMAIL].deliver(ids, 0, lambda *_: False)
    with wires.engine.connect() as connection:
        found = connection.execute(text("SELECT status, attempts FROM notifications ORDER BY id"))
        return sorted((row.status, row.attempts) for row in found)


def test_no_more_are_under_way_than_a_worker_has_room_for(wires: Wiring, vendor: Vendor) -> None:
    assert deliver(wires, make(wires, 6)) == [("sent", 1)] * 6
    assert sorted(vendor.recipients) == [f"{number}@example.com" for number in range(6)]
    assert vendor.most_under_way <= 2


def test_what_cannot_be_read_now_is_given_back(wires: Wiring, vendor: Vendor, engine: Engine) -> None:
    ids = make(wires, 4)
    with engine.connect() as connection:
        vendor.at_the_second = lambda: connection.execute(text("LOCK TABLE attachments"))
        assert deliver(wires, ids) == [("queued", 0)] * 2 + [("sent", 1)] * 2
    vendor.at_the_second = lambda: None
    assert deliver(wires, ids) == [("sent", 1)] * 4
    assert sorted(vendor.recipients) == [f"{number}@example.com" for number in range(4)]
