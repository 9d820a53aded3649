"""The headers of our messages: what goes along with ids, and what a worker of the release before does not look at."""

from typing import Final

#: When what the clock hands over became due, in seconds since the epoch.
DUE: Final = "notifier_due"
#: The request that a message's ids came from, where all came from one. (Each row knows its own.)
REQUEST_ID: Final = "notifier_request_id"
TRACEPARENT: Final = "traceparent"
