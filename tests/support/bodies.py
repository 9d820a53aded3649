"""A body for each operation that wants one."""

from typing import Any, Final
from uuid import UUID

from tests.support.planted import (
    USER,
)

ROUTE: Final = {"event_type": "x.z", "to": {"user_id": "payload.user_id"}}
EVENT: Final = {"event_type": "x.y", "user_id": USER, "idempotency_key": "k"}
MESSAGE: Final = {"user_id": USER, "body": "Hello", "idempotency_key": "message"}


#: A body for each operation whose scope is not `read`, where it has one, and the status of its answer.
ASKED: Final[dict[str, tuple[Any, int]]] = {
    "postEvent": (EVENT, 202),
    "postTypedEvent": ({"type": "x.y", "user_id": USER}, 202),
    "postBatch": ({"events": [EVENT, {"event_type": "x.y", "user_id": USER, "template": "none"}]}, 202),
    "postNotification": (MESSAGE, 202),
    "sendNotification": (MESSAGE, 202),
    "notifyUser": ({"userId": USER, "type": "EMAIL", "template": "t-1", "data": {}}, 202),
    "cancelNotification": (None, 409),
    "cancelNotifications": ({"cancellation_key": "none"}, 200),
    "moveNotification": ({"send_at": None}, 409),
    "resendNotification": (None, 202),
    "replayEvent": (None, 202),
    "putUser": ({"timezone": "Europe/Berlin"}, 200),
    "deleteUser": (None, 204),
    "putPreferences": ({"channels": {"sms": False}}, 200),
    "putTemplate": ({"channel": "email", "text": "Hello"}, 200),
    "putRoute": (ROUTE, 200),
    "deleteRoute": (None, 204),
    "createSubscription": ({"url": "https://other.example.com/", "event_types": ["y"]}, 201),
    "changeSubscription": ({"enabled": True}, 200),
    "deleteSubscription": (None, 204),
    "rotateSecret": (None, 200),
    "enableSubscription": (None, 200),
    "testSubscription": (None, 202),
    "recoverSubscription": ({"since": "2020-01-01T00:00:00Z"}, 202),
    "suppressAddress": ({"channel": "email", "address": "other@example.com"}, 201),
    "liftSuppression": ({"channel": "email", "address": "other@example.com"}, 204),
    "liftSuppressionById": (None, 204),
    "putHold": (None, 201),
    "releaseHold": (None, 204),
    "listAudit": (None, 200),
    "erasePerson": ({"user_id": "nobody-known"}, 202),
    "requeueDeadLetter": (None, 202),
    "requeueDeadLetters": ({"all": True}, 202),
    "deleteDeadLetter": (None, 204),
    "beginDeadLetterAct": ({"act": "requeue", "filter": {"notification_id": str(UUID(int=1))}}, 202),
    "stopDeadLetterAct": (None, 200),
    "resumeDeadLetterAct": (None, 200),
}


#: Bodies of operations that only read, though they are a POST.
READING: Final = {
    "checkPreferences": {"user_id": USER, "channel": "sms"},
    "previewTemplate": {"data": {}},
    "exportPerson": {"user_id": USER},
}
