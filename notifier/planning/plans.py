"""Plans, and the notifications that they create.

A plan names content, recipient, channels and time. A caller's request is a plan; routes and handlers make plans of
events. Turning a plan into rows resolves users to addresses, lead times to moments and templates to versions.
Preferences are not part of it: they are checked at the moment of sending.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from orjson import dumps

from notifier.content.templates import Catalogue, TemplateVersion
from notifier.observability.request_context import UNKNOWN, RequestContext
from notifier.people.users import Person
from notifier.planning.reminders import AT_THE_TARGET, deadline_of, moment_before, schedule
from notifier.security.address_seals import NO_SEALS, AddressSeals
from notifier.vocabulary.durations import parse_iso
from notifier.vocabulary.ids import derived_id, millisecond_of, time_of
from notifier.vocabulary.queues import FAN_OUT, queue_for
from notifier.vocabulary.reasons import Reason
from notifier.vocabulary.states import Channel, Priority, Status
from notifier.vocabulary.time_zones import UTC_ZONE, first_known

Row = dict[str, Any]
Lease = Callable[[str], float]
"""Seconds that a row of a queue is left to the message that was sent for it, before the clock looks after it."""

_RULES: Final = {
    Reason.NO_ADDRESS: "Nobody can be reached: there is no address for it.",
    Reason.NO_PROVIDER: "No provider is configured for this channel.",
    Reason.NO_TEMPLATE: "The template has no version for this channel and locale.",
}


class Strategy(StrEnum):
    """How several channels are used."""

    #: Each of them.
    ALL = "all"
    #: The first; the next one only where the one before cannot be used or is dead.
    FIRST = "first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A notification planned for one person or address. Times have a time zone; durations are ISO 8601."""

    #: An address, and then exactly one channel; or else a user.
    recipient: str | None = None
    user_id: str | None = None
    #: In order of preference; none: each channel that the user has.
    channels: tuple[Channel, ...] = ()
    strategy: Strategy = Strategy.ALL
    template: str | None = None
    #: The content, if it is not the event's payload: `{"subject", "body"}` or `{"data": {…}}`. For emails, `from` and
    #: `reply_to` may be added.
    content: Any = None
    category: str | None = None
    critical: bool = False
    priority: Priority = Priority.NORMAL
    send_at: datetime | None = None
    expires_at: datetime | None = None
    target_date: datetime | None = None
    lead_time: tuple[str, ...] = ()
    timezone: str | None = None
    cancellation_key: str | None = None
    dedup_key: str | None = None
    dedup_window: str | None = None
    #: `everyone`: among all sources that say so; else within the source of the event or request.
    dedup_scope: str | None = None
    on_ambiguous: str | None = None
    #: The route that made it.
    route: str | None = None
    #: Why it cannot be sent, where it was made in vain: (reason, in words).
    refused: tuple[str, str] | None = None
    #: A sentence for the reader, where something was read otherwise than it was asked for.
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a plan: an event, a replay of one, or a request without an event."""

    id: UUID
    source: str
    event_id: UUID | None = None
    event_type: str | None = None
    #: Made for the record only: its event was cancelled before it was fanned out.
    cancelled: bool = False
    cause: RequestContext = UNKNOWN


@dataclass(frozen=True, slots=True)
class _Target:
    channel: Channel | None
    recipient: str | None


@dataclass(frozen=True, slots=True)
class _Moment:
    """One of a plan's times: `due_at` None is at once."""

    lead_time: str | None
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Planner:
    """Turns plans into notification rows."""

    lease: Lease
    #: The channels that have a provider.
    usable: frozenset[Channel]
    #: Where days are counted for somebody without a time zone.
    zone: ZoneInfo = UTC_ZONE
    #: How addresses are kept.
    seals: AddressSeals = NO_SEALS

    def rows(self, plan: Plan, origin: Origin, person: Person | None, catalogue: Catalogue) -> list[Row]:
        """Return the rows of a plan: the same rows whenever it is carried out again.

        `person` is the plan's user, None if unknown. A row whose recipient cannot be reached is included, as `skipped`.
        With strategy `first`, the channels after the first usable one are in its `next_channels`.
        """
        moments = [_Moment(None, plan.send_at)]
        if (target := plan.target_date) is not None:
            chosen = first_known((plan.timezone, person.timezone if person else None), self.zone)
            plan = replace(plan, timezone=chosen.zone.key, note=chosen.note)
            moments = list(_reminders(plan, target, chosen.zone))
        make = _Maker(self, plan, origin, person, catalogue).row
        if plan.strategy is Strategy.ALL:
            return [make(target, moment) for moment in moments for target in _targets(plan, plan.channels, person)]
        return [row for moment in moments for row in _first_usable(plan, person, moment, make)]


