"""Is all well? One screen for who is on call."""

from typing import Final

from deploy.dashboards.panels import NONE_IS_GOOD, Row, number, series

_NOW: Final = (
    number(
        "Accepted",
        "Events and notifications that services post and that were committed, without duplicates. Normal is what your"
        " services usually send; 0 where they should be sending means that nobody reaches the API.",
        "cps",
        "(sum(rate(notifier_events_accepted_total[$__rate_interval])) or vector(0))"
        " + (sum(rate(notifier_notifications_accepted_total[$__rate_interval])) or vector(0))",
    ),
    number(
        "Sent",
        "Messages that providers accepted. Normal is that it follows what comes in; where it stays below that for"
        " minutes, work piles up: see Queues and workers.",
        "mps",
        'sum(rate(notifier_attempts_total{outcome="accepted"}[$__rate_interval])) or vector(0)',
    ),
    number(
        "Attempts that failed",
        "The share of calls to providers that they did not accept. Some percent are normal, mostly wrong addresses;"
        " over 20 % a provider or a big receiver is in trouble: see Delivery. Without what the simulator took.",
        "percentunit",
        '(sum(rate(notifier_attempts_total{outcome!="accepted", provider!="simulator"}[$__rate_interval]))'
        " or vector(0))"
        ' / (sum(rate(notifier_attempts_total{provider!="simulator"}[$__rate_interval])) > 0) or vector(0)',
        ((None, "green"), (0.05, "orange"), (0.2, "red")),
    ),
    number(
        "Latency, 95 of 100",
        "So long 95 of 100 notifications take from the moment they may go until their provider accepted them. Normal is"
        " under a second or two, most of it the provider's; no value where nothing was sent.",
        "s",
        "histogram_quantile(0.95, sum by (le) (rate(notifier_delivery_latency_seconds_bucket[$__rate_interval])))",
        ((None, "green"), (5, "orange"), (30, "red")),
    ),
    number(
        "Behind",
        "For how long the row that has been due longest has been due. Normal is under 2 s; more means that no worker"
        " serves a queue, or that they do not keep up.",
        "s",
        "max(notifier_scheduler_lag_seconds)",
        ((None, "green"), (10, "orange"), (60, "red")),
    ),
    number(
        "Dead letters",
        "Notifications and events that failed for good and wait for somebody to decide. Normal is 0: each is worth a"
        " look, see Dead letters.",
        "short",
        "sum(max by (channel, reason) (notifier_dead_letters)) or max(notifier_postgres_up) * 0",
        ((None, "green"), (1, "orange"), (100, "red")),
    ),
    number(
        "Breakers open",
        "Providers that are left alone because they failed again and again. Normal is 0; what they should send goes"
        " by the next provider, or waits.",
        "short",
        "sum(max by (channel, provider) (notifier_breaker_state) >= bool 1)",
        NONE_IS_GOOD,
    ),
    number(
        "Alerts",
        "Alerts that fire, by the rules of Prometheus. Normal is 0; Alerting in Grafana's menu lists them, and each"
        " has a section in docs/runbook.md.",
        "short",
        'count(ALERTS{alertstate="firing"}) or vector(0)',
        NONE_IS_GOOD,
    ),
)

_FLOW: Final = (
    series(
        "Events that come in",
        "Accepted, repeated and refused events and requests. Repeated ones are callers who retry, and normal. Refused"
        " ones are callers who do it wrong: 401 and 403 keys, 422 contents, 429 limits, 503 a Postgres that is away.",
        "cps",
        {
            "events": "sum(rate(notifier_events_accepted_total[$__rate_interval]))",
            "notifications": "sum(rate(notifier_notifications_accepted_total[$__rate_interval]))",
            "repeated": "sum(rate(notifier_duplicates_total[$__rate_interval]))",
            "events refused: {{status}}": "sum by (status) (rate(notifier_events_rejected_total[$__rate_interval]))",
            "notifications refused: {{status}}": (
                "sum by (status) (rate(notifier_notifications_rejected_total[$__rate_interval]))"
            ),
        },
    ),
    series(
        "Notifications by outcome",
        "Notifications as they come to their end, or are put off by a rule. A sent one may be counted as delivered"
        " later too. Skipped and scheduled ones are people's wish, and normal; failed ones are dead letters.",
        "mps",
        {"{{status}}": "sum by (status) (rate(notifier_notifications_total[$__rate_interval]))"},
    ),
    series(
        "Latency",
        "From the moment a notification may go until its provider accepted it: of half of them, of 95 and of 99 of"
        " 100. Normal is under a second or two. Lines that rise together say that work piles up; the upper ones"
        " alone, that one provider is slow.",
        "s",
        {
            f"{share} of 100": (
                f"histogram_quantile({share / 100}, sum by (le)"
                " (rate(notifier_delivery_latency_seconds_bucket[$__rate_interval])))"
            )
            for share in (50, 95, 99)
        },
    ),
)

_STATE: Final = (
    series(
        "Waiting notifications",
        "Notifications that are not finished, and events that wait for their fan-out. Scheduled ones may be many,"
        " which is normal; queued ones come to nearly nothing again after each burst; retrying ones grow while a"
        " provider is away.",
        "short",
        {
            "{{status}}": "sum by (status) (max by (channel, status) (notifier_live_notifications))",
            "events": "max(notifier_live_events)",
        },
    ),
    series(
        "Requests to the API",
        "By the class of their status. Normal is 2xx; 4xx are callers' mistakes, each 5xx is one of ours or a Postgres"
        " that is away.",
        "reqps",
        {"{{code}}": "sum by (code) (rate(notifier_http_request_seconds_count[$__rate_interval]))"},
        stacked=True,
    ),
    series(
        "How long the API takes",
        "Of half of the requests, and of 95 and 99 of 100. Posts wait for a commit of Postgres: some milliseconds are"
        " normal, over a second they wait for its disk or for a lock.",
        "s",
        {
            f"{share} of 100": (
                f"histogram_quantile({share / 100}, sum by (le)"
                " (rate(notifier_http_request_seconds_bucket[$__rate_interval])))"
            )
            for share in (50, 95, 99)
        },
    ),
    series(
        "Processes that Prometheus reaches",
        "By job. Normal is flat, at the number of its processes; a line that falls is one that has gone or does not"
        " answer.",
        "short",
        {"{{job}}": "sum by (job) (up)"},
    ),
)

ROWS: Final = (Row(4, _NOW), Row(8, _FLOW), Row(8, _STATE))
