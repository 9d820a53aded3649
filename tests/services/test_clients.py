"""Clients that others' generators make of the OpenAPI description: they work, and linters find nothing."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.node_packages import CLIENT_MAKERS, NODE, node_modules
from tests.support.running import Running

PYTHON = """
import sys, uuid
from made.api.events import get_event, list_events, post_batch, post_event
from made.api.front_doors import notify_user
from made.api.users import put_user
from made.client import Client
from made.models import Batch, Event, EventPayload, Notify, NotifyType, Problem, ProblemType, TypedEvent, User

client = Client(base_url=sys.argv[1])
event = Event.from_dict({"event_type": "made.client", "channel": "email", "recipient": "ada@example.com"})
event.payload = EventPayload.from_dict({"name": "Ada"})
posted = post_event.sync(client=client, body=event, idempotency_key=(key := str(uuid.uuid4())))
assert posted.status == "accepted" and posted.duplicate is False, posted
assert post_event.sync(client=client, body=event, idempotency_key=key).duplicate is True
read = get_event.sync(posted.id, client=client)
assert (read.id, read.event_type, read.payload.to_dict()) == (posted.id, "made.client", {"name": "Ada"}), read
[notification] = read.notifications
assert notification.channel == "email" and notification.recipient == "ada@example.com"
assert post_event.sync(client=client, body=TypedEvent(type_="made.client")).event_type == "made.client"
assert [each.id for each in list_events.sync(client=client, event_type="made.client", limit=1).items]
batch = post_batch.sync(client=client, body=Batch(events=[Event(event_type="a"), TypedEvent(type_="a b")]))
assert [each.status for each in batch.items] == ["accepted", 422], batch
assert batch.items[1].type_ == "/problems/validation-failed"

wrong = post_event.sync_detailed(client=client, body=Event(event_type="a b"))
assert wrong.status_code == 422 and isinstance(wrong.parsed, Problem)
assert wrong.parsed.type_ is ProblemType.VALIDATION_FAILED, wrong.parsed
assert "event_type" in wrong.parsed.errors
reused = post_event.sync(client=client, body=Event(event_type="other"), idempotency_key=key)
assert reused.type_ is ProblemType.IDEMPOTENCY_KEY_REUSED
assert isinstance(get_event.sync(uuid.UUID(int=0), client=client), Problem)
assert put_user.sync("made", client=client, body=User(email="made@example.com")).user_id == "made"
nobody = notify_user.sync(client=client, body=Notify(user_id="made", type_=NotifyType.EMAIL, template="nowhere"))
assert list(nobody.errors.to_dict()) == ["template"]
"""
TYPESCRIPT = """
import type { components, operations, paths } from "./api"

type Event = components["schemas"]["Event"]
const event: Event = { event_type: "made.client", channel: "email", recipient: "ada@example.com", lead_time: ["P7D"] }
// @ts-expect-error -- no such channel
const wrong: Event = { ...event, channel: "fax" }
// @ts-expect-error -- no event without a type
const untyped: Event = {}
// @ts-expect-error -- no such member
const misspelt: Event = { event_type: "made.client", recipent: "ada@example.com" }

type Answer = operations["getEvent"]["responses"][200]["content"]["application/json"]
type Failure = operations["postEvent"]["responses"][422]["content"]["application/problem+json"]
type Body = paths["/events"]["post"]["requestBody"]["content"]["application/json"]
const typed: Body = { type: "made.client", payload: { name: "Ada" } }

async function main(base: string) {
  const posted = await fetch(base + "/api/v1/events", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...event, lead_time: null }),
  })
  const accepted = (await posted.json()) as operations["postEvent"]["responses"][202]["content"]["application/json"]
  const read = (await (await fetch(base + "/api/v1/events/" + accepted.id)).json()) as Answer
  // Members of answers are always there: none of them has to be asked for first.
  const [notification] = read.notifications
  if (read.event_type !== event.event_type || notification?.channel !== "email") throw new Error("read")
  const attempts: number = notification.attempts
  if (attempts < 0 || accepted.duplicate) throw new Error("attempts")
  const failed = await fetch(base + "/events", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...typed, type: "a b" }),
  })
  const problem = (await failed.json()) as Failure
  if (problem.type !== "/problems/validation-failed" || !problem.errors?.type) throw new Error("problem")
}
declare const process: { argv: string[] }
main(process.argv[2]!)
"""


def run(command: Sequence[str | Path], **environment: str) -> str:
    """Run a program, which must succeed, and return its output."""
    known = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=known, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python_packages() -> Path:
    """A folder with the packages of tests/data/openapi/requirements.txt, which are not for our own environment."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    listed = CLIENT_MAKERS.parents[2] / "locks" / python / "openapi.txt"
    folder = Path(sys.prefix) / "share" / "notifier-openapi" / hashlib.sha256(listed.read_bytes()).hexdigest()[:16]
    if not (folder / "complete").exists():
        hashed = ["--require-hashes", "-r", listed]
        run([sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", folder, *hashed])
        (folder / "complete").touch()
    return folder


@pytest.fixture
def described(system: Running, tmp_path: Path) -> Path:
    """The description as a file."""
    file = tmp_path / "openapi.json"
    file.write_text(system.get("/openapi.json").text)
    return file


def test_spectrals_recommended_rules_find_nothing(described: Path) -> None:
    rules = described.with_name("rules.json")
    rules.write_text(json.dumps({"extends": ["spectral:oas"]}))
    spectral = node_modules(CLIENT_MAKERS) / "@stoplight" / "spectral-cli" / "dist" / "index.js"
    run([NODE, spectral, "lint", described, "--ruleset", rules, "--fail-severity", "hint"])


def test_it_is_valid_openapi(described: Path, python_packages: Path) -> None:
    run([sys.executable, "-m", "openapi_spec_validator", described], PYTHONPATH=str(python_packages))


def test_a_python_client_posts_and_reads_and_gets_typed_errors(
    system: Running, described: Path, python_packages: Path
) -> None:
    where = {
        "PYTHONPATH": f"{python_packages}:{described.parent}",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }
    made = described.with_name("made")
    generate = ["generate", "--path", described, "--meta", "none", "--output-path", made]
    run([sys.executable, "-m", "openapi_python_client", *generate], **where)
    run([sys.executable, "-c", PYTHON, system.url], **where)


def test_typescript_types_fit_what_the_api_answers(system: Running, described: Path) -> None:
    modules = node_modules(CLIENT_MAKERS)
    folder = described.parent
    run([NODE, modules / "openapi-typescript" / "bin" / "cli.js", described, "-o", folder / "api.ts"])
    (folder / "client.ts").write_text(TYPESCRIPT)
    options = ["--strict", "--target", "es2022", "--module", "commonjs", "--lib", "es2022,dom"]
    compiler = modules / "typescript" / "bin" / "tsc"
    run([NODE, compiler, *options, "--outDir", folder / "js", folder / "client.ts"])
    run([NODE, folder / "js" / "client.js", system.url])
