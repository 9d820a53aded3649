"""Email, measured: python -m benchmarks.email [--emails 10000] [--connections 4] [--senders 4] [--json].

Posts email events, 500 a request, and counts at a mail server what came by SMTP. The yardstick is smtplib in the same
run: some processes, each with one kept connection, send one of the letters that ours sent, with its number replaced, to
the same mail server. It composes, stores and asks nothing. Ours has one worker process for fresh notifications.
"""

import argparse
import time
from typing import Any, Final

from rich.table import Table

from benchmarks.client import post
from benchmarks.mail_counts import MailCounts, mail_server
from benchmarks.output import progress, show
from benchmarks.smtplib_senders import send_all
from benchmarks.stack import bench_folder, stack
from deploy.child_process import wait_until

DRAIN: Final = 600.0
BATCH: Final = 500


def _ours(url: str, server: MailCounts, emails: int, connections: int) -> dict[str, Any]:
    """Post emails in batches, and wait until the mail server has all."""
    server.reset()
    begun = time.time()
    load = post(
        f"{url}/api/v1/events/batch",
        "",
        seconds=DRAIN,
        connections=connections,
        batch=BATCH,
        most=emails,
        members=lambda number: {"recipient": f"user{number}@mail.test", "channel": "email"},
    )
    _wait(server, load.accepted)
    time.sleep(1)  # one that comes twice may come late
    return {**server.figures(load.accepted, begun), "ingest": load.rate, "refused": len(load.posted) - load.accepted}


def _wait(server: MailCounts, emails: int) -> None:
    with progress() as bars:
        bar = bars.add_task("emails", total=emails)

        def all_there() -> bool:
            time.sleep(0.1)  # asking costs the machine more than it tells
            bars.update(bar, completed=(count := server.count()))
            return count >= emails

        wait_until(all_there, DRAIN)


def measure(emails: int, connections: int, senders: int) -> dict[str, Any]:
    """Every figure of one run."""
    with bench_folder() as folder, mail_server(folder) as server:
        settings = {
            "NOTIFIER_EMAIL": f"smtp://127.0.0.1:{server.port}?tls=none",
            "NOTIFIER_EMAIL_FROM": "notifier@mail.test",
        }
        with stack(folder, **settings) as url:
            _ours(url, server, BATCH, connections)  # everything is warm
            ours = _ours(url, server, emails, connections)
            letter = server.sample()
        # Beside it our own stack is down, and takes nothing of the machine.
        plain = send_all(server, letter, emails, senders)
    return {
        "emails": emails,
        "letter_bytes": len(letter),
        "senders": senders,
        "ours": ours,
        "smtplib": plain,
        "ratio": ours["rate"] / plain["rate"],
    }


def _table(figures: dict[str, Any]) -> Table:
    title = f"{figures['emails']:,} emails of {figures['letter_bytes']:,} bytes: × {figures['ratio']:.2f} of smtplib"
    table = Table("", title=title, title_justify="left")
    for column in ("emails/s", "× smtplib", "accepted/s", "first after ms", "lost", "duplicates", "refused"):
        table.add_column(column, justify="right")
    names = {"ours": "ours", "smtplib": f"smtplib in {figures['senders']} processes"}
    for key, name in names.items():
        row = figures[key]
        table.add_row(
            name,
            *(f"{row['rate']:,.0f}", f"{row['rate'] / figures['smtplib']['rate']:.2f}"),
            f"{row['ingest']:,.0f}" if "ingest" in row else "",
            f"{row['first_after'] * 1000:,.0f}" if row["first_after"] is not None else "never",
            *(str(row.get(count, "")) for count in ("lost", "duplicates", "refused")),
        )
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emails", type=int, default=10_000, help="in full batches of 500")
    parser.add_argument("--connections", type=int, default=4, help="that post batches")
    parser.add_argument("--senders", type=int, default=4, help="processes of the yardstick")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    figures = measure(options.emails, options.connections, options.senders)
    show(figures, _table, as_json=options.json)


if __name__ == "__main__":
    main()
