"""Webhooks over real sockets: what is sent, what each answer comes to, and what no URL may reach."""

import gzip
import itertools
import json
import logging
import re
import socket
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from notifier.providers.http.address_guard import refusal
from notifier.providers.protocol import EXCERPT, Outcome
from notifier.providers.vendors.webhook import Webhooks
from notifier.security import webhook_signatures
from tests.providers import receivers
from tests.providers.receivers import response
from tests.providers.webhook_calls import LOOPBACK, SECRET, Make, making, message_to, post, send, url_of
from tests.support.paths import ROOT


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as made:
        yield made


# What is sent


def test_a_webhook_is_a_signed_post_of_the_text(make: Make) -> None:
    text = json.dumps({"name": "Jörg 💌", "n": 1}, ensure_ascii=False)
    with receivers.http() as (server, received):
        message = message_to(url_of(server, "/a/b?c=d"), text)
        before = datetime.now(UTC)
        [result] = send(make(), message)

    [request] = received
    assert request.line == "POST /a/b?c=d HTTP/1.1"
    assert request.body == text.encode()
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == str(message.id)
    assert "expect" not in request.headers
    assert "accept-encoding" not in request.headers
    Webhook(SECRET).verify(request.body, request.headers)
    assert result.id == message.id
    assert (result.outcome, result.provider, result.status_code) == (Outcome.ACCEPTED, "webhook", 200)
    assert (result.error, result.response_excerpt, result.retry_after) == (None, None, None)
    assert before <= result.started_at <= datetime.now(UTC)
    assert 0 < result.duration_ms < 10_000


def test_no_receiver_can_verify_or_forge_what_is_signed_for_another() -> None:
    root, shared = webhook_signatures.new_secret(), webhook_signatures.new_secret()
    with receivers.http() as (server, received):
        urls = [url_of(server, "/one"), url_of(server, "/two").replace("127.0.0.1", "LocalHost")]
        for keys in ([], [webhook_signatures.key_of(shared)]):
            provider = Webhooks(
                keys=keys, allowed_networks=(LOOPBACK,), timeout=5, root=webhook_signatures.key_of(root)
            )
            with closing(provider):
                send(provider, *(message_to(url) for url in urls))
    port = server.port
    secrets = {
        f"/{path}": webhook_signatures.secret_of_host(webhook_signatures.key_of(root), f"{host}:{port}")
        for path, host in (("one", "127.0.0.1"), ("two", "localhost"))
    }
    assert sorted(request.line.split()[1] for request in received) == ["/one", "/one", "/two", "/two"]
    for request in received:
        own = secrets.pop(path := request.line.split()[1])
        [other] = secrets.values()
        secrets[path] = own
        Webhook(own).verify(request.body, request.headers)
        for foreign in (other, root):
            with pytest.raises(WebhookVerificationError):
                Webhook(foreign).verify(request.body, request.headers)
        count = request.headers["webhook-signature"].count("v1,")
        if count == 2:
            Webhook(shared).verify(request.body, request.headers)
        else:
            assert count == 1
            with pytest.raises(WebhookVerificationError):
                Webhook(shared).verify(request.body, request.headers)


@pytest.mark.parametrize("host", ["bücher.localhost", "BÜCHER.localhost", "xn--bcher-kva.localhost"])
def test_a_url_of_any_script_goes_out_in_ascii(make: Make, host: str) -> None:
    with receivers.http() as (server, received):
        result = post(make(), f'http://{host}:{server.port}/ü/{{a}}|"<b>^`\\c/%C3%BC?q=ü&a[]=100%#ü')

    assert result.outcome is Outcome.ACCEPTED
    [request] = received
    assert request.headers["host"] == f"xn--bcher-kva.localhost:{server.port}"
    path = "/%C3%BC/%7Ba%7D%7C%22%3Cb%3E%5E%60%5Cc/%C3%BC?q=%C3%BC&a%5B%5D=100%25"
    assert request.line == f"POST {path} HTTP/1.1"


def test_the_user_agent_carries_the_projects_version(make: Make) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with receivers.http() as (server, received):
        post(make(), url_of(server))

    assert received[0].headers["user-agent"] == f"Notifier/{project['version']}"


def test_a_large_body_is_not_asked_about_first(make: Make) -> None:
    text = json.dumps({"data": "x" * 2_000_000})
    with receivers.http() as (server, received):
        assert post(make(), url_of(server), text).outcome is Outcome.ACCEPTED

    assert received[0].body == text.encode()
    assert "expect" not in received[0].headers


