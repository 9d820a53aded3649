"""The attempt log of a webhook: the headers of both sides, secrets masked, and the times of its phases."""

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from notifier.notifications import attempts
from notifier.notifications.attempts import AbandonedClaim, Record, record_worker_losses
from notifier.providers.http import headers
from notifier.providers.http.address_guard import Network
from notifier.providers.protocol import Message, Outcome, Result
from notifier.providers.vendors.webhook import Webhooks
from notifier.security import webhook_signatures
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Status
from tests.providers import receivers
from tests.providers.receivers import response

LOOPBACK = ip_network("127.0.0.0/8")
PHASES = ["dns_ms", "connect_ms", "tls_ms", "first_byte_ms", "total_ms"]

Make = Callable[..., Webhooks]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes a provider of one connection that may reach loopback; all are closed at the end."""
    with ExitStack() as stack:

        def webhooks(*, timeout: float = 10.0, keys: int = 1, allowed: tuple[Network, ...] = (LOOPBACK,)) -> Webhooks:
            secrets = [webhook_signatures.key_of(webhook_signatures.new_secret()) for _ in range(keys)]
            provider = Webhooks(keys=secrets, allowed_networks=allowed, timeout=timeout, concurrency=1)
            stack.callback(provider.close)
            return provider

        yield webhooks


def post(provider: Webhooks, url: str) -> Result:
    message = Message(id=uuid4(), recipient=url, subject=None, text="{}")
    [result] = itertools.chain.from_iterable(provider.send(iter([message])))
    return result


def url_of(listener: receivers.Listener, scheme: str = "http", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{listener.port}/hook"


def answered(make: Make, answer: bytes) -> Result:
    """The result where the receiver's whole answer is `answer`."""
    with receivers.http(answer) as (server, _):
        return post(make(timeout=5.0), url_of(server))


def shown(make: Make, *lines: bytes) -> dict[str, str]:
    """The headers that are shown of an answer with these lines."""
    head = b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"content-length: 0"])
    result = answered(make, head + b"\r\n\r\n")
    assert result.outcome is Outcome.ACCEPTED
    assert result.response_headers is not None
    return dict(result.response_headers)


def reached(result: Result) -> list[str]:
    """The phases that have a time; all of them in their order and with one decimal."""
    assert result.timing is not None
    assert list(result.timing) == PHASES
    times = [value for value in result.timing.values() if value is not None]
    assert times == sorted(times)
    assert times == [round(value, 1) for value in times]
    assert times[-1] <= result.duration_ms + 0.1
    return [name for name, value in result.timing.items() if value is not None]


# The request


def test_the_headers_that_we_set_are_shown_and_the_signature_is_not(make: Make) -> None:
    with receivers.http() as (server, received):
        result = post(make(keys=2), url_of(server))

    [request] = received
    assert result.request_headers == {
        "content-type": "application/json",
        "user-agent": request.headers["user-agent"],
        "webhook-id": str(result.id),
        "webhook-timestamp": request.headers["webhook-timestamp"],
        "webhook-signature": "v1,***",
    }
    for signature in request.headers["webhook-signature"].split():
        assert signature.removeprefix("v1,") not in str(result)


def test_a_password_in_the_url_is_not_shown(make: Make) -> None:
    with receivers.http() as (server, received):
        result = post(make(), f"http://user:hunter2@127.0.0.1:{server.port}/")

    sent = received[0].headers["authorization"]
    assert result.request_headers is not None
    assert "authorization" not in result.request_headers
    assert "hunter2" not in str(result)
    assert sent.removeprefix("Basic ") not in str(result)


def test_the_value_of_a_header_that_is_not_ours_is_masked() -> None:
    lines = [
        "Content-Type: a/b",
        "Authorization: Bearer a:b",
        "X-Tenant:seven",
        "expect:",
        "WEBHOOK-SIGNATURE: v1,c v1,d",
    ]
    assert headers.of_request(lines) == {
        "content-type": "a/b",
        "authorization": "***",
        "x-tenant": "***",
        "webhook-signature": "v1,***",
    }


# The answer