def next_in_line(
    planner: Planner, plan: Plan, follows: UUID, origin: Origin, person: Person | None, catalogue: Catalogue
) -> list[Row]:
    """Return the rows of a plan's next channel, after one (`follows`) that could not be used; due at once."""
    make = _Maker(replace(planner, lease=lambda _: 0.0), plan, origin, person, catalogue).row
    [lead_time] = plan.lead_time or (None,)
    return list(_first_usable(plan, person, _Moment(lead_time, None), make, follows))


def _reminders(plan: Plan, target: datetime, zone: ZoneInfo) -> Iterator[_Moment]:
    for lead_time in dict.fromkeys(plan.lead_time or (AT_THE_TARGET,)):
        yield _Moment(lead_time, moment_before(target, parse_iso(lead_time), zone))


def _targets(plan: Plan, channels: Sequence[Channel], person: Person | None) -> list[_Target]:
    """Return a plan's targets on some channels (none: all that the person has); at least one target a channel."""
    if plan.recipient is not None:
        return [_Target(plan.channels[0], plan.recipient)]
    if not channels:
        channels = person.channels if person else ()
    targets = []
    for channel in channels:
        addresses = person.addresses(channel) if person else ()
        targets += [_Target(channel, address) for address in addresses] or [_Target(channel, None)]
    return targets or [_Target(None, None)]


def _first_usable(
    plan: Plan, person: Person | None, moment: _Moment, make: Callable[..., Row], follows: UUID | None = None
) -> Iterator[Row]:
    """Yield rows channel by channel, up to the first usable channel; the other channels wait behind it."""
    channels = plan.channels or (person.channels if person else ())
    for place in range(max(1, len(channels))):
        targets = _targets(plan, channels[place : place + 1], person)
        rows = [make(target, moment, channels[place + 1 :], follows) for target in targets]
        for row in rows if len(rows) > 1 else ():
            row["siblings"] = [other["id"] for other in rows if other is not row]
        if any(row["status"] != Status.SKIPPED for row in rows):
            yield from rows
            return
        for row in rows:
            row["next_channels"] = None  # what comes next is made right here
        yield from rows
        follows = rows[0]["id"]


