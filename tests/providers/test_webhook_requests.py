"""Webhooks: the request that a receiver gets."""

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from notifier import VERSION
from notifier.providers.protocol import Outcome
from notifier.providers.vendors.webhook import Webhooks
from notifier.security import webhook_signatures
from tests.providers import receivers
from tests.providers.receivers import response
from tests.providers.webhook_calls import LOOPBACK, SECRET, Make, making, message_to, post, send, url_of


@pytest.fixture
def make() -> Iterator[Make]:
    with making() as made:
        yield made


# The request


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
    with receivers.http() as (server, received):
        post(make(), url_of(server))

    assert received[0].headers["user-agent"] == f"Notifier/{VERSION}"


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
