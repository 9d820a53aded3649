"""Other people's text in the output of manage.py: unchanged, and harmless on every terminal."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import click
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from deploy import terminal
from deploy.commands.cli import cli
from notifier.models import ApiKey, AuditLine, DeadLetter, Heartbeat, Hold, OutboxMessage, ProviderState
from notifier.vocabulary.ids import new_id
from tests.conftest import clean_environment
from tests.support.commands import IN_TURN, in_turn, parted
from tests.support.paths import ROOT

#: Markup of rich, an emoji code, a colour, a title, a return, a C1 control, a reversed direction, half a character's
#: pair, and words in three scripts.
HOSTILE = "[/b][red]:smile: \x1b[31m\x1b]0;gone\x07\r\x9b2J \u202egnp.exe\u2066 Zoë 名前 עברית"
HARMLESS = r"[/b][red]:smile: \u001b[31m\u001b]0;gone\u0007\u000d\u009b2J \u202egnp.exe\u2066 Zoë 名前 עברית"
#: Characters that a terminal obeys, besides our own colours.
STEERING = re.compile(
    r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x0d\x0e-\x1a\x1c-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
    r"|[\U000e0000-\U000e007f]"
)
LETTER, NOTIFICATION = new_id(), new_id()
COMMANDS = (
    "dlq list",
    f"dlq show {LETTER}",
    "outbox",
    "status",
    "hold",
    "api-keys list",
    "audit",
    "providers list",
    "providers status sms",
    "routes export",
    "routes load {file} --dry-run",
    "replay {hostile}",
    "why {hostile}",
    "hold {hostile}",
    "{hostile}",
)


@pytest.fixture
def environment(engine: Engine, database_url: str) -> dict[str, str]:
    """A shell's, beside a database with such text in every column that a table shows."""
    now = datetime.now(UTC)
    stored = HOSTILE.replace("\x00", "")
    rows = (
        DeadLetter(
            id=LETTER,
            claims=1,
            channel=stored,
            event_type=stored,
            reason=stored,
            error=stored,
            attempts=1,
            created_at=now,
        ),
        OutboxMessage(notification_id=NOTIFICATION, channel="sms", recipient=stored, subject=stored, text=stored),
        Heartbeat(name=stored, kind="worker", queues=[stored], seen_at=now),
        Hold(id=new_id(), target=stored, held_by=stored, created_at=now),
        ApiKey(id=new_id(), name=stored, key_hash=b"1", scopes=[stored], created_at=now),
        AuditLine(id=new_id(), at=now, actor=stored, action=stored, target=stored, outcome=stored, request_id=stored),
        ProviderState(channel="sms", name="outbox", failed_at=now - timedelta(minutes=1), error=stored, failures=2),
    )
    with Session(engine) as session, session.begin():
        session.add_all(rows)
    return {**clean_environment(), "DATABASE_URL": database_url, "NOTIFIER_SMS": "outbox:"}


