"""The client when requests fail: what is repeated, with which key, after which wait, and what callers are told."""

import os
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

import pytest

from notifier_client import (
    ApiError,
    Client,
    Conflict,
    Forbidden,
    InvalidRequest,
    NoAnswer,
    NotFound,
    NotifierError,
    RateLimited,
    RetryPolicy,
    ServerError,
    TooLarge,
    Unauthenticated,
    Unsent,
)
from tests.support.faulty_api import FaultyApi, Step, answer, cut, hold, lose_answer, lose_half, pass_on
from tests.support.running import Running

KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def faulty(system: Running) -> Iterator[FaultyApi]:
    """A server before the system's API."""
    with FaultyApi(system.url) as server:
        yield server


@pytest.fixture
def waits() -> list[float]:
    """The waits of the client."""
    return []


@pytest.fixture
def client(faulty: FaultyApi, waits: list[float]) -> Iterator[Client]:
    """A client that notes its waits, and does not wait."""
    policy = RetryPolicy(retries=3, sleep=waits.append)
    with Client(faulty.url, key=KEY, timeout=5, retries=policy) as client:
        yield client


def new_type() -> str:
    return f"client.{uuid4().hex}"


def accepted_once(client: Client, event_type: str) -> None:
    assert len(list(client.events.list(event_type=event_type))) == 1


PASSING = [answer(408), answer(429), answer(502, b"<html>"), answer(503), answer(504), cut, lose_answer, lose_half]


@pytest.mark.parametrize("fault", PASSING, ids=["408", "429", "502", "503", "504", "cut", "lose_answer", "lose_half"])
def test_an_event_is_repeated_with_its_key_and_accepted_once(client: Client, faulty: FaultyApi, fault: Step) -> None:
    faulty.script.extend([fault, fault])
    event_type = new_type()
    sent = client.events.send({"event_type": event_type})
    first, *others = faulty.asked
    assert len(others) == 2
    assert first.key
    assert {each.key for each in others} == {first.key}
    assert {each.body for each in others} == {first.body}
    assert sent["duplicate"] is (fault in {lose_answer, lose_half})
    accepted_once(client, event_type)
    client.events.send({"event_type": event_type})
    assert faulty.asked[-1].key != first.key


def test_a_key_of_the_callers_own_is_kept(client: Client, faulty: FaultyApi) -> None:
    key = uuid4().hex
    client.events.send({"event_type": "client.own"}, idempotency_key=key)
    assert faulty.asked[-1].key == key
    inside = uuid4().hex
    faulty.script.append(lose_answer)
    assert client.events.send({"event_type": "client.own", "idempotency_key": inside})["duplicate"]
    assert faulty.asked[-1].key is None
    assert faulty.asked[-1].json["idempotency_key"] == inside


def test_a_notification_is_repeated_with_its_key_too(client: Client, faulty: FaultyApi) -> None:
    faulty.script.append(lose_answer)
    address = f"{uuid4().hex}@example.com"
    client.notifications.send({"recipient": address, "channel": "email", "body": "x"})
    assert faulty.asked[0].key == faulty.asked[1].key is not None
    assert len(list(client.notifications.list(recipient=address))) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_no_attempt_is_made_before_retry_after(
    client: Client, faulty: FaultyApi, waits: list[float], form: str
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=25), usegmt=True)
    faulty.script.append(answer(503, Retry_After="7" if form == "seconds" else date))
    client.events.send({"event_type": "client.later"})
    [wait] = waits
    assert 7 <= wait <= 26


def test_a_wait_that_is_too_long_is_left_to_the_caller(client: Client, faulty: FaultyApi, waits: list[float]) -> None:
    faulty.script.append(answer(429, Retry_After="86400"))
    with pytest.raises(RateLimited) as caught:
        client.events.send({"event_type": "client.later"})
    assert caught.value.retry_after == 86_400
    assert caught.value.attempts == 1
    assert not waits


