"""The receiver: answers 204 to webhooks and remembers when each number came.

With REFUSE_FIRST=1 it answers 503 to the first webhook of each number, and forgets that it came.

granian --interface rsgi benchmarks.receiver:app
"""

import asyncio
import json
import os
import re
import time
from typing import Any

#: Seconds before it answers.
DELAY = int(os.environ.get("ANSWER_MS") or 0) / 1000
#: Whether it refuses each number once, and the numbers that it has refused.
REFUSES_FIRST = bool(int(os.environ.get("REFUSE_FIRST") or 0))
refused: set[int] = set()
NUMBER = re.compile(rb'"n": ?(\d+)')
#: A path with a number, which counts instead of the body's: one event may go to many paths.
PATH = re.compile(r"/at/(\d+)")
arrived: dict[int, float] = {}
requests = 0


async def app(scope: Any, protocol: Any) -> None:
    """POST takes a webhook; GET gives (and with /reset forgets) what came: {"requests", "arrived": {n: unix time}}."""
    global requests
    if scope.method == "POST":
        body = await protocol()
        found = PATH.fullmatch(scope.path) or NUMBER.search(body)
        if found and REFUSES_FIRST and int(found[1]) not in refused:
            refused.add(int(found[1]))
            protocol.response_empty(503, [])
            return
        if found:
            requests += 1
            arrived.setdefault(int(found[1]), time.time())
        if DELAY:
            await asyncio.sleep(DELAY)
        protocol.response_empty(204, [])
        return
    all_of_them = arrived if scope.path == "/all" else {}
    answer = json.dumps({"requests": requests, "count": len(arrived), "arrived": all_of_them})
    if scope.path == "/reset":
        arrived.clear()
        refused.clear()
        requests = 0
    protocol.response_str(200, [("content-type", "application/json")], answer)
