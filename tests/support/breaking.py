"""How tests break processes: killed, or stopped where they are."""

import os
import signal

from deploy.child_process import Child
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for


def hang(child: Child) -> None:
    """Stop a process where it is, until `wake`."""
    assert child.pid
    os.killpg(child.pid, signal.SIGSTOP)


def wake(child: Child) -> None:
    """Let a process go on that hangs, if it does."""
    if child.pid and child.alive():
        os.killpg(child.pid, signal.SIGCONT)


def kill(child: Child) -> None:
    """Kill a process, and wait until it is gone."""
    assert child.pid
    os.killpg(child.pid, signal.SIGKILL)
    wait_for(lambda: not child.alive())


def all_delivered(system: Running, http: HttpReceiver, path: str, count: int, timeout: float = 30) -> None:
    """Wait until that many webhooks came to a path, and all that is known of them is that they were delivered."""
    wait_for(lambda: len(http.times(path)) == count, timeout, f"{count} webhooks at {path}")
    url = http.url(path)
    due = "SELECT count(*) FROM notifications WHERE recipient = :url AND due_at IS NOT NULL"
    wait_for(lambda: system.sql(due, url=url)[0][0] == 0, 10)
    rows = system.sql("SELECT status, count(*) FROM notifications WHERE recipient = :url GROUP BY 1", url=url)
    assert [tuple(row) for row in rows] == [("delivered", count)]
