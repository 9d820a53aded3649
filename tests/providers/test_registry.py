"""From DSNs to providers, and the provider of docs/providers.md, which somebody else has written."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context, parse
from notifier.providers.protocol import Fault, Message, Outcome
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.providers import receivers
from tests.providers.receivers import response
from tests.support.paths import ROOT


def context(channel: Channel = Channel.SMS) -> Context:
    engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    return Context(channel, 5.0, "notifier@example.com", "http://localhost:8000", (), engine)


def block(language: str) -> str:
    """The one code block of docs/providers.md in a language."""
    text = (ROOT / "docs/providers.md").read_text(encoding="utf-8")
    [found] = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.fixture(autouse=True)
def _looked_for_anew() -> Iterator[None]:
    """Installed providers are looked for once in a process, and these tests install more."""
    registry._installed.cache_clear()
    yield
    registry._installed.cache_clear()


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example, as pip would leave it."""
    project = tomllib.loads(block("toml"))
    [module] = project["tool"]["setuptools"]["py-modules"]
    (tmp_path / f"{module}.py").write_text(block("python"), encoding="utf-8")
    info = tmp_path / "notifier_acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: notifier-acme\nVersion: 1.0\n")
    entries = project["project"]["entry-points"]["notifier.providers"]
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[notifier.providers]", *lines, ""]))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("answer", "outcome", "fault", "message_id"),
    [
        (response(202, b'{"id": "a-1"}'), Outcome.ACCEPTED, None, "a-1"),
        (response(202, b"<html>"), Outcome.AMBIGUOUS, Fault.PROVIDER, None),
        (response(409), Outcome.ACCEPTED, None, None),
        (response(422, b'{"code": "unknown_number"}'), Outcome.REJECTED, Fault.RECIPIENT, None),
        (response(422, b'{"code": "credit_exhausted"}'), Outcome.UNSENT, Fault.PROVIDER, None),
        (response(422, b'{"code": "else"}'), Outcome.REJECTED, None, None),
        (response(429, b"", "retry-after: 3"), Outcome.UNSENT, Fault.THROTTLED, None),
        (response(500), Outcome.UNSENT, Fault.PROVIDER, None),
    ],
    ids=["yes", "a-proxy", "again", "nobody", "no-credit", "other", "throttled", "down"],
)
def test_the_example(answer: bytes, outcome: Outcome, fault: Fault | None, message_id: str | None) -> None:
    message = Message(id=new_id(), recipient="+4915112345678", subject=None, text="Grüße")
    with (
        receivers.http(answer) as (server, received),
        closing(registry.make(f"acme://s%2Fecret@127.0.0.1:{server.port}?tls=none", context())) as provider,
    ):
        [result] = itertools.chain.from_iterable(provider.send(iter([message])))
    assert (result.outcome, result.fault, result.message_id) == (outcome, fault, message_id)
    assert result.provider == "acme"
    [request] = received
    assert request.headers["authorization"] == "Bearer s/ecret"
    assert result.request_headers is not None
    assert "s/ecret" not in str(result.request_headers)


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    "dsn", ["acme://default", "acme://T:P@default", "acme://T@default/x", "acme://T@default?from=1"]
)
def test_what_a_factory_says_is_told(dsn: str) -> None:
    with pytest.raises(ValueError, match=r"is not acme|has an option 'from'"):
        registry.make(dsn, context())


@pytest.mark.parametrize(
    ("dsn", "channel", "words"),
    [
        ("nobody://x", Channel.SMS, "begins with 'nobody'; known are messagebird:, outbox:, plivo:, twilio:, vonage:"),
        ("smtp://mail.example.com", Channel.SMS, "begins with 'smtp'; known are"),
        ("s3cret", Channel.SMS, "begins with no scheme"),
        ("x://a?b=1&b=2", Channel.SMS, "has an option twice"),
        ("x://a:b", Channel.SMS, "is not a DSN"),
        ("x://[::1", Channel.SMS, "is not a DSN"),
        ("x://a?=&&b", Channel.SMS, "is not a DSN"),
    ],
)
def test_a_dsn_that_cannot_be_understood(dsn: str, channel: Channel, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        registry.make(dsn, context(channel))
    assert "s3cret" not in str(caught.value)


def test_a_dsn_shows_no_secret() -> None:
    dsn = parse("x://us%40er:s3cret@h:1/p?token=s3cret")
    assert (dsn.username, dsn.password, dsn.host, dsn.port, dsn.path) == ("us@er", "s3cret", "h", 1, "/p")
    assert "s3cret" not in repr(dsn)
    assert dsn.base_url("https://vendor.example") == "https://h:1"
    assert parse("x://k@default").base_url("https://vendor.example") == "https://vendor.example"
    assert parse("x://k@[::1]:2?tls=none").base_url("") == "http://[::1]:2"


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "lacking-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lacking\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[notifier.providers]\nlacking = lacking_module:provider\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match="begins with 'lacking', and that needs lacking_module, which is not installed"
    ):
        registry.make("lacking://x", context())


def test_a_host_of_any_script_is_asked_for_in_ascii() -> None:
    assert parse("smtp://mail.bücher.example:25").host == "mail.xn--bcher-kva.example"
    with pytest.raises(ValueError, match="IDNA 2008"):
        parse("smtp://☃.example")
