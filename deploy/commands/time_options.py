"""Option types of commands: durations and points in time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from config.parsers import parse_duration
from notifier.vocabulary.timestamps import parse_rfc3339


class Span(click.ParamType[timedelta]):
    """A duration: seconds, or ISO 8601 such as PT1H."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:  # noqa: ANN401 -- click's signature
        """Parse it."""
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class When(click.ParamType[datetime]):
    """A point in time: a duration from now (`P90D`), the start of a day (`2027-01-01`, UTC) or a full time."""

    name = "duration|date"

    def __init__(self, *, back: bool = False) -> None:
        """`back`: durations count back from now, and not ahead."""
        self._sign = -1 if back else 1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401 -- click's signature
        """Parse it, in UTC."""
        text = str(value).strip()
        try:
            if text[:1] in {"P", "p"} or text.replace(".", "", 1).isdigit():
                return datetime.now(UTC) + self._sign * parse_duration(text)
            return parse_rfc3339(f"{text}T00:00:00Z" if len(text) == len("2027-01-01") else text)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither a duration (P90D) nor a date (2027-01-01) nor a time (2027-01-01T09:00:00Z)",
                param,
                ctx,
            )
