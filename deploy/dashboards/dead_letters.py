"""Dashboard of dead letters: what failed for good, and why, with a link to each story."""

from typing import Final

from deploy.dashboards.panels import Row, number, number_of_rows, series, table
from deploy.dashboards.story import LINK

_NOW: Final = (
    number(
        "Standing",
        "Dead letters that were neither requeued nor purged. Normal is 0: each waits for somebody to decide.",
        "short",
        "sum(max by (channel, reason) (notifier_dead_letters)) or max(notifier_postgres_up) * 0",
        ((None, "green"), (1, "orange"), (100, "red")),
    ),
    number_of_rows(
        "The oldest",
        "For how long the oldest of them has been standing; 0 where there is none, which is normal. They are purged"
        " after 90 days (NOTIFIER_DEAD_LETTER_RETENTION), and what was not decided by then is lost.",
        "s",
        "SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0) AS age FROM dead_letters\n"
        "WHERE requeued_at IS NULL",
        ((None, "green"), (86_400, "orange"), (30 * 86_400, "red")),
    ),
    number(
        "Written lately",
        "In the span that is shown. Normal is 0, or a few wrong addresses; over ten in 15 minutes an alert fires.",
        "short",
        "sum(increase(notifier_dead_letters_total[$__range])) or vector(0)",
        ((None, "green"), (1, "orange"), (100, "red")),
    ),
    number(
        "Share of what ended",
        "Dead letters in a hundred notifications that ended, in the span that is shown. Under 1 % is normal where"
        " addresses are looked after.",
        "percentunit",
        "(sum(increase(notifier_dead_letters_total[$__range])) or vector(0))"
        ' / (sum(increase(notifier_notifications_total{status=~"sent|delivered|failed"}[$__range])) > 0) or vector(0)',
        ((None, "green"), (0.01, "orange"), (0.1, "red")),
    ),
)

_WHY: Final = (
    series(
        "Standing, by reason",
        "Normal is none. permanent_error: mostly a wrong address. retries_exhausted: a receiver or provider was away"
        " for too long. bounced: accepted, and not delivered. worker_lost: it broke its workers. fan_out_failed: an"
        " event.",
        "short",
        {"{{channel}} {{reason}}": "max by (channel, reason) (notifier_dead_letters)"},
        stacked=True,
    ),
    series(
        "Written",
        "A few now and then are normal; a step says when something broke. Requeue them once it is mended.",
        "cps",
        {"{{channel}} {{reason}}": ("sum by (channel, reason) (rate(notifier_dead_letters_total[$__rate_interval]))")},
    ),
    table(
        "Standing, by type of event",
        "Whose they are; normal is none. Where one type stands out, ask the service that sends it.",
        """
SELECT coalesce(event_type, 'without an event') AS "event type", channel, reason, count(*) AS letters
FROM dead_letters WHERE requeued_at IS NULL
GROUP BY 1, 2, 3 ORDER BY letters DESC, 1, 2, 3 LIMIT 50
""",
        empty="No dead letter stands.",
        widths={"channel": 90, "letters": 80},
    ),
)

_WHICH: Final = table(
    "Standing, the newest 200",
    "Normal is none. A click on a notification tells its story. The provider's words may quote an address and"
    " are not here: `manage.py dlq show ID`. `manage.py dlq requeue ID` sends it once more. Letters of events have no"
    " notification.",
    """
SELECT created_at AS "written", channel, reason, coalesce(event_type, '') AS "event type", attempts,
    notification_id AS "notification", event_id AS "event", id AS "dead letter"
FROM dead_letters WHERE requeued_at IS NULL
ORDER BY id DESC LIMIT 200
""",
    empty="No dead letter stands: everything was delivered, or is still being tried.",
    links={"notification": ("Its story", LINK)},
    widths={"written": 180, "channel": 90, "attempts": 90, "notification": 310, "event": 310, "dead letter": 310},
)

ROWS: Final = (Row(4, _NOW), Row(7, _WHY), Row(12, (_WHICH,)))
