"""docs/guide.md: what a reader types works, and does what the text says."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
from standardwebhooks import Webhook

from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, reaches, wait_for

GUIDE = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
#: Its sections by their headings; what stands before the first one is under "".
SECTIONS = dict(
    zip(
        ["", *re.findall(r"^## (.+)$", GUIDE, re.MULTILINE)],
        re.split(r"^## .+$", GUIDE, flags=re.MULTILINE),
        strict=True,
    )
)
#: The beginnings of those that hold commands: each is followed below.
FOLLOWED = (
    *(
        "A password expires",
        '"Order updates',
        '"No push',
        "An outage",
        "Words: templates",
        "In the words",
        "One message without",
    ),
    *("Later, moved", "The first channel", "Not twice", "Services that listen", "Holding everything", "Trying it out"),
    *("Find a message", "Why not?"),
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def section(beginning: str) -> str:
    """The section whose heading begins so."""
    if not beginning:
        return SECTIONS[""]
    [text] = [text for heading, text in SECTIONS.items() if heading.startswith(beginning)]
    return text


class Reader:
    """Somebody who follows the guide, on a system of their own."""

    def __init__(self, system: Running, folder: Path) -> None:
        self.system = system
        self.folder = folder
        #: Where the receiver listens that the guide has on port 9000.
        self.receiver = "http://127.0.0.1:9000"

    def follow(self, beginning: str) -> list[Any]:
        """Type what a section says, one thing after the other; returns the decoded answers."""
        answers: list[Any] = []
        text = section(beginning)
        for language, block in BLOCK.findall(text):
            if language == "yaml":
                [name] = set(re.findall(r"`(\w+\.yaml)`", text))
                (self.folder / name).write_text(block)
                continue
            assert language == "sh", language
            for line in block.replace("\\\n", " ").replace(",\n", ", ").splitlines():
                answer = self._type(shlex.split(line), answers)
                if answer is not None:
                    answers.append(answer)
                    if "event_type" in answer and "duplicate" in answer:
                        self.made_of(answer)  # nobody types faster than events are fanned out
        return answers

    def _type(self, words: list[str], answers: list[Any]) -> Any:
        if words[0] == "curl":
            answer = self._curl(words[1:], answers)
            assert answer.ok, f"{words}: {answer.status_code} {answer.text}"
            return answer.json() if answer.content else {}
        assert words[:2] == [".venv/bin/python", "manage.py"]
        command = [sys.executable, ROOT / "manage.py", *words[2:]]
        subprocess.run(command, env={**self.system.environment, "PYTHONPATH": str(ROOT)}, cwd=self.folder, check=True)
        return None

    def _curl(self, words: list[str], answers: list[Any]) -> requests.Response:
        options: dict[str, str] = {}
        urls = []
        while words:
            word = words.pop(0)
            if word.startswith("-"):
                options[word] = words.pop(0)
            else:
                urls.append(word)
        assert set(options) <= {"-X", "--json"}, options
        [url] = urls
        assert url.startswith("localhost:8000/"), url
        path = url.removeprefix("localhost:8000")
        if "/ID" in path:
            made = next(answer["items"] for answer in answers if "items" in answer)
            path = path.replace("ID", made[0]["id"])
        if "/SUBSCRIPTION" in path:
            path = path.replace("SUBSCRIPTION", next(answer["id"] for answer in answers if "secret" in answer))
        body = options.get("--json")
        body = body and body.replace("http://127.0.0.1:9000", self.receiver)
        method = options.get("-X", "GET" if body is None else "POST")
        decoded = None if body is None else json.loads(body)
        return self.system.http.request(method, self.system.url + path, json=decoded, timeout=20)

    def made_of(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what became of an event that was posted."""
        path = f"/api/v1/events/{event['id']}"
        wait_for(lambda: self.system.get(path).json()["status"] == "processed")
        return self.system.notifications(event["id"])

    def wait_until(self, notification: dict[str, Any], status: str) -> dict[str, Any]:
        """A notification once it has a status."""
        wait_for(lambda: self.system.notification(notification["id"])["status"] == status, what=status)
        return self.system.notification(notification["id"])


