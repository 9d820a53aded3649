"""Batches of notifications, and a vendor that takes them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, text

from config.settings import read_settings
from config.wiring import Wiring
from notifier.delivery.batch import Delivery
from notifier.delivery.composer import Composer
from notifier.delivery.endpoint_gate import EndpointGate
from notifier.delivery.gate import Gate
from notifier.delivery.provider_gate import ProviderGate
from notifier.delivery.rules import Rules
from notifier.planning.subscribers import SubscriberCache
from notifier.providers.failover import Choice, Providers
from notifier.providers.protocol import Fault, Message, Outcome, Result
from notifier.providers.rate_limits import RecipientLimits
from notifier.security.secret_box import new_key
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel

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
