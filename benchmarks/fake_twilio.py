"""A stand-in for Twilio: takes messages, refuses them or hangs, and remembers whom they were for and when.

granian --interface rsgi benchmarks.fake_twilio:app
"""

import asyncio
import json
import time
from typing import Any
from urllib.parse import parse_qs

taken: list[tuple[str, float]] = []
mode = "up"
refused = 0


async def app(scope: Any, protocol: Any) -> None:
    """POST takes a message as the mode says; GET /up, /down and /hang set it, /taken gives [[recipient, unix time]]."""
    global mode, refused
    json_type = [("content-type", "application/json")]
    if scope.method != "POST":
        wish = scope.path.strip("/")
        if wish in {"up", "down", "hang"}:
            mode = wish
        answer = {"taken": taken if wish == "taken" else [], "count": len(taken), "refused": refused}
        protocol.response_str(200, json_type, json.dumps(answer))
        return
    recipient = parse_qs((await protocol()).decode())["To"][0]
    if mode == "hang":
        refused += 1
        await asyncio.sleep(600)
    if mode == "down":
        refused += 1
        protocol.response_str(503, json_type, "{}")
        return
    taken.append((recipient, time.time()))
    protocol.response_str(201, json_type, json.dumps({"sid": f"SM{len(taken):032x}", "status": "queued"}))
