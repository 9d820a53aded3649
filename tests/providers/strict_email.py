"""A strict reader of email, character by character, by RFC 5322, 2045, 2047 and 2231: what it does not know it refuses.

It knows nothing of what wrote the email, and nothing of Python's email package.
"""

import base64
import binascii

ATOM = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~")
TOKEN = {chr(each) for each in range(0x21, 0x7F)} - set('()<>@,;:\\"/[]?=')
HEX = set("0123456789ABCDEF")


class NotStrict(AssertionError):
    """An email is not what the RFCs allow."""


def demand(holds: object, what: str) -> None:
    if not holds:
        raise NotStrict(what)


def head_of(data: bytes, *, utf8: bool = False) -> tuple[list[tuple[str, str]], bytes]:
    """The fields, folded as they stand, and the body."""
    head, blank, body = data.partition(b"\r\n\r\n")
    demand(blank, "no body")
    fields: list[tuple[str, str]] = []
    for line in head.split(b"\r\n"):
        text = line.decode("utf-8" if utf8 else "ascii")
        demand(len(line) <= 998, "a line of over 998 octets")
        demand("=?utf-8?" not in text or len(line) <= 75, f"a line with an encoded word of over 75 characters: {text}")
        demand(all(ord(each) >= 0x20 and ord(each) != 0x7F for each in text), f"a control character: {text!r}")
        if text.startswith(" "):
            demand(text.strip() and fields, "an empty line, or one that goes on with nothing")
            name, value = fields[-1]
            fields[-1] = (name, f"{value}\n{text}")
        else:
            name, colon, value = text.partition(":")
            demand(colon and name and all("!" <= each <= "~" for each in name), f"no field: {text!r}")
            fields.append((name.lower(), value.removeprefix(" ")))
    names = [name for name, _ in fields]
    demand(len(set(names)) == len(names), "a field twice")
    return fields, body


def longest_line(value: str, name: str) -> int:
    return max(map(len, f"{name}: {value}".split("\n")))


def words(value: str) -> str:
    """Unstructured text with encoded words."""
    found: list[tuple[str, bool]] = []
    for each in value.replace("\n", "").split(" "):
        if each.startswith("=?"):
            found.append((encoded_word(each), True))
        else:
            demand("=?" not in each, f"half an encoded word: {each}")
            found.append((each, False))
    text = ""
    for at, (each, is_word) in enumerate(found):
        between = at and not (is_word and found[at - 1][1])
        text += (" " if between else "") + each
    return text


def encoded_word(text: str) -> str:
    demand(len(text) <= 75, f"an encoded word of over 75 characters: {text}")
    parts = text.split("?")
    demand(len(parts) == 5 and parts[0] == "=" and parts[4] == "=", f"no encoded word: {text}")
    _, charset, encoding, payload, _ = parts
    demand(charset.lower() == "utf-8", charset)
    if encoding.lower() == "b":
        try:
            octets = binascii.a2b_base64(payload, strict_mode=True)
        except binascii.Error:
            raise NotStrict(payload) from None
        demand(base64.b64encode(octets).decode() == payload, "base64 in another form")
    else:
        demand(encoding.lower() == "q", encoding)
        octets, at = b"", 0
        while at < len(payload):
            if payload[at] == "=":
                demand(len(payload[at + 1 : at + 3]) == 2 and set(payload[at + 1 : at + 3]) <= HEX, payload)
                octets += bytes([int(payload[at + 1 : at + 3], 16)])
                at += 3
            else:
                # In a phrase (RFC 2047, section 5, rule 3).
                demand(payload[at].isalnum() or payload[at] in "!*+-/_", f"not in a phrase: {payload}")
                octets += b" " if payload[at] == "_" else payload[at].encode("ascii")
                at += 1
    return octets.decode("utf-8")  # whole characters only


