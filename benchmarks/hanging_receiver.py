"""A receiver with many endpoints, /0 to /N, some of which never answer while it is told so.

granian --interface rsgi benchmarks.hanging_receiver:app
"""

import asyncio
import json
import re
import time
from typing import Any

NUMBER = re.compile(rb'"n": ?(\d+)')
#: Endpoints that hang.
hanging = range(0)
#: (endpoint, number of the event, Unix time) of what came to endpoints that answer.
arrived: list[tuple[int, int, float]] = []
#: How many requests hang at the moment.
held = 0


async def app(scope: Any, protocol: Any) -> None:
    """POST /{endpoint} takes a webhook; GET gives what came, and with /hang/{start}/{stop} forgets it; those hang."""
    global hanging, held
    if scope.method == "POST":
        body = await protocol()
        endpoint = int(scope.path[1:])
        if endpoint in hanging:
            held += 1
            await asyncio.sleep(120)
            held -= 1
        elif found := NUMBER.search(body):
            arrived.append((endpoint, int(found[1]), time.time()))
        protocol.response_empty(204, [])
        return
    if scope.path.startswith("/hang/"):
        hanging = range(*map(int, scope.path.split("/")[2:]))
        arrived.clear()
    answer = {"count": len(arrived), "held": held, "arrived": arrived if scope.path == "/all" else []}
    protocol.response_str(200, [("content-type", "application/json")], json.dumps(answer))