def test_a_password_in_a_url_is_sent_and_shown_nowhere(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with receivers.http(response(401)) as (server, received):
        url = f"http://user:hunter2@127.0.0.1:{server.port}/"
        refused = post(make(), url)
    lost = post(make(), f"http://user:hunter2@127.0.0.1:{receivers.unused_port()}/")
    unknown = post(make(), "http://user:hunter2@nowhere.invalid/")

    assert received[0].headers["authorization"].startswith("Basic ")
    assert "hunter2" not in f"{refused}{lost}{unknown}{caplog.text}"
    assert unknown.error == "dns: the host's name does not resolve"


def test_a_proxy_in_the_environment_is_ignored(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{receivers.unused_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with receivers.http() as (server, _):
        assert post(make(), url_of(server)).outcome is Outcome.ACCEPTED


def test_tls_is_verified_against_what_python_trusts(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = receivers.certificate(tmp_path)
    with receivers.http(tls=certificate.server_context()) as (server, received):
        stranger = post(make(), url_of(server, scheme="https"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        trusted = post(make(), url_of(server, scheme="https"))
        misnamed = post(make(), f"https://localhost:{server.port}/")

    assert stranger.outcome is Outcome.UNSENT
    assert stranger.error is not None
    assert stranger.error.startswith("tls: ")
    assert "self-signed" in stranger.error
    assert trusted.outcome is Outcome.ACCEPTED
    assert misnamed.outcome is Outcome.UNSENT
    assert misnamed.error is not None
    assert misnamed.error.startswith("tls: ")
    assert len(received) == 1


# Answers


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.ACCEPTED),
        (202, Outcome.ACCEPTED),
        (204, Outcome.ACCEPTED),
        (299, Outcome.ACCEPTED),
        (300, Outcome.UNSENT),
        (304, Outcome.UNSENT),
        (400, Outcome.UNSENT),
        (401, Outcome.UNSENT),
        (403, Outcome.UNSENT),
        (404, Outcome.UNSENT),
        (408, Outcome.UNSENT),
        (410, Outcome.REJECTED),
        (425, Outcome.UNSENT),
        (429, Outcome.UNSENT),
        (499, Outcome.UNSENT),
        (500, Outcome.UNSENT),
        (503, Outcome.UNSENT),
        (599, Outcome.UNSENT),
        (600, Outcome.AMBIGUOUS),
        (999, Outcome.AMBIGUOUS),
    ],
)
def test_the_outcome_of_a_status(make: Make, status: int, outcome: Outcome) -> None:
    with receivers.http(response(status)) as (server, _):
        result = post(make(), url_of(server))

    assert (result.outcome, result.status_code) == (outcome, status)
    assert result.error == (None if outcome is Outcome.ACCEPTED else f"http {status}")


def test_statuses_that_are_permanent_for_a_message(make: Make) -> None:
    answers = itertools.cycle([response(404), response(422), response(410)])
    with receivers.http(lambda _: next(answers)) as (server, _):
        provider = make(concurrency=1)
        strict = replace(message_to(url_of(server)), permanent_statuses=frozenset({404, 499}))
        results = send(provider, strict, strict, strict, message_to(url_of(server)))

    assert [(result.outcome, result.status_code) for result in results] == [
        (Outcome.REJECTED, 404),
        (Outcome.UNSENT, 422),
        (Outcome.REJECTED, 410),
        (Outcome.UNSENT, 404),
    ]


def test_a_redirect_is_not_followed(make: Make) -> None:
    with receivers.http() as (elsewhere, received):
        location = f"location: {url_of(elsewhere)}"
        with receivers.http(response(307, b"", location)) as (server, _):
            result = post(make(), url_of(server))

    assert (result.outcome, result.status_code, result.error) == (Outcome.UNSENT, 307, "http 307")
    assert received == []


def test_interim_answers_are_not_the_answer(make: Make) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nretry-after: 5\r\n\r\n"
    with receivers.http(early + response(503)) as (server, _):
        result = post(make(), url_of(server))

    assert (result.outcome, result.status_code, result.retry_after) == (Outcome.UNSENT, 503, None)


def test_the_beginning_of_an_answer_is_kept(make: Make) -> None:
    body = b"a\0bc\xff" + "é".encode() * EXCERPT  # the 1024th byte is half an é
    with receivers.http(response(500, body)) as (server, _):
        excerpt = post(make(), url_of(server)).response_excerpt

    assert excerpt == "abc�" + "é" * ((EXCERPT - 5) // 2)


def test_an_endless_answer_is_cut_off_and_counts_by_its_status(make: Make) -> None:
    sent = 0

    def talk(connection: socket.socket) -> None:
        nonlocal sent
        receivers.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 4096)
            sent += 4096

    with receivers.listening(talk) as server:
        result = post(make(), url_of(server))

    assert (result.outcome, result.status_code) == (Outcome.ACCEPTED, 200)
    assert result.response_excerpt == "x" * EXCERPT
    assert sent < 64 * 1024 * 1024  # what the kernels' buffers hold beside the 64 KiB that are read


def test_a_gzip_bomb_stays_packed(make: Make) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with receivers.http(response(200, bomb, "content-encoding: gzip")) as (server, _):
        result = post(make(), url_of(server))

    assert result.outcome is Outcome.ACCEPTED
    assert result.response_excerpt is not None
    assert result.response_excerpt.startswith("\x1f")
    assert len(result.response_excerpt) <= EXCERPT


@pytest.mark.parametrize(
    "answer",
    [b"I am not a web server\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 20\r\n\r\n", b"\x16\x03\x01\x02\x00"],
)
def test_an_answer_that_is_not_http_is_ambiguous(make: Make, answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(answer)

    with receivers.listening(talk) as server:
        result = post(make(), url_of(server))

    assert (result.outcome, result.status_code) == (Outcome.AMBIGUOUS, None)
    assert result.error is not None
    assert result.error.startswith("answer: not HTTP")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-le"])
def test_a_connection_that_closes_before_the_head_of_an_answer_is_ambiguous(make: Make, answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(answer)

    with receivers.listening(talk) as server:
        result = post(make(), url_of(server))

    assert (result.outcome, result.status_code) == (Outcome.AMBIGUOUS, None)
    assert result.error == "reset: the connection closed before an answer"


def test_a_body_that_breaks_off_counts_by_its_status(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(b"HTTP/1.1 503 Busy\r\ncontent-length: 100\r\nretry-after: 7\r\n\r\nhalf")

    with receivers.listening(talk) as server:
        result = post(make(), url_of(server))

    assert (result.outcome, result.status_code, result.error) == (Outcome.UNSENT, 503, "http 503")
    assert (result.response_excerpt, result.retry_after) == ("half", 7)


# Deadlines


def test_a_receiver_that_never_answers_is_ambiguous_at_the_deadline(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        receivers.until_closed(connection)

    with receivers.listening(talk) as server:
        yields = list(make(timeout=0.5).send(iter([message_to(url_of(server))])))

    [result] = itertools.chain.from_iterable(yields)
    assert (result.outcome, result.status_code) == (Outcome.AMBIGUOUS, None)
    assert result.error == "timeout: no answer within 0.5 s"
    assert 490 <= result.duration_ms < 5_000
    assert len(yields) >= 4  # the caller had its turn while nothing happened


def test_an_answer_that_came_while_the_caller_did_something_else_counts(make: Make) -> None:
    """The caller records what has come, which may take as long as Postgres is locked or frozen."""
    answered = threading.Event()

    def talk(connection: socket.socket) -> None:
        for _ in range(2):  # on a kept connection, too
            receivers.read_request(connection)
            waited.wait(10)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            answered.set()

    provider = make(timeout=0.5)
    with receivers.listening(talk) as server:
        for _ in range(2):
            waited = threading.Event()
            answered.clear()
            calls = provider.send(iter([message_to(url_of(server))]))
            assert list(next(calls)) == []  # it is under way
            waited.set()
            assert answered.wait(10)
            time.sleep(1)
            [result] = itertools.chain.from_iterable(calls)
            assert (result.outcome, result.status_code, result.error) == (Outcome.ACCEPTED, 200, None)


def test_a_dripping_head_cannot_extend_the_deadline(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        receivers.drip(connection, b"x-a: b\r\n")

    with receivers.listening(talk) as server:
        result = post(make(timeout=0.5), url_of(server))

    assert (result.outcome, result.status_code) == (Outcome.AMBIGUOUS, None)
    assert result.error == "timeout: no answer within 0.5 s"
    assert result.duration_ms < 5_000


def test_a_dripping_body_is_cut_off_at_the_deadline_and_counts_by_its_status(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        receivers.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        receivers.drip(connection, b"x")

    with receivers.listening(talk) as server:
        result = post(make(timeout=0.5), url_of(server))

    assert (result.outcome, result.status_code) == (Outcome.ACCEPTED, 200)
    assert 490 <= result.duration_ms < 5_000


def test_a_receiver_that_does_not_read_is_ambiguous(make: Make) -> None:
    stop = threading.Event()

    def talk(_connection: socket.socket) -> None:
        stop.wait(timeout=10)

    with receivers.listening(talk) as server:
        result = post(make(timeout=0.5), url_of(server), json.dumps("x" * 20_000_000))
        stop.set()

    assert result.outcome is Outcome.AMBIGUOUS
    assert re.fullmatch(r"timeout: [0-9]+ of 20000002 bytes were taken within 0.5 s", result.error or "")


def test_a_connection_that_is_never_made_is_unsent(make: Make) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # nobody accepts; once the queue is full, further connections hang
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        result = post(make(timeout=0.5), f"http://127.0.0.1:{full.getsockname()[1]}/")

    assert result.outcome is Outcome.UNSENT
    assert result.error == "timeout: no connection within 0.5 s"


def test_a_tls_handshake_that_hangs_is_unsent(make: Make) -> None:
    with receivers.listening(receivers.until_closed) as server:
        result = post(make(timeout=0.5), url_of(server, scheme="https"))

    assert result.outcome is Outcome.UNSENT
    assert result.error == "timeout: no connection within 0.5 s"


def test_a_slow_receiver_does_not_hold_up_the_others(make: Make) -> None:
    def hang(connection: socket.socket) -> None:
        receivers.read_request(connection)
        receivers.until_closed(connection)

    with receivers.listening(hang) as silent, receivers.http() as (server, _):
        slow = message_to(url_of(silent))
        results = send(make(timeout=1.0, concurrency=2), slow, *[message_to(url_of(server)) for _ in range(20)])

    assert [result.outcome for result in results] == [Outcome.ACCEPTED] * 20 + [Outcome.AMBIGUOUS]
    assert results[-1].id == slow.id


# Network errors


def test_a_refused_connection_is_unsent(make: Make) -> None:
    result = post(make(), f"http://127.0.0.1:{receivers.unused_port()}/")

    assert (result.outcome, result.error) == (Outcome.UNSENT, "refused: connection refused")
    assert result.status_code is None


def test_a_name_that_does_not_resolve_is_unsent(make: Make) -> None:
    result = post(make(), "http://no-such-host.invalid/")

    assert (result.outcome, result.error) == (Outcome.UNSENT, "dns: the host's name does not resolve")


def test_tls_to_a_plain_port_is_unsent(make: Make) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(response(400))

    with receivers.listening(talk) as server:
        result = post(make(), url_of(server, scheme="https"))

    assert result.outcome is Outcome.UNSENT
    assert result.error is not None
    assert result.error.startswith("tls: ")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "example.com/hook",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "HTTP//127.0.0.1",
        "http://",
        "http://exa mple.com/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://[::1/",
        "http://127.0.0.1/\r\nhost: elsewhere",
        "http://127.0.0.1/\0",
        "http://127.0.0.1/\ud800",
    ],
)
def test_what_is_no_http_url_is_rejected(make: Make, url: str) -> None:
    result = post(make(), url)

    assert result.outcome is Outcome.REJECTED
    assert result.error == "url: not a URL that begins with http:// or https://"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://127.0.0.1:port/", "http://127.0.0.1/\0"])
def test_what_is_rejected_owes_nothing_to_the_request_before(make: Make, url: str) -> None:
    provider = make(concurrency=1)
    with receivers.http(response(503, b"busy", "retry-after: 5")) as (server, _):
        _, rejected, after = send(provider, message_to(url_of(server)), message_to(url), message_to(url_of(server)))

    assert (rejected.outcome, rejected.status_code) == (Outcome.REJECTED, None)
    assert (rejected.response_excerpt, rejected.retry_after) == (None, None)
    assert after.outcome is Outcome.UNSENT


# Retry-After


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("0", 0, 0),
        ("120", 120, 120),
        ("  7  ", 7, 7),
        ("86400", 86400, 86400),
        ("86401", 86400, 86400),
        ("9" * 5000, 86400, 86400),
        ("%a, %d %b %Y %H:%M:%S GMT", 3500, 3600),
        ("%A, %d-%b-%y %H:%M:%S GMT", 3500, 3600),
        ("%a %b %d %H:%M:%S %Y", 3500, 3600),
        (format_datetime(datetime.now(UTC) + timedelta(days=30), usegmt=True), 86400, 86400),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
    # Names without the time of day: every process of a run must collect the same.
    ids=["0", "120", "spaces", "a-day", "over-a-day", "long", "imf", "rfc850", "asctime", "a-month", "past"],
)
def test_retry_after_is_seconds_or_a_date(make: Make, status: int, value: str, least: float, most: float) -> None:
    if "%" in value:  # in an hour, as of now: the parameters are made minutes before
        value = (datetime.now(UTC) + timedelta(hours=1)).strftime(value)
    with receivers.http(response(status, b"", f"Retry-After:{value}")) as (server, _):
        retry_after = post(make(), url_of(server)).retry_after

    assert retry_after is not None
    assert least <= retry_after <= most


@pytest.mark.parametrize("value", ["", "-5", "1.5", "soon", "٣", "1e9", "0x10", "Wed, 99 Oct 2015", "1, 2"])
def test_a_retry_after_that_makes_no_sense_is_ignored(make: Make, value: str) -> None:
    with receivers.http(response(503, b"", f"retry-after: {value}")) as (server, _):
        result = post(make(), url_of(server))

    assert (result.outcome, result.retry_after) == (Outcome.UNSENT, None)


@pytest.mark.parametrize("status", [200, 404, 500])
def test_retry_after_counts_on_429_and_503_only(make: Make, status: int) -> None:
    with receivers.http(response(status, b"", "retry-after: 60")) as (server, _):
        assert post(make(), url_of(server)).retry_after is None


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "localhost",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
    ],
)
def test_no_way_of_writing_a_loopback_address_reaches_it(make: Make, host: str) -> None:
    with receivers.http() as (server, _):
        result = post(make(allowed=()), f"http://user:hunter2@{host}:{server.port}/")

        assert server.connections == 0
    assert result.outcome is Outcome.REJECTED
    assert result.error is not None
    assert result.error.startswith("address: ")
    assert result.error.endswith("; NOTIFIER_WEBHOOK_ALLOWED_NETWORKS can allow it")


def test_the_refusal_names_the_address_and_its_kind(make: Make) -> None:
    result = post(make(), "http://10.0.0.1/")

    assert result.error == "address: 10.0.0.1 is private; NOTIFIER_WEBHOOK_ALLOWED_NETWORKS can allow it"


def test_ports_can_be_limited() -> None:
    with receivers.http() as (allowed, _), receivers.http() as (other, _), ExitStack() as stack:
        keys = [webhook_signatures.key_of(SECRET)]
        provider = Webhooks(keys=keys, allowed_networks=(LOOPBACK,), timeout=5, allowed_ports=[allowed.port])
        stack.callback(provider.close)
        assert post(provider, url_of(allowed)).outcome is Outcome.ACCEPTED
        refused = post(provider, url_of(other))

        assert other.connections == 0
    assert refused.outcome is Outcome.REJECTED
    assert refused.error == f"address: port {other.port} is not allowed; NOTIFIER_WEBHOOK_ALLOWED_PORTS can allow it"


def test_an_allowed_network_can_be_reached_and_no_other(make: Make) -> None:
    provider = make(allowed=(ip_network("127.0.0.1/32"),))
    with receivers.http() as (server, _):
        assert post(provider, url_of(server)).outcome is Outcome.ACCEPTED
        assert post(provider, f"http://localhost:{server.port}/").outcome is Outcome.ACCEPTED
        refused = post(provider, f"http://127.0.0.2:{server.port}/")

    assert refused.outcome is Outcome.REJECTED


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "private"),
        ("10.0.0.1", "private"),
        ("100.64.0.1", "shared"),
        ("100.127.255.255", "shared"),
        ("127.255.0.1", "loopback"),
        ("168.63.129.16", "metadata"),
        ("169.254.169.254", "link-local"),
        ("172.31.255.255", "private"),
        ("192.0.0.192", "reserved"),
        ("192.0.2.1", "private"),
        ("192.88.99.1", "reserved"),
        ("192.168.0.1", "private"),
        ("198.19.0.1", "private"),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::7f00:1", "reserved"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::808:808", "reserved"),
        ("2001::1", "private"),
        ("2001:db8::1", "private"),
        ("2002:7f00:1::1", "loopback"),
        ("3fff::1", "reserved"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("fec0::1", "reserved"),
        ("ff02::1", "multicast"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str, kind: str) -> None:
    assert refusal(address, ()) == f"{address} is {kind}"
    assert refusal(address, [ip_network(address)]) is None


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"],
)
def test_public_addresses_are_not_refused(address: str) -> None:
    assert refusal(address, ()) is None


def test_an_allowed_network_covers_the_forms_that_carry_its_addresses() -> None:
    assert refusal("::ffff:10.1.2.3", [ip_network("10.1.0.0/16")]) is None
    assert refusal("::ffff:10.2.2.3", [ip_network("10.1.0.0/16")]) is not None