def mailbox(value: str) -> tuple[str, str]:
    """One mailbox: its name and its address."""
    text = value.replace("\n", "")
    name, at = [], 0
    is_quoted = False
    while at < len(text) and text[at] != "<":
        if text[at] == '"':
            demand(not name, "a quoted string beside other words")
            is_quoted = True
            said, at = quoted_string(text, at)
            name.append(said)
            demand(text[at : at + 1] == " ", "no space after a quoted string")
            at += 1
            continue
        if "@" in text[at:] and "<" not in text:
            return "", address(text)
        begun = at
        while at < len(text) and text[at] in ATOM:
            at += 1
        demand(at > begun and text[at : at + 1] == " ", f"no atom: {text[begun:]}")
        name.append(text[begun:at])
        at += 1
    demand(text.endswith(">") and at < len(text), f"no address: {text}")
    if is_quoted:
        demand(len(name) == 1, "a quoted string beside other words")
        return name[0], address(text[at + 1 : -1])
    return words(" ".join(name)), address(text[at + 1 : -1])


def quoted_string(text: str, at: int) -> tuple[str, int]:
    """Return the content of the quoted string that begins at a place, and the place after its end."""
    said = ""
    at += 1
    while text[at : at + 1] != '"':
        if text[at : at + 1] == "\\":
            at += 1
        demand(" " <= text[at : at + 1] <= "~", "no end of a quoted string")
        said += text[at]
        at += 1
    return said, at + 1


def address(text: str) -> str:
    local_part, _, domain = text.rpartition("@")
    for atom in local_part.split("."):
        demand(atom and all(each in ATOM or ord(each) > 0x9F for each in atom), f"no local part: {local_part}")
    for label in domain.split("."):
        demand(label and all(each.isascii() and (each.isalnum() or each in "-_") for each in label), f"domain {domain}")
    demand("?=" not in text.partition("=?")[2], "an encoded word in an address")
    return text


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """The main value and its parameters."""
    text = value.replace("\n", "")
    main, semicolon, rest = text.partition(";")
    plain: dict[str, str] = {}
    pieces: dict[str, list[str]] = {}
    while semicolon:
        demand(rest.startswith(" "), f"no space before a parameter: {rest}")
        rest = rest[1:]
        name, equals, rest = rest.partition("=")
        demand(equals and set(name) <= TOKEN, f"no parameter: {name}")
        if rest.startswith('"'):
            said, at = quoted_string(rest, 0)
            demand("*" not in name, "an encoded value in quotes")
            rest = rest[at:]
        else:
            said = rest.split(";", 1)[0]
            demand(said and (set(said) <= TOKEN or "*" in name), f"no token: {said}")
            rest = rest[len(said) :]
        demand(rest == "" or rest.startswith(";"), f"after a parameter: {rest}")
        semicolon, rest = rest[:1], rest[1:]
        bare, *marks = name.split("*")
        if not marks:
            demand(bare not in plain, "a parameter twice")
            plain[bare.lower()] = said
        else:
            demand(marks[-1] == "" and set(said) <= TOKEN - {"*"}, said)
            before = pieces.setdefault(bare.lower(), [])
            demand(marks in ([""], [str(len(before)), ""]), f"pieces out of order: {name}")
            before.append(said)
    for name, said in pieces.items():
        demand(name not in plain, "a parameter twice")
        charset, language, encoded = "".join(said).split("'", 2)
        demand((charset, language) == ("utf-8", ""), charset)
        for each in said:  # no piece ends within a character
            percent_decoded(each.rpartition("'")[2])
        plain[name] = percent_decoded(encoded)
    return main, plain


def percent_decoded(text: str) -> str:
    octets, at = b"", 0
    while at < len(text):
        if text[at] == "%":
            demand(set(text[at + 1 : at + 3]) <= HEX and len(text[at + 1 : at + 3]) == 2, text)
            octets += bytes([int(text[at + 1 : at + 3], 16)])
            at += 3
        else:
            octets += text[at].encode("ascii")
            at += 1
    return octets.decode("utf-8")


def parts_of(value: str, body: bytes) -> list[bytes]:
    """The parts of a multipart body, by its Content-Type."""
    main, given = parameters(value)
    demand(main.startswith("multipart/"), main)
    delimiter = b"\r\n--" + given["boundary"].encode("ascii")
    before, *parts = (b"\r\n" + body).split(delimiter)
    demand(before.strip() == b"" and parts.pop() == b"--\r\n", "no end of a multipart")
    demand(all(each.startswith(b"\r\n") for each in parts), "a boundary within a part")
    return [each.removeprefix(b"\r\n") for each in parts]
