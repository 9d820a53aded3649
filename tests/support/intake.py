"""Requests for events that are refused."""

from typing import Any

import requests

from tests.support.running import Running


def refused(answer: requests.Response, status: int) -> dict[str, Any]:
    """A problem of this status, as RFC 9457 has it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= set(problem)
    return problem


def raw(
    system: Running, body: str | bytes, path: str = "/api/v1/events", kind: str = "application/json"
) -> requests.Response:
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    return system.http.post(system.url + path, data=data, headers={"content-type": kind}, timeout=30)
