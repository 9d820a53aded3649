"""Bounces and complaints of plain SMTP: return paths, reports, and the mailbox that they come to."""

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine

from notifier.providers import registry
from notifier.providers.dsn import Context
from notifier.providers.protocol import Message, Outcome
from notifier.providers.receipts import AddressStatus, Kind, Report, SuppressionReason
from notifier.providers.vendors import imap_mailbox
from notifier.providers.vendors.smtp_receipts import read
from notifier.providers.vendors.smtp_return_paths import ReturnPaths
from notifier.security.secret_box import Vault
from notifier.vocabulary.ids import new_id
from notifier.vocabulary.states import Channel
from tests.conftest import clean_environment
from tests.providers import receivers
from tests.support.imap import imap
from tests.support.paths import ROOT
from tests.support.receipt_rows import attempted, row, state, suppressed

MAILBOX = "bounce@example.com"


@pytest.fixture
def paths(engine: Engine) -> ReturnPaths:
    return ReturnPaths(MAILBOX, engine, Vault(()))


def postfix(path: str, status: str = "5.1.1", diagnostic: str = "smtp; 550 5.1.1 <ada@x.example>: no such user") -> str:
    return f"""\
Return-Path: <>
Delivered-To: {path}
From: MAILER-DAEMON@mail.example.com (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
To: {path}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="9B4D7.1/mail.example.com"

This is a MIME-encapsulated message.

--9B4D7.1/mail.example.com
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--9B4D7.1/mail.example.com
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.com
X-Postfix-Queue-ID: 9B4D7
Arrival-Date: Sat, 28 Nov 2026 08:00:00 +0000 (UTC)

Final-Recipient: rfc822; ada@x.example
Original-Recipient: rfc822;ada@x.example
Action: failed
Status: {status}
Remote-MTA: dns; mx.x.example
Diagnostic-Code: {diagnostic}

--9B4D7.1/mail.example.com
Content-Description: Undelivered Message
Content-Type: message/rfc822

Return-Path: <{path}>
From: notifier@example.com
To: ada@x.example

Hello
--9B4D7.1/mail.example.com--
"""


def exchange(path: str) -> str:
    return f"""\
From: <postmaster@corp.example>
To: <{path.upper()}>
Date: Sat, 28 Nov 2026 08:00:00 +0000
Content-Type: multipart/report; report-type=delivery-status;
 boundary="_c4a1"
X-MS-Exchange-Message-Is-Ndr:
Subject: Undeliverable: Hello

--_c4a1
Content-Type: multipart/alternative; differences=Content-Type;
 boundary="_inner"

--_inner
Content-Type: text/plain; charset="us-ascii"

Your message couldn't be delivered.
--_inner--

--_c4a1
Content-Type: message/delivery-status

Reporting-MTA: dns;EX01.corp.example
Received-From-MTA: dns;mail.example.com
Arrival-Date: Sat, 28 Nov 2026 08:00:00 +0000

Final-Recipient: rfc822;grace@corp.example
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found
X-Display-Name: grace@corp.example

--_c4a1--
"""


def gmail(path: str, status: str = "5.0.0", code: str = "5.1.1") -> str:
    return f"""\
Delivered-To: somebody-else@example.com
X-Original-To: {path}
Return-Path: <>
From: Mail Delivery Subsystem <mailer-daemon@googlemail.com>
To: <{path}>
Date: Sat, 28 Nov 2026 00:00:00 -0800 (PST)
Content-Type: multipart/report; boundary="000000000000b3"; report-type=delivery-status

--000000000000b3
Content-Type: multipart/related; boundary="000000000000b4"

--000000000000b4
Content-Type: text/html; charset="UTF-8"

<b>Address not found</b>
--000000000000b4--
--000000000000b3
Content-Type: message/delivery-status

Reporting-MTA: dns; googlemail.com
Arrival-Date: Sat, 28 Nov 2026 00:00:00 -0800 (PST)
X-Original-Message-ID: <x@example.com>

Final-Recipient: rfc822; nobody@gmail.com
Action: failed
Status: {status}
Remote-MTA: dns; gmail-smtp-in.l.google.com. (142.250.1.26, the server for the domain gmail.com.)
Diagnostic-Code: smtp; 550-{code} The email account that you tried to reach does not exist. Please try
 550-{code} double-checking the recipient's email address for typos or unnecessary spaces.
Last-Attempt-Date: Sat, 28 Nov 2026 00:00:01 -0800 (PST)

--000000000000b3--
"""