def test_it_gives_up_after_its_retries(client: Client, faulty: FaultyApi, waits: list[float]) -> None:
    faulty.otherwise = answer(503, X_Request_Id="the-last")
    with pytest.raises(ServerError) as caught:
        client.events.send({"event_type": "client.never"})
    assert caught.value.attempts == len(faulty.asked) == 4
    assert caught.value.request_id == "the-last"
    assert len(waits) == 3


def test_what_is_not_known_to_be_harmless_is_not_repeated(client: Client, faulty: FaultyApi) -> None:
    made = client.notifications.send({"recipient": "a@example.com", "channel": "email", "body": "x"})["items"][0]
    for fault, error in ((cut, NoAnswer), (answer(503), ServerError), (answer(502), ServerError)):
        faulty.asked.clear()
        faulty.script.append(fault)
        with pytest.raises(error):
            client.notifications.resend(made["id"])
        assert len(faulty.asked) == 1


def test_where_nothing_was_done_any_request_is_repeated(client: Client, faulty: FaultyApi) -> None:
    faulty.script.extend([answer(429), answer(408)])
    assert client.notifications.cancel_by_key(uuid4().hex) == {"cancelled": 0, "too_late": 0}
    assert len(faulty.asked) == 3


def test_reading_and_setting_are_repeated_without_a_key(client: Client, faulty: FaultyApi) -> None:
    user = f"client-{uuid4().hex}"
    for fault in (lose_answer, lose_half, cut, answer(503)):
        faulty.script.append(fault)
        client.users.put(user, {"email": "a@example.com"})
        faulty.script.append(fault)
        assert client.users.get(user)["email"] == "a@example.com"
    assert not any(each.key for each in faulty.asked)


STATUSES = [
    (400, InvalidRequest),
    (401, Unauthenticated),
    (403, Forbidden),
    (404, NotFound),
    (409, Conflict),
    (413, TooLarge),
    (415, InvalidRequest),
    (418, ApiError),
    (422, InvalidRequest),
    (500, ServerError),
]


@pytest.mark.parametrize(("status", "error"), STATUSES)
def test_other_errors_are_told_at_once(client: Client, faulty: FaultyApi, status: int, error: type[ApiError]) -> None:
    faulty.script.append(answer(status, X_Request_Id="abc"))
    with pytest.raises(error) as caught:
        client.events.send({"event_type": "client.error"})
    found = caught.value
    assert len(faulty.asked) == 1
    assert (found.status, found.type, found.title) == (status, "/problems/test", "A test")
    assert (found.detail, found.request_id, found.attempts) == ("As the test says.", "abc", 1)
    assert "POST /api/v1/events" in str(found)
    assert str(status) in str(found)


def test_the_apis_own_problem_names_the_fields(system: Running) -> None:
    with Client(system.url) as client, pytest.raises(InvalidRequest) as caught:
        client.events.send({"event_type": "a b"})
    assert caught.value.type == "/problems/validation-failed"
    assert set(caught.value.errors) == {"event_type"}
    assert caught.value.request_id
    assert "event_type" in str(caught.value)


@pytest.mark.parametrize(
    "document", [b"", b"<html>", b"[1]", b"\xff", b'{"errors": 1}', b'{"type": 1, "detail": ["x"]}', b'{"errors": []}']
)
def test_an_answer_of_something_between_is_an_error_all_the_same(
    client: Client, faulty: FaultyApi, document: bytes
) -> None:
    faulty.script.append(answer(500, document))
    with pytest.raises(ServerError) as caught:
        client.events.send({"event_type": "client.proxy"})
    assert caught.value.errors == {}
    assert isinstance(caught.value.detail, str)


@pytest.mark.parametrize("document", [b"", b"<html>Welcome</html>", b"[]", b'"x"'])
def test_a_success_that_is_not_the_apis_is_no_success(client: Client, faulty: FaultyApi, document: bytes) -> None:
    faulty.script.append(answer(200, document))
    with pytest.raises(NotifierError, match=r"does http://127\.0\.0\.1:"):
        client.events.send({"event_type": "client.portal"})


