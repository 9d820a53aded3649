"""The receiver's side: docs/receiving-webhooks.md does what it says, and `manage.py listen` what its help says."""

import ctypes
import http.client
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
import standardwebhooks.webhooks
import svix.webhooks
from celery.utils.time import get_exponential_backoff_interval

from config.settings import STACK_FILE, Settings
from notifier.providers.protocol import Message, Outcome
from notifier.providers.vendors.webhook import Webhooks
from notifier.security import webhook_signatures
from notifier.vocabulary.states import Channel
from tests.conftest import clean_environment
from tests.providers import receivers
from tests.support.commands import manage
from tests.support.node_packages import NODE, node_modules
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

PAGE = (ROOT / "docs" / "receiving-webhooks.md").read_text()


def block(language: str) -> str:
    """The one block of code of a language on the page."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found


def table(heading: str) -> list[list[str]]:
    """The rows of the page's table that has this column first, as cells."""
    _, _, after = PAGE.partition(f"\n| {heading} |")
    rows = itertools.takewhile(lambda line: line.startswith("|"), after.splitlines()[2:])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@dataclass
class Process:
    """A receiver that runs."""

    popen: subprocess.Popen[bytes]
    log: Path
    port: int = 0

    @property
    def output(self) -> str:
        """Return what it has written so far."""
        return self.log.read_text()

    def url(self, path: str = "/hook") -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def post(self, headers: Mapping[str, str], body: bytes) -> int:
        """The status that it answers to a POST."""
        return requests.post(self.url(), headers=dict(headers), data=body, timeout=30).status_code

    def shows(self, text: str) -> None:
        """Wait for a piece of its output."""
        wait_for(lambda: text in self.output, what=f"{text!r} in {self.output}")


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts receivers that say 'Listening on' and their port; ends them after the test."""
    with ExitStack() as stack:

        def run(command: Sequence[str | Path], environment: Mapping[str, str], cwd: Path = tmp_path) -> Process:
            log = tmp_path / f"{uuid4()}.log"
            with log.open("wb") as file:
                popen = stack.enter_context(
                    subprocess.Popen(command, cwd=cwd, env=dict(environment), stdout=file, stderr=file)
                )
            stack.callback(popen.kill)
            process = Process(popen, log)
            said = wait_for(
                lambda: (
                    re.search(r"Listening on .*?(\d+)(,|$)", process.output, re.MULTILINE)
                    or (process.popen.poll() is not None and pytest.fail(process.output))
                ),
                40,
                "a receiver that listens",
            )
            process.port = int(said[1])
            return process

        yield run


def signed(
    secret: str, body: bytes = b'{"type": "order.paid"}', message_id: str | None = None, age: int = 0
) -> dict[str, str]:
    """The headers of a webhook that was signed so many seconds ago."""
    return webhook_signatures.headers(
        [webhook_signatures.key_of(secret)], message_id or str(uuid4()), int(time.time()) - age, body
    )


# The page's receivers


@pytest.fixture(params=["python", "node"])
def receiver(request: pytest.FixtureRequest, start: Start, tmp_path: Path, system: Running) -> Process:
    """A receiver as it stands on the page, with the running system's secret."""
    if request.param == "python":
        file = tmp_path / "receiver.py"
        file.write_text(block("python"))
        command: list[str | Path] = [sys.executable, file]
    else:
        file = tmp_path / "receiver.mjs"
        file.write_text(block("js"))
        (tmp_path / "node_modules").symlink_to(node_modules())
        command = [NODE, file]
    return start(
        command, {**clean_environment(), "WEBHOOK_SECRET": system.environment["NOTIFIER_WEBHOOK_SECRET"], "PORT": "0"}
    )


def test_the_pages_receivers_take_what_is_genuine_once(receiver: Process, system: Running) -> None:
    payload = {"text": "Jörg 💌", "number": 1}
    first = system.finished(
        system.event(event_type="first.event", recipient=receiver.url(), channel="webhook", payload=payload)
    )
    assert (first["status"], first["attempt_log"][0]["status_code"]) == ("delivered", 204)

    secret = system.environment["NOTIFIER_WEBHOOK_SECRET"]
    body = b'{"type":"second.event","timestamp":"2026-11-21T09:00:00Z","id":"x","data":{}}'
    name = str(uuid4())
    assert receiver.post(signed(secret, body, name), body) == 204
    assert receiver.post(signed(secret, body, name, age=200), body) == 204

    # While the secret is being rotated.
    rotated = [webhook_signatures.key_of(webhook_signatures.new_secret()), webhook_signatures.key_of(secret)]
    last = body.replace(b"second", b"last")
    assert receiver.post(webhook_signatures.headers(rotated, uuid4(), int(time.time()), last), last) == 204
    receiver.shows("event last.event")
    events = re.findall(r"^event (\S+)", receiver.output, re.MULTILINE)
    assert sorted(events) == ["first.event", "last.event", "second.event"]
    assert "Jörg 💌" in receiver.output


