"""Statistics, and the state of the system."""

import marshmallow as ma
from marshmallow import RAISE, fields, validate

from api.schemas.fields import Timestamp, name
from api.schemas.suppressions import HoldSchema
from notifier.observability.heartbeats import CLOCK, STUCK, WORKER
from notifier.providers.circuit import State
from notifier.statistics.figures import Step
from notifier.vocabulary.queues import DELIVERY, FAN_OUT
from notifier.vocabulary.statistics import OTHERS, Dimension


class StatisticsQuery(ma.Schema):
    """Which figures."""

    class Meta:
        """Refuse unknown parameters."""

        unknown = RAISE

    by = fields.Enum(
        Dimension,
        by_value=True,
        load_default=Dimension.CHANNEL,
        metadata={"description": "What each item is of.", "default": Dimension.CHANNEL.value},
    )
    step = fields.Enum(
        Step,
        by_value=True,
        load_default=Step.TOTAL,
        metadata={
            "description": "The time that each item is of: a minute, an hour, or the whole span. Minutes are kept for"
            " 48 hours, hours for 400 days.",
            "default": Step.TOTAL.value,
        },
    )
    since = Timestamp(
        data_key="from",
        load_default=None,
        metadata={
            "description": "The beginning of the span, rounded down to a whole minute, or hour where minutes are not"
            " kept; an hour before its end where it is left out."
        },
    )
    until = Timestamp(
        data_key="to",
        load_default=None,
        metadata={"description": "The end of the span, rounded up in the same way; now where it is left out."},
    )
    name = name(load_default=None, metadata={"description": "Only of this channel, provider, event type …"})
    format = fields.String(
        load_default=None,
        validate=validate.OneOf(["json", "csv"]),
        metadata={"description": "In place of the header `Accept`."},
    )


class PercentilesSchema(ma.Schema):
    """How long something took, in milliseconds: half of all were quicker than `p50_ms`. Null where nothing was."""

    p50_ms = fields.Float(allow_none=True)
    p95_ms = fields.Float(allow_none=True)
    p99_ms = fields.Float(allow_none=True)


class FiguresSchema(ma.Schema):
    """The figures of one name in one minute, hour or span."""

    start = Timestamp(metadata={"description": "The beginning of the minute, the hour or the span."})
    channel = fields.String(
        allow_none=True,
        metadata={"description": "Of a channel, a provider or a queue; null elsewhere."},
    )
    name = fields.String(
        allow_none=True,
        metadata={
            "description": "The channel, provider, event type, source or queue. Null is what has none, such as a"
            f" notification without an event; `{OTHERS}` is all event types or sources beyond the fifty most frequent"
            " ones of a minute or an hour, together."
        },
    )
    accepted = fields.Integer(metadata={"description": "Notifications that were accepted; 0 by provider."})
    attempts = fields.Integer(metadata={"description": "Calls to providers that began: the four below, together."})
    sent = fields.Integer(metadata={"description": "Attempts that the provider accepted."})
    rejected = fields.Integer(metadata={"description": "Attempts that it refused for good."})
    unsent = fields.Integer(metadata={"description": "Attempts that certainly sent nothing, such as a 503."})
    ambiguous = fields.Integer(metadata={"description": "Attempts that may have sent it: their answer was lost."})
    retries = fields.Integer(metadata={"description": "Attempts that were not the first of their notification."})
    delivered = fields.Integer(
        metadata={"description": "Of `sent`, those whose arrival is confirmed, by a receipt or a webhook's 2xx."}
    )
    failed = fields.Integer(metadata={"description": "Dead letters that were written. By provider: after its attempt."})
    success_rate = fields.Float(
        allow_none=True, metadata={"description": "`sent` / `attempts`; null where there was no attempt."}
    )
    call = fields.Nested(PercentilesSchema, metadata={"description": "How long the provider's call took."})
    wait = fields.Nested(
        PercentilesSchema,
        metadata={
            "description": "From acceptance to the provider's yes, of first attempts of what was due at once and was"
            " not put off."
        },
    )