@pytest.mark.parametrize("status", [300, 304, 307])
def test_no_redirect_is_followed(client: Client, faulty: FaultyApi, system: Running, status: int) -> None:
    faulty.script.append(answer(status, b"", Location=f"{system.url}/api/v1/events"))
    with pytest.raises(ApiError) as caught:
        client.users.delete("moved")
    assert caught.value.status == status


def test_an_answer_without_an_item_for_each_event_is_an_error(client: Client, faulty: FaultyApi) -> None:
    for wrong in ({}, {"items": 1}, {"items": []}):
        faulty.script.append(answer(202, wrong))
        with pytest.raises(Unsent, match="no item for each of 1 events") as caught:
            client.events.send_many([{"event_type": "client.odd"}])
        assert len(caught.value.events) == 1


def test_a_server_that_is_silent_is_given_up(faulty: FaultyApi) -> None:
    over = threading.Event()
    faulty.otherwise = hold(over)
    with Client(faulty.url, timeout=0.2, retries=RetryPolicy(retries=1, backoff=0)) as client:
        with pytest.raises(NoAnswer, match="timed out while waiting for the answer") as caught:
            client.events.send({"event_type": "client.silent"})
        over.set()
    assert caught.value.may_have_arrived
    assert len(faulty.asked) == 2


def test_a_server_that_is_not_there_got_nothing(waits: list[float]) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        client = Client(url, retries=RetryPolicy(retries=2, sleep=waits.append))
        with pytest.raises(NoAnswer, match=r"could not connect \(Connection refused\)") as caught:
            client.notifications.cancel_by_key("any")
    assert not caught.value.may_have_arrived
    assert len(waits) == 2


def test_what_an_earlier_attempt_may_have_done_is_not_forgotten() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(FaultyApi(otherwise=cut))
        client = Client(server.url, retries=RetryPolicy(retries=1, sleep=lambda _: stack.close()))
        with pytest.raises(NoAnswer, match="could not connect") as caught:
            client.events.send({"event_type": "client.vanished"})
    assert caught.value.may_have_arrived


def test_a_certificate_that_does_not_fit_is_no_matter_of_time(faulty: FaultyApi, waits: list[float]) -> None:
    client = Client(faulty.url.replace("http:", "https:"), retries=RetryPolicy(sleep=waits.append))
    with pytest.raises(NoAnswer, match="TLS handshake"):
        client.operating.health()
    assert not waits


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that hangs on it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("fault", ["echo", "cut", "refused"])
def test_no_error_holds_the_key_or_a_persons_address(faulty: FaultyApi, fault: str) -> None:
    said = {"type": "x", "title": KEY, "detail": f"Bearer {KEY}", "errors": {KEY: [KEY]}, "more": {"a": [KEY]}}
    faulty.otherwise = cut if fault == "cut" else answer(403, said, X_Request_Id=KEY)
    # requests' own words for a connection that is refused have the URL, with its query.
    client = Client("http://127.0.0.1:9" if fault == "refused" else faulty.url, key=KEY, retries=0)
    calls: list[Callable[[], Any]] = [
        lambda: client.events.send({"event_type": "x", "recipient": "ada@example.com", "channel": "email"}),
        lambda: list(client.events.list(recipient="ada@example.com")),
        lambda: client.events.send_many([{"event_type": "x", "recipient": "ada@example.com", "channel": "email"}]),
    ]
    for call in calls:
        with pytest.raises(NotifierError) as caught:
            call()
        for each in chain(caught.value):
            shown = f"{each!s} {each!r} {[value for name, value in vars(each).items() if name != 'events']}"
            assert KEY not in shown
            assert "example.com" not in shown  # in a URL the address is quoted
        assert KEY not in "".join(traceback.format_exception(caught.value))
    assert KEY not in repr(client)


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "kéy", "a\r\nX: y"])
def test_a_key_that_is_none_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="as it was shown") as caught:
        Client("http://localhost", key=key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://user:pw@host", "http://host?x=1", "http://host#x", ""]
)
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        Client(url)
    assert "pw" not in str(caught.value)


