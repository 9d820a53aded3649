"""Settings: parsed once, refused in one line."""

import json
import os
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from config.parsers import parse_duration
from config.settings import STACK_FILE, SettingsError, read_settings, running_stack, unknown_settings
from notifier.security.webhook_signatures import new_secret
from notifier.vocabulary.states import Channel

URL = {"DATABASE_URL": "postgresql://localhost/notifier"}


def test_defaults_are_safe() -> None:
    settings = read_settings(URL)
    assert settings.auth == "required"
    assert settings.of(Channel.EMAIL).providers == ()
    assert settings.of(Channel.WEBHOOK).providers == ()
    assert settings.webhook_allowed_networks == ()
    assert settings.broker == "redis://127.0.0.1:6379/0"


def test_values_are_parsed() -> None:
    settings = read_settings(
        {
            **URL,
            "BROKER_URL": "amqp://localhost",
            "NOTIFIER_WEBHOOK_RETRY_BACKOFF": "PT1M",
            "NOTIFIER_WEBHOOK_MAX_RETRIES": "3",
            "NOTIFIER_RETRY_JITTER": "false",
            "NOTIFIER_IDEMPOTENCY_TTL": "P1DT12H",
            "NOTIFIER_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8, ::1/128",
            "NOTIFIER_EMAIL": "smtp://a, smtp://b",
            "NOTIFIER_METRICS_ADDRESS": "[::1]:9090",
        }
    )
    assert settings.metrics_address == ("::1", 9090)
    policy = settings.of(Channel.WEBHOOK).retry_policy
    assert (policy.backoff, policy.max_retries, policy.jitter) == (60, 3, False)
    assert settings.idempotency_ttl == timedelta(hours=36)
    assert settings.webhook_allowed_networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert settings.of(Channel.EMAIL).providers == ("smtp://a", "smtp://b")
    assert settings.broker == "amqp://localhost"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOTIFIER_WEBHOOK_MAX_RETRIES", "-1"),
        ("NOTIFIER_WEBHOOK_MAX_RETRIES", "many"),
        ("NOTIFIER_WEBHOOK_RETRY_BACKOFF", "1.5"),
        ("NOTIFIER_WEBHOOK_RETRY_BACKOFF", "P1Y"),
        ("NOTIFIER_RETRY_JITTER", "maybe"),
        ("NOTIFIER_METRICS_ADDRESS", "9090"),
        ("NOTIFIER_METRICS_ADDRESS", ":9090"),
        ("NOTIFIER_METRICS_ADDRESS", "127.0.0.1:0"),
        ("NOTIFIER_METRICS_ADDRESS", "127.0.0.1:http"),
        ("NOTIFIER_AUTH", "none"),
        ("NOTIFIER_IDEMPOTENCY_TTL", "PT"),
        ("NOTIFIER_RETENTION", "PT23H"),
        ("NOTIFIER_DEAD_LETTER_RETENTION", "0"),
        ("NOTIFIER_AUDIT_RETENTION", "0"),
        ("NOTIFIER_WEBHOOK_ALLOWED_NETWORKS", "127.0.0.1/8"),
        ("NOTIFIER_WEBHOOK_SECRET", "hunter2"),
        ("NOTIFIER_WEBHOOK_SHARED_SECRET", "hunter2"),
        ("NOTIFIER_EMAIL_FROM", "nobody"),
        ("NOTIFIER_EMAIL_FROM", "hunter2@"),
        ("NOTIFIER_EMAIL_FROM", "Ada <=?utf-8?q?ada?=@example.org>"),
        ("NOTIFIER_EMAIL_FROM", "a@example.org, b@example.org"),
        ("NOTIFIER_PUBLIC_URL", "https://"),
        ("NOTIFIER_PUBLIC_URL", "https://☃.example"),
        *(
            (name, f"{scheme}://u:hunter2@host:0/x")
            for name, scheme in (("DATABASE_URL", "postgresql"), ("REDIS_URL", "redis"))
        ),
        ("BROKER_URL", "amqp://guest:hunter2@[::1]:0/"),
        ("REDIS_URL", "sentinel://:hunter2@one:26379,two:0/0"),
        ("NOTIFIER_PUBLIC_URL", "https://notify.example.com:0"),
        ("NOTIFIER_BOUNCES", "imaps://u:hunter2@host:0/INBOX"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:0"),
        ("NOTIFIER_ALLOWED_HOSTS", "notifier.test:0"),
        ("NOTIFIER_WEBHOOK_ALLOWED_PORTS", "0"),
        ("DATABASE_URL", "mysql://localhost"),
        ("REDIS_URL", "localhost"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line_without_its_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_settings({**URL, name: value})
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("NOTIFIER_EMAIL_FORM", "NOTIFIER_EMAIL_FROM is the nearest one"),
        ("NOTIFIER_RETENTION_TIME", "NOTIFIER_RETENTION is the nearest one"),
        ("NOTIFIER_NO_SUCH_THING", "docs/settings.md lists those there are"),
    ],
)
def test_a_setting_that_nobody_knows_stops_nothing_and_is_named(name: str, nearest: str) -> None:
    environ = {**URL, name: "hunter2", "NOTIFIER_DATA_DIR": "x"}
    read_settings(environ)
    assert unknown_settings(environ) == [f"{name} is not a setting of this release; {nearest}"]


