"""Names of the statistics: what they are counted by, and how long they are kept."""

from datetime import timedelta
from enum import StrEnum
from typing import Final


class Dimension(StrEnum):
    """The kind of thing that the figures of one row are of."""

    CHANNEL = "channel"
    #: A provider of a channel, as attempts record it.
    PROVIDER = "provider"
    EVENT_TYPE = "event_type"
    SOURCE = "source"
    QUEUE = "queue"


#: The name of a row that counts what has none: a notification without an event has no event type.
UNNAMED: Final = ""
#: The name of a row that counts all names that have no row of their own. No event type has this name.
OTHERS: Final = "*"

#: How long rows of minutes are kept, and rows of hours: a month can be compared with the same month a year ago.
MINUTES_KEPT: Final = timedelta(hours=48)
HOURS_KEPT: Final = timedelta(days=400)