def test_the_pages_receivers_refuse_what_is_forged(receiver: Process, system: Running) -> None:
    secret = system.environment["NOTIFIER_WEBHOOK_SECRET"]
    body = b'{"type":"forged.event","timestamp":"2026-11-21T09:00:00Z","id":"x","data":{"total": 12.50}}'
    good = signed(secret, body)
    forgeries = [
        (signed(webhook_signatures.new_secret(), body), body),
        (good, body.replace(b"12.50", b"99.50")),
        (good, body.replace(b"12.50", b"12.5")),
        (good, b""),
        (good, b"\xff\xfe"),
        ({**good, "webhook-id": str(uuid4())}, body),
        ({**good, "webhook-timestamp": str(int(good["webhook-timestamp"]) + 1)}, body),
        ({**good, "webhook-timestamp": "soon"}, body),
        (signed(secret, body, age=400), body),
        (signed(secret, body, age=-400), body),
        *(
            ({**good, "webhook-signature": value}, body)
            for value in ("v1", "nonsense", "v1,a,b", "v1,é", "v1,", "v2,x")
        ),
        *(({name: each for name, each in good.items() if name != left}, body) for left in good),
        ({}, body),
    ]
    answers = [
        receiver.post({name: value.encode() for name, value in headers.items()}, text) for headers, text in forgeries
    ]
    assert answers == [401] * len(forgeries)
    assert receiver.post(good, body) == 204
    receiver.shows("event forged.event")
    assert receiver.output.count("event forged.event") == 1
    assert "Traceback" not in receiver.output


def test_the_pages_receiver_in_python_works_what_an_earlier_run_left(start: Start, tmp_path: Path) -> None:
    program = block("python")
    secret = webhook_signatures.new_secret()
    environment = {**clean_environment(), "WEBHOOK_SECRET": secret, "PORT": "0"}
    dies = program.replace("event = json.loads(body)", "os._exit(1)")
    assert dies != program
    body = b'{"type":"left.event","data":{}}'
    first = start([sys.executable, "-c", dies], environment)
    # It may die before its answer is out: then the sender sends again.
    with suppress(requests.ConnectionError):
        first.post(signed(secret, body), body)
    first.popen.wait(20)
    second = start([sys.executable, "-c", program], environment)
    second.shows("event left.event")


# The page


def test_what_arrives_is_what_the_page_shows(system: Running, http: HttpReceiver) -> None:
    shown, _, body = block("http").rstrip("\n").partition("\n\n")
    line, *rest = shown.splitlines()
    headers = dict(each.split(": ", 1) for each in rest)
    assert line == "POST /hooks/orders HTTP/1.1"
    assert headers["Content-Length"] == str(len(body))
    [secret] = set(re.findall(r"`(whsec_\w+)`", PAGE))
    webhook_signatures.verify(
        [webhook_signatures.key_of(secret)], headers, body.encode(), now=int(headers["webhook-timestamp"])
    )

    example = json.loads(body)
    data = body.partition('"data":')[2].removesuffix("}")
    posted = (
        f'{{"event_type": "{example["type"]}", "occurred_at": "{example["timestamp"]}", "channel": "webhook",'
        f' "recipient": "{http.url("/hooks/orders")}", "payload": {data}}}'
    )
    answer = system.http.post(
        f"{system.url}/api/v1/events", data=posted, headers={"content-type": "application/json"}, timeout=20
    )
    system.finished(answer.json()["id"])
    received = http.received("/hooks/orders")[0]
    assert received.body.decode() == body.replace(example["id"], answer.json()["id"])
    changing = {"host", "webhook-id", "webhook-timestamp", "webhook-signature"}
    assert set(received.headers) == {name.lower() for name in headers}
    for name, value in headers.items():
        assert name.lower() in changing or received.headers[name.lower()] == value

    # As the SDKs verify it. (svix's own way of reading headers, and below it standardwebhooks.)
    for verifier in (standardwebhooks.webhooks.Webhook, svix.webhooks.Webhook):
        verifier(system.environment["NOTIFIER_WEBHOOK_SECRET"]).verify(received.body, received.headers)
        with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
            verifier(webhook_signatures.new_secret()).verify(received.body, received.headers)


