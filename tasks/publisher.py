"""This process's publisher of hints."""

import functools

from tasks import app
from tasks.hints import HintPublisher


@functools.cache
def publisher() -> HintPublisher:
    """Return the one publisher of this process."""
    return HintPublisher(app)
