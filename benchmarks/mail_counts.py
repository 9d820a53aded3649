"""The mail server as benchmarks start it, and ask it for what came."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from smtplib import SMTP
from typing import Any

from benchmarks.stack import ROOT
from deploy.child_process import Child
from deploy.ports import free_port


def connect(port: int) -> SMTP:
    """Connect to the mail server."""
    return SMTP("127.0.0.1", port, local_hostname="[127.0.0.1]", timeout=60)  # a name would be asked of the DNS


class MailCounts:
    """Everything that a mail server has taken since the last reset."""

    def __init__(self, port: int) -> None:
        self.port = port

    def _ask(self, command: str) -> bytes:
        with connect(self.port) as smtp:
            return smtp.docmd(command)[1]

    def reset(self) -> None:
        """Forget what came."""
        self._ask("XRESET")

    def count(self) -> int:
        """Return how many different messages came."""
        return int(json.loads(self._ask("XCOUNT"))["count"])

    def sample(self) -> bytes:
        """Return the last message."""
        text: str = json.loads(self._ask("XSAMPLE"))
        return text.encode("latin-1")

    def figures(self, emails: int, begun: float) -> dict[str, Any]:
        """Return how many came a second since a moment, and how many did not or came twice."""
        came = json.loads(self._ask("XCOUNT"))
        seconds = came["last_at"] - begun
        return {
            "rate": came["count"] / seconds if came["count"] else 0.0,
            "first_after": came["first_at"] - begun if came["count"] else None,
            "seconds": seconds if came["count"] else None,
            "lost": emails - came["count"],
            "duplicates": came["messages"] - came["count"],
        }


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), connect(port):
        return True
    return False


@contextlib.contextmanager
def mail_server(folder: Path) -> Iterator[MailCounts]:
    """A mail server in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.mail_server", "--port", str(port)]
    child = Child("mail-server", command, log=folder / "mail-server.log", cwd=ROOT, ready=lambda: _answers(port))
    child.start()
    try:
        yield MailCounts(port)
    finally:
        child.stop()