#: Columns that most rows have not: absent ones are null, and cost nothing on the way to Postgres.
_SELDOM: Final = (
    *("explanation", "route", "content", "send_at", "expires_at", "target_date", "lead_time", "timezone", "due_at"),
    *("cancellation_key", "dedup_key", "dedup_window", "dedup_scope", "on_ambiguous"),
    *("template", "template_id", "template_version", "next_channels", "follows", "request_id", "traceparent"),
)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the rows of one plan."""

    planner: Planner
    plan: Plan
    origin: Origin
    person: Person | None
    catalogue: Catalogue

    def row(
        self, target: _Target, moment: _Moment, next_channels: Sequence[Channel] = (), follows: UUID | None = None
    ) -> Row:
        """Return one notification, as the columns of its row."""
        plan, origin, seals = self.plan, self.origin, self.planner.seals
        # An id must not change with the form in which an address is kept.
        whole = target.recipient and seals.opened_or_kept(target.recipient)
        priority = Priority.HIGH if plan.critical else Priority(plan.priority)
        queue = queue_for(target.channel, priority) if target.channel else FAN_OUT
        created_at = time_of(origin.id)
        template = self._template(target)
        timing = schedule(created_at, moment.due_at, deadline_of(plan.expires_at, plan.target_date, moment.lead_time))
        status, reason, explanation = timing.status, None, plan.note
        if refused := self._refused(target, found=template is not None):
            status, (reason, explanation) = Status.SKIPPED, refused
        elif origin.cancelled and status is not Status.EXPIRED:
            status = Status.CANCELLED
        parts = (
            *(origin.id, whole, target.channel, plan.user_id, plan.route, moment.lead_time),
            # A handler may have several things to say to one person.
            *(plan.template, plan.category, plan.send_at, None if plan.content is None else dumps(plan.content)),
        )
        row = {
            "id": derived_id(millisecond_of(origin.id), *parts),
            "origin_id": origin.id,
            "event_id": origin.event_id,
            "event_type": origin.event_type,
            "source": origin.source,
            "user_id": plan.user_id,
            "recipient": whole and seals.kept(target.channel, whole),
            "channel": target.channel,
            "category": plan.category,
            "critical": plan.critical,
            "priority": priority,
            "queue": queue,
            "status": status,
            "reason": reason,
            "created_at": created_at,
            "lease": self.planner.lease(queue),
        }
        more = (
            *(explanation, plan.route, plan.content, plan.send_at, plan.expires_at, plan.target_date),
            *(moment.lead_time, plan.timezone if plan.target_date else None, timing.due_at, plan.cancellation_key),
            *(plan.dedup_key, plan.dedup_window, plan.dedup_scope, plan.on_ambiguous, plan.template),
            *(template.id if template else None, template.version if template else None),
            *(list(next_channels) or None, follows, origin.cause.request_id, origin.cause.traceparent),
        )
        return row | {name: value for name, value in zip(_SELDOM, more, strict=True) if value is not None}

    def _template(self, target: _Target) -> TemplateVersion | None:
        if self.plan.template is None or target.channel is None:
            return None
        return self.catalogue.pick(self.plan.template, target.channel, self.person.locale if self.person else None)

    def _refused(self, target: _Target, *, found: bool) -> tuple[str, str] | None:
        """Return why a row is skipped from the start: (reason, explanation)."""
        if self.plan.refused:
            return self.plan.refused
        if target.recipient is None:
            return Reason.NO_ADDRESS, _RULES[Reason.NO_ADDRESS]
        if target.channel not in self.planner.usable:
            return Reason.NO_PROVIDER, _RULES[Reason.NO_PROVIDER]
        if self.plan.template is not None and not found:
            return Reason.NO_TEMPLATE, _RULES[Reason.NO_TEMPLATE]
        return None


#: Fields that a plan takes from its event.
_SHARED: Final = (
    *("template", "category", "critical", "send_at", "expires_at", "target_date", "timezone"),
    *("cancellation_key", "dedup_key", "dedup_window", "dedup_scope", "on_ambiguous"),
)


def shared_fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a Plan that are also columns of an event."""
    fields = {name: event[name] for name in _SHARED}
    return fields | {"priority": Priority(event["priority"]), "lead_time": tuple(event["lead_time"] or ())}


def plan_of(event: Mapping[str, Any]) -> Plan | None:
    """Return the plan that an event itself asks for: for its recipient, or else its user. None if it names neither."""
    if event["recipient"] is None and event["user_id"] is None:
        return None
    channels = (Channel(event["channel"]),) if event["channel"] else ()
    return Plan(recipient=event["recipient"], user_id=event["user_id"], channels=channels, **shared_fields(event))
