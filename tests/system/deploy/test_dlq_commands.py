"""Work on many dead letters from the shell: groups, acts with progress, and what Ctrl-C does."""

import os
import signal
import subprocess
import sys
from subprocess import PIPE, STDOUT
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.support.commands import manage, succeed
from tests.support.letters import Letters
from tests.support.paths import ROOT
from tests.support.running import Running, wait_for


@pytest.fixture
def env(system: Running) -> dict[str, str]:
    return system.environment


@pytest.fixture
def letters(system: Running) -> Letters:
    return Letters(system.engine)


def newest_act(system: Running) -> Any:
    return system.sql("SELECT * FROM dead_letter_acts ORDER BY id DESC LIMIT 1")[0]


def test_groups_are_shown_with_their_trend(letters: Letters, env: dict[str, str]) -> None:
    letters.make(3, event_type="dlq.groups", error="http 503: #")
    letters.make(1, event_type="dlq.groups", provider=None)
    asked = ("dlq", "groups", "--by", "error", "--by", "provider", "--event-type", "dlq.groups")
    shown = succeed(*asked, environment={**env, "PYTHONIOENCODING": "utf-8"})
    [first, second] = [line for line in shown.splitlines() if "outbox" in line or "timeout" in line]
    assert "http 503: {id}" in first
    assert "█" in first
    assert ("timeout: {id}" in second, " - " in second) == (True, True)
    assert "█" not in succeed(*asked, environment={**env, "PYTHONIOENCODING": "ascii"})
    assert "There are 2 groups" in succeed(*asked, "--limit", "1", environment=env)
    assert succeed("dlq", "groups", "--channel", "chat", "--reason", "none", environment=env) == "No dead letters.\n"
    assert manage("dlq", "groups", "--by", "status", environment=env).returncode == 2


def test_letters_chosen_by_filters_are_an_act(system: Running, letters: Letters, env: dict[str, str]) -> None:
    letters.make(700, event_type="dlq.act", channel="push", recipient="dlq", error="http 503: #")
    letters.make(2, event_type="dlq.act", channel="push", recipient="dlq")
    chosen = ("--event-type", "dlq.act", "--error", "http 503: {id}", "--last-provider", "outbox")
    dry = succeed("dlq", "requeue", *chosen, "--dry-run", environment=env)
    assert dry.strip() == "Would have requeued 700 dead letters."
    assert "Requeued 700 dead letters." in succeed("dlq", "requeue", *chosen, environment=env)
    act = newest_act(system)
    assert (act.act, act.done, act.asked_by.startswith("shell:")) == ("requeue", 700, True)
    assert act.finished_at is not None
    listed = succeed("dlq", "acts", environment=env)
    [line] = [line for line in listed.splitlines() if str(act.id) in line]
    assert "700/700" in line
    assert "last_provider=outbox" in line
    purged = succeed("dlq", "purge", "--event-type", "dlq.act", "--yes", environment=env)
    assert "Purged 702 dead letters." in purged, "requeued ones too"
    assert newest_act(system).act == "drop"
    done = manage("dlq", "resume", str(act.id), environment=env)
    assert (done.returncode, done.stderr.strip()) == (1, "Error: This act is finished: nothing of it is left to do.")
    for command in ("resume", "stop"):
        unknown = manage("dlq", command, str(letters.make(1)[0]), environment=env)
        assert (unknown.returncode, unknown.stderr.strip()) == (1, "Error: There is no such act.")


def test_refused_letters_are_named_by_reason(letters: Letters, env: dict[str, str]) -> None:
    letters.make(2, event_type="dlq.refused", expires_at="2026-01-01T00:00:00Z")
    shown = succeed("dlq", "requeue", "--event-type", "dlq.refused", environment=env)
    assert shown.splitlines() == [
        "Requeued 0 dead letters.",
        "Left alone 2 that a rule forbids to send: 2 expired.",
    ]


#: A process that a shell started in the background ignores Ctrl-C, and so do those that it starts.
_HEARS_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


def _interrupted(system: Running, process: subprocess.Popen[str]) -> UUID:
    """Interrupt a command while its second batch waits for a letter; returns the act's id."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    begun = "SELECT id FROM dead_letter_acts WHERE filters ->> 'event_type' = 'dlq.stopped' AND done = 500"
    act_id: UUID = wait_for(lambda: system.sql(begun), 60)[0][0]
    wait_for(lambda: system.sql(f"{waits} AND query LIKE '%FROM dead_letters%'")[0][0])
    os.kill(process.pid, signal.SIGINT)
    wait_for(lambda: system.sql(f"{waits} AND query LIKE '%SET stopped_at%'")[0][0])
    return act_id


def test_ctrl_c_stops_an_act_and_resume_goes_on(system: Running, letters: Letters, env: dict[str, str]) -> None:
    ids = letters.make(1_500, event_type="dlq.stopped", channel="push", recipient="dlq")
    requeue = [sys.executable, str(ROOT / "manage.py"), "dlq", "requeue", "--event-type", "dlq.stopped"]
    command = [sys.executable, "-c", _HEARS_CTRL_C, *requeue]
    with system.engine.connect() as other:
        # The second batch waits here, whoever does it.
        other.execute(text("SELECT id FROM dead_letters WHERE id = :id FOR UPDATE"), {"id": ids[700]})
        with subprocess.Popen(command, env=env, cwd=ROOT, stdout=PIPE, stderr=STDOUT, text=True) as process:
            try:
                act_id = _interrupted(system, process)
                other.rollback()
                output, _ = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode == 1, output
    assert f"'dlq resume {act_id}' goes on." in output
    act = system.sql("SELECT * FROM dead_letter_acts WHERE id = :id", id=act_id)[0]
    assert act.stopped_at is not None
    assert act.done in {500, 1_000}
    assert f"{act.done}/1500" in succeed("dlq", "acts", environment=env)
    assert "Stopped:" in succeed("dlq", "stop", str(act_id), environment=env)
    assert "Requeued 1500 dead letters." in succeed("dlq", "resume", str(act_id), environment=env)
    lines = [row.action for row in system.sql("SELECT action FROM audit WHERE target LIKE :id", id=f"%{act_id}%")]
    assert sorted(lines) == ["dlq.resume", "dlq.stop"]
