"""Webhooks: the outcome of each answer."""

import gzip
import itertools
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from notifier.providers.protocol import EXCERPT, Outcome
from tests.providers import receivers
from tests.providers.receivers import response
from tests.providers.webhook_calls import Make, making, message_to, post, send, url_of


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as made:
        yield made


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
