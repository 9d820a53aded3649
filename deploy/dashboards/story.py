"""Dashboard of one notification's story, from Postgres: ids are no labels of metrics.

Asked as a role that sees neither addresses nor contents (notifier/storage/dashboard_role.py).
"""

from typing import Final

from deploy.dashboards.panels import Row, table, text_box
from notifier.models import Event

UID: Final = "notifier-story"
#: From a table's cell to the story of the notification whose id stands in it.
LINK: Final = f"/d/{UID}?var-notification_id=${{__value.raw}}"

VARIABLES: Final = (text_box("notification_id", "Notification's id"),)

# A text that is no id finds nothing, rather than causing an error in each panel.
_CHOSEN: Final = """
WITH chosen AS (
    SELECT CASE WHEN typed ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN CAST(typed AS uuid) END AS id
    FROM (SELECT lower(btrim(${notification_id:sqlstring})) AS typed) AS given
)
"""
_NONE: Final = "Type a notification's id above; nothing is known of this one."

#: Which request it came with, where that is kept.
_REQUEST: Final = "request_id" in Event.__table__.columns


def _request(row: str) -> str:
    return f", coalesce({row}.request_id, '') AS \"request\"" if _REQUEST else ""


_STATE: Final = table(
    "The notification",
    "Where it stands and why; sent or delivered is normal. A live one has a time at which somebody looks at it"
    " again; a finished one waits for nothing.",
    _CHOSEN
    + f"""
SELECT n.status, coalesce(n.reason, '') AS "reason",
    CASE n.status
        WHEN 'scheduled' THEN CASE
            WHEN n.reason IS NULL THEN 'its time' WHEN n.reason = 'held' THEN 'its release'
            ELSE 'the end of: ' || n.reason END
        WHEN 'queued' THEN 'a worker' WHEN 'sending' THEN 'the provider''s answer'
        WHEN 'retrying' THEN 'its next attempt' ELSE 'nothing' END AS "waits for",
    n.due_at AS "until", n.channel, n.attempts, n.priority, n.queue, coalesce(n.route, '') AS "route",
    coalesce(n.template, '') AS "template", n.created_at AS "made", n.sent_at AS "sent", n.delivered_at AS "delivered",
    n.expires_at AS "expires"{_request("n")}
FROM notifications n JOIN chosen ON n.id = chosen.id
""",
    empty=_NONE,
    widths={"status": 100, "channel": 90, "attempts": 90, "priority": 90},
)

_EVENT: Final = table(
    "Its event",
    "The event as a service sent it. Processed is normal: its notifications are made. Accepted for more than"
    " seconds means that fan-out does not keep up.",
    _CHOSEN
    + f"""
SELECT e.status, e.event_type AS "type", e.source, coalesce(e.category, '') AS "category", e.priority{_request("e")},
    e.occurred_at AS "occurred", e.created_at AS "accepted", e.send_at AS "to be sent", e.cancelled_at AS "cancelled",
    e.id AS "event"
FROM chosen JOIN notifications n ON n.id = chosen.id JOIN events e ON e.id = n.event_id
""",
    empty="It was made without an event.",
    widths={"status": 100, "priority": 90, "event": 310},
)

_TIMELINE: Final = table(
    "Its story, in order",
    "Everything that left a time. Between two lines it waited: a second or two is normal, and more before a retry."
    " What comes next has a time ahead.",
    _CHOSEN
    + """
, n AS (
    SELECT n.id, n.event_id, n.status, n.created_at, n.send_at, n.delivered_at, n.expires_at, n.due_at
    FROM notifications n JOIN chosen ON n.id = chosen.id
)
SELECT "at", "what" FROM (
    SELECT e.occurred_at AS "at", 0 AS place, 'the event occurred' AS "what" FROM events e JOIN n ON e.id = n.event_id
    UNION ALL SELECT e.created_at, 1, 'the event was accepted' FROM events e JOIN n ON e.id = n.event_id
    UNION ALL SELECT created_at, 2, 'the notification was made' FROM n
    UNION ALL SELECT send_at, 3, 'it was to be sent' FROM n
    UNION ALL SELECT a.started_at, 4, 'attempt ' || a.number || ' by ' || coalesce(a.provider, 'a worker that died')
        || ': ' || a.outcome || coalesce(' (' || a.status_code || ')', '')
        FROM attempts a JOIN n ON a.notification_id = n.id
    UNION ALL SELECT delivered_at, 5, 'it was delivered' FROM n
    UNION ALL SELECT d.created_at, 6, 'it became a dead letter: ' || d.reason
        FROM dead_letters d JOIN n ON d.notification_id = n.id
    UNION ALL SELECT d.requeued_at, 7, 'the dead letter was requeued'
        FROM dead_letters d JOIN n ON d.notification_id = n.id
    UNION ALL SELECT due_at, 8, 'ahead: ' || CASE status WHEN 'retrying' THEN 'its next attempt'
        WHEN 'scheduled' THEN 'it goes' ELSE 'the clock looks at it' END FROM n
    UNION ALL SELECT expires_at, 9, 'it expires' FROM n WHERE due_at IS NOT NULL
) AS moments
WHERE "at" IS NOT NULL ORDER BY "at", place
""",
    empty=_NONE,
    widths={"at": 200},
)

