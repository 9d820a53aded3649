"""Headers of Celery messages: additions to the ids, which workers of an earlier release ignore."""

from typing import Final

#: The time at which the handed-over rows became due, in seconds since the epoch.
DUE: Final = "notifier_due"
#: The request that all ids of a message came from, if it is the same. (Each row has its own, too.)
REQUEST_ID: Final = "notifier_request_id"
TRACEPARENT: Final = "traceparent"
