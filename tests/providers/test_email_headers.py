"""The headers of emails for people, subjects and files of any text, as a strict reader of our own finds them."""

import re
from email import policy
from email.message import EmailMessage
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.providers.formats import mime
from notifier.providers.formats.mailboxes import Mailbox, NotAMailbox, mailbox
from notifier.providers.protocol import Attachment, Message
from tests.providers import strict_email

SENDER = mailbox("Notifier <notifier@example.com>")
#: Text as people and attackers write it; without what no header can carry.
TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=300)
NASTY = st.lists(
    st.sampled_from(
        [
            *"\"\\<>@,;:()[]. =?_-%'*`ü你🙂\u0301\u200b\u202e\xa0",
            "=?utf-8?q?x?=",
            "a" * 70,
            "=?",
            "?=",
            "ü" * 40,
            "words ",
        ]
    ),
    max_size=40,
).map("".join)
NAMES = TEXT | NASTY


def fields_of(message: Message, sender: Mailbox = SENDER) -> tuple[dict[str, str], bytes]:
    letter = mime.draft(message, sender)
    fields, body = strict_email.head_of(letter.data, utf8=letter.international)
    return dict(fields), body


def message_with(**fields: Any) -> Message:
    return Message(**({"id": uuid4(), "recipient": "ada@example.org", "subject": "Hello", "text": "Hi."} | fields))


PLAIN = {"subject", "from", "to", "date", "message-id", "auto-submitted", "mime-version", "content-type"}


@given(NAMES)
@example('Lovelace, Ada "the first" ' + "x" * 80)
@example('a\\"b')
@example("=?utf-8?q?a=0D=0ABcc=3Ax=40evil.example?=")
@example("Grüße an Jörg 💌 " * 20)
@example("J. R. R. Tolkien (author) <x@y>")
@example("a  b")
def test_a_display_name_arrives_as_it_is(name: str) -> None:
    name = name.strip(" ")
    sender = Mailbox(name, "billing", "example.com")
    fields, _ = fields_of(message_with(sender=None), sender)

    assert set(fields) == PLAIN | {"content-transfer-encoding"}
    assert strict_email.mailbox(fields["from"]) == (name, "billing@example.com")
    assert strict_email.longest_line(fields["from"], "from") <= 75


@given(NAMES)
@example('Ada "the first" Lovelace')
@example('"')
@example("\\")
def test_a_name_in_quotes_is_the_text_in_them(name: str) -> None:
    name = name.strip(" ")
    escaped = re.sub(r'(["\\])', r"\\\1", name)
    if len(name) > 500:
        return
    found = mailbox(f'"{escaped}" <ada@example.org>')

    assert (found.display_name, found.addr_spec) == (name, "ada@example.org")
    assert mailbox(str(found)) == found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ada <ada@example.org>", "Ada"),
        ("  Ada Lovelace   <ada@example.org> ", "Ada Lovelace"),
        ("<ada@example.org>", ""),
        ('"" <ada@example.org>', ""),
        ("Lovelace, Ada <ada@example.org>", "Lovelace, Ada"),
        ('Ada "the first" Lovelace <ada@example.org>', 'Ada "the first" Lovelace'),
        (r'"Ada \"the first\" \\ Lovelace" <ada@example.org>', r'Ada "the first" \ Lovelace'),
        ('"a <b>" <ada@example.org>', "a <b>"),
        ("=?utf-8?q?Ada?= <ada@example.org>", "=?utf-8?q?Ada?="),
        ('"Ada"<ada@example.org>', "Ada"),
        ('"Ada <ada@example.org>', '"Ada'),
        ('6" tall <ada@example.org>', '6" tall'),
    ],
)
def test_a_name_is_text(text: str, name: str) -> None:
    found = mailbox(text)
    assert (found.display_name, found.addr_spec) == (name, "ada@example.org")
    fields, _ = fields_of(message_with(sender=text, reply_to=text))
    for field in ("from", "reply-to"):
        assert strict_email.mailbox(fields[field]) == (name, "ada@example.org")