def complaint(path: str, kind: str = "abuse", where: str = "report") -> str:
    mail_from = f"Original-Mail-From: <{path}>\n" if where == "report" else ""
    original = f"Return-Path: <{path}>\n" if where in {"mail", "headers"} else ""
    content_type = "text/rfc822-headers" if where == "headers" else "message/rfc822"
    return f"""\
From: <abusedesk@isp.example>
To: <fbl@example.com>
Subject: FW: Hello
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="part"

--part
Content-Type: text/plain; charset="US-ASCII"

This is an email abuse report.
--part
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: SomeGenerator/1.0
Version: 1
{mail_from}Original-Rcpt-To: <somebody@isp.example>

--part
Content-Type: {content_type}
Content-Disposition: inline

{original}From: notifier@example.com
Subject: Hello

--part--
"""


def says(paths: ReturnPaths, mail: str | bytes) -> Report:
    raw = mail if isinstance(mail, bytes) else mail.replace("\n", "\r\n").encode()
    return read(raw, paths, datetime.now(UTC))


# Return paths.


def test_a_return_path_names_its_notification_and_only_we_can_make_it(engine: Engine, paths: ReturnPaths) -> None:
    row_id = new_id()
    path = paths.of(row_id)
    local, _, domain = path.partition("@")
    assert (len(local) <= 64, domain, path.lower()) == (True, "example.com", path)
    again = ReturnPaths(MAILBOX, engine, Vault(()))  # another process
    for text in (path, f"<{path}>", path.upper(), f"rfc822;{path}", f"x@example.com, {path}"):
        assert again.read([text]) == row_id
    other = create_engine(engine.url)
    flipped = path.replace(path[20], "a" if path[20] != "a" else "b")
    wrong = [flipped, path.replace("example.com", "example.com.evil.example"), "x" + path, path[:-1], MAILBOX, ""]
    assert [again.read([text]) for text in wrong] == [None] * len(wrong)
    other.dispose()


@pytest.mark.parametrize("address", ["", "bounce", "@example.com", "b" * 22 + "@example.com", "ü@example.com"])
def test_mailboxes_that_are_refused(engine: Engine, address: str) -> None:
    with pytest.raises(ValueError, match=r"^has bounces"):
        ReturnPaths(address, engine, Vault(()))


def sent(engine: Engine, port: int, row_id: UUID, options: str) -> Any:
    context = Context(Channel.EMAIL, 5.0, "Us <notifier@example.com>", "http://localhost:8000", (), engine)
    provider = registry.make(f"smtp://127.0.0.1:{port}?tls=none{options}", context)
    results = [each for some in provider.send(iter([Message(row_id, "ada@x.example", "Hi", "Hello")])) for each in some]
    provider.close()
    return results[0]


def test_an_email_goes_out_with_a_return_path_of_its_own(engine: Engine, paths: ReturnPaths) -> None:
    row_id = new_id()
    with receivers.mail() as (port, mailbox):
        assert sent(engine, port, row_id, f"&bounces={MAILBOX}").outcome is Outcome.ACCEPTED
        assert sent(engine, port, row_id, "").outcome is Outcome.ACCEPTED
    assert [envelope.mail_from for envelope in mailbox.envelopes] == [paths.of(row_id), "notifier@example.com"]
    assert b"From: Us <notifier@example.com>" in (mailbox.envelopes[0].content or b"")


def test_without_its_key_an_email_waits() -> None:
    nowhere = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    with receivers.mail() as (port, mailbox):
        result = sent(nowhere, port, new_id(), f"&bounces={MAILBOX}")
    assert (result.outcome, result.error) == (Outcome.UNSENT, "database: OperationalError")
    assert mailbox.envelopes == []