_ATTEMPTS: Final = table(
    "Its attempts",
    "Each call to a provider. Accepted is normal, at the first; unsent ones are tried again, ambiguous ones may have"
    " been sent. A status of 200 to 299 is a provider's yes.",
    _CHOSEN
    + """
SELECT a.number AS "no.", a.started_at AS "began", a.provider, a.outcome, a.status_code AS "code",
    a.duration_ms AS "took"
FROM attempts a JOIN chosen ON a.notification_id = chosen.id ORDER BY a.number
""",
    empty="No provider was called for it.",
    units={"took": "ms"},
    widths={"no.": 60, "began": 190, "code": 80, "took": 90},
)

_RECEIPTS: Final = table(
    "Receipts",
    "Later messages of the provider; none, or delivered, is normal. Those that were applied show what came of"
    " them; one that waits came before our own commit, or while the notification is being sent again.",
    _CHOSEN
    + """
SELECT r.happened_at AS "said", r.kind AS "receipt", r.provider, 'waits' AS "applied"
FROM receipts r JOIN chosen ON r.notification_id = chosen.id
UNION ALL
SELECT n.delivered_at, 'delivered', NULL, 'yes' FROM notifications n JOIN chosen ON n.id = chosen.id
WHERE n.delivered_at IS NOT NULL
UNION ALL
SELECT d.created_at, 'bounced', NULL, 'yes' FROM dead_letters d JOIN chosen ON d.notification_id = chosen.id
WHERE d.reason = 'bounced'
ORDER BY 1
""",
    empty="None came, or the provider sends none.",
    widths={"said": 190, "receipt": 100},
)

_LETTERS: Final = table(
    "Its dead letters",
    "One each time it failed for good; normal is none. One that stands waits for `manage.py dlq requeue`.",
    _CHOSEN
    + """
SELECT d.created_at AS "written", CASE WHEN d.requeued_at IS NULL THEN 'stands' ELSE 'requeued' END AS "letter",
    d.reason, d.attempts, d.requeued_at AS "requeued"
FROM dead_letters d JOIN chosen ON d.notification_id = chosen.id ORDER BY d.id
""",
    empty="It did not fail for good.",
    widths={"written": 190, "letter": 90, "attempts": 90},
)

_SAME_EVENT: Final = table(
    "Notifications of the same event",
    "All that its event made, this one too, in the order of their ids; one for each person and channel is normal. A"
    " click tells another's story. At most 100.",
    _CHOSEN
    + """
SELECT o.id AS "notification", o.channel, o.status, coalesce(o.reason, '') AS "reason", o.attempts,
    o.created_at AS "made", o.follows
FROM chosen JOIN notifications n ON n.id = chosen.id JOIN notifications o ON o.event_id = n.event_id
ORDER BY o.id LIMIT 100
""",
    empty="It was made without an event.",
    links={"notification": ("Its story", LINK), "follows": ("Its story", LINK)},
    widths={"notification": 310, "channel": 90, "status": 100, "attempts": 90, "made": 190},
)

ROWS: Final = (
    Row(4, (_STATE,)),
    Row(4, (_EVENT,)),
    Row(9, (_TIMELINE, _ATTEMPTS)),
    Row(7, (_RECEIPTS, _LETTERS, _SAME_EVENT), (6, 7, 11)),
)
