"""The server of metrics leaves nothing behind when it is closed."""

import socket
import threading

import pytest
from prometheus_client import CollectorRegistry

from config.metrics_server import MetricsServer


def test_a_server_that_is_closed_has_no_thread() -> None:
    before = set(threading.enumerate())
    with MetricsServer(CollectorRegistry(), ("127.0.0.1", 0), "token") as server:
        server.start()
        [thread] = set(threading.enumerate()) - before
    assert not thread.is_alive()


def test_one_that_serves_from_no_thread_is_closed() -> None:
    with MetricsServer(CollectorRegistry(), ("127.0.0.1", 0), "token") as server:
        assert server.socket.fileno() > 0
    assert server.socket.fileno() == -1


def test_an_address_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="Address already in use"):
        MetricsServer(CollectorRegistry(), taken.getsockname(), "token")
