"""A batch through several providers to its rows: what is recorded, whatever the providers do."""

from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from config.settings import read_settings
from config.wiring import Wiring
from notifier.delivery.batch import Delivery
from notifier.delivery.batch_failed import BatchFailed
from notifier.delivery.composer import Composer
from notifier.delivery.endpoint_gate import EndpointGate
from notifier.delivery.gate import Gate
from notifier.delivery.provider_gate import ProviderGate
from notifier.delivery.rules import Rules
from notifier.notifications.attempts import AbandonedClaim, Record, record, record_worker_losses
from notifier.planning.subscribers import SubscriberCache
from notifier.providers.failover import Choice, Providers
from notifier.providers.protocol import Fault, Message, Outcome, Result
from notifier.providers.rate_limits import RecipientLimits
from notifier.runtime.isolation import BaseExceptionRaised
from notifier.security.secret_box import new_key
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel, Status
from tests.support.running import wait_for

FAULTY = "+15550199"


class Vendor:
    """A provider as a package may bring it: it breaks over one number, or takes nothing."""

    confirms_delivery = False
    timeout = 5.0
    error: type[BaseException] = ZeroDivisionError

    def __init__(self, name: str, *, is_down: bool = False) -> None:
        self.name, self.is_down = name, is_down
        self.got: list[UUID] = []

    def takes(self, recipient: str) -> bool:
        return True

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        for message in messages:
            if message.recipient == FAULTY:
                raise self.error
            self.got.append(message.id)
            outcome, fault = (Outcome.UNSENT, Fault.PROVIDER) if self.is_down else (Outcome.ACCEPTED, None)
            yield [Result(message.id, outcome, self.name, datetime.now(UTC), 1.0, fault=fault)]

    def close(self) -> None:
        pass


def delivery_by(engine: Engine, *vendors: Vendor, window: float = 5.0) -> Delivery:
    url = engine.url.render_as_string(hide_password=False).replace("+psycopg2", "")
    wires = Wiring(read_settings({"DATABASE_URL": url, "NOTIFIER_SMS": "outbox:", "NOTIFIER_SECRET_KEY": new_key()}))
    providers = Providers(Channel.SMS, [Choice(vendor, vendor.name) for vendor in vendors])
    age = timedelta(hours=72)
    provider_gate = ProviderGate(providers, RecipientLimits(Channel.SMS, [], None), age)
    return Delivery(
        engine,
        providers=providers,
        gate=Gate(Rules(Channel.SMS, ZoneInfo("UTC"), age, EndpointGate(age)), provider_gate),
        composer=Composer(
            engine,
            Channel.SMS,
            template_process=wires.template_process,
            links=wires.links,
            vault=wires.vault,
            senders=wires.sender_rules,
        ),
        subscribers=SubscriberCache(),
        sending_window=window,
        disable_after=age,
    )


def queued(engine: Engine, *recipients: str, body: str = "Hello") -> list[UUID]:
    ids = [new_id() for _ in recipients]
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO notifications (id, source, recipient, channel, critical, priority, content, queue, status,
                    due_at, created_at)
                SELECT id, 'test', recipient, 'sms', false, 'normal',
                    json_build_object('body', CAST(:body AS text)), 'sms', 'queued',
                    now() + interval '1 minute', now()
                FROM unnest(CAST(:ids AS uuid[]), CAST(:recipients AS text[])) AS made(id, recipient)
            """),
            {"ids": ids, "recipients": list(recipients), "body": body},
        )
    return ids


def states(engine: Engine, ids: Sequence[UUID]) -> list[tuple[str, list[int]]]:
    """Status and attempts' numbers of some notifications."""
    statement = text("""
        SELECT n.status, array(SELECT number FROM attempts WHERE notification_id = n.id ORDER BY id) AS numbers
        FROM notifications n WHERE n.id = :id
    """)
    with engine.connect() as connection:
        rows = [connection.execute(statement, {"id": each}).one() for each in ids]
    return [(row.status, sorted(row.numbers)) for row in rows]


def no_detaching(*_: object) -> bool:
    return False


