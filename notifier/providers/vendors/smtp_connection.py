"""An SMTP connection: opened, secured and logged in once, then used for many emails.

| reply                                                       | outcome                                          |
|-------------------------------------------------------------|--------------------------------------------------|
| 2xx to the end of DATA                                      | accepted                                         |
| 530, 534, 535, 538 anywhere (we are to log in)              | unsent, the provider's fault                     |
| any refusal before MAIL: banner (521, 554 too), EHLO, TLS, AUTH | unsent, the provider's fault                 |
| no TLS, where there is a login and no `tls=none`            | unsent, the provider's fault; no login is sent   |
| 421, which ends the connection                              | unsent, the provider's fault                     |
| X.1.7, X.1.8 (the sender's address)                         | 5xx: rejected; 4xx: unsent                       |
| X.2.3, X.3.4 (too large)                                    | 5xx: rejected; 4xx: unsent                       |
| other X.3.x (the server's own trouble)                      | unsent, the provider's fault                     |
| 5.1.1, 5.1.2, 5.1.3, 5.1.6, 5.1.10, 5.2.1, 556              | rejected, the recipient's fault                  |
| 550, 551, 553 to RCPT without an enhanced code              | rejected, the recipient's fault                  |
| other 5xx                                                   | rejected                                         |
| other 4xx                                                   | unsent                                           |
| connection lost, timed out, or no SMTP: the provider's fault | ambiguous after the dot that ends it, else unsent |
| no SMTPUTF8, and a local part beyond ASCII (RFC 6531)       | rejected                                         |
"""

import os
import re
import smtplib
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

from notifier.providers.formats.mime import Letter
from notifier.providers.protocol import EXCERPT, Fault, Outcome

Tls = Literal["none", "starttls", "required", "implicit"]