# Reports.


@pytest.mark.parametrize("report", [postfix, exchange, gmail])
def test_nobody_is_there(paths: ReturnPaths, report: Callable[[str], str]) -> None:
    row_id = new_id()
    said = says(paths, report(paths.of(row_id)))
    [receipt] = said.receipts
    assert (receipt.provider, receipt.notification_id, receipt.kind) == ("smtp", row_id, Kind.BOUNCED)
    assert (receipt.error or "").startswith("smtp bounce, 5.1.1")
    # The return path's own recipient, whomever the report names.
    assert said.standings == (AddressStatus(Channel.EMAIL, "", SuppressionReason.HARD_BOUNCE, notification_id=row_id),)


@pytest.mark.parametrize(
    ("status", "diagnostic", "kind", "suppresses"),
    [
        ("5.1.2", "", Kind.BOUNCED, True),
        ("5.1.7", "", Kind.BOUNCED_HERE, False),
        ("5.1.8", "", Kind.BOUNCED_HERE, False),
        ("5.7.1", "", Kind.BOUNCED_HERE, False),
        ("5.2.2", "", Kind.BOUNCED_FOR_NOW, False),
        ("4.4.1", "connect to mx.x.example: Connection timed out", Kind.BOUNCED_FOR_NOW, False),
        ("4.2.2", "", Kind.BOUNCED_FOR_NOW, False),
        ("5.2.1", "", Kind.BOUNCED, False),
        ("5.3.4", "", Kind.BOUNCED, False),
        ("5.0.0", "smtp; 550 no", Kind.BOUNCED, False),
        ("5.0.0", "smtp; 552 5.2.2 full", Kind.BOUNCED_FOR_NOW, False),
        ("", "", Kind.BOUNCED, False),
        ("9.1.1", "smtp; 10.5.1.1 said 250", Kind.BOUNCED, False),
    ],
)
def test_other_bounces(paths: ReturnPaths, status: str, diagnostic: str, kind: Kind, suppresses: bool) -> None:
    said = says(paths, postfix(paths.of(new_id()), status, diagnostic))
    assert [receipt.kind for receipt in said.receipts] == [kind]
    assert bool(said.standings) is suppresses


@pytest.mark.parametrize("action", ["delayed", "relayed", "expanded", "", "else"])
def test_what_is_not_decided(paths: ReturnPaths, action: str) -> None:
    mail = postfix(paths.of(new_id())).replace("Action: failed", f"Action: {action}")
    assert says(paths, mail) == Report()


def test_it_arrived(paths: ReturnPaths) -> None:
    said = says(paths, postfix(paths.of(new_id()), "2.0.0").replace("Action: failed", "Action: Delivered"))
    assert ([each.kind for each in said.receipts], said.standings) == ([Kind.DELIVERED], ())


@pytest.mark.parametrize("where", ["report", "mail", "headers"])
@pytest.mark.parametrize(("kind", "counts"), [("abuse", True), ("fraud", True), ("not-spam", False)])
def test_complaints(paths: ReturnPaths, where: str, kind: str, counts: bool) -> None:
    row_id = new_id()
    standing = AddressStatus(Channel.EMAIL, "", SuppressionReason.COMPLAINT, notification_id=row_id)
    assert says(paths, complaint(paths.of(row_id), kind, where)) == Report((), (standing,) if counts else ())


def test_what_is_no_report_of_ours(paths: ReturnPaths) -> None:
    path = paths.of(new_id())
    flipped = path.replace(path[20], "a" if path[20] != "a" else "b")
    others: list[str | bytes] = [
        postfix(flipped),
        postfix(MAILBOX),
        complaint(flipped),
        f"To: {path}\nSubject: Out of office\n\nAction: failed\nStatus: 5.1.1\n",
        f"To: {path}\nContent-Type: multipart/report; boundary=x\n\n",
        f"To: {path}\nContent-Type: message/delivery-status\n\nAction: failed\n",
        postfix(path).replace("multipart/report", "multipart/mixed"),
        # A stranger's bounce, which quotes an email of ours in what it brings along.
        postfix(MAILBOX).replace(f"Return-Path: <{MAILBOX}>", f"Return-Path: <{path}>"),
    ]
    assert [says(paths, mail) for mail in others] == [Report()] * len(others)


