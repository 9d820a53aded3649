"""A load that goes on while something else happens."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from tests.support.running import Running, wait_for

#: Events that are accepted before and after what is meant to happen under load.
_AROUND = 5


@contextmanager
def posting(system: Running, url: str) -> Iterator[list[str]]:
    """Post events for a webhook one after the other, from a thread; gives the ids of those accepted so far.

    Begins with some that were accepted, and ends with some that were accepted after the block. Every event must be.
    """
    accepted: list[str] = []
    refused: list[str] = []
    enough = threading.Event()

    def post() -> None:
        with requests.Session() as session:
            while not enough.wait(0.01):
                event = {"event_type": "under.load", "channel": "webhook", "recipient": url}
                answer = session.post(f"{system.url}/api/v1/events", json=event, timeout=30)
                if answer.status_code == 202:
                    accepted.append(answer.json()["id"])
                else:
                    refused.append(answer.text)

    thread = threading.Thread(target=post, name="load")
    thread.start()
    try:
        wait_for(lambda: len(accepted) >= _AROUND, 20, "a load")
        yield accepted
        before = len(accepted)
        wait_for(lambda: len(accepted) >= before + _AROUND, 20, "a load that goes on")
    finally:
        enough.set()
        thread.join()
    assert not refused, refused