def test_a_password_of_netrc_does_not_replace_the_key(
    faulty: FaultyApi, client: Client, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client.events.send({"event_type": "client.netrc"})
    assert faulty.asked[-1].headers["authorization"] == f"Bearer {KEY}"
    with Client(faulty.url) as anonymous:
        anonymous.events.send({"event_type": "client.netrc"})
    assert "authorization" not in faulty.asked[-1].headers


def test_a_name_stays_one_segment_of_the_path(client: Client, faulty: FaultyApi) -> None:
    name = "a?b&c#d%2F e:ü"
    client.users.put(name, {})
    assert client.users.get(name)["user_id"] == name
    for wrong in ("", ".", ".."):
        with pytest.raises(ValueError, match="must not be empty"):
            client.users.get(wrong)
    assert len(faulty.asked) == 2


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_opens_connections_of_its_own(client: Client, faulty: FaultyApi) -> None:
    client.operating.health()
    child = os.fork()
    if not child:
        try:
            ok = all(client.operating.health()["status"] == "ok" for _ in range(5))
        finally:
            os._exit(0 if ok else 1)
    assert all(client.operating.health()["status"] == "ok" for _ in range(5))
    assert os.waitpid(child, 0)[1] == 0
    assert len(faulty.asked) == 11


def test_many_events_come_through_in_parts_when_there_are_too_many(client: Client, faulty: FaultyApi) -> None:
    event_type = new_type()
    events: Any = [{"event_type": event_type, "payload": {"n": n}} for n in range(1_201)]
    events[7] = {"event_type": "a b"}
    faulty.script.extend([lose_answer, answer(413)])
    found = client.events.send_many(iter(events))
    assert [item["index"] for item in found["items"]] == list(range(1_201))
    assert found["items"][7]["type"] == "/problems/validation-failed"
    # The first part was accepted, unheard, and came again in halves, with the same keys.
    assert (found["accepted"], found["duplicates"], found["rejected"]) == (701, 499, 1)
    assert len(list(client.events.list(event_type=event_type, limit=200))) == 1_200


def test_many_events_are_handed_back_where_a_request_fails(client: Client, faulty: FaultyApi) -> None:
    event_type = new_type()
    faulty.script.extend([pass_on, answer(401)])
    with pytest.raises(Unsent) as caught:
        client.events.send_many([{"event_type": event_type, "payload": {"n": n}} for n in range(800)])
    assert isinstance(caught.value.cause, Unauthenticated)
    assert len(caught.value.answers) == 500
    assert [each["payload"]["n"] for each in caught.value.events] == list(range(500, 800))
    again = client.events.send_many(caught.value.events)
    assert again["accepted"] == 300
    assert client.events.send_many(caught.value.events)["duplicates"] == 300
    assert len(list(client.events.list(event_type=event_type, limit=200))) == 800


def test_many_events_that_are_no_json_send_nothing(client: Client, faulty: FaultyApi) -> None:
    with pytest.raises(ValueError, match="JSON"):
        client.events.send_many([{"event_type": "ok"}, {"event_type": "x", "payload": {"n": float("inf")}}])
    assert not faulty.asked
    assert client.events.send_many([]) == {"accepted": 0, "duplicates": 0, "rejected": 0, "items": []}


def test_items_that_could_not_be_written_are_posted_again(
    client: Client, faulty: FaultyApi, waits: list[float]
) -> None:
    items = [{"index": 0, "id": str(uuid4()), "status": "accepted"}, {"index": 1, "status": 503, "errors": {}}]
    faulty.script.append(answer(202, {"accepted": 1, "duplicates": 0, "rejected": 1, "items": items}))
    found = client.events.send_many([{"event_type": "client.first"}, {"event_type": "client.second"}])
    assert [item["status"] for item in found["items"]] == ["accepted", "accepted"]
    assert [each["event_type"] for each in faulty.asked[1].json["events"]] == ["client.second"]
    assert len(waits) == 1
    faulty.otherwise = answer(202, {"accepted": 0, "duplicates": 0, "rejected": 1, "items": items[1:]})
    with pytest.raises(Unsent) as caught:
        client.events.send_many([{"event_type": "client.third"}])
    assert [each["event_type"] for each in caught.value.events] == ["client.third"]