@pytest.mark.parametrize(
    "sender", ["notifier@localhost", "Büro <büro@bücher.example>", '"Shop, Inc." <a@shop.example>']
)
def test_a_sender_is_a_mailbox(sender: str) -> None:
    assert read_settings({**URL, "NOTIFIER_EMAIL_FROM": sender}).email_from == sender


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("https://bücher.example/ü/", "https://xn--bcher-kva.example/%C3%BC/"),
    ],
)
def test_links_are_in_ascii(given: str, read: str) -> None:
    assert read_settings({**URL, "NOTIFIER_PUBLIC_URL": given}).public_url == read


def test_without_a_database_the_message_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match=r"DATABASE_URL .* 'manage.py up'"):
        read_settings({})


def test_an_empty_value_counts_as_unset() -> None:
    assert read_settings({**URL, "NOTIFIER_EMAIL": "", "BROKER_URL": ""}).broker_url is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0.5", 0.5), ("PT90S", 90), ("P1D", 86400), ("P1W", 604800), ("P1DT2H3M4S", 93784)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "P1", "1h", "-5", "P1Y", "P1M", "P1DT", "1e3", "9" * 30])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_running_stack_is_found_by_its_folder_and_a_dead_one_is_not(tmp_path: Path) -> None:
    stack = {"pid": os.getpid(), "environment": {"DATABASE_URL": "postgresql://x"}}
    (tmp_path / STACK_FILE).write_text(json.dumps(stack))
    assert running_stack({"NOTIFIER_DATA_DIR": str(tmp_path)}) == {"DATABASE_URL": "postgresql://x"}
    (tmp_path / STACK_FILE).write_text(json.dumps({**stack, "pid": 2**22 + 1}))
    assert running_stack({"NOTIFIER_DATA_DIR": str(tmp_path)}) == {}
    (tmp_path / STACK_FILE).write_text("{")
    assert running_stack({"NOTIFIER_DATA_DIR": str(tmp_path)}) == {}


def test_a_shared_secret_signs_until_it_is_ended() -> None:
    root, old = new_secret(), new_secret()
    base = {**URL, "NOTIFIER_WEBHOOK_SECRET": root}
    assert read_settings(base).shared_webhook_secrets == (root,)
    assert read_settings({**base, "NOTIFIER_WEBHOOK_SHARED_SECRET": old}).shared_webhook_secrets == (old,)
    assert read_settings({**base, "NOTIFIER_WEBHOOK_SHARED_SECRET": "none"}).shared_webhook_secrets == ()
    assert read_settings(URL).shared_webhook_secrets == ()


def test_a_webhook_secret_makes_the_channel_usable() -> None:
    assert read_settings({**URL, "NOTIFIER_WEBHOOK_SECRET": new_secret()}).of(Channel.WEBHOOK).providers