@pytest.fixture
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Each command, with a file and a word that are as bad."""
    file = tmp_path_factory.mktemp("routes") / "routes[red].yaml"
    file.write_text('routes: {"[/b]\\e[31m\\u202e": {}}\n', encoding="utf-8")
    argument = HOSTILE.split("]0", maxsplit=1)[0]
    return [[part.format(file=file, hostile=argument) for part in command.split()] for command in COMMANDS]


def piped(command: Sequence[str], environment: dict[str, str], encoding: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", *command],
        env={**environment, "PYTHONIOENCODING": encoding},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {0, 1, 2}, command
    return (done.stdout + done.stderr).decode(encoding)


def on_a_terminal(
    command: Sequence[str], environment: dict[str, str], columns: int, program: Sequence[str] = ("manage.py",)
) -> str:
    """Return the output of a command on a terminal of `columns` columns; `program`: what Python runs."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**environment, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, *program, *command],
        env=environment,
        cwd=ROOT,
        stdin=there,
        stdout=there,
        stderr=there,
    ):
        os.close(there)
        seen = b""
        while True:
            try:
                chunk = os.read(here, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            seen += chunk
    os.close(here)
    return seen.decode()


def test_no_text_steers_a_terminal_or_ends_a_command(environment: dict[str, str], commands: list[list[str]]) -> None:
    # In the smallest encoding, and on a narrow terminal.
    shown = on_a_terminal([json.dumps(commands)], environment, 72, ("-c", IN_TURN))
    ended = (*in_turn(commands, {**environment, "PYTHONIOENCODING": "ascii"}), *parted(commands, shown))
    for command, (seen, code) in zip((*commands, *commands), ended, strict=True):
        assert code in {0, 1, 2}, (command, seen)
        assert "Traceback" not in seen, (command, seen)
        assert not STEERING.search(seen.replace("\r\n", "\n").replace("\x1b[0m", "")), (command, seen)
        assert "\x1b[31m\x1b" not in seen


#: In one process: each command line, what it writes and what it raises.
WALK = """
import json, sys
from click.testing import CliRunner
from deploy.commands.cli import cli
for line in json.load(sys.stdin):
    done = CliRunner().invoke(cli, line)
    print(json.dumps([line, done.output, repr(done.exception)]))
"""
#: Commands that start what runs until it is stopped. tests/contracts/test_receiving_webhooks.py has the output of
#: `listen`; the others log, and write nothing else that is not their own.
ENDLESS = {"up", "api", "worker", "beat", "flower", "exporter", "listen"}
#: Other commands, with the worst that they can be given or can find. `{}`: hostile text. Those that are not here are
#: given it as an argument.
WALKED = [
    *("migrate", "status", "alive {}", "doctor", "doctor --json", "dlq list", f"dlq show {LETTER}", "dlq show {}"),
    *("dlq requeue --all --dry-run", "dlq requeue --reason {}", "dlq purge --all --dry-run", "dlq purge {}", "outbox"),
    *(
        "providers list",
        "providers test sms {}",
        "providers test sms +15005550001 --provider {}",
        "providers status sms",
    ),
    *("bounces", "bounces --file {}", f"why {NOTIFICATION}", "why {}", f"replay {NOTIFICATION}", "replay {}"),
    *("routes load {}", "routes export", "routes export /nowhere/{}", "hold", "hold {}", "release {}", "release --all"),
    *("api-keys create --name {} --scope read", "api-keys create --name x --scope {}", "api-keys rotate {}"),
    *("api-keys rotate --name {}", "api-keys list", "api-keys revoke {}", "api-keys revoke --name {}", "audit"),
    *("audit --actor {}", "audit --since {}", "rekey", "recover {} --since PT1H", f"recover {LETTER} --since PT1H"),
    *("purge --dry-run", "purge --before {}", "reader", "users export {stored}", "users export {}"),
    *("users export --address {}", "users export --address {} --channel chat", "users erase {} --yes"),
    *("users erase --address {} --channel {}", "users erase --address {} --yes"),
    *("users export {stored} --output /nowhere/{}", "{}", "dlq {}", "--{}"),
    *("relay --dsn {} --once", "relay --dsn postgresql://{} --once", "relay --table {} --ddl", "relay --key {} --once"),
    "relay --dsn postgresql://127.0.0.1:9/x --api {} --once",
]


def leaves(command: click.Command, *before: str) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield " ".join(before)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, *before, name)


