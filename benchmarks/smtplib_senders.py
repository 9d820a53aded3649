"""The yardstick of email: processes that do nothing but send one letter by smtplib, each over one kept connection."""

import multiprocessing
import threading
import time
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier
from typing import Any, Final

from benchmarks.mail_counts import MailCounts, connect
from benchmarks.mail_server import NUMBER

#: Seconds until all have started and connected.
_START: Final = 60.0


def _send(port: int, letter: bytes, numbers: range, start: Barrier) -> None:
    """Send a letter again and again, each time with a number of its own."""
    try:
        smtp = connect(port)
        smtp.ehlo()
    except BaseException:
        start.abort()  # so that nobody waits for it
        raise
    with smtp:
        start.wait(_START)
        for number in numbers:
            numbered = NUMBER.sub(b"n: %d\r" % number, letter)
            smtp.sendmail("notifier@mail.test", [f"user{number}@mail.test"], numbered)


def send_all(server: MailCounts, letter: bytes, emails: int, processes: int) -> dict[str, Any]:
    """Send so many from some processes; returns the mail server's figures, from when all are connected."""
    server.reset()
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(processes + 1)
    parts = [range(place, emails, processes) for place in range(processes)]
    senders: list[SpawnProcess] = []
    try:
        for part in parts:
            senders.append(spawn.Process(target=_send, args=(server.port, letter, part, start), daemon=True))
            senders[-1].start()
        start.wait(_START)
        begun = time.time()
        for sender in senders:
            sender.join()
    except threading.BrokenBarrierError:
        raise SystemExit("A sender of the yardstick could not start.") from None
    finally:
        for sender in senders:
            sender.terminate()
    return server.figures(emails, begun)
