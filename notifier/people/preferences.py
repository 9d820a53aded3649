"""Preferences: whether and when a person may be notified, by category, channel and hour. Pure.

Checked at the moment of sending. The order, deny wins: suppression list → critical (stops here and sends) → channel off
→ category × channel → quiet hours, which defer to their end and drop nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from notifier.people.quiet_hours import QuietHours, end_of, is_quiet
from notifier.vocabulary.states import Channel
from notifier.vocabulary.time_zones import first_known
from notifier.vocabulary.timestamps import rfc3339

#: The category of a notification without one, so that users can switch it off too.
GENERAL: Final = "general"
#: In a category: the channels that it does not name. Among categories: those that are not named.
REST: Final = "*"


class Rule(StrEnum):
    """The rule that decided."""

    SUPPRESSION = "suppression"
    CRITICAL = "critical"
    CHANNEL = "channel"
    CATEGORY = "category"
    QUIET_HOURS = "quiet_hours"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The facts about one notification at the moment of sending."""

    channel: Channel
    category: str | None
    critical: bool
    #: Why the address is on the suppression list, where it is.
    suppressed: str | None
    #: The address itself has opted out of the category (it belongs to no known user).
    opted_out: bool
    #: The user's document, as the HTTP contract has it.
    preferences: Mapping[str, Any] | None
    #: The time zone of quiet hours that name none, where the user has none either.
    zone: ZoneInfo
    #: The name of the user's time zone, as it is stored.
    user_zone: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it may go, when (None: never), and which rule said so, in words."""

    allowed: bool
    at: datetime | None
    rule: Rule | None
    explanation: str
    #: The time zone by which the rule was judged, if it is the rule's own.
    zone: ZoneInfo | None = None


def decide(about: Circumstances, now: datetime) -> Decision:
    """Decide whether and when a notification that is due `now` may be sent."""
    channel, category = about.channel, about.category or GENERAL
    preferences = about.preferences or {}
    if about.suppressed is not None:
        return Decision(False, None, Rule.SUPPRESSION, f"The address is on the suppression list: {about.suppressed}.")
    if about.critical:
        return Decision(True, now, Rule.CRITICAL, "Critical: preferences and quiet hours do not hold it up.")
    if preferences.get("channels", {}).get(channel) is False:
        return Decision(False, None, Rule.CHANNEL, f"The user has switched {channel} off.")
    if about.opted_out or not _category_allows(preferences.get("categories", {}), category, channel):
        named = f"the category {category}" if about.category else f"messages without a category ({GENERAL})"
        return Decision(False, None, Rule.CATEGORY, f"The recipient has switched {named} off for {channel}.")
    rules = quiet_hours_of(preferences.get("quiet_hours", ()), channel, about.user_zone, about.zone)
    quiet = [rule for rule in rules if is_quiet(rule, now)]
    if quiet:
        end = end_of(rules, now)
        # Rules without a free moment in the week defer day by day; NOTIFIER_MAX_AGE ends that.
        words = f"until {rfc3339(end)}" if end else "without an end"
        explanation = _with_notes(f"Quiet hours for {channel}, {quiet[0]}, {words}.", quiet[:1])
        return Decision(True, end, Rule.QUIET_HOURS, explanation, quiet[0].zone)
    return Decision(True, now, None, _with_notes("Nothing stands against it.", rules))


def _with_notes(sentence: str, rules: Sequence[QuietHours]) -> str:
    """Add the notes about the rules' time zones, each once."""
    return " ".join([sentence, *dict.fromkeys(rule.note for rule in rules if rule.note)])


def _category_allows(categories: Mapping[str, Mapping[str, bool]], category: str, channel: Channel) -> bool:
    wishes = categories.get(category, categories.get(REST, {}))
    return wishes.get(channel, wishes.get(REST, True))


def quiet_hours_of(
    rules: Sequence[Mapping[str, Any]], channel: Channel, user_zone: str | None, zone: ZoneInfo
) -> list[QuietHours]:
    """Return the rules of a preferences document that hold for a channel; one that names no channels holds for all.

    The clock is that of the rule's own time zone, else of the user's, else of `zone`: the first that is known.
    """
    held = [rule for rule in rules if not rule.get("channels") or channel in rule["channels"]]
    chosen = [first_known((rule.get("timezone"), user_zone), zone) for rule in held]
    return [
        QuietHours(time.fromisoformat(rule["start"]), time.fromisoformat(rule["end"]), each.zone, each.note)
        for rule, each in zip(held, chosen, strict=True)
    ]
