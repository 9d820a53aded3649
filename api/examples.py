"""Examples of requests in the API's description. Each works as it stands; tests send them all.

Those that name a user, a template or a route work once the examples that write them were sent.
"""

from typing import Any, Final

Example = dict[str, Any]

_WHEN: Final = "2035-06-01T09:00:00Z"
_USER: Final = "u_123"
_EVENT: Final = {
    "event_type": "user.signup",
    "payload": {"name": "Ada"},
    "recipient": "ada@example.com",
    "channel": "email",
}
_MESSAGE: Final = {
    "recipient": "ada@example.com",
    "channel": "email",
    "subject": "Welcome",
    "body": "Good to have you here, Ada.",
}
_ADDRESS: Final = {"channel": "email", "address": "bounces@example.com"}

_EVENTS: Final[dict[str, tuple[str, Example]]] = {
    "email": ("Tell one recipient by email", _EVENT),
    "user": (
        "Tell a user, over each channel that the user has",
        {"event_type": "order.shipped", "payload": {"order": 42}, "user_id": _USER, "category": "orders"},
    ),
    "subscribers": (
        "Tell whoever subscribes to the type, and those whom a route names",
        {"event_type": "order.paid", "payload": {"order": 42, "total": 99.5}},
    ),
    "sms": (
        "Send an SMS before all others",
        {"event_type": "login.code", "channel": "sms", "recipient": "+4915112345678", "priority": "high"},
    ),
    "webhook": (
        "Call a webhook",
        {"event_type": "order.paid", "channel": "webhook", "recipient": "https://shop.example.com/hooks"},
    ),
    "later": ("Send it at a time", {**_EVENT, "send_at": _WHEN}),
    "reminders": (
        "Remind a week and a day before a date, until it is cancelled",
        {
            "event_type": "password.expiring",
            "recipient": "ada@example.com",
            "channel": "email",
            "target_date": _WHEN,
            "lead_time": ["P7D", "P1D"],
            "cancellation_key": "password-of-ada",
        },
    ),
    "once": ("Accept it once, however often it is sent", {**_EVENT, "idempotency_key": "signup-of-ada"}),
    "dedup": (
        "Send no more than one of its kind an hour",
        {**_EVENT, "event_type": "disk.full", "dedup_key": "disk-1", "dedup_window": "PT1H"},
    ),
}
_TYPED: Final[dict[str, tuple[str, Example]]] = {
    "typed": ("As systems write it that say `type`", {"type": "user.signup", "payload": {"name": "Ada"}})
}
_NOTIFICATIONS: Final[dict[str, tuple[str, Example]]] = {
    "email": ("Send an email", _MESSAGE),
    "template": (
        "Send a template",
        {"recipient": "ada@example.com", "channel": "email", "template": "welcome", "data": {"name": "Ada"}},
    ),
    "user": (
        "Reach a user by push, and by email where that is of no use",
        {"user_id": _USER, "channels": ["push", "email"], "strategy": "first", "body": "Your parcel is here."},
    ),
    "attachment": (
        "Send an email with a file",
        {
            **_MESSAGE,
            "attachments": [{"name": "note.txt", "content_type": "text/plain", "content": "R29vZCBkYXkuCg=="}],
        },
    ),
    "later": ("Send it at a time", {**_MESSAGE, "send_at": _WHEN}),
    "reminder": (
        "Remind a day before a date, until it is cancelled",
        {**_MESSAGE, "target_date": _WHEN, "lead_time": "P1D", "cancellation_key": "invoice-42"},
    ),
}