def test_no_command_shows_what_steers_a_terminal(environment: dict[str, str], engine: Engine) -> None:
    stored = HOSTILE.replace("\x00", "").replace("/", "")
    with Session(engine) as session, session.begin():
        session.execute(
            text(
                "INSERT INTO users (id, user_id, push_tokens, attributes, created_at, updated_at) VALUES"
                " (:id, :name, ARRAY[:name], json_build_object('a', CAST(:name AS text)), now(), now())"
            ),
            {"id": new_id(), "name": stored},
        )
        session.execute(
            text(
                "INSERT INTO events (id, event_type, source, status, payload, user_id, critical, priority, created_at)"
                " VALUES (:id, :name, :name, 'processed', CAST(:payload AS json), :name, false, 'normal', now())"
            ),
            # White space between tokens stays as it came in.
            {"id": NOTIFICATION, "name": stored, "payload": '{"a":\r\t"\u202e\x9b2J\x7f"}'},
        )
    attacked = (*WALKED, *ENDLESS)
    others = [name for name in leaves(cli) if not any(f"{line} ".startswith(f"{name} ") for line in attacked)]
    walked = (*WALKED, *(f"{name} {{}}" for name in others))
    lines = [[part.format(HOSTILE, stored=stored) for part in line.split()] for line in walked]
    done = subprocess.run(
        [sys.executable, "-c", WALK],
        env={**environment, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        input=json.dumps(lines),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) == len(lines)
    for line, output, raised in seen:
        assert not STEERING.search(output), (line, output)
        assert raised == "None" or raised.startswith("SystemExit"), (line, raised)
        assert "Traceback" not in output, (line, output)
    # JSON is escaped, and says the same.
    [[document]] = [[output] for line, output, _ in seen if line[:2] == ["users", "export"] and output.startswith("{")]
    assert json.loads(document)["user"]["attributes"] == {"a": stored}
    assert json.loads(document)["events"][0]["payload"] == {"a": "\u202e\x9b2J\x7f"}


def test_an_error_that_nobody_foresaw_steers_no_terminal(environment: dict[str, str]) -> None:
    code = (
        "import click, sys\nfrom deploy.commands.cli import cli\n"
        "@cli.command()\ndef x(): raise RuntimeError(sys.argv.pop())\n"
        "type(cli).get_command = lambda *_: x\ncli(['x'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, HOSTILE],
        env={**environment, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"RuntimeError: {HARMLESS}" in done.stderr
    assert not STEERING.search(done.stderr)


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_of_a_log_steers_a_terminal(environment: dict[str, str], form: str) -> None:
    code = (
        "import logging, sys, structlog\nfrom config.logs import configure_logs\n"
        "from config.settings import load_settings\nconfigure_logs(load_settings())\n"
        "logging.getLogger(sys.argv[1]).warning('%s', sys.argv[1])\n"
        "structlog.get_logger().warning(sys.argv[1], field=sys.argv[1], many=[sys.argv[1]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, HOSTILE.replace("\n", "")],
        env={**environment, "PYTHONPATH": str(ROOT), "NOTIFIER_LOG_FORMAT": form, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.count("gnp.exe") >= 4
    assert not STEERING.search(done.stderr), done.stderr


def test_all_output_goes_one_way() -> None:
    """No command writes past `deploy.terminal`. The rollout runs where click is not, and makes its lines harmless."""
    past = re.compile(r"\bclick\.(echo|secho)\(|\bprint\(|\bsys\.std(out|err)\.(write|buffer)")
    files = [
        path
        for path in (ROOT / "deploy").rglob("*.py")
        if path.name != "terminal.py" and "dashboards" not in path.parts
    ]
    found = [f"{path}: {line.strip()}" for path in files for line in path.read_text().splitlines() if past.search(line)]
    harmless = ("yaml.safe_dump", "printable_json", "printable(")
    assert found == [line for line in found if any(word in line for word in harmless)]


def test_the_text_is_shown_as_it_is(environment: dict[str, str]) -> None:
    lines = ("dlq list", f"dlq show {LETTER}", "outbox", "hold", "status", "audit", "api-keys list")
    commands = [line.split() for line in lines]
    for command, ended in zip(commands, in_turn(commands, {**environment, "PYTHONIOENCODING": "utf-8"}), strict=True):
        assert ended.code in {0, 1, 2}, command
        assert HARMLESS in ended.output, command


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_no_encoding_is_too_small(environment: dict[str, str], encoding: str) -> None:
    commands = [["--help"], ["dlq", "--help"], ["doctor"], ["dlq", "list"]]
    for command, seen in zip(commands, in_turn(commands, {**environment, "PYTHONIOENCODING": encoding}), strict=True):
        assert seen.code in {0, 1, 2}, command
        assert "Traceback" not in seen.output, command
        assert "UnicodeEncodeError" not in seen.output, command


def test_no_id_is_cut(environment: dict[str, str]) -> None:
    for columns in (40, 72):
        assert str(LETTER) in on_a_terminal(["dlq", "list"], environment, columns)
    assert str(LETTER) in piped(["dlq", "list"], environment, "ascii")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (18_180, "5 h 3 min"),
        (97_200, "1 d 3 h"),
        (86_400, "1 d"),
    ],
)
def test_spans_are_said_as_people_do(seconds: float, words: str) -> None:
    assert terminal.in_words(seconds) == words


def test_each_character_has_a_shape() -> None:
    for number in [*range(0x3000), *range(0xD800, 0xE000), *range(0xE0000, 0xE0200), 0xFEFF, 0xFFF9]:
        shown = terminal.printable(chr(number))
        assert shown.isprintable() or chr(number) in "\u200c\u200d" or shown.isspace(), hex(number)
        assert shown not in "\n\r\t\x0b\x0c\x85\u2028\u2029", hex(number)


LOGS = """
import sys
from config.logs import configure_logs
from config.settings import read_settings
configure_logs(read_settings({"DATABASE_URL": "postgresql://localhost/x", "NOTIFIER_LOG_FORMAT": "console"}))
import structlog
structlog.get_logger().warning("heard", of=sys.argv[1], word="\\x1b]0;gone\\x07")
"""


def test_no_value_in_a_log_steers_a_terminal() -> None:
    seen = on_a_terminal([HOSTILE], clean_environment(), 200, ("-c", LOGS))
    assert "heard" in seen
    assert "gone" in seen
    # Colours, and what ends them, are the log's own.
    assert not STEERING.search(seen.replace("\r\n", "\n"))
    assert "\x1b[31m\x1b" not in seen
