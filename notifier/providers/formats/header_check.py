"""Header check: a strict reader of the header fields that `email_headers` writes; it refuses every other form.

Every email is read again before it is sent. An extra field, or one with another meaning than intended, would be sent in
somebody's name; instead, the email fails. The reader shares no code with the writer.
"""

import base64
import re
from typing import Final
from urllib.parse import unquote_to_bytes

#: Octets of a line, without its CRLF (RFC 5322, section 2.1.1).
_LONGEST_LINE: Final = 998
_FIELD: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]*): ?(.*)")
_WORD: Final = re.compile(r"=\?utf-8\?(?:(q)\?([!-<>@-^`-~_=]*)|(b)\?([A-Za-z0-9+/]*={0,2}))\?=")
_LONGEST_WORD: Final = 75
_ADDRESS: Final = re.compile(r'(?:(.*) )?<([^\s<>"()\\,;:@]+@[a-z0-9._-]+)>|([^\s<>"()\\,;:@]+@[a-z0-9._-]+)')
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
#: Characters that a reader which decodes first might take for the end of a field.
_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PARAMETER: Final = re.compile(r'; ([A-Za-z0-9-]+)(?:\*([0-9]+))?(\*)?=(?:"((?:[ !#-\[\]-~]|\\["\\])*)"|([^\s";]+))')


class Malformed(ValueError):
    """Header fields do not have the only form that a strict reader accepts."""


def fields_of(head: bytes) -> list[tuple[str, str]]:
    """Return the names and unfolded values of header fields, in order. Raises Malformed."""
    if not head.endswith(b"\r\n") or any(len(line) > _LONGEST_LINE for line in head.split(b"\r\n")):
        raise Malformed("lines")
    try:
        text = head.decode()
    except UnicodeDecodeError:
        raise Malformed("charset") from None
    found = []
    for line in re.split(r"\r\n(?! )", text.removesuffix("\r\n")):
        unfolded = line.replace("\r\n ", " ")
        field = _FIELD.fullmatch(unfolded)
        if field is None or _BREAKS.search(unfolded):
            raise Malformed("field")
        found.append((field[1], field[2]))
    return found


def text_of(value: str) -> str:
    """Return an unstructured value as people read it (RFC 2047). Raises Malformed."""
    read: list[str] = []
    was_word = False
    for token in value.split(" "):
        word = _WORD.fullmatch(token)
        if word is None:
            if "=?" in token:
                raise Malformed("encoded word")
            read += [" " if read else "", token]
        else:
            # The space between two encoded words belongs to neither.
            read += ["" if was_word or not read else " ", _decoded(word)]
        was_word = word is not None
    return "".join(read)


def _decoded(word: re.Match[str]) -> str:
    if len(word[0]) > _LONGEST_WORD:
        raise Malformed("encoded word")
    # Q is percent-encoding with another sign, and with _ for the space.
    if word[1] and "%" in word[2]:
        raise Malformed("encoded word")
    try:
        if word[3]:
            text = base64.b64decode(word[4], validate=True).decode()
        else:
            text = unquote_to_bytes(re.sub("=([0-9A-F]{2})", r"%\1", word[2]).replace("_", " ")).decode()
    except ValueError:
        raise Malformed("encoded word") from None
    if _BREAKS.search(text):
        raise Malformed("encoded word")
    return text


def mailbox_of(value: str) -> tuple[str, str]:
    """Return the name and the address of a value that is one mailbox. Raises Malformed."""
    found = _ADDRESS.fullmatch(value)
    if found is None or "?=" in (found[2] or found[3]).partition("=?")[2]:
        raise Malformed("mailbox")
    phrase = found[1] or ""
    quoted = _QUOTED.fullmatch(phrase)
    if quoted:
        return re.sub(r"\\(.)", r"\1", quoted[1]), found[2]
    words = phrase.split(" ")
    if not all(_WORD.fullmatch(each) for each in words) and re.search(r"[^A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]", phrase):
        raise Malformed("phrase")
    return text_of(phrase), found[2] or found[3]


def parameters_of(value: str) -> tuple[str, dict[str, str]]:
    """Return the first word of a value and its parameters (RFC 2045, RFC 2231). Raises Malformed."""
    main, semicolon, rest = value.partition(";")
    rest = semicolon + rest
    pieces: dict[str, list[tuple[str, bool]]] = {}
    while rest:
        found = _PARAMETER.match(rest)
        if found is None:
            raise Malformed("parameter")
        name, number, is_encoded, quoted, plain = found.groups()
        before = pieces.setdefault(name.lower(), [])
        if len(before) != int(number or 0):
            raise Malformed("parameter")
        text = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        before.append((text, is_encoded is not None))
        rest = rest[found.end() :]
    return main, {name: _joined(parts) for name, parts in pieces.items()}


def _joined(parts: list[tuple[str, bool]]) -> str:
    text = "".join(each for each, _ in parts)
    if not any(is_encoded for _, is_encoded in parts):
        return text
    charset, _, rest = text.partition("''")
    if charset != "utf-8" or not all(is_encoded for _, is_encoded in parts):
        raise Malformed("parameter")
    try:
        decoded = unquote_to_bytes(rest).decode()
    except UnicodeDecodeError:
        raise Malformed("parameter") from None
    if _BREAKS.search(decoded):
        raise Malformed("parameter")
    return decoded
