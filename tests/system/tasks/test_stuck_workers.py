"""Workers that live and take no messages: they do not come about by what code raises, and where they do, they end."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import Engine

from deploy.child_process import Child
from deploy.ports import free_port
from notifier.observability import heartbeats
from notifier.runtime import progress
from notifier.runtime.threads import EXIT_CODE
from tasks.watchdog import Watchdog
from tests.support.handlers import install
from tests.support.paths import ROOT
from tests.support.receivers import SmtpReceiver
from tests.support.running import Running, wait_for

THREADS = 2

#: A provider and a handler as nobody should write them. FOLDER/hang is there as long as the handler is to hang.
CODE = """
import asyncio, sys, threading
from pathlib import Path
from notifier.providers.vendors.smtp import Smtp

send = Smtp.send
RAISED = {"exit": SystemExit, "memory": MemoryError, "cancel": asyncio.CancelledError, "interrupt": KeyboardInterrupt}

def broken_send(self, messages):
    for message in messages:
        error = RAISED.get(message.recipient.partition("@")[0])
        if error is not None:
            raise error("as asked")
        yield from send(self, iter([message]))

Smtp.send = broken_send

def hang(event):
    if Path("FOLDER/hang").exists():
        with Path("FOLDER/hanging").open("a") as file:
            file.write(".")
        threading.Event().wait()
    return []
"""


@pytest.fixture
def worker(breakable: Running, smtp: SmtpReceiver, tmp_path: Path) -> Child:
    """The one fresh worker of a system, with few threads and that code; not started."""
    breakable.fresh.stop()
    source = CODE.replace("FOLDER", str(tmp_path))
    install(tmp_path, "breaking", "1", {"hang.now": "breaking:hang"}, {"breaking": source})
    settings = {
        **dict.fromkeys(("NOTIFIER_SMS", "NOTIFIER_PUSH", "NOTIFIER_CHAT"), ""),
        **dict.fromkeys(("NOTIFIER_EMAIL_TIMEOUT", "NOTIFIER_WEBHOOK_TIMEOUT", "NOTIFIER_WORKER_STUCK_AFTER"), "1"),
        "NOTIFIER_SENDING_WINDOW": "0.5",
        "NOTIFIER_EMAIL": f"{smtp.dsn}?tls=none",
        "PYTHONPATH": str(tmp_path),
    }
    command = ("worker", "fresh", "--name", "odd", "--concurrency", str(THREADS))
    return breakable.add("worker-odd", *command, "--sign-file", str(tmp_path / "sign"), settings=settings)


def alive_by(file: Path) -> bool:
    """Whether a probe that asks a worker's file is content."""
    child = Child(
        "alive", [sys.executable, ROOT / "manage.py", "alive", "--sign-file", file], log=file.parent / "probe"
    )
    child.launch()
    wait_for(lambda: not child.alive())
    return child.exit_code == 0


def test_what_a_provider_raises_does_not_stop_its_worker(breakable: Running, worker: Child, smtp: SmtpReceiver) -> None:
    system = breakable
    system.start(only=[worker])
    try:
        for name in ("exit", "memory", "cancel", "interrupt"):
            # More of each than there are threads, and each in a message of its own.
            for _ in range(THREADS + 1):
                event_id = system.event(recipient=f"{name}@example.com", channel="email")
                wait_for(lambda event_id=event_id: system.notifications(event_id)[0]["status"] == "sending")
            fine = system.event(recipient="fine@example.com", channel="email")
            assert system.finished(fine)["status"] == "sent"

        def is_dead() -> bool:
            # Past its lease, without the wait.
            system.sql("UPDATE notifications SET due_at = now() WHERE status = 'sending' AND recipient LIKE 'exit@%'")
            [found] = system.notifications(event_id)
            return bool(found["status"] == "failed")

        event_id = system.event(recipient="exit@example.com", channel="email")
        wait_for(is_dead, 60, "the end of a row that its provider always breaks over")
        assert system.dead_letter(event_id)["reason"]
    finally:
        system.sql("DELETE FROM notifications WHERE channel = 'email' AND due_at IS NOT NULL")


def test_a_worker_that_hangs_says_so_and_ends(breakable: Running, worker: Child, tmp_path: Path) -> None:
    system, sign = breakable, tmp_path / "sign"
    (tmp_path / "hang").touch()
    system.start(only=[worker])
    wait_for(sign.exists)
    assert alive_by(sign)
    events, hanging = [], tmp_path / "hanging"
    hanging.touch()
    for place in range(THREADS):  # each in a message of its own: together they would hang one thread
        events.append(system.event(event_type="hang.now"))
        wait_for(lambda place=place: hanging.stat().st_size > place)
    events.append(system.event(event_type="hang.now"))

    def workers() -> dict[str, str]:
        found: dict[str, str] = system.get("/ready").json()["checks"]["workers"]
        return found

    wait_for(lambda: "odd@" in workers().get("detail", ""), 40, "/ready to name the worker")
    assert workers()["status"] == "failed"
    wait_for(lambda: not worker.alive(), 30, "the end of the worker")
    assert worker.exit_code == EXIT_CODE
    touched = sign.stat().st_mtime
    [(name, _)] = heartbeats.stuck(system.engine)
    assert name.startswith("odd@")

    (tmp_path / "hang").unlink()
    worker.launch()  # as whoever supervises it does
    wait_for(lambda: sign.stat().st_mtime > touched, 20, "its successor's sign")
    for event_id in events:
        wait_for(lambda event_id=event_id: system.get(f"/api/v1/events/{event_id}").json()["status"] == "processed", 40)
    wait_for(lambda: workers()["status"] == "ok", 40, "/ready to be content")


def watchdog(engine: Engine, broker: str, file: Path) -> Watchdog:
    """One of a worker that takes no messages at all."""
    app = Celery(broker=broker, task_create_missing_queues=False)
    app.conf.broker_transport_options = {"socket_connect_timeout": 0.5, "max_retries": 1}
    dog = Watchdog(app, engine, "none@here", stuck_after=0.4, sign_file=file)
    dog.declare()
    return dog


def test_only_time_in_which_postgres_and_the_broker_answer_counts(
    engine: Engine, new_redis: Callable[[], str], tmp_path: Path
) -> None:
    def is_stuck(dog: Watchdog) -> bool:
        until = time.monotonic() + 1.2
        while not dog.is_stuck and time.monotonic() < until:
            dog.look()
        return dog.is_stuck

    file = tmp_path / "sign"
    without_postgres = watchdog(engine, new_redis(), file)
    assert not is_stuck(without_postgres)
    assert file.exists()
    without_broker = watchdog(engine, f"redis://127.0.0.1:{free_port()}/0", file)
    without_broker.signed()
    assert not is_stuck(without_broker)
    with_both = watchdog(engine, new_redis(), file)
    with_both.signed()
    assert is_stuck(with_both)


def test_a_handler_that_is_slow_does_not_hang(engine: Engine, new_redis: Callable[[], str], tmp_path: Path) -> None:
    slow = watchdog(engine, new_redis(), tmp_path / "sign")
    slow.signed()
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        progress.note()
        slow.look()
        assert not slow.is_stuck
