"""Users over HTTP."""

from typing import Any
from urllib.parse import quote

import requests

from tests.support.running import Running

USERS = "/api/v1/users"


def path(user_id: str) -> str:
    return f"{USERS}/{quote(user_id, safe='')}"


def put(system: Running, user_id: str, /, **fields: Any) -> requests.Response:
    return system.http.put(system.url + path(user_id), json=fields, timeout=20)