@pytest.mark.parametrize(
    "mail",
    [
        b"",
        b"\0" * 100,
        b"\xff\xfe" * 999,
        b"To: \r\n" * 5000,
        b"Content-Type: multipart/report; boundary=x\r\n\r\n" + b"--x\r\n" * 20_000,
        b"".join(b'Content-Type: multipart/report; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(3000)),
        b"Content-Type: message/rfc822\r\n\r\n" * 5000,
        b"Content-Type: multipart/report; boundary=x; charset*9999999999=y\r\n\r\n--x\r\nContent-Type: message/"
        b"delivery-status; charset=none\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!\r\n--x--",
        b"Content-Type: multipart/report; boundary=x\r\nDate: Mon, 99 Foo 99999 99:99:99 +9999\r\n\r\n--x\r\n"
        b"Content-Type: message/delivery-status\r\n\r\nAction: \xff\xff\r\nStatus: 5." + b"1" * 9999 + b"\r\n--x--",
    ],
)
def test_hostile_mails_change_nothing(paths: ReturnPaths, mail: bytes) -> None:
    assert says(paths, mail) == Report()


def test_a_report_that_is_cut_off_still_counts(paths: ReturnPaths) -> None:
    mail = postfix(paths.of(new_id())).replace("Hello\n", "x" * 2_000_000 + "\n")
    assert says(paths, mail).receipts


# The mailbox.


@pytest.mark.parametrize(
    "text",
    [
        "imaps://host/INBOX",
        "imaps://user@host",
        "smtp://u:p@host",
        "imap://u:p@host?tls=maybe",
        "imaps://u:p@host/x?seen=1",
        'imaps://u:p@host/a"b',
        "imaps://u:p@host/a%0d%0ab",
        "imaps://u:p@host:x",
        "imaps://u:p@host:0",
    ],
)
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is not|has a)"):
        imap_mailbox.parse(text)


def test_addresses_hide_their_password() -> None:
    address = imap_mailbox.parse("imaps://u:hunter2@host")
    assert "hunter2" not in repr(address)
    assert (address.port, address.folder, address.tls) == (993, "INBOX", "implicit")


def mailbox_at(port: int, more: str = "", password: str = "secret") -> imap_mailbox.Address:
    return imap_mailbox.parse(f"imap://reader:{password}@127.0.0.1:{port}/Bounces?tls=none{more}")


def test_no_login_is_sent_to_a_mailbox_where_others_can_read_it() -> None:
    with imap({7: b"x"}) as server:
        address = imap_mailbox.parse(f"imap://reader:hunter2@127.0.0.1:{server.port}/Bounces")
        with pytest.raises(imap_mailbox.MailboxError, match="offers no TLS") as refused:
            imap_mailbox.read_new(address, lambda _: None)
        assert "hunter2" not in str(refused.value)
        assert not [command for command in server.commands if "LOGIN" in command or "hunter2" in command]


def test_mails_are_marked_once_they_are_taken() -> None:
    mails = {uid: b"mail %d" % uid for uid in range(1, 121)}
    with imap(mails) as server:
        taken: list[bytes] = []

        def take(some: list[bytes]) -> None:
            if len(taken) == 50 and "retried" not in given:
                given.append("retried")
                raise ConnectionError  # the database is gone
            taken.extend(some)

        given: list[str] = []
        with pytest.raises(imap_mailbox.MailboxError):
            imap_mailbox.read_new(mailbox_at(server.port), take)
        assert server.seen == set(range(1, 51))
        assert imap_mailbox.read_new(mailbox_at(server.port), take) == 70
        assert taken == list(mails.values())
        assert imap_mailbox.read_new(mailbox_at(server.port), take) == 0