def test_the_headers_of_an_answer_are_shown_by_lower_case_names(make: Make) -> None:
    assert shown(make, b"Server:nginx", b"X-Request-ID:   a: b  ", b"x-empty:") == {
        "server": "nginx",
        "x-request-id": "a: b",
        "x-empty": "",
        "content-length": "0",
    }


@pytest.mark.parametrize(
    "name",
    [
        "Set-Cookie",
        "authorization",
        "Proxy-Authorization",
        "WWW-Authenticate",
        "X-Auth-Token",
        "TOKENS",
        "x-client-secret",
        "X-API-Key",
        "monkey",
        "set-cookie ",
        "set-\x01cookie",
        "x-" * 200 + "token",
    ],
)
def test_a_secret_of_the_receiver_is_masked(make: Make, name: str) -> None:
    result = answered(make, response(200, b"", f"{name}: hunter2", f"{name}: hunter3"))

    assert result.response_headers == {
        "content-length": "0",
        name.replace("\x01", "").strip().lower(): "***",
    }


@pytest.mark.parametrize("name", ["cookie-policy", "x-set-cookie-policy", "x-authorization", "etag"])
def test_what_is_no_secret_is_shown(make: Make, name: str) -> None:
    assert shown(make, f"{name}: seen".encode())[name] == "seen"


def test_only_the_final_answers_own_headers_are_shown(make: Make) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nx-early: 1\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-trailer: 1\r\n\r\n"

    assert answered(make, early + chunked).response_headers == {"transfer-encoding": "chunked"}


def test_a_head_without_headers_is_an_empty_object(make: Make) -> None:
    assert answered(make, b"HTTP/1.1 204 No Content\r\n\r\n").response_headers == {}


def test_bytes_are_latin_1_and_control_characters_go(make: Make) -> None:
    binary = bytes(each for each in range(1, 256) if each not in b"\n\r")
    found = shown(make, b"x-binary: [" + binary + b"]", b"X-\xc9\x85\x7f: \xe9\tb")

    # All that latin-1 prints, its no-break space and soft hyphen among them.
    printed = [chr(each) for each in [*range(0x20, 0x7F), *range(0xA0, 0x100)]]
    assert found["x-binary"] == ("[ " + "".join(printed) + "]")[:256]
    assert found["x-é"] == "é b"


def test_a_nul_is_no_header(make: Make) -> None:
    result = answered(make, b"HTTP/1.1 200 OK\r\nx-a: b\0c\r\n\r\n")

    assert (result.outcome, result.response_headers) == (Outcome.AMBIGUOUS, None)  # libcurl takes no such answer
    assert headers.of_response([b"x-\0a: b\0c\r\n", b"\r\n"]) == {"x-a": "bc"}


def test_a_folded_cookie_is_masked_to_its_end(make: Make) -> None:
    assert "hunter2" not in str(shown(make, b"set-cookie: a=b;", b" x-more: hunter2"))


def test_thirty_headers_are_shown(make: Make) -> None:
    lines = [f"x-{number}: {number}".encode() for number in range(4000)]

    assert shown(make, *lines) == {f"x-{number}": str(number) for number in range(30)}


def test_a_value_is_cut_to_256_characters(make: Make) -> None:
    found = shown(
        make, b"x-huge: " + b"a" * 90_000, b"x-full: " + b"b" * 256, b"x-over: " + "é".encode("latin-1") * 257
    )

    assert found["x-huge"] == "a" * 256
    assert found["x-full"] == "b" * 256
    assert found["x-over"] == "é" * 256


@pytest.mark.parametrize("letter", [b"a", b"\xe9"])
def test_4_kib_are_shown_in_all(make: Make, letter: bytes) -> None:
    found = shown(make, *(b"x-%02d: " % number + letter * 256 for number in range(25)))

    size = sum(len(f"{name}{value}".encode()) for name, value in found.items())
    assert 4096 - 520 < size <= 4096
    assert found["content-length"] == "0"  # what is small still has room


def test_a_name_without_end_hides_no_other(make: Make) -> None:
    assert shown(make, b"x" * 50_000 + b": 1", b"server: nginx") == {"server": "nginx", "content-length": "0"}