#: Each single step may take so much longer than the whole letter, in seconds: who uses the connection cuts it sooner.
_SECOND_LINE: Final = 3.0
_LOGIN_CODES: Final = frozenset({530, 534, 535, 538})
_CLOSING: Final = 421
_GO_ON: Final = 354
#: To RCPT, where no enhanced code says more: nobody is there.
_NOBODY: Final = frozenset({550, 551, 553})
#: The recipient's domain takes no mail at all (RFC 7504).
_NO_MAIL: Final = 556
#: An enhanced code (RFC 3463): class, subject and detail.
_ENHANCED: Final = re.compile(rb"([45])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
#: Subject and detail of codes that say: nobody is there, or the message is too large.
_RECIPIENTS: Final = frozenset({(1, 1), (1, 2), (1, 3), (1, 6), (1, 10), (2, 1)})
_SIZES: Final = frozenset({(2, 3), (3, 4)})
#: The subject of what is wrong with the mail system itself.
_SYSTEM: Final = 3
#: Parameters of MAIL for a letter with an address whose local part is not ASCII (RFC 6531, section 3.4).
_OPTIONS: Final = ("SMTPUTF8", "BODY=8BITMIME")
#: The longest that one address of the server may take to connect to, in seconds.
_CONNECT_TIMEOUT: Final = 10.0

_NO_TLS: Final = (
    "the server offers no TLS, so that no login is sent to it; tls=none in the DSN would send it unencrypted"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where mail is handed in, and how."""

    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    tls: Tls
    context: ssl.SSLContext
    #: For one letter in all, in seconds.
    timeout: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one email."""

    outcome: Outcome
    code: int | None = None
    #: A class and a safe detail.
    error: str | None = None
    reply: str | None = None
    fault: Fault | None = None
    #: The connection was lost before the server answered to anything of this letter.
    untouched: bool = False


class Connection(smtplib.SMTP):
    """A connection that another thread can cut, at any stage, handshakes included."""

    def __init__(self, server: Server) -> None:
        # Without a name smtplib would ask the DNS for ours, for as long as that takes.
        name = socket.gethostname()
        super().__init__(local_hostname=name if "." in name else "[127.0.0.1]", timeout=server.timeout + _SECOND_LINE)
        self._server = server
        self._host = server.host  # smtplib's own attribute; starttls() verifies the certificate against it
        self._lock = threading.Lock()
        self._wire: socket.socket | None = None
        self._cut = False
        #: Of the letter being delivered: MAIL was answered well; it went out in full, with its dot.
        self._was_heard = self._is_theirs = False
        #: When it was last used, on the monotonic clock.
        self.used_at = time.monotonic()

    @property
    def is_usable(self) -> bool:
        """It is open, and nobody has cut it."""
        return self.sock is not None and not self._cut

    def deliver(self, letter: Letter) -> Verdict:
        """Run one mail transaction (RFC 5321, section 3.3), over a connection that is opened if necessary.

        Afterwards the connection can be used again, or is closed.
        """
        self.used_at = time.monotonic()
        self._was_heard = self._is_theirs = False
        if self.sock is None and (failed := self._open()):
            return failed
        if letter.international and not self.has_extn("smtputf8"):
            return Verdict(Outcome.REJECTED, error="address: international, and the server does not offer SMTPUTF8")
        try:
            code, reply = self._transact(letter)
        except _Refusal as refusal:
            return self._refused(refusal)
        except OSError as error:
            self.close()
            outcome = Outcome.AMBIGUOUS if self._is_theirs else Outcome.UNSENT
            return Verdict(outcome, error=_describe(error), fault=Fault.PROVIDER, untouched=not self._was_heard)
        return Verdict(Outcome.ACCEPTED, code, reply=_excerpt(reply))

    def check(self) -> str | None:
        """Connect, secure, log in and leave, without a letter. Returns why that cannot be done, or None."""
        failed = self._open()
        if failed is None:
            self.leave()
            return None
        return f"{failed.error}, {failed.reply}" if failed.reply else failed.error

    def cut(self) -> bool:
        """End what this connection is doing, from another thread. False where it is not connected yet.

        It then never will be: opening it fails.
        """
        with self._lock:
            self._cut = True
            if self._wire is None:
                return False
            with suppress(OSError):
                self._wire.shutdown(socket.SHUT_RDWR)
            return True

    def close(self) -> None:
        super().close()
        with self._lock:
            if self._wire is not None:
                self._wire.close()

    def leave(self) -> None:
        """Say goodbye and close, without waiting for the answer."""
        with suppress(OSError):
            self.putcmd("QUIT")
        self.close()

    def _get_socket(self, host: str, port: int, _timeout: float) -> socket.socket:
        """Connect; smtplib's hook for opening the connection."""
        wire = socket.create_connection((host, port), min(_CONNECT_TIMEOUT, self.timeout))
        wire.settimeout(self.timeout)
        with self._lock:
            # A duplicate, because TLS takes the socket's descriptor over, and shaking hands can be slow too.
            self._wire = wire.dup()
            was_cut = self._cut
        if was_cut:
            wire.close()
            raise TimeoutError
        if self._server.tls == "implicit":
            return self._server.context.wrap_socket(wire, server_hostname=host)
        return wire

    def _open(self) -> Verdict | None:
        """Connect, secure and log in. Returns nothing, or why the connection cannot be used; it is closed then."""
        try:
            code, reply = self.connect(self._server.host, self._server.port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, reply)
            self.ehlo_or_helo_if_needed()
            self._secure()
            self._log_in()
        except (OSError, ValueError) as error:  # all of smtplib, ssl and socket; a host that is no name
            self.close()
            if isinstance(error, smtplib.SMTPResponseException):
                said = _excerpt(error.smtp_error)
                return Verdict(Outcome.UNSENT, error.smtp_code, _describe(error), said, Fault.PROVIDER)
            return Verdict(Outcome.UNSENT, error=_describe(error), fault=Fault.PROVIDER)
        return None

    def _secure(self) -> None:
        wanted = self._server.tls
        if wanted == "required" or (wanted == "starttls" and self.has_extn("starttls")):
            self.starttls(context=self._server.context)
            self.ehlo_or_helo_if_needed()

    def _log_in(self) -> None:
        """Log in where there is a login, and never where others can read along unless `tls=none` says so.

        A server that offers no TLS may be one on the way, which has struck the offer out.
        """
        username, password = self._server.username, self._server.password
        if username is None or password is None:
            return
        if self._server.tls != "none" and not isinstance(self.sock, ssl.SSLSocket):
            raise smtplib.SMTPException(_NO_TLS)
        self.login(username, password)

    def _transact(self, letter: Letter) -> tuple[int, bytes]:
        """Send the commands of a transaction; returns the last reply. Raises _Refusal or OSError."""
        self._introduce(letter)
        # Bytes go out in order: where sending them fails, the dot at their end has not arrived.
        self.send(letter.data)
        self._is_theirs = True
        return _expect(2, "the message", self.getreply())

    def _introduce(self, letter: Letter) -> None:
        """Send what comes before the message, in one group where the server offers PIPELINING (RFC 2920).

        A round trip for each command is most of the time that an email takes. Raises _Refusal or OSError.
        """
        stages = _stages(letter)
        if not self.has_extn("pipelining"):
            for stage in stages:
                self.send(stage.command)
                self._hear(stage)
            return
        self.send(b"".join(stage.command for stage in stages))
        for place, stage in enumerate(stages, 1):
            try:
                self._hear(stage)
            except _Refusal as refusal:
                if _is_negative(refusal.code) and refusal.code != _CLOSING:
                    self._hear_out(len(stages) - place)
                raise

    def _hear(self, stage: "_Stage") -> None:
        _expect(stage.hundred, stage.name, self.getreply())
        self._was_heard = True

    def _hear_out(self, replies: int) -> None:
        """Read the replies to what was sent behind a refused command, so that the connection can be used again."""
        with suppress(OSError):  # smtplib closes it then
            for _ in range(replies):
                code, _reply = self.getreply()
                if code == _GO_ON:
                    self.close()  # it waits for a message that would reach nobody
                    return

    def _refused(self, refusal: "_Refusal") -> Verdict:
        """Return the verdict of a reply other than the expected one."""
        code, reply = refusal.code, _excerpt(refusal.reply)
        is_negative = _is_negative(code)
        if is_negative and code != _CLOSING:
            self._reset()
        else:
            self.close()
        if not is_negative:
            outcome = Outcome.AMBIGUOUS if self._is_theirs else Outcome.UNSENT
            return Verdict(outcome, None, f"answer: not SMTP, to {refusal.what}", reply, Fault.PROVIDER)
        outcome, fault = judged(code, refusal.what, refusal.reply)
        untouched = code == _CLOSING and not self._was_heard
        return Verdict(outcome, code, f"smtp {code} to {refusal.what}", reply, fault, untouched)

    def _reset(self) -> None:
        """Make ready for the next letter, or close."""
        if self.sock is None:
            return
        try:
            code, _ = self.rset()
        except OSError:
            code = 0
        if code != 250:
            self.close()


class _Refusal(Exception):
    """A reply other than the one hoped for."""

    def __init__(self, what: str, code: int, reply: bytes) -> None:
        super().__init__(what, code)
        self.what = what
        self.code = code
        self.reply = reply


@dataclass(frozen=True, slots=True)
class _Stage:
    """A command of a transaction, and the class of its good reply."""

    name: str
    command: bytes
    hundred: int


def _stages(letter: Letter) -> tuple[_Stage, ...]:
    """Return the commands that come before the message. Raises ValueError where an address would end its command."""
    options = _OPTIONS if letter.international else ()
    commands = (
        ("MAIL", " ".join((f"MAIL FROM:<{letter.sender}>", *options)), 2),
        ("RCPT", f"RCPT TO:<{letter.recipient}>", 2),
        ("DATA", "DATA", 3),
    )
    if any("\r" in command or "\n" in command for _, command, _ in commands):
        raise ValueError("an address has more than one line")
    return tuple(_Stage(name, f"{command}\r\n".encode(), hundred) for name, command, hundred in commands)


def _expect(hundred: int, what: str, answer: tuple[int, bytes]) -> tuple[int, bytes]:
    if answer[0] // 100 != hundred:
        raise _Refusal(what, *answer)
    return answer


def _is_negative(code: int) -> bool:
    return code // 100 in {4, 5}


def judged(code: int, stage: str, reply: bytes) -> tuple[Outcome, Fault | None]:
    """Judge a negative reply to MAIL, RCPT, DATA or the message: its enhanced code is read before the basic one."""
    if code in _LOGIN_CODES or code == _CLOSING:
        return Outcome.UNSENT, Fault.PROVIDER
    refused = Outcome.REJECTED if code // 100 == 5 else Outcome.UNSENT
    enhanced = _ENHANCED.match(reply)
    if enhanced is None or int(enhanced[1]) != code // 100:
        is_nobody = code == _NO_MAIL or (stage == "RCPT" and code in _NOBODY)
        return refused, Fault.RECIPIENT if is_nobody else None
    subject, detail = int(enhanced[2]), int(enhanced[3])
    if subject == _SYSTEM and (subject, detail) not in _SIZES:
        return Outcome.UNSENT, Fault.PROVIDER
    if refused is Outcome.REJECTED and (code == _NO_MAIL or (subject, detail) in _RECIPIENTS):
        return refused, Fault.RECIPIENT
    return refused, None


def _describe(error: Exception) -> str:
    """Return an error's class and a safe detail, without a user's name or password."""
    match error:
        case smtplib.SMTPAuthenticationError(smtp_code=code):
            text = f"auth: smtp {code}"
        case smtplib.SMTPResponseException(smtp_code=code):
            text = f"smtp {code}"
        case smtplib.SMTPServerDisconnected():
            text = "reset: the server closed the connection"
        case smtplib.SMTPNotSupportedError():
            text = f"unsupported: {error}"
        case smtplib.SMTPException():
            text = f"auth: {error}"
        case ssl.SSLCertVerificationError():
            text = f"tls: {error.verify_message}"
        case ssl.SSLError():
            text = f"tls: {error.reason or 'the handshake failed'}"
        case socket.gaierror():
            text = "dns: the server's name does not resolve"
        case TimeoutError():
            text = f"timeout: no connection within {_CONNECT_TIMEOUT:g} s"
        case ConnectionRefusedError():
            text = "refused: connection refused"
        case OSError(errno=int(number)):
            text = f"connect: {os.strerror(number).lower()}"
        case _:
            text = f"connect: {type(error).__name__}"
    return text


def _excerpt(reply: bytes | str) -> str | None:
    text = reply if isinstance(reply, str) else reply.decode(errors="replace")
    return text[:EXCERPT].replace("\0", "") or None