def test_what_one_provider_took_is_recorded_where_another_breaks(engine: Engine) -> None:
    ids = queued(engine, *[f"+1555010{n}" for n in range(8)], FAULTY, "+15550109")
    with pytest.raises(ZeroDivisionError):
        delivery_by(engine, Vendor("a", is_down=True), Vendor("b")).deliver(ids, 0, no_detaching)
    begun = [status for status, _ in states(engine, ids[:8])]
    assert begun.count(Status.SENT) >= 4, "else they are sent once more"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, CancelledError, MemoryError])
def test_what_was_sent_is_recorded_whatever_a_provider_raises(engine: Engine, error: type[BaseException]) -> None:
    ids = queued(engine, *[f"+1555010{n}" for n in range(8)], FAULTY, "+15550109")
    vendor = Vendor("a")
    vendor.error = error
    with pytest.raises(MemoryError if error is MemoryError else BaseExceptionRaised):
        delivery_by(engine, vendor).deliver(ids, 0, no_detaching)
    found = [status for status, _ in states(engine, ids)]
    assert found == [*[Status.SENT] * 8, Status.SENDING, Status.QUEUED]


def test_while_all_fail_each_call_leaves_one_attempt(engine: Engine) -> None:
    vendors = Vendor("a", is_down=True), Vendor("b", is_down=True), Vendor("c", is_down=True)
    ids = queued(engine, *[f"+155501{n:02}" for n in range(90)])
    with pytest.raises(BatchFailed) as failed:
        delivery_by(engine, *vendors).deliver(ids, 0, no_detaching)
    found = states(engine, ids)
    calls = [sum(each in vendor.got for vendor in vendors) for each in ids]
    assert [numbers for _, numbers in found] == [list(range(1, count + 1)) for count in calls]
    tried = {row.id for row in failed.value.rows}
    assert [status for status, _ in found] == [Status.SENDING if each in tried else Status.QUEUED for each in ids]


def test_a_worker_that_was_thought_lost_counts_its_calls_on(engine: Engine) -> None:
    [row_id] = queued(engine, "+15550100")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE notifications SET status = 'sending', claims = 1 WHERE id = :id"), {"id": row_id}
        )
        record_worker_losses(connection, [AbandonedClaim(row_id, 1, 0)])
    first = Result(row_id, Outcome.UNSENT, "a", datetime.now(UTC), 1.0, fault=Fault.PROVIDER, handed_on=True)
    second = Result(row_id, Outcome.ACCEPTED, "b", datetime.now(UTC), 1.0)
    records = [Record(first, 1, 1, 1, 0), Record(second, 1, 2, 1, 1)]
    record(engine, records, finished=Status.SENT, emit_events=False)
    assert states(engine, [row_id]) == [(Status.SENT, [1, 2])]


class Slow(Vendor):
    """A provider that takes every message at once, and says so of the last one when it is told to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.timeout = 0.2
        self.turns = 0
        self.answered = Event()

    def send(self, messages: Iterator[Message]) -> Iterator[Sequence[Result]]:
        waiting = [message.id for message in messages]
        while waiting:
            self.turns += 1
            if len(waiting) > 1 or self.answered.wait(0.01):
                row_id = waiting.pop()
                self.got.append(row_id)
                yield [Result(row_id, Outcome.ACCEPTED, self.name, datetime.now(UTC), 1.0)]
            else:
                yield []


def test_what_cannot_be_recorded_is_read_on_and_keeps_its_lease(engine: Engine) -> None:
    ids = queued(engine, "+15550101", "+15550102")
    vendor = Slow("slow")
    delivery = delivery_by(engine, vendor, window=0.5)

    def end_of_lease() -> tuple[int, datetime | None]:
        query = text("SELECT count(*), min(due_at) FROM notifications WHERE status = 'sending'")
        with engine.connect() as connection:
            row = connection.execute(query).one()
        return row[0], row[1]

    with ThreadPoolExecutor() as others, engine.begin() as connection:
        connection.execute(text("LOCK TABLE attempts"))
        sending = others.submit(delivery.deliver, ids, 0, no_detaching)
        wait_for(lambda: vendor.got)
        held, first = end_of_lease()
        turns = vendor.turns
        wait_for(lambda: vendor.turns > turns + 100, what="answers to be read while none can be recorded")
        vendor.answered.set()
        wait_for(lambda: end_of_lease() > (held, first), what="the lease to be renewed")
        connection.rollback()
        sending.result(20)
    assert held == 2
    assert states(engine, ids) == [("sent", [1]), ("sent", [1])]
    assert sorted(vendor.got) == sorted(ids)