@pytest.mark.parametrize(
    "text",
    [
        *("Ada\r\nBcc: eve@example.net <ada@example.org>", "A\x00da <ada@example.org>", "A\x85da <ada@example.org>"),
        *("A\u2028da <ada@example.org>", "A\u2029da <ada@example.org>", '"A\nda" <ada@example.org>'),
        *("Ada <ada@example.org>\r\n", "Ada <ada@example\u2028.org>", "Ada <a\x85da@example.org>"),
        *("A\ud800da <ada@example.org>", "Ada <ada@example.org> <eve@example.net>", "Ada <b> <ada@example.org>"),
        *("Ada <=?utf-8?q?ada?=@example.org>", "=?utf-8?q?ada=40example.org?=", "=?utf-8?q?ada?=@example.org"),
        *("Ada <ada@=?utf-8?q?example?=.org>", "Ada <ada@☃.example>", "Ada <ada@xn--a.example>"),
        *("Ada <ada@xn--bücher.example>", f"Ada <ada@{'ü' * 60}.example>", f"Ada <{'a' * 65}@example.org>"),
        *("Ada <ada..l@example.org>", "Ada <.ada@example.org>", "Ada <ada@@example.org>", "Ada <ada>", "nobody", ""),
        *(
            "ada@example.org, eve@example.net",
            "Ada <ada@ example.org>",
            "Ada <a\u200bda@example.org>",
            "x" * 501 + " <a@b.c>",
        ),
    ],
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(NotAMailbox, match=r"\.$"):
        mailbox(text)


@given(NAMES)
@example("Grüße an Jörg 💌 " * 20)
@example("plain words " * 40)
@example("x" * 3000)
@example("x" * 66)
@example("x" * 67)
@example("a=b =?utf-8?q?not_encoded?= c")
@example("=?utf-8?q?a=0D=0ABcc=3Ax=40evil.example?=")
def test_a_subject_arrives_as_it_is(subject: str) -> None:
    fields, _ = fields_of(message_with(subject=subject))

    assert set(fields) == PLAIN | {"content-transfer-encoding"}
    assert strict_email.words(fields["subject"]) == " ".join(subject.split())
    assert strict_email.longest_line(fields["subject"], "subject") <= 75


@given(NAMES.map(lambda text: re.sub(r"[/\\]", "", text)[:255]))
@example("=?utf-8?q?x?=.txt")
@example("Größe 你好 💌.pdf")
@example("n" * 255)
@example("💌" * 255)
@example('a "b".txt')
@example("100%.txt")
@example("%41.txt")
@example("utf-8''x.txt")
@example(" ")
def test_a_files_name_arrives_as_it_is(name: str) -> None:
    name = name or "x"
    fields, body = fields_of(message_with(attachments=(Attachment(name, "application/pdf", b"%PDF"),)))
    _, part = strict_email.parts_of(fields["content-type"], body)
    head, content = strict_email.head_of(part)
    found = dict(head)

    assert set(found) == {"content-type", "content-transfer-encoding", "content-disposition"}
    assert strict_email.parameters(found["content-disposition"]) == ("attachment", {"filename": name})
    assert strict_email.longest_line(found["content-disposition"], "content-disposition") <= 75
    assert "=?" not in found["content-disposition"]
    assert content == b"JVBERg==\r\n"


def test_the_parameters_of_a_files_type_arrive() -> None:
    kind = 'text/calendar; method=REQUEST; charset=utf-8; component="VEVENT"; x-long=' + "x" * 40
    fields, body = fields_of(message_with(attachments=(Attachment("invite.ics", kind, b"BEGIN:VCALENDAR"),)))
    _, part = strict_email.parts_of(fields["content-type"], body)
    found = dict(strict_email.head_of(part)[0])

    given_ones = {"method": "REQUEST", "charset": "utf-8", "component": "VEVENT", "x-long": "x" * 40}
    assert strict_email.parameters(found["content-type"]) == ("text/calendar", given_ones)
    assert strict_email.longest_line(found["content-type"], "content-type") <= 75


@pytest.mark.parametrize(
    "kind", ["text/plain\r\nBcc: eve@example.net", 'text/plain; a="b', "text/plain; a=b; a=c", "text/plain; a=\u2028"]
)
def test_a_type_that_would_say_something_else_goes_into_no_letter(kind: str) -> None:
    with pytest.raises((mime.Unwritable, UnicodeError)):
        mime.draft(message_with(attachments=(Attachment("a.txt", kind, b"x"),)), SENDER)


@pytest.mark.parametrize(
    ("field", "broken"),
    [
        ("display_name", "Ada\r\nBcc: eve@example.net"),
        ("display_name", "Ada\u2028"),
        ("username", "ada>\r\nBcc: <eve"),
        ("username", "=?utf-8?q?ada?="),
        ("domain", "example.org\r\nBcc: eve@example.net"),
        ("domain", "bücher.example"),
    ],
)
def test_a_header_that_a_strict_reader_refuses_does_not_go_out(field: str, broken: str) -> None:
    """A value that was let in by mistake is not sent in somebody's name."""
    values = {"display_name": "Ada", "username": "ada", "domain": "example.org", field: broken}

    with pytest.raises(mime.Unwritable):
        mime.draft(message_with(), Mailbox(**values))


def test_domains_are_in_ascii_wherever_they_stand() -> None:
    message = message_with(
        recipient="ada@bücher.example",
        sender="Müller & Söhne <rechnung@MÜLLER.example>",
        reply_to="fragen@straße.example",
        unsubscribe="https://bücher.example/u/ü{x}",
    )
    letter = mime.draft(message, SENDER)
    found = dict(strict_email.head_of(letter.data)[0])

    assert not letter.international
    assert (letter.sender, letter.recipient) == ("rechnung@xn--mller-kva.example", "ada@xn--bcher-kva.example")
    assert strict_email.mailbox(found["from"]) == ("Müller & Söhne", "rechnung@xn--mller-kva.example")
    assert strict_email.mailbox(found["to"]) == ("", "ada@xn--bcher-kva.example")
    assert strict_email.mailbox(found["reply-to"]) == ("", "fragen@xn--strae-oqa.example")
    assert found["message-id"] == f"<{message.id}@xn--mller-kva.example>"
    assert found["list-unsubscribe"] == "<https://xn--bcher-kva.example/u/%C3%BC%7Bx%7D>"


@pytest.mark.parametrize(
    "text", [" " * 200_000 + "x", "a" + " " * 200_000 + "<", "=?a" * 70_000, '"' + "\\" * 200_001, "<" * 200_000]
)
def test_no_text_takes_long_to_refuse(text: str) -> None:
    with pytest.raises(NotAMailbox):
        mailbox(text)


def test_an_address_may_have_the_beginning_of_an_encoded_word() -> None:
    fields, _ = fields_of(message_with(recipient="a=?b@example.org", sender="Ada <a=?b@example.org>"))

    assert strict_email.mailbox(fields["to"]) == ("", "a=?b@example.org")
    assert strict_email.mailbox(fields["from"]) == ("Ada", "a=?b@example.org")


def test_a_link_of_any_length_stays_one_link() -> None:
    link = "https://example.com/u/" + "x" * 3000
    fields, _ = fields_of(message_with(unsubscribe=link))

    assert fields["list-unsubscribe"].replace("\n ", "") == f"<{link}>"
    assert fields["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"


@pytest.mark.parametrize("field", ["recipient", "sender", "reply_to"])
def test_only_a_local_part_beyond_ascii_makes_a_letter_international(field: str) -> None:
    letter = mime.draft(message_with(**{field: "jörg@bücher.example"}), SENDER)
    found = dict(strict_email.head_of(letter.data, utf8=True)[0])

    assert letter.international
    name = {"recipient": "to", "sender": "from", "reply_to": "reply-to"}[field]
    assert strict_email.mailbox(found[name]) == ("", "jörg@xn--bcher-kva.example")


LINES = st.text(st.characters(max_codepoint=127), max_size=90) | st.sampled_from(["From me", ".", "a" * 78, "a" * 79])
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", ""])


@given(st.lists(st.tuples(LINES, ENDS), max_size=6).map(lambda parts: "".join(line + end for line, end in parts)))
@example("")
@example("a" * 78)
@example("a" * 79)
@example("ü")
def test_a_plain_text_is_what_the_email_package_writes(text: str) -> None:
    letter = mime.draft(message_with(text=text), SENDER)
    mail = EmailMessage(policy=policy.SMTP.clone(cte_type="7bit"))
    mail.set_content(text)
    del mail["MIME-Version"]
    assert letter.data.endswith(b"\r\nMIME-Version: 1.0\r\n" + mail.as_bytes())
