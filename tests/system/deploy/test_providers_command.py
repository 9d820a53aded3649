"""manage.py providers: listed, and tried out."""

import pytest

from tests.providers import receivers
from tests.support.commands import manage, succeed
from tests.support.receivers import SmtpReceiver
from tests.support.running import Running


@pytest.fixture
def env(system: Running) -> dict[str, str]:
    """The shared system's environment."""
    return system.environment


# --- providers


def test_providers_are_listed_without_their_secrets(env: dict[str, str], smtp: SmtpReceiver) -> None:
    sms = "twilio://AC1:s3cret@default?from=%2B15550100&weight=80, outbox:?name=spare&rate=14"
    dsns = {"NOTIFIER_SMS": sms, "NOTIFIER_PUSH": ""}
    listed = succeed("providers", "list", environment={**env, **dsns})
    rows = [line.strip("│┃ ").split("│") for line in listed.splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["email", "smtp", smtp.dsn.removeprefix("smtp://"), "", "", "30 s"],
        ["sms", "twilio", "its own", "80", "", "15 s"],
        ["spare", "its own", "", "14/s", "10 s"],
        ["push", "none", "refused at intake: NOTIFIER_PUSH is not set"],
        ["chat", "outbox", "its own", "", "", "10 s"],
    ]
    assert "s3cret" not in listed


def test_a_worker_does_not_start_with_a_malformed_provider(env: dict[str, str]) -> None:
    done = manage("worker", "fresh", environment={**env, "NOTIFIER_SMS": "twilio://"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: NOTIFIER_SMS has no account: twilio://SID:TOKEN@default?from=+15550100\n"


def test_providers_that_cannot_be_made_are_one_line(env: dict[str, str]) -> None:
    done = manage("providers", "list", environment={**env, "NOTIFIER_SMS": "outbox:, outbox:?rate=often"})
    assert (done.returncode, done.stdout) == (1, "")
    said = "NOTIFIER_SMS, provider 2 of 2, has a rate that is not a number of messages a second, such as 14 or 0.5"
    assert done.stderr == f"Error: {said}\n"


@pytest.mark.parametrize("command", [["outbox"], ["dlq", "list"]])
def test_channels_are_named_as_everywhere(env: dict[str, str], command: list[str]) -> None:
    succeed(*command, "--channel", "sms", environment=env)


def test_a_provider_is_tried_out(env: dict[str, str], system: Running, smtp: SmtpReceiver) -> None:
    told = succeed("providers", "test", "email", "tried-out@example.com", "--text", "Does it work?", environment=env)
    assert "accepted" in told
    assert "took it over" in told
    [mail] = smtp.mails_to("tried-out@example.com")
    assert mail.get_content().strip() == "Does it work?"
    assert not system.sql("SELECT FROM notifications WHERE recipient = 'tried-out@example.com'")


def test_what_a_provider_says_is_told(env: dict[str, str]) -> None:
    with receivers.http(receivers.response(401, b'{"code": 20003, "status": 401}')) as (server, _):
        dsn = f"twilio://AC1:s3cret@127.0.0.1:{server.port}?from=%2B15550100&tls=none"
        done = manage("providers", "test", "sms", "+4915112345678", environment={**env, "NOTIFIER_SMS": dsn})
    assert done.returncode == 1
    for words in ("unsent", "http 401", "certainly not sent", "its credentials"):
        assert words in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("email", "nobody"), "Not an email address"),
        (("webhook", "https://example.com"), "'webhook' is not one of"),
        (("sms",), "Missing argument 'RECIPIENT'"),
    ],
)
def test_what_cannot_be_tried_out(env: dict[str, str], arguments: tuple[str, ...], words: str) -> None:
    done = manage("providers", "test", *arguments, environment=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_one_of_several_providers_is_tried_out(env: dict[str, str], smtp: SmtpReceiver) -> None:
    several = {**env, "NOTIFIER_EMAIL": f"smtp://127.0.0.1:9?tls=none, {smtp.dsn}?tls=none&name=spare"}
    told = succeed("providers", "test", "email", "spare@example.com", "--provider", "spare", environment=several)
    assert "accepted" in told
    assert len(smtp.mails_to("spare@example.com")) == 1
    done = manage("providers", "test", "email", "spare@example.com", environment=several)
    assert (done.returncode, "refused: connection refused" in done.stdout) == (1, True)
    done = manage("providers", "test", "email", "spare@example.com", "--provider", "other", environment=several)
    assert done.stderr == "Error: There is no provider 'other'; there are: smtp, spare.\n"