def test_a_header_that_comes_again_is_added_to_the_first(make: Make) -> None:
    found = shown(
        make, b"Via: a", b"x: y", b"via: b", b"VIA: c", *[b"long: " + b"d" * 200] * 2, *[b"set-cookie: e"] * 3
    )

    assert found["via"] == "a, b, c"
    assert found["long"] == f"{'d' * 200}, {'d' * 54}"
    assert found["set-cookie"] == "***"


def test_a_header_without_a_name_is_left_out(make: Make) -> None:
    assert shown(make, b": nobody", b"x: y") == {"x": "y", "content-length": "0"}


# Times


def test_a_new_connection_has_no_tls_over_http(make: Make) -> None:
    with receivers.http() as (server, _):
        assert reached(post(make(), url_of(server))) == ["dns_ms", "connect_ms", "first_byte_ms", "total_ms"]


def test_a_kept_connection_was_neither_looked_up_nor_made(make: Make) -> None:
    provider = make()
    with receivers.http() as (server, _):
        results = [post(provider, url_of(server)) for _ in range(3)]

        assert server.connections == 1
    assert [len(reached(result)) for result in results] == [4, 2, 2]
    assert reached(results[-1]) == ["first_byte_ms", "total_ms"]


def test_a_connection_in_place_of_one_that_was_closed_is_a_new_one(make: Make) -> None:
    provider = make()
    with receivers.http(requests=1) as (server, _):
        for _ in range(2):
            assert "connect_ms" in reached(post(provider, url_of(server)))
            server.wait()


def test_tls_has_its_time_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = receivers.certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    provider = make()
    with receivers.http(tls=certificate.server_context()) as (server, _):
        new, kept = (post(provider, url_of(server, "https")) for _ in range(2))
        misnamed = post(provider, url_of(server, "https", "localhost"))

    assert reached(new) == PHASES
    assert reached(kept) == ["first_byte_ms", "total_ms"]
    assert reached(misnamed) == ["dns_ms", "connect_ms", "total_ms"]


def test_a_tls_handshake_that_hangs_has_no_end(make: Make) -> None:
    with receivers.listening(receivers.until_closed) as server:
        result = post(make(timeout=3), url_of(server, "https"))

    assert reached(result) == ["dns_ms", "connect_ms", "total_ms"]


def test_a_refused_connection_owes_nothing_to_the_call_before(make: Make) -> None:
    provider = make()
    with receivers.http() as (server, _):
        post(provider, url_of(server))
    result = post(provider, f"http://127.0.0.1:{receivers.unused_port()}/")

    assert result.outcome is Outcome.UNSENT
    assert reached(result) == ["dns_ms", "total_ms"]
    assert result.response_headers is None
    assert result.request_headers is not None
    assert result.request_headers["webhook-id"] == str(result.id)


def test_an_address_that_is_refused_is_looked_up_and_no_more(make: Make) -> None:
    with receivers.http() as (server, _):
        assert reached(post(make(allowed=()), url_of(server))) == ["dns_ms", "total_ms"]


def test_a_name_that_does_not_resolve_has_a_total(make: Make) -> None:
    assert reached(post(make(), "http://nowhere.invalid/")) == ["total_ms"]


def test_what_is_no_url_has_no_times(make: Make) -> None:
    assert post(make(), "ftp://127.0.0.1/").timing is None


@pytest.mark.parametrize("beginning", [b"", b"HT"])
def test_a_receiver_that_hangs_before_the_head_has_no_first_byte(make: Make, beginning: bytes) -> None:
    asked = 0

    def talk(connection: socket.socket) -> None:
        nonlocal asked
        while receivers.read_request(connection):
            asked += 1
            if asked == 2:
                connection.sendall(beginning)
                receivers.until_closed(connection)
                return
            connection.sendall(response(200))

    provider = make(timeout=1)
    with receivers.listening(talk) as server:
        good, kept, new = (post(provider, url_of(server)) for _ in range(3))

    assert good.outcome is new.outcome is Outcome.ACCEPTED
    assert kept.outcome is Outcome.AMBIGUOUS
    assert reached(kept) == ["total_ms"]
    assert kept.response_headers is None


def test_a_connection_that_closes_without_an_answer_has_no_first_byte(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)

    with receivers.listening(talk) as server:
        assert reached(post(make(), url_of(server))) == ["dns_ms", "connect_ms", "total_ms"]