class StatisticsSchema(ma.Schema):
    """Figures of a span of time."""

    by = fields.Enum(Dimension, by_value=True)
    step = fields.Enum(Step, by_value=True)
    since = Timestamp(data_key="from")
    until = Timestamp(data_key="to")
    complete_until = Timestamp(
        allow_none=True,
        metadata={
            "description": "Figures before this moment are settled, but for receipts that are still to come. After it"
            " the last minutes may still grow, and the current minute is missing. Null: nothing was counted yet."
        },
    )
    items = fields.List(fields.Nested(FiguresSchema))


class QueueStateSchema(ma.Schema):
    """A queue of rows in Postgres: what is due or handed over to workers, and who serves it."""

    name = fields.String(validate=validate.OneOf([FAN_OUT, *DELIVERY]))
    channel = fields.String(allow_none=True, metadata={"description": "Null: events that wait for their fan-out."})
    depth = fields.Integer(metadata={"description": "Rows that are due, queued or being sent, up to 100,000."})
    more = fields.Boolean(metadata={"description": "There may be more rows than `depth` says."})
    oldest_due_seconds = fields.Float(
        allow_none=True, metadata={"description": "For how long the oldest row has been due; null where none is."}
    )
    attempts_per_minute = fields.Float(
        allow_none=True,
        metadata={
            "description": "Attempts of its rows in the last five minutes that were counted. Null for events, and where"
            " the clock has counted nothing lately."
        },
    )
    workers = fields.List(fields.String(), metadata={"description": "Worker processes that take messages from it."})
    held = fields.Boolean(metadata={"description": "A hold pauses its channel, or everything."})


class ProviderStateSchema(ma.Schema):
    """A provider that workers can send by, or that had trouble."""

    channel = fields.String()
    name = fields.String()
    in_use = fields.Boolean(metadata={"description": "A worker that was seen lately can send by it."})
    state = fields.Enum(State, by_value=True, metadata={"description": "Of its circuit breaker."})
    failures = fields.Integer(metadata={"description": "Failures of its own in a row."})
    failing_since = Timestamp(allow_none=True)
    failed_at = Timestamp(allow_none=True, metadata={"description": "When it failed last."})
    error = fields.String(
        allow_none=True,
        metadata={"description": "The class of that failure, without the vendor's words.", "example": "http 503"},
    )
    open_until = Timestamp(allow_none=True, metadata={"description": "When a message tries it again."})
    next_slot = Timestamp(
        allow_none=True, metadata={"description": "With a limit of messages a second: when the next one may go."}
    )
    line_until = Timestamp(allow_none=True, metadata={"description": "The last place that a waiting message has."})


class EndpointStateSchema(ma.Schema):
    """A webhook's endpoint that fails, or that keeps callers waiting."""

    id = fields.UUID(metadata={"description": "The subscription's id; or one for a URL that was named directly."})
    is_subscription = fields.Boolean()
    state = fields.Enum(State, by_value=True, metadata={"description": "Of its circuit breaker."})
    failures = fields.Integer(metadata={"description": "Failures in a row."})
    failing_since = Timestamp(allow_none=True)
    open_until = Timestamp(allow_none=True, metadata={"description": "When a message tries it again."})
    slow_until = Timestamp(allow_none=True, metadata={"description": "Until then it is called in the slow lane."})


class ProcessStateSchema(ma.Schema):
    """A process that was seen lately."""

    name = fields.String(metadata={"example": "fresh@worker-1"})
    kind = fields.String(
        validate=validate.OneOf([WORKER, CLOCK, STUCK]),
        metadata={
            "description": "`worker`; `clock`: its ticks, so a beat and the clock's worker run; `stuck`: a worker that"
            " took no messages any more, and ended itself."
        },
    )
    queues = fields.List(fields.String())
    seen_seconds = fields.Float(metadata={"description": "Seconds since its last sign of life."})


class SystemStateSchema(ma.Schema):
    """The state of the whole system at one moment."""

    at = Timestamp()
    queues = fields.List(fields.Nested(QueueStateSchema))
    providers = fields.List(fields.Nested(ProviderStateSchema))
    endpoints = fields.List(
        fields.Nested(EndpointStateSchema), metadata={"description": "At most 100, those with open breakers first."}
    )
    more_endpoints = fields.Boolean(metadata={"description": "There are more than are listed."})
    holds = fields.List(fields.Nested(HoldSchema))
    processes = fields.List(fields.Nested(ProcessStateSchema))
