"""Providers whose wires are servers of the test."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import Engine

from config.providers import make_providers
from config.settings import read_settings
from notifier.providers.failover import Providers
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.vendors import twilio
from tests.support.failing_over import Open, Wire


@pytest.fixture
def made(engine: Engine) -> Iterator[Open]:
    """Makes the providers of a channel for some wires, in order of preference."""
    with ExitStack() as stack:

        def make(*wires: Wire | int, options: tuple[str, ...] = (), timeout: float = 2.0) -> Providers:
            dsns = []
            for wire, more in itertools.zip_longest(wires, options, fillvalue=""):
                port = wire
                if isinstance(wire, Wire):
                    server, wire.received = stack.enter_context(receivers.http(wire.answer))
                    port = server.port
                dsns.append(f"twilio://{twilio.ACCOUNT}:secret@127.0.0.1:{port}?from=%2B15550100&tls=none{more}")
            url = engine.url.render_as_string(hide_password=False)
            settings = read_settings(
                {
                    "DATABASE_URL": url.replace("+psycopg2", ""),
                    "NOTIFIER_SMS": ", ".join(dsns),
                    "NOTIFIER_SMS_TIMEOUT": f"{timeout}",
                }
            )
            providers = make_providers(settings, Channel.SMS, engine)
            stack.callback(providers.close)
            return providers

        yield make
