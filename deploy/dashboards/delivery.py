"""How do providers do? By channel and provider."""

from typing import Final

from deploy.dashboards.panels import Row, choice, series, states

VARIABLES: Final = (
    # Of a metric that has all channels from the start, rather than those that were used.
    choice("channel", "Channel", "label_values(notifier_live_notifications, channel)"),
    choice("provider", "Provider", 'label_values(notifier_attempts_total{channel=~"$channel"}, provider)'),
)

_OF_BOTH: Final = '{channel=~"$channel", provider=~"$provider"}'
_OF_CHANNEL: Final = '{channel=~"$channel"}'

_ATTEMPTS: Final = (
    series(
        "Attempts, by outcome",
        "Calls to providers. Normal is nearly all accepted. Rejected: no retry can help, mostly a wrong address."
        " Unsent: certainly not sent, tried again. Ambiguous: nobody knows, a duplicate is possible.",
        "mps",
        {"{{outcome}}": f"sum by (outcome) (rate(notifier_attempts_total{_OF_BOTH}[$__rate_interval]))"},
        stacked=True,
    ),
    series(
        "Accepted, by provider",
        "The share of calls that a provider accepted; 95 to 100 % is normal. One line that falls is that provider's"
        " trouble, all of them falling are ours, or the network's.",
        "percentunit",
        {
            "{{channel}} {{provider}}": (
                "sum by (channel, provider) (rate(notifier_attempts_total"
                '{channel=~"$channel", provider=~"$provider", outcome="accepted"}[$__rate_interval]))'
                f" / sum by (channel, provider) (rate(notifier_attempts_total{_OF_BOTH}[$__rate_interval]))"
            )
        },
        most=1,
    ),
    series(
        "How long a call takes, 95 of 100",
        "So long a provider takes for one call. Some tens to hundreds of milliseconds are normal; near the channel's"
        " timeout (15 or 30 s) calls end as ambiguous.",
        "s",
        {
            "{{channel}} {{provider}}": (
                "histogram_quantile(0.95, sum by (le, channel, provider)"
                f" (rate(notifier_send_seconds_bucket{_OF_BOTH}[$__rate_interval])))"
            )
        },
    ),
)

_ENDS: Final = (
    series(
        "Latency, 95 of 100",
        "From the moment a notification may go until its provider accepted it, by channel. Normal is under a second"
        " or two: where this is long and the call short, workers do not keep up.",
        "s",
        {
            "{{channel}}": (
                "histogram_quantile(0.95, sum by (le, channel)"
                f" (rate(notifier_delivery_latency_seconds_bucket{_OF_CHANNEL}[$__rate_interval])))"
            )
        },
    ),
    series(
        "Not sent, and why",
        "Notifications that failed, expired, were skipped, or were put off by a rule (scheduled), with the reason."
        " Preferences and quiet hours are people's wish, and normal; retries_exhausted and permanent_error are not.",
        "mps",
        {
            "{{status}} {{reason}}": (
                "sum by (status, reason) (rate(notifier_notifications_total"
                '{channel=~"$channel", status!~"sent|delivered"}[$__rate_interval]))'
            )
        },
    ),
    series(
        "Retries",
        "Notifications that failed for now and wait for their next attempt. Normal is nearly none; where it does not"
        " fall again, a provider or a receiver is away.",
        "mps",
        {"{{channel}}": f"sum by (channel) (rate(notifier_retries_total{_OF_CHANNEL}[$__rate_interval]))"},
    ),
)

_STATES: Final = {0: ("closed", "green"), 1: ("half open", "orange"), 2: ("open", "red")}

_HEALTH: Final = (
    states(
        "Breakers",
        "Closed is normal: messages go. Open: the provider failed again and again and is left alone. Half open: one"
        " message is sent to see whether it does again.",
        {"{{channel}} {{provider}}": f"max by (channel, provider) (notifier_breaker_state{_OF_BOTH})"},
        _STATES,
    ),
    series(
        "Until a receipt says delivered",
        "Half and 95 of 100 of what providers confirm: from their acceptance until the message was delivered. Seconds"
        " are normal for push and SMS, minutes for email; no line where no provider sends receipts.",
        "s",
        {
            f"{{{{channel}}}}, {share} of 100": (
                f"histogram_quantile({share / 100}, sum by (le, channel)"
                f" (rate(notifier_receipt_latency_seconds_bucket{_OF_CHANNEL}[$__rate_interval])))"
            )
            for share in (50, 95)
        },
    ),
)

ROWS: Final = (Row(8, _ATTEMPTS), Row(8, _ENDS), Row(7, _HEALTH, (16, 8)))