def words(seconds: float) -> str:
    """A duration as the page writes it."""
    hours, rest = divmod(int(seconds), 3600)
    parts = ((hours, "h"), (rest // 60, "min"), (rest % 60, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def test_the_retries_are_those_of_the_default_settings() -> None:
    policy = Settings(database_url="postgresql://").of(Channel.WEBHOOK).retry_policy
    assert policy.jitter
    waits = [
        get_exponential_backoff_interval(policy.backoff, retries, policy.backoff_max, full_jitter=False)
        for retries in range(policy.max_retries)
    ]
    rows = [["1", "–", "0 s"]]
    rows += [[str(n + 2), words(wait), words(sum(waits[: n + 1]))] for n, wait in enumerate(waits)]
    assert table("attempt") == rows
    assert f"{len(rows)} attempts in all" in PAGE


def test_the_timeout_is_that_of_the_default_settings() -> None:
    timeout = Settings(database_url="postgresql://").webhook_timeout
    assert f"Answer within **{timeout.total_seconds():g} seconds**" in PAGE


STATUSES = {
    "2xx": (200, 204, 299),
    "3xx": (300, 301, 304, 308),
    "410": (410,),
    "other 4xx": (400, 401, 403, 404, 408, 413, 422, 425, 429, 499),
    "a 4xx in the subscription's `permanent_statuses`": (418,),
    "5xx": (500, 503, 599),
    "any other status": (600, 999),
}
FOLLOWS = {
    "delivered": {Outcome.ACCEPTED},
    "tried again": {Outcome.UNSENT, Outcome.AMBIGUOUS},
    "dead letter at once": {Outcome.REJECTED},
}


def test_answers_lead_to_what_the_page_says() -> None:
    said = {answer: follows for answer, follows in table("your answer") if re.search(r"\d|status", answer)}
    assert said.keys() == STATUSES.keys()
    provider = Webhooks(
        keys=[webhook_signatures.key_of(webhook_signatures.new_secret())],
        allowed_networks=[ip_network("127.0.0.0/8")],
        timeout=10,
    )
    try:
        for answer, follows in said.items():
            [outcomes] = (outcomes for words, outcomes in FOLLOWS.items() if follows.startswith(words))
            for status in STATUSES[answer]:
                with receivers.http(receivers.response(status)) as (server, _):
                    url = f"http://127.0.0.1:{server.port}/"
                    message = Message(uuid4(), url, None, "{}", permanent_statuses=frozenset({418}))
                    [result] = itertools.chain.from_iterable(provider.send(iter([message])))
                assert result.status_code == status
                assert result.outcome in outcomes, status
    finally:
        provider.close()


def test_the_page_names_the_options_of_listen() -> None:
    shown = manage("listen", "--help", environment=clean_environment()).stdout
    options = set(re.findall(r"--[a-z][a-z-]*", shown)) - {"--help", "--data-dir"}
    section = PAGE.partition("## Trying it")[2]
    assert set(re.findall(r"--[a-z][a-z-]*", section)) == options


# manage.py listen


@pytest.fixture
def listen(start: Start, tmp_path: Path) -> Start:
    """Starts `manage.py listen` on a free port, with nothing set but what is said."""

    def run(*arguments: str, **settings: str) -> Process:
        port = str(receivers.unused_port())
        command = [sys.executable, ROOT / "manage.py", "listen", "--port", port, *arguments]
        return start(command, {**clean_environment(), **settings}, tmp_path)

    return run


def ended(process: Process) -> str:
    """The last line of a receiver that is stopping by itself, or was told to."""
    assert process.popen.wait(20) == 0, process.output
    return process.output.splitlines()[-1]


def test_listen_tells_good_from_forged_repeated_and_oversized(listen: Start) -> None:
    old, new = webhook_signatures.new_secret(), webhook_signatures.new_secret()
    process = listen("--secret", old, NOTIFIER_WEBHOOK_SECRET=webhook_signatures.new_secret())
    body = b'{"type":"order.paid","data":{"total":12.50,"big":18446744073709551616,"text":"\xe2\x98\x83"}}'
    keys = [webhook_signatures.key_of(new), webhook_signatures.key_of(old)]
    name, now = str(uuid4()), int(time.time())

    assert process.post(webhook_signatures.headers(keys, name, now, body), body) == 204
    shown = process.output
    assert f" order.paid, webhook-id {name}, POST /hook\nverified, new; answer 204\n" in shown
    assert '    "total": 12.50,\n    "big": 18446744073709551616,\n    "text": "☃"\n' in shown
    for times in ("once", "2 times"):
        assert process.post(webhook_signatures.headers(keys, name, now - 10, body), body) == 204
        assert f"verified, seen before, {times}; answer 204\n" in process.output

    assert process.post(signed(new, body), body) == 401
    assert (
        "not verified: no signature fits: it was signed with another secret, or changed on the way, new; answer 401"
        in (process.output)
    )
    assert process.post(webhook_signatures.headers(keys, name, now, body), body + b" ") == 401
    assert process.post(signed(old, body, age=400), body) == 401
    assert re.search(r"not verified: it was signed 40\d s ago, and 300 s are allowed, new; answer 401", process.output)
    forged = str(uuid4())
    assert process.post({"webhook-id": forged}, b"not JSON") == 401
    assert process.post(signed(old, b"not JSON", forged), b"not JSON") == 204
    assert f"no type, webhook-id {forged}, POST /hook\nverified, new; answer 204\nnot JSON\n" in process.output

    largest, over, far_over = (b" " * size for size in (2**20, 2**20 + 1, 2**24))
    assert process.post(signed(old, largest), largest) == 204
    assert process.post(signed(old, over), over) == 413
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=20)
    connection.request("POST", "/hook", far_over)  # it sends all before it looks for an answer
    assert connection.getresponse().status == 413
    connection.close()
    assert process.post({**signed(old, over), "content-length": "9" * 100}, b"") == 413
    assert requests.post(process.url(), data=iter([body]), timeout=20).status_code == 411
    assert "refused: its body is over 1048576 bytes\nanswer 413\n" in process.output

    process.popen.send_signal(signal.SIGINT)
    assert ended(process) == "Received 9, distinct ids 3, failed on purpose 0, not verified 4, refused 4."


def test_listen_prints_nothing_that_steers_a_terminal(listen: Start) -> None:
    process = listen()
    nasty = "\x1b]0;x\x07\x9b31m\x7f\r\b\u202e\u2066\u2028\ue000\ud83d"
    for body in (
        json.dumps({"type": nasty, "data": {nasty: nasty}}).encode(),
        json.dumps(
            {"type": nasty[4:5], "data": "\x9b\x7f\u202e\U000e0041 [bold]x[/bold] :smile:"}, ensure_ascii=False
        ).encode(),
        nasty.encode(errors="replace") + b"\xff\xc2\x9b\xc0",
        b"[" * 2**20,
        b'{"type": 5}',
    ):
        headers = {"webhook-id": "\x1b[2J\x9b".encode("latin-1")}
        answer = requests.post(process.url(), headers=headers, data=body, timeout=30)
        assert answer.status_code == 204
    raw = b"POST /\x1b[2J\x9b HTTP/1.1\r\nwebhook-id: \x1b[2J\r\ncontent-length: 2\r\n\r\n{}"
    with socket.create_connection(("127.0.0.1", process.port), timeout=20) as connection:
        connection.sendall(raw)
        assert b" 204 " in connection.recv(1000)
    written = process.output
    assert not {each for each in written if not each.isprintable()} - {"\n"}
    assert r"POST /\u001b[2J\u009b" in written
    assert r'"\u009b\u007f\u202e\udb40\udc41 [bold]x[/bold] :smile:"' in written


def test_listen_without_a_secret_says_that_it_does_not_verify(listen: Start) -> None:
    process = listen()
    assert process.post(signed(webhook_signatures.new_secret()), b'{"type": "order.paid"}') == 204
    assert "nothing is verified" in process.output
    assert "not verified: there is no secret, new; answer 204" in process.output
    process.popen.terminate()
    assert ended(process) == "Received 1, distinct ids 1, failed on purpose 0, not verified 1, refused 0."


def test_listen_verifies_with_the_running_stacks_secret(listen: Start, system: Running, tmp_path: Path) -> None:
    secret = system.environment["NOTIFIER_WEBHOOK_SECRET"]
    stack = {"pid": os.getpid(), "environment": {"NOTIFIER_WEBHOOK_SECRET": secret}}
    (tmp_path / STACK_FILE).write_text(json.dumps(stack))
    process = listen("--once", "--data-dir", str(tmp_path))
    done = system.finished(system.event(recipient=process.url(), channel="webhook", payload={"n": 1}))
    assert done["status"] == "delivered"
    assert ended(process) == "Received 1, distinct ids 1, failed on purpose 0, not verified 0, refused 0."
    assert f"test.event, webhook-id {done['id']}, POST /hook\nverified, new; answer 204\n" in process.output


def test_listen_verifies_with_the_secret_of_the_host_that_it_is_addressed_by(listen: Start) -> None:
    root = webhook_signatures.new_secret()
    process = listen(NOTIFIER_WEBHOOK_SECRET=root, NOTIFIER_WEBHOOK_SHARED_SECRET="none")
    host = process.url().split("/")[2]
    own, other = (
        webhook_signatures.secret_of_host(webhook_signatures.key_of(root), each) for each in (host, f"other.{host}")
    )
    body = b"{}"
    assert process.post(signed(own, body), body) == 204
    assert process.post(signed(root, body), body) == 401
    assert process.post(signed(other, body), body) == 401


def test_listen_fails_on_purpose_and_sees_the_retries(listen: Start, system: Running) -> None:
    process = listen("--status", "503", NOTIFIER_WEBHOOK_SECRET=system.environment["NOTIFIER_WEBHOOK_SECRET"])
    done = system.finished(system.event(recipient=process.url(), channel="webhook"), 60)
    assert (done["status"], done["attempts"]) == ("failed", 3)
    assert "verified, new; answer 503 on purpose\n" in process.output
    assert "verified, seen before, 2 times; answer 503 on purpose\n" in process.output
    process.popen.terminate()
    assert ended(process) == "Received 3, distinct ids 1, failed on purpose 3, not verified 0, refused 0."


def test_listen_fails_a_share_on_purpose(listen: Start) -> None:
    process = listen("--fail-rate", "0.5")
    assert {process.post(signed(webhook_signatures.new_secret()), b"{}") for _ in range(60)} == {204, 500}


def test_listen_lets_a_delayed_answer_go_when_it_stops(listen: Start) -> None:
    process = listen("--delay", "3600")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(process.post({"webhook-id": "late"}, b"{}")))
    thread.start()
    process.shows("answer 204 after 3600 s")
    process.popen.terminate()
    assert ended(process).startswith("Received 1,")
    thread.join(20)
    assert answers == [204]


