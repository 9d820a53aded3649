"""The story of a notification: each thing that is on record of it, as a moment of a timeline."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from api.console import words

Record = Mapping[str, Any]

_ATTEMPTS: Final = {
    "accepted": "The provider accepted it",
    "rejected": "The provider refused it for good",
    "unsent": "It was not sent",
    "ambiguous": "It may have been sent",
}
_RECEIPTS: Final = {
    "delivered": "It arrived",
    "bounced": "It bounced for good",
    "bounced_here": "It bounced at this provider",
    "bounced_for_now": "It bounced for now",
}
_HOWS: Final = {
    "resend": "Sent again",
    "another_provider": "Sent again by another provider",
    "requeue": "Requeued",
    "recover": "Sent again by a recovery",
}
#: Phases of an HTTP call, in their order.
PHASES: Final = (
    ("dns_ms", "name looked up"),
    ("connect_ms", "connected"),
    ("tls_ms", "TLS agreed"),
    ("first_byte_ms", "first byte"),
    ("total_ms", "all of it"),
)


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened. `at`: as the API writes times; None where it is not known."""

    at: str | None
    title: str
    tone: str = "plain"
    text: str | None = None
    #: An attempt, with all that is known of its call.
    attempt: Record | None = None
    facts: tuple[tuple[str, str], ...] = field(default=())


def moments(notification: Record) -> list[Moment]:
    """Return the moments of a notification, oldest first."""
    found = [
        _accepted(notification),
        *_put_off(notification),
        *map(_attempt, notification["attempt_log"]),
        *map(_receipt, notification["receipts"]),
        *map(_earlier, notification["earlier_sends"]),
    ]
    began = datetime.fromisoformat(notification["created_at"])
    found.sort(key=lambda each: words.moment(each.at) or began)
    return [*found, *_now(notification)]


def _accepted(notification: Record) -> Moment:
    facts = [("by", notification["source"])]
    named = [("request", "request_id"), ("route", "route")]
    facts += [(label, notification[name]) for label, name in named if notification.get(name)]
    if template := notification.get("template"):
        facts.append(("template", f"{template['name']}, version {template['version']}"))
    timed = [("send at", "send_at"), ("target date", "target_date"), ("expires", "expires_at")]
    facts += [(label, words.at(notification[name])) for label, name in timed if notification.get(name)]
    if notification.get("lead_time"):
        facts.append(("lead time", notification["lead_time"]))
    return Moment(notification["created_at"], "Accepted", "good", facts=tuple(facts))


def _put_off(notification: Record) -> Iterator[Moment]:
    judged = notification.get("judged")
    if judged:
        told = [name for name in ("local_time", "timezone") if judged.get(name)]
        facts = tuple((name.replace("_", " "), str(judged[name])) for name in told)
        rule = str(judged.get("rule", "")).replace("_", " ")
        title = f"A rule of its recipient held it back: {rule}"
        yield Moment(judged.get("local_time"), title, "warning", judged.get("explanation"), facts=facts)


def _attempt(attempt: Record) -> Moment:
    title = f"Attempt {attempt['number']}: {_ATTEMPTS.get(attempt['outcome'], attempt['outcome'])}"
    facts = [("provider", attempt["provider"] or "unknown: its worker died")]
    if attempt["status_code"] is not None:
        facts.append(("code", str(attempt["status_code"])))
    if attempt["duration_ms"] is not None:
        facts.append(("took", words.milliseconds(attempt["duration_ms"])))
    if attempt.get("message_id"):
        facts.append(("its id of the message", attempt["message_id"]))
    return Moment(attempt["started_at"], title, words.tone(attempt["outcome"]), attempt=attempt, facts=tuple(facts))


def _receipt(receipt: Record) -> Moment:
    title = f"{_RECEIPTS.get(receipt['kind'], receipt['kind'])}, says {receipt['provider']}"
    tone = "good" if receipt["kind"] == "delivered" else "bad"
    facts = [("told at", words.at(receipt["taken_at"]))]
    if not receipt["applied"]:
        facts.append(("counted", "no: it came too late, too early, or said what was known"))
    return Moment(receipt["happened_at"], title, tone, receipt.get("error"), facts=tuple(facts))


def _earlier(sent: Record) -> Moment:
    reason = f" ({sent['reason']})" if sent["reason"] else ""
    was = f"It was {sent['status']}{reason} after {sent['attempts']} attempts."
    title = str(_HOWS.get(sent["how"], sent["how"]))
    return Moment(sent["asked_at"], title, "moving", was, facts=(("by", sent["asked_by"]),))


def _now(notification: Record) -> Iterator[Moment]:
    due = notification.get("due_at")
    if due and notification["status"] in {"scheduled", "retrying"}:
        yield Moment(due, "Next: it is looked at again", "moving")
