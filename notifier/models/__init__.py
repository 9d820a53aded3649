"""The tables, one aggregate a file."""

from notifier.models.api_key import ApiKey
from notifier.models.attachment import Attachment
from notifier.models.attempt import Attempt, attempt_id
from notifier.models.audit_line import AuditChain, AuditLine
from notifier.models.dead_letter import DeadLetter
from notifier.models.dead_letter_act import DeadLetterAct
from notifier.models.declarative import Base
from notifier.models.dedup_key import DedupKey
from notifier.models.erasure import Erasure
from notifier.models.event import Event
from notifier.models.heartbeat import Heartbeat
from notifier.models.hold import Hold
from notifier.models.idempotency_key import IdempotencyKey
from notifier.models.notification import Notification
from notifier.models.outbox import OutboxMessage
from notifier.models.provider_state import ProviderState
from notifier.models.receipt import Receipt
from notifier.models.recovery import Recovery
from notifier.models.resend import Resend
from notifier.models.route import Route
from notifier.models.signing_key import SigningKey
from notifier.models.statistics import HourFigures, MinuteFigures, StatsProgress
from notifier.models.subscription import Endpoint, Listeners, Subscription
from notifier.models.suppression import OptOut, Suppression
from notifier.models.taken_receipt import TakenReceipt
from notifier.models.template import Template
from notifier.models.user import User

__all__ = [
    "ApiKey",
    "Attachment",
    "Attempt",
    "AuditChain",
    "AuditLine",
    "Base",
    "DeadLetter",
    "DeadLetterAct",
    "DedupKey",
    "Endpoint",
    "Erasure",
    "Event",
    "Heartbeat",
    "Hold",
    "HourFigures",
    "IdempotencyKey",
    "Listeners",
    "MinuteFigures",
    "Notification",
    "OptOut",
    "OutboxMessage",
    "ProviderState",
    "Receipt",
    "Recovery",
    "Resend",
    "Route",
    "SigningKey",
    "StatsProgress",
    "Subscription",
    "Suppression",
    "TakenReceipt",
    "Template",
    "User",
    "attempt_id",
]
