"""Redis over TLS with a password: its certificate is verified by everything that speaks to it."""

import select
import socket
from collections.abc import Iterator

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from config.broker import celery_settings, limits_storage, redis_client
from config.settings import Settings, read_settings
from deploy.embedded import EmbeddedValkey
from tasks.queue_depth import depth
from tests.providers import receivers


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> receivers.Certificate:
    """The server's, which names 127.0.0.1 and which nobody vouches for but itself."""
    return receivers.certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def port(valkey: EmbeddedValkey, certificate: receivers.Certificate) -> Iterator[int]:
    """The port on which the real server is reached over TLS."""

    def forward(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", valkey.port)) as server:
            other = {client: server, server: client}
            while True:
                for ready in select.select(list(other), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    other[ready].sendall(data)

    with receivers.listening(forward, certificate.server_context()) as listener:
        yield listener.port


def _settings(valkey: EmbeddedValkey, port: int, host: str, options: str) -> Settings:
    userinfo = valkey.url.removeprefix("redis://").partition("@")[0]
    url = f"rediss://{userinfo}@{host}:{port}/0{options}"
    return read_settings({"DATABASE_URL": "postgresql://localhost/notifier", "REDIS_URL": url})


def _broker_answers(settings: Settings) -> None:
    made = celery_settings(settings)
    with Connection(
        made["broker_url"], ssl=made["broker_use_ssl"], transport_options=made["broker_transport_options"]
    ) as connection:
        depth(connection, "clock")


def test_a_certificate_that_is_vouched_for_is_taken(
    valkey: EmbeddedValkey, certificate: receivers.Certificate, port: int
) -> None:
    settings = _settings(valkey, port, "127.0.0.1", f"?ssl_ca_certs={certificate.file}")
    _broker_answers(settings)
    with redis_client(settings, 2) as client:
        assert client.ping()
    assert limits_storage(settings, 2).check()


@pytest.mark.parametrize("fault", ["vouched for by nobody", "of another name"])
def test_another_certificate_is_refused(
    valkey: EmbeddedValkey, certificate: receivers.Certificate, port: int, fault: str
) -> None:
    settings = (
        _settings(valkey, port, "127.0.0.1", "")
        if fault == "vouched for by nobody"
        else _settings(valkey, port, "localhost", f"?ssl_ca_certs={certificate.file}")
    )
    with pytest.raises(OperationalError, match="certificate verify failed"):
        _broker_answers(settings)
    with redis_client(settings, 2) as client, pytest.raises(RedisError, match="certificate verify failed"):
        client.ping()
    assert not limits_storage(settings, 2).check()


def test_verification_can_be_switched_off_by_name(valkey: EmbeddedValkey, port: int) -> None:
    settings = _settings(valkey, port, "localhost", "?ssl_cert_reqs=none")
    _broker_answers(settings)
    with redis_client(settings, 2) as client:
        assert client.ping()