@pytest.fixture(scope="module")
def reader(new_system: Callable[..., Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Who has read the beginning."""
    system = new_system()
    try:
        system.start()
        reader = Reader(system, tmp_path_factory.mktemp("guide"))
        reader.follow("")
        yield reader
    finally:
        system.stop()


def by_channel(made: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["channel"]: each for each in made}


def test_a_password_expires(reader: Reader) -> None:
    first, second, cancelled = reader.follow("A password expires")
    old, new = by_channel(reader.made_of(first)), by_channel(reader.made_of(second))
    assert {channel: each["route"] for channel, each in old.items()} == {
        "email": "password-expiring-email",
        "sms": "password-expiring-sms",
    }
    berlin = ZoneInfo("Europe/Berlin")
    # A cancelled notification has no due_at any more; what was planned is what the same event plans again.
    again = reader.system.event(
        event_type="password.expiring", payload={"user_id": "u_ada", "expires_at": "2035-03-30T09:00:00+02:00"}
    )
    planned = by_channel(reader.made_of({"id": again}))
    assert {each["status"] for each in planned.values()} == {"scheduled"}
    due = {channel: datetime.fromisoformat(each["due_at"]) for channel, each in planned.items()}
    assert due["email"] == datetime(2035, 3, 23, 9, tzinfo=berlin)
    assert due["sms"] == datetime(2035, 3, 29, 9, tzinfo=berlin)
    assert {(each["status"], each["reason"]) for each in old.values()} == {("cancelled", "replaced")}
    assert {each["status"] for each in new.values()} == {"cancelled"}
    assert cancelled == {"cancelled": 2, "too_late": 0}
    # Their day has come.
    reader.system.sql("UPDATE notifications SET due_at = now() WHERE status = 'scheduled'")
    for channel, address in (("email", "ada@example.com"), ("sms", "+4915112345678")):
        assert reader.wait_until(planned[channel], "sent")["recipient"] == address


@pytest.mark.parametrize(
    ("days", "status"), [(3, {"email": "sent", "sms": "scheduled"}), (-1, {"email": "expired", "sms": "expired"})]
)
def test_a_password_that_has_less_than_a_week_left(reader: Reader, days: int, status: dict[str, str]) -> None:
    reader.follow("A password expires")
    expires_at = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    payload = {"user_id": "u_ada", "expires_at": expires_at}
    made = by_channel(reader.made_of({"id": reader.system.event(event_type="password.expiring", payload=payload)}))
    for channel, expected in status.items():
        reader.wait_until(made[channel], expected)


def test_order_updates_by_email_only(reader: Reader) -> None:
    *_, event = reader.follow('"Order updates')
    made = by_channel(reader.made_of(event))
    reader.wait_until(made["email"], "sent")
    for channel in ("sms", "push"):
        assert reader.wait_until(made[channel], "skipped")["reason"] == "opted_out"
    other = reader.system.event(event_type="invoice.due", user_id="u_ben", category="invoices")
    for each in reader.made_of({"id": other}):
        reader.wait_until(each, "sent")


def test_no_push_at_night(reader: Reader) -> None:
    *_, checked, event = reader.follow('"No push')
    assert (checked["allowed"], checked["at"], checked["rule"]) == (True, "2035-01-16T06:00:00Z", "quiet_hours")
    reader.wait_until(by_channel(reader.made_of(event))["email"], "sent")
    # Wherever it is two o'clock at night just now, the push of the same event waits for seven.
    offset = (2 - datetime.now(UTC).hour) % 24
    zone = f"Etc/GMT{-offset if offset <= 12 else 24 - offset:+}"
    night = {"push_tokens": ["token-night"], "email": "night@example.com", "timezone": zone}
    user = f"{reader.system.url}/api/v1/users/u_night"
    assert reader.system.http.put(user, json=night, timeout=20).ok
    rules = reader.system.get("/api/v1/users/u_cleo/preferences").json()
    assert reader.system.http.put(f"{user}/preferences", json=rules, timeout=20).ok
    made = by_channel(reader.made_of({"id": reader.system.event(event_type="comment.added", user_id="u_night")}))
    reader.wait_until(made["email"], "sent")
    push = wait_for(
        lambda: next(iter([n for n in [reader.system.notification(made["push"]["id"])] if n["reason"]]), None)
    )
    assert (push["status"], push["reason"]) == ("scheduled", "quiet_hours")
    ends = datetime.fromisoformat(push["due_at"]).astimezone(ZoneInfo(zone))
    assert (ends.hour, ends.minute) == (7, 0)


def test_an_outage(reader: Reader) -> None:
    *_, event = reader.follow("An outage")
    made = by_channel(reader.made_of(event))
    assert set(made) == {"sms", "push"}
    for each in made.values():
        sent = reader.wait_until(each, "sent")
        assert (sent["user_id"], sent["priority"], sent["critical"]) == ("u_dora", "high", True)
    # Without `critical` all of it would have held.
    other = reader.system.event(event_type="disk.full", user_id="u_dora", category="alarms")
    for each in reader.made_of({"id": other}):
        reader.wait_until(each, "skipped")


def test_templates(reader: Reader) -> None:
    first, german, preview, event = reader.follow("Words: templates")
    assert (first["version"], german["version"]) == (1, 1)
    assert preview["subject"] == "Willkommen, Ada"
    [made] = reader.made_of(event)
    reader.wait_until(made, "sent")
    [row] = reader.system.sql("SELECT subject, text FROM outbox WHERE notification_id = :id", id=made["id"])
    assert tuple(row) == ("Willkommen, Ada", "Schön, dass du da bist.")


def test_in_the_words_of_other_systems(reader: Reader) -> None:
    reader.follow("Words: templates")  # of which it uses one
    event, notified, sent = reader.follow("In the words")
    assert event["event_type"] == "user.signup"
    for answer in (notified, sent):
        reader.wait_until(answer["items"][0], "sent")


def test_later_moved_cancelled(reader: Reader) -> None:
    made, moved, cancelled = reader.follow("Later, moved, cancelled")
    due = [datetime.fromisoformat(each["due_at"]) for each in (made["items"][0], moved)]
    assert due == [datetime(2035, 12, 1, 12, tzinfo=UTC), datetime(2036, 12, 1, 12, tzinfo=UTC)]
    assert cancelled["status"] == "cancelled"


def test_the_first_channel_that_works(reader: Reader) -> None:
    [made] = reader.follow("The first channel that works")
    channels = by_channel(made["items"])
    assert (channels["chat"]["status"], channels["chat"]["reason"]) == ("skipped", "no_address")
    assert reader.wait_until(channels["push"], "sent")["follows"] == channels["chat"]["id"]
    assert "sms" not in channels


def test_not_twice(reader: Reader) -> None:
    [[first], [second]] = [reader.follow("Not twice")[0]["items"] for _ in range(2)]
    # Two workers may take them at the same moment: which of them goes is nobody's promise.
    ends = [reaches(reader.system, each["id"], "sent", "skipped") for each in (first, second)]
    assert sorted((end["status"], end["reason"]) for end in ends) == [("sent", None), ("skipped", "duplicate")]


def test_services_that_listen(reader: Reader, http: HttpReceiver) -> None:
    reader.receiver = http.url("")
    made, tried, paid, listed, rotated, _, missed, enabled, recovery, recoveries = reader.follow("Services that listen")
    assert made["secret"] != rotated["secret"]
    assert paid["id"] in {each["event_id"] for each in listed["items"]}
    assert tried["subscription_id"] == enabled["id"] == made["id"]
    assert enabled["recovery"]["recovered"] == 1
    assert recovery["recovered"] == 0
    assert [each["id"] for each in recoveries["items"]] == [recovery["id"], enabled["recovery"]["id"]]
    wait_for(lambda: len(http.received("/orders")) == 3)
    received = {each.json["id"]: each for each in http.received("/orders")}
    assert set(received) == {tried["id"], paid["id"], missed["id"]}
    assert {each.headers["x-tenant"] for each in received.values()} == {"42"}
    Webhook(made["secret"]).verify(received[paid["id"]].body, dict(received[paid["id"]].headers))
    Webhook(made["secret"]).verify(received[missed["id"]].body, dict(received[missed["id"]].headers))
    Webhook(rotated["secret"]).verify(received[missed["id"]].body, dict(received[missed["id"]].headers))


def test_why_not(reader: Reader) -> None:
    reader.follow('"Order updates')
    _, notification, check = reader.follow("Why not?")
    assert (notification["status"], notification["reason"]) == ("skipped", "no_address")
    assert notification["explanation"]
    said = section("Why not?").split("`{")[1].split("}`")[0]
    assert json.loads("{" + said.replace("\n", " ") + "}") == check


def test_find_a_message(reader: Reader) -> None:
    made, by_address, by_key = reader.follow("Find a message")
    for found, field in ((by_address, "recipient"), (by_key, "idempotency_key")):
        [item] = [each for each in found["items"] if each["id"] == made["items"][0]["id"]]
        assert (item["type"], item["matched"]) == ("notification", [field])


def test_trying_it_out_without_sending(reader: Reader) -> None:
    [[bounced], [refused]] = [answer["items"] for answer in reader.follow("Trying it out")[:2]]
    # The receipt may have come already.
    reaches(reader.system, bounced["id"], "sent", "failed")
    assert reader.wait_until(refused, "failed")["attempt_log"][0]["error"] == "simulator: rejected"


@pytest.mark.parametrize("beginning", ["One message without", "Holding everything"])
def test_what_needs_no_looking_at_is_accepted(reader: Reader, beginning: str) -> None:
    assert reader.follow(beginning)


def test_each_section_with_commands_has_its_test() -> None:
    with_commands = {heading for heading, text in SECTIONS.items() if heading and BLOCK.search(text)}
    assert {heading for heading in with_commands if heading.startswith(FOLLOWED)} == with_commands
    assert all(section(beginning) for beginning in FOLLOWED)


def test_what_the_guide_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", GUIDE):
        assert (ROOT / "docs" / target).exists(), target
