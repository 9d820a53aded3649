"""Email header fields, written by the RFCs themselves (5322, 2047, 2231) and not by a library's release.

Every field is folded into lines of at most 75 characters if its text can be folded at all. Text that is not plain
ASCII, and text that looks like an encoded word, becomes encoded words; each of them contains whole characters.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from notifier.providers.formats.mailboxes import ATEXT, Mailbox, quoted

EOL: Final = "\r\n"
#: The longest line, without its CRLF. (RFC 2047, section 2, allows 75 to an encoded word and 76 to its line.)
_LINE: Final = 75
_FOLD: Final = f"{EOL} "

_ATOMS: Final = re.compile(rf"[{ATEXT}]+(?: [{ATEXT}]+)*")
_PRINTABLE: Final = re.compile(r"[ -~]*")
#: The beginning of an encoded word, also for readers that are not strict.
_BEGINS_WORD: Final = "=?"
#: Bytes that an encoded word in a phrase may contain unencoded (RFC 2047, section 5, rule 3).
_PLAIN_IN_WORD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_SPACE: Final = ord(" ")
_WORD_AROUND: Final = len("=?utf-8?q??=")
#: A file name that is safe in quotes and means the same to every reader.
_PLAIN_FILE_NAME: Final = re.compile(r"[A-Za-z0-9 !#$&()+,.@^_`{}~=-]+")
#: Characters that RFC 2231 leaves unencoded (attribute-char), besides letters and digits.
_PLAIN_IN_PARAMETER: Final = "!#$&+-.^_`{|}~"
_CHARSET: Final = "utf-8''"


def subject_text(text: str) -> str:
    """Return a subject on one line: white space and control characters of any kind become single spaces."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()


def subject_field(text: str) -> str:
    """Return the field of a subject. Raises UnicodeEncodeError if it contains half a surrogate pair."""
    text = subject_text(text)
    words = text.split(" ")
    if _PRINTABLE.fullmatch(text) and _BEGINS_WORD not in text and max(map(len, words)) < _LINE - len("Subject: "):
        lines = _filled("Subject:", words)
    else:
        lines = _FOLD.join(_encoded_words(text, len("Subject: ")))
        lines = f"Subject: {lines}"
    return f"{lines}{EOL}"


def mailbox_field(name: str, mailbox: Mailbox) -> str:
    """Return a field `name` that contains one mailbox. Raises as `subject_field`."""
    if not mailbox.display_name:
        return f"{name}: {mailbox.addr_spec}{EOL}"
    phrase = f"{name}: {_phrase(mailbox.display_name, len(name) + 2)}"
    address = f"<{mailbox.addr_spec}>"
    last_line = phrase.rpartition(EOL)[2]
    between = " " if len(last_line) + 1 + len(address) <= _LINE else _FOLD
    return f"{phrase}{between}{address}{EOL}"


def parameters_field(name: str, main: str, given: Iterable[str]) -> str:
    """Return a field with parameters that are already formatted; if there is no room, each gets its own line."""
    text = f"{name}: {main}"
    last = len(text)
    for each in given:
        fits = last + 2 + len(each) + 1 <= _LINE
        text += f"; {each}" if fits else f";{_FOLD}{each}"
        last = last + 2 + len(each) if fits else 1 + len(each)
    return f"{text}{EOL}"


def file_name(name: str) -> list[str]:
    """Return the parameters for a file's name: in quotes if that is safe, else by RFC 2231. Raises as above."""
    if _PLAIN_FILE_NAME.fullmatch(name) and _BEGINS_WORD not in name and len(name) < _LINE - len(' filename="";'):
        return [f'filename="{name}"']
    encoded = quote(name, safe=_PLAIN_IN_PARAMETER)
    whole = f"filename*={_CHARSET}{encoded}"
    if len(whole) + 2 <= _LINE:
        return [whole]
    # Numbers of at most three digits: a name has at most 255 characters, of at most 12 octets each.
    room = _LINE - len(" filename*000*=utf-8'';")
    pieces = [""]
    for character in name:
        piece = quote(character, safe=_PLAIN_IN_PARAMETER)
        if len(pieces[-1]) + len(piece) > room:
            pieces.append("")
        pieces[-1] += piece
    return [f"filename*{at}*={piece if at else _CHARSET + piece}" for at, piece in enumerate(pieces)]


def _phrase(text: str, used: int) -> str:
    """Return a display name; `used`: characters that precede it on its line."""
    if _PRINTABLE.fullmatch(text) and _BEGINS_WORD not in text:
        plain = text if _ATOMS.fullmatch(text) else quoted(text)
        if used + len(plain) <= _LINE:
            return plain
    return _FOLD.join(_encoded_words(text, used))


def _encoded_words(text: str, used: int) -> Iterator[str]:
    """Yield a text as encoded words, each for a line of its own; the first line has `used` characters already."""
    octets = text.encode()
    in_q = _size_in_q(octets) <= (len(octets) + 2) // 3 * 4
    encode = _q if in_q else _b
    begun = size = 0
    room = _LINE - used - _WORD_AROUND
    for at, character in enumerate(text):
        more = _size_in_q(character.encode()) if in_q else len(character.encode())
        if size + more > (room if in_q else room // 4 * 3) and at > begun:
            yield encode(text[begun:at].encode())
            begun, size, room = at, 0, _LINE - len(" ") - _WORD_AROUND
        size += more
    yield encode(text[begun:].encode())


def _size_in_q(octets: bytes) -> int:
    return sum(1 if each in _PLAIN_IN_WORD or each == _SPACE else 3 for each in octets)


def _q(octets: bytes) -> str:
    said = "".join(
        "_" if each == _SPACE else chr(each) if each in _PLAIN_IN_WORD else f"={each:02X}" for each in octets
    )
    return f"=?utf-8?q?{said}?="


def _b(octets: bytes) -> str:
    return f"=?utf-8?b?{b64encode(octets).decode()}?="


def _filled(name: str, words: list[str]) -> str:
    """Return a field on as few lines as its words need."""
    lines = [name]
    for word in words:
        if len(lines[-1]) + 1 + len(word) <= _LINE or lines == [name]:
            lines[-1] += f" {word}"
        else:
            lines.append(f" {word}")
    return EOL.join(lines)