#: Of each operation that takes a body: name → summary and body.
BODIES: Final[dict[str, dict[str, tuple[str, Example]]]] = {
    "postEvent": _EVENTS,
    "postTypedEvent": _TYPED | _EVENTS,
    "postBatch": {
        "batch": ("Post several events", {"events": [_EVENT, {"event_type": "order.paid", "payload": {"order": 42}}]})
    },
    "postNotification": _NOTIFICATIONS,
    "sendNotification": _NOTIFICATIONS,
    "notifyUser": {
        "email": (
            "Send a user a template by email",
            {"userId": _USER, "type": "EMAIL", "template": "welcome", "data": {"name": "Ada"}},
        )
    },
    "cancelNotifications": {"key": ("Cancel what has a key", {"cancellation_key": "password-of-ada"})},
    "moveNotification": {
        "later": ("Send it at another time", {"send_at": "2035-07-01T09:00:00Z"}),
        "deadline": ("Send it by a time, or not at all", {"expires_at": "2035-08-01T09:00:00Z"}),
    },
    "resendNotification": {
        "again": ("Send it again", {}),
        "elsewhere": ("Send it by another provider than before", {"another_provider": True}),
    },
    "putUser": {
        "user": (
            "Write a user",
            {
                "email": "ada@example.com",
                "phone": "+4915112345678",
                "push_tokens": ["device-of-ada"],
                "timezone": "Europe/Berlin",
                "locale": "en-GB",
                "attributes": {"name": "Ada"},
            },
        )
    },
    "putPreferences": {
        "preferences": (
            "No SMS, of orders nothing but email, and nothing at night",
            {
                "channels": {"sms": False},
                "categories": {"orders": {"email": True, "*": False}},
                "quiet_hours": [{"channels": ["push"], "start": "22:00", "end": "07:00"}],
            },
        ),
        "all": ("All of it", {}),
    },
    "checkPreferences": {
        "check": (
            "Ask for a push at night",
            {"user_id": _USER, "channel": "push", "category": "orders", "at": "2035-06-01T23:30:00Z"},
        )
    },
    "putTemplate": {
        "email": (
            "Write an email",
            {
                "channel": "email",
                "subject": "Welcome, {{ payload.name }}",
                "text": "Good to have you here, {{ payload.name }}.",
                "html": "<p>Good to have you here, <b>{{ payload.name }}</b>.</p>",
            },
        ),
        "sms": ("Write an SMS in German", {"channel": "sms", "locale": "de", "text": "Hallo {{ payload.name }}!"}),
    },
    "previewTemplate": {"preview": ("See what Ada would read", {"channel": "email", "data": {"name": "Ada"}})},
    "putRoute": {
        "user": (
            "Tell the user whom an order names, of orders over 100",
            {
                "event_type": "order.*",
                "to": {"user_id": "payload.user_id"},
                "filter": "payload.total > `100`",
                "category": "orders",
            },
        ),
        "address": (
            "Remind an address before a date",
            {
                "event_type": "password.expiring",
                "to": {"recipient": "payload.email", "channel": "email"},
                "target_date": "payload.expires_at",
                "lead_time": ["P7D", "P1D"],
            },
        ),
    },
    "createSubscription": {
        "subscription": (
            "Subscribe a URL to all events of orders",
            {"url": "https://shop.example.com/hooks", "event_types": ["order.*"], "headers": {"X-Tenant": "42"}},
        ),
        "filter": (
            "Hear of large orders, ten times a second at the most",
            {
                "url": "https://shop.example.com/large",
                "event_types": ["order.paid"],
                "filter": "payload.total > `1000`",
                "rate_limit_per_second": 10,
            },
        ),
    },
    "changeSubscription": {"disable": ("Disable it", {"enabled": False})},
    "enableSubscription": {
        "enable": ("Enable it", {}),
        "recover": ("And send what it missed", {"recover_since": "2026-01-01T00:00:00Z"}),
    },
    "recoverSubscription": {"recover": ("Send what it missed", {"since": "2026-01-01T00:00:00Z"})},
    "suppressAddress": {"suppress": ("Send an address nothing more", {**_ADDRESS, "reason": "hard_bounce"})},
    "liftSuppression": {"lift": ("Send to it again", _ADDRESS)},
    "erasePerson": {"address": ("Erase an address", {"channel": "email", "address": "bob@example.com"})},
    "exportPerson": {"address": ("Export an address", {"channel": "email", "address": "ada@example.com"})},
    "requeueDeadLetters": {
        "some": ("Send again what no retry helped", {"reason": "retries_exhausted", "channel": "email"}),
        "all": ("Send all again", {"all": True}),
    },
    "beginDeadLetterAct": {
        "preview": (
            "See which letters it would be",
            {"act": "requeue", "filter": {"reason": "retries_exhausted"}, "dry_run": True},
        ),
        "requeue": (
            "Send again what one provider refused",
            {"act": "requeue", "filter": {"channel": "email", "last_provider": "smtp"}},
        ),
        "drop": ("Drop what is of no use any more", {"act": "drop", "filter": {"event_type": "login.code"}}),
    },
}
#: Names in paths.
PATH: Final[dict[str, str]] = {
    "user_id": _USER,
    "template_name": "welcome",
    "route_name": "order-updates",
    "target": "chat",
    "provider": "twilio",
}
#: Parameters of queries that an operation cannot do without.
QUERIES: Final[dict[str, dict[str, str]]] = {"searchEverything": {"q": "ada@example.com"}}
#: Operations whose answer has the ids that others have in their path: pointer → operation → its parameter.
LINKS: Final[dict[str, dict[str, dict[str, str]]]] = {
    "postEvent": {"/id": {"getEvent": "event_id", "replayEvent": "event_id"}},
    "postNotification": {
        "/items/0/id": dict.fromkeys(
            (
                *("getNotification", "listNotificationAttempts", "getNotificationContent", "cancelNotification"),
                *("moveNotification", "resendNotification"),
            ),
            "notification_id",
        )
    },
    "createSubscription": {
        "/id": dict.fromkeys(
            (
                *("getSubscription", "changeSubscription", "deleteSubscription", "rotateSecret", "enableSubscription"),
                *("listSubscriptionNotifications", "testSubscription", "recoverSubscription", "listRecoveries"),
            ),
            "subscription_id",
        )
    },
    "recoverSubscription": {"/id": {"getRecovery": "recovery_id"}},
    "suppressAddress": {"/id": {"liftSuppressionById": "suppression_id"}},
    "erasePerson": {"/id": {"getErasure": "erasure_id"}},
    "beginDeadLetterAct": {
        "/id": dict.fromkeys(("getDeadLetterAct", "stopDeadLetterAct", "resumeDeadLetterAct"), "act_id")
    },
    "listDeadLetters": {
        "/items/0/id": dict.fromkeys(("getDeadLetter", "requeueDeadLetter", "deleteDeadLetter"), "letter_id")
    },
}


def add_examples(operation: dict[str, Any]) -> None:
    """Give an operation's description its examples, and links to operations that take what it answers."""
    name = operation["operationId"]
    bodies = {key: {"summary": summary, "value": value} for key, (summary, value) in BODIES.get(name, {}).items()}
    content = operation.get("requestBody", {}).get("content", {})
    if bodies:
        content["application/json"]["examples"] = bodies
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path" and parameter["name"] in PATH:
            parameter["example"] = PATH[parameter["name"]]
        if parameter["in"] == "query" and parameter["name"] in QUERIES.get(name, {}):
            parameter["example"] = QUERIES[name][parameter["name"]]
    for pointer, linked in LINKS.get(name, {}).items():
        # Where a dry run answers 200, the other status is that of the record.
        answer = operation["responses"][max({"200", "201", "202"} & operation["responses"].keys())]
        links = answer.setdefault("links", {})
        for target, parameter_name in linked.items():
            links[target] = {"operationId": target, "parameters": {parameter_name: f"$response.body#{pointer}"}}
            if target == "getRecovery":
                links[target]["parameters"]["subscription_id"] = "$request.path.subscription_id"
