"""Do workers and the clock keep up?"""

from typing import Final

from deploy.dashboards.panels import NONE_IS_GOOD, Row, number, series

_NOW: Final = (
    number(
        "Workers alive, by lane",
        "Workers that were seen in the last 20 s. Normal is one in each lane, or more: without fresh nothing new is"
        " sent, without retry nothing again, without clock nothing that waits.",
        "short",
        "max by (lane) (notifier_workers_alive)",
        ((None, "red"), (1, "green")),
        legend="{{lane}}",
    ),
    number(
        "Last tick",
        "Seconds since a clock ticked; one a second is normal. Over 20 nothing that is due later is handed over.",
        "s",
        "min(notifier_clock_last_tick_age_seconds)",
        ((None, "green"), (5, "orange"), (20, "red")),
    ),
    number(
        "Behind",
        "For how long the row that has been due longest has been due. Normal is under 2 s.",
        "s",
        "max(notifier_scheduler_lag_seconds)",
        ((None, "green"), (10, "orange"), (60, "red")),
    ),
    number(
        "Oldest canary",
        "The exporter sends a task through each queue once a minute; this is the age of the one that came through"
        " longest ago. Up to 70 s is normal; over 120 s some queue is not served.",
        "s",
        "max(notifier_canary_age_seconds)",
        ((None, "green"), (90, "orange"), (120, "red")),
    ),
    number(
        "Holds",
        "Held back by an operator: channels, routes or all. Normal is 0; `manage.py hold` says which.",
        "short",
        "max(notifier_holds)",
        ((None, "green"), (1, "orange")),
    ),
    number(
        "Taken back",
        "Rows that the clock took back from workers that were gone, in the span that is shown. Normal is 0, and some"
        " after a worker was killed; each may be sent twice.",
        "short",
        "sum(increase(notifier_lost_rows_total[$__range])) or vector(0)",
        ((None, "green"), (1, "orange")),
    ),
    number(
        "Ticks cut short",
        "Ticks that Postgres or the broker cut short, in the span that is shown. Normal is 0; the next one makes it"
        " good.",
        "short",
        "sum(increase(notifier_ticks_failed_total[$__range])) or vector(0)",
        NONE_IS_GOOD,
    ),
)

_WAITING: Final = (
    series(
        "Messages in queues",
        "Each is for up to 500 rows. Normal is nearly none; a queue holds 64 at the most, and what does not fit waits"
        " in Postgres. At 64, workers do not keep up.",
        "short",
        {"{{queue}}": "max by (queue) (notifier_queue_messages)"},
        line=(64, "red"),
    ),
    series(
        "For how long rows have been due",
        "The row of each queue that is due first. Normal is under 2 s. One queue that grows: nobody serves it, or its"
        " provider is slow; all of them: the clock or Postgres.",
        "s",
        {"{{queue}}": "max by (queue) (notifier_queue_oldest_due_seconds)"},
        line=(60, "red"),
    ),
    series(
        "Age of canaries",
        "Since a task of the exporter came through each queue. A saw between 0 and some 60 s is normal; a line that"
        " rises is a queue that nobody serves.",
        "s",
        {"{{queue}}": "max by (queue) (notifier_canary_age_seconds)"},
        line=(120, "red"),
    ),
)

_WORK: Final = (
    series(
        "How long a batch takes, 95 of 100",
        "A batch is up to 500 notifications, and holds a worker's thread. Normal is under the sending window (2 s) and"
        " one call to the provider.",
        "s",
        {
            "{{channel}}": (
                "histogram_quantile(0.95, sum by (le, channel) (rate(notifier_batch_seconds_bucket[$__rate_interval])))"
            ),
            "fan-out": (
                "histogram_quantile(0.95, sum by (le) (rate(notifier_fan_out_seconds_bucket[$__rate_interval])))"
            ),
            "tick": "histogram_quantile(0.95, sum by (le) (rate(notifier_tick_seconds_bucket[$__rate_interval])))",
        },
    ),
    series(
        "Where batches spend their time",
        "Mean seconds of each step. Normal is some milliseconds; claim and record are Postgres', compose is templates',"
        " and what is not here is the providers'.",
        "s",
        {
            "{{step}}": (
                "sum by (step) (rate(notifier_batch_step_seconds_sum[$__rate_interval]))"
                " / sum by (step) (rate(notifier_batch_step_seconds_count[$__rate_interval]))"
            )
        },
    ),
    series(
        "Handed over by the clock",
        "Rows that were due: reminders, retries, what a rule had put off. Hints that were dropped come this way too;"
        " some are normal in a burst, many say that the broker is away.",
        "cps",
        {
            "{{queue}}": "sum by (queue) (rate(notifier_handovers_total[$__rate_interval]))",
            "hints dropped": "sum(rate(notifier_hints_dropped_total[$__rate_interval]))",
        },
    ),
)

_MACHINES: Final = (
    series(
        "Processor time",
        "Cores that each process uses. Normal is well under 1, which is nearly all that one of them can use: where"
        " it stays near, start another.",
        "short",
        {"{{job}} {{instance}}": "rate(process_cpu_seconds_total[$__rate_interval])"},
    ),
    series(
        "Memory",
        "Of each process. Flat is normal after the first minutes; one that only grows will meet its container's limit.",
        "bytes",
        {"{{job}} {{instance}}": "process_resident_memory_bytes"},
    ),
)

ROWS: Final = (Row(4, _NOW, (6, 3, 3, 3, 3, 3, 3)), Row(7, _WAITING), Row(7, _WORK), Row(6, _MACHINES))