def test_listen_obeys_an_interrupt_though_its_shell_had_it_ignored(start: Start, tmp_path: Path) -> None:
    # As a shell without job control starts what stands before an ampersand.
    port = str(receivers.unused_port())
    command = ["env", "--ignore-signal=INT", sys.executable, ROOT / "manage.py", "listen", "--port", port]
    process = start(command, clean_environment(), tmp_path)
    process.popen.send_signal(signal.SIGINT)
    assert ended(process).startswith("Received 0,")


def test_listen_obeys_an_interrupt_that_the_kernel_gives_to_another_thread(listen: Start) -> None:
    process = listen()
    other = max(int(path.name) for path in Path(f"/proc/{process.popen.pid}/task").iterdir())
    assert other != process.popen.pid
    assert ctypes.CDLL(None).tgkill(process.popen.pid, other, signal.SIGINT.value) == 0
    assert ended(process).startswith("Received 0,")


def test_listen_says_in_one_line_what_is_wrong(listen: Start, tmp_path: Path) -> None:
    taken = str(listen().port)
    done = manage("listen", "--port", taken, environment=clean_environment(), cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: cannot listen on 127\.0\.0\.1, port \d+: Address already in use\n", done.stderr)
    done = manage("listen", "--secret", "whsec_hunter2", environment=clean_environment(), cwd=tmp_path)
    assert done.returncode == 2
    assert "is not a webhook secret" in done.stderr
    assert "hunter2" not in done.stderr
    wrong = {**clean_environment(), "NOTIFIER_WEBHOOK_SECRET": "hunter2"}
    done = manage("listen", environment=wrong, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: NOTIFIER_WEBHOOK_SECRET is not a webhook secret")