@pytest.mark.parametrize("capabilities", ["IMAP4rev1 MOVE UIDPLUS", "IMAP4rev1 UIDPLUS", "IMAP4rev1"])
def test_mails_are_moved(capabilities: str) -> None:
    with imap({7: b"x", 9: b"y"}, capabilities=capabilities) as server:
        assert imap_mailbox.read_new(mailbox_at(server.port, "&move=Done"), lambda _: None) == 2
        assert server.moved == {7: "Done", 9: "Done"}
        assert imap_mailbox.read_new(mailbox_at(server.port, "&move=Done"), lambda _: None) == 0


@pytest.mark.parametrize("command", ["LOGIN", "SELECT", "UID SEARCH", "UID FETCH", "UID STORE"])
def test_a_server_that_hangs_is_left_at_the_deadline(command: str) -> None:
    with imap({1: b"x"}, hangs_at=command) as server:
        began = time.monotonic()
        with pytest.raises(imap_mailbox.MailboxError):
            imap_mailbox.read_new(mailbox_at(server.port), lambda _: None, deadline=0.3)
        assert time.monotonic() - began < 5


def test_a_server_that_refuses_is_named_without_the_password() -> None:
    with imap({}) as server, pytest.raises(imap_mailbox.MailboxError) as refused:
        imap_mailbox.read_new(mailbox_at(server.port, password="wrong"), lambda _: None)
    assert "wrong" not in str(refused.value)


# The command.


def bounces(database_url: str, *arguments: str, mail: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"DATABASE_URL": database_url, "NOTIFIER_EMAIL": f"smtp://127.0.0.1:1?bounces={MAILBOX}", **settings}
    return subprocess.run(
        [sys.executable, ROOT / "manage.py", "bounces", *arguments],
        env={**clean_environment(), **environment},
        input=mail,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_mailbox_is_read(database_url: str, engine: Engine, paths: ReturnPaths) -> None:
    gone, refused, other, complains = (row(engine, "sent") for _ in range(4))
    attempted(engine, [gone, refused], provider="smtp")
    attempted(engine, [other], provider="sendgrid")
    attempted(engine, [complains], provider="smtp")
    mails = [
        postfix(paths.of(gone)),
        "nonsense",
        gmail(paths.of(refused), "4.2.2", "4.2.2"),
        postfix(paths.of(other)),
        complaint(paths.of(complains)),
    ]
    with imap({number: mail.encode() for number, mail in enumerate(mails, 1)}) as server:
        setting = f"imap://reader:secret@127.0.0.1:{server.port}/INBOX?tls=none"
        done = bounces(database_url, NOTIFIER_BOUNCES=setting)
        assert done.returncode == 0, done.stderr
        assert server.seen == {1, 2, 3, 4, 5}
    assert "Read 5 mails: " in done.stdout
    assert [state(engine, each)[0] for each in (gone, refused, other, complains)] == [
        "failed",
        "retrying",
        "sent",
        "sent",
    ]
    assert ("email", "ada@example.com", "hard_bounce", None) in suppressed(engine)


def test_a_mail_is_piped(database_url: str, engine: Engine, paths: ReturnPaths) -> None:
    row_id = row(engine, "sent")
    attempted(engine, [row_id], provider="smtp")
    done = bounces(database_url, "-", mail=postfix(paths.of(row_id)))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Read 1 mail: 1 bounced, 1 hard_bounce.")
    assert state(engine, row_id) == ("failed", "bounced")
    # A mail server keeps what cannot be taken now.
    url = "postgresql://nobody@127.0.0.1:1/none"
    assert bounces(url, "-", mail=postfix(paths.of(row_id))).returncode == 75


def test_what_is_not_set_is_said(database_url: str) -> None:
    assert "NOTIFIER_BOUNCES is not set" in bounces(database_url).stderr
    without = bounces(database_url, NOTIFIER_EMAIL="smtp://127.0.0.1:1")
    assert "bounces=bounce@example.com" in without.stderr
