"""User ids of any characters work in every route, or in none."""

import json
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.running import Running


def _segment(user_id: str) -> str:
    return quote(user_id, safe="").replace(".", "%2E")


def _request(system: Running, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """A request with exactly this path, which requests would tidy up."""
    connection = HTTPConnection("127.0.0.1", system.port, timeout=20)
    try:
        connection.request(
            method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


_ODD_IDS = (
    *(
        "a/b",
        "a/",
        "/a",
        "/",
        ".",
        "..",
        "...",
        "a%2Fb",
        "%",
        "a+b",
        "a b",
        " ",
        "\t",
        "a\n",
        "?",
        "#",
        "ö",
        "日本",
        "😀",
        "a;b",
        "\\",
    ),
    *("\u2028", "\x7f", "\x85", "u" * 255, "😀" * 255, "u" * 256, "export", "preferences", "a?b=c&d"),
)


_LIKELY_TROUBLE = st.sampled_from("/.%+\\ \n?#;:@&=")
_ANY_CHARACTER = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def _works_everywhere_or_nowhere(system: Running, user_id: str) -> None:
    segment = _segment(user_id)
    path = f"/api/v1/users/{segment}"
    by_path = _request(system, "PUT", path, {"email": "odd@example.com"})[0] in {200, 201}
    checked = {"user_id": user_id, "channel": "email"}
    accepted = {
        "path": by_path,
        "event": _request(system, "POST", "/api/v1/events", {"event_type": "odd", "user_id": user_id})[0] == 202,
        "notification": _request(system, "POST", "/api/v1/notifications", {"user_id": user_id, "body": "x"})[0] == 202,
        "check": _request(system, "POST", "/api/v1/preferences/check", checked)[0] == 200,
        "filter": _request(system, "GET", f"/api/v1/notifications?user_id={quote(user_id, safe='')}")[0] == 200,
        "preferences": _request(system, "PUT", f"{path}/preferences", {})[0] == 200,
        "export": _request(system, "GET", f"{path}/export")[0] == 200,
        "read": _request(system, "GET", path)[0] == 200,
    }
    assert len(set(accepted.values())) == 1, accepted
    if by_path:
        assert _request(system, "GET", path)[1]["user_id"] == user_id
    assert (_request(system, "DELETE", path)[0] == 204) == by_path


@pytest.mark.parametrize("user_id", _ODD_IDS, ids=range(len(_ODD_IDS)))
def test_an_odd_user_id_works_everywhere_or_nowhere(system: Running, user_id: str) -> None:
    _works_everywhere_or_nowhere(system, user_id)


@settings(max_examples=25, deadline=None)
@given(user_id=st.text(st.one_of(_LIKELY_TROUBLE, _ANY_CHARACTER), min_size=1, max_size=6))
def test_any_user_id_works_everywhere_or_nowhere(system: Running, user_id: str) -> None:
    _works_everywhere_or_nowhere(system, user_id)