def test_a_body_that_hangs_has_a_first_byte_and_headers(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nx-a: b\r\n\r\nhalf")
        receivers.until_closed(connection)

    with receivers.listening(talk) as server:
        result = post(make(timeout=1), url_of(server))

    assert "first_byte_ms" in reached(result)
    assert result.response_headers == {"x-a": "b"}


# The row

_NOTIFICATION = """
    INSERT INTO notifications (id, source, recipient, channel, critical, priority, content, queue, status, claims,
        due_at, created_at)
    VALUES (:id, 'test', :recipient, 'webhook', false, 'normal', '{}', 'webhook', 'sending', 1, now(), now())
"""


def sending(engine: Engine, recipient: str | None = "http://127.0.0.1/") -> UUID:
    """A notification that is being sent."""
    made = new_id()
    with engine.begin() as connection:
        connection.execute(text(_NOTIFICATION), {"id": made, "recipient": recipient})
    return made


def result_of(notification_id: UUID, **more: object) -> Result:
    return Result(notification_id, Outcome.ACCEPTED, "webhook", datetime.now(UTC), 12.5, **more)  # type: ignore[arg-type]  # the fields that a case names


def kept(engine: Engine, notification_id: UUID) -> tuple[object, ...]:
    columns = "request_headers, response_headers, timing"
    with engine.connect() as connection:
        query = text(f"SELECT {columns} FROM attempts WHERE notification_id = :id")
        return tuple(connection.execute(query, {"id": notification_id}).one())


LOG = {
    "request_headers": {"webhook-id": "1", "content-type": "application/json"},
    "response_headers": {"x-é": "\"é\\'☃"},
    "timing": {"dns_ms": None, "total_ms": 1.5},
}


def test_what_was_logged_is_kept_as_json_and_what_was_not_is_null(engine: Engine) -> None:
    with_log, without = sending(engine), sending(engine)
    results = [result_of(with_log, **LOG), result_of(without)]
    attempts.record(
        engine, [Record(result, 1, 1, 1) for result in results], finished=Status.DELIVERED, emit_events=False
    )

    assert kept(engine, with_log) == tuple(LOG.values())
    assert kept(engine, without) == (None, None, None)
    absent = "request_headers IS NULL AND response_headers IS NULL AND timing IS NULL"  # and not the null of JSON
    with engine.connect() as connection:
        assert connection.scalar(text(f"SELECT count(*) FROM attempts WHERE {absent}")) == 1


def test_the_worker_knows_more_than_the_clock_that_thought_it_dead(engine: Engine) -> None:
    notification_id = sending(engine)
    with engine.begin() as connection:
        record_worker_losses(connection, [AbandonedClaim(notification_id, 1, 0)])
    assert kept(engine, notification_id) == (None, None, None)
    attempts.record(
        engine, [Record(result_of(notification_id, **LOG), 1, 1, 1)], finished=Status.DELIVERED, emit_events=False
    )

    assert kept(engine, notification_id) == tuple(LOG.values())


def test_what_came_back_from_somebody_who_was_erased_goes(engine: Engine) -> None:
    erased, other = sending(engine, recipient=None), sending(engine)
    attempts.record(
        engine,
        [Record(result_of(each, **LOG), 1, 1, 1) for each in (erased, other)],
        finished=Status.DELIVERED,
        emit_events=False,
    )

    assert kept(engine, erased) == (LOG["request_headers"], None, LOG["timing"])
    assert kept(engine, other) == tuple(LOG.values())


def test_what_a_hostile_answer_leaves_can_be_kept(engine: Engine, make: Make) -> None:
    lines = [b'x-%02d\x01\x7f\xe9: \x02\xff"\\u0000' % number + bytes(range(0x80, 0x100)) for number in range(40)]
    answer = b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"content-length: 0"]) + b"\r\n\r\n"
    with receivers.http(answer) as (server, _):
        provider = make()
        message = Message(id=sending(engine), recipient=url_of(server), subject=None, text="{}")
        [result] = itertools.chain.from_iterable(provider.send(iter([message])))
    attempts.record(engine, [Record(result, 1, 1, 1)], finished=Status.DELIVERED, emit_events=False)

    found = kept(engine, message.id)
    assert found == (result.request_headers, result.response_headers, result.timing)
