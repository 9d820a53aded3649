"""One connection to an SMTP server: opened, secured and logged in once, then used for many letters.

| reply                                                       | outcome                                          |
|-------------------------------------------------------------|--------------------------------------------------|
| 2xx to the end of DATA                                      | accepted                                         |
| 5xx to MAIL, RCPT, DATA or its end                          | rejected                                         |
| 530, 534, 535, 538 anywhere: we are to log in, or wrongly did | unsent: our fault, not the recipient's           |
| any refusal before MAIL: banner (554 too), EHLO, TLS, AUTH  | unsent, likewise                                 |
| 4xx                                                         | unsent; 421 ends the connection                  |
| connection lost, timed out, or no SMTP                      | ambiguous after the final dot of DATA, else unsent |
| no SMTPUTF8, and an international address                   | rejected                                         |
"""

import os
import smtplib
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

from notifier.providers import EXCERPT, Outcome
from notifier.providers.letters import Letter

Tls = Literal["none", "starttls", "required", "implicit"]

_LOGIN_CODES: Final = frozenset({530, 534, 535, 538})
_CLOSING: Final = 421
#: The longest that one address of the server may take to connect to, in seconds.
_CONNECT_TIMEOUT: Final = 10.0


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
    """What became of one letter."""

    outcome: Outcome
    code: int | None = None
    #: A class and a safe detail.
    error: str | None = None
    reply: str | None = None
    #: The connection was lost before the server answered to anything of this letter.
    untouched: bool = False


class Connection(smtplib.SMTP):
    """A connection that another thread can cut, at any stage, handshakes included."""

    def __init__(self, server: Server) -> None:
        # Without a name smtplib would ask the DNS for ours, for as long as that takes.
        name = socket.gethostname()
        # The reads' own timeout is a second line: whoever holds the connection cuts it at the deadline.
        super().__init__(local_hostname=name if "." in name else "[127.0.0.1]", timeout=server.timeout + 1)
        self._server = server
        self._host = server.host  # smtplib's own attribute; starttls() verifies the certificate against it
        self._lock = threading.Lock()
        self._wire: socket.socket | None = None
        self._cut = False
        #: When it was last used, on the monotonic clock.
        self.used_at = time.monotonic()

    @property
    def is_usable(self) -> bool:
        """It is open, and nobody has cut it."""
        return self.sock is not None and not self._cut

    def deliver(self, letter: Letter) -> Verdict:
        """One mail transaction (RFC 5321, section 3.3), over a connection that is opened where it is not.

        Afterwards the connection is fit for another one, or closed.
        """
        self.used_at = time.monotonic()
        if self.sock is None and (failed := self._open()):
            return failed
        if letter.international and not self.has_extn("smtputf8"):
            return Verdict(
                Outcome.REJECTED, error="address: the server takes no international addresses (it offers no SMTPUTF8)"
            )
        options = ("SMTPUTF8", "BODY=8BITMIME") if letter.international else ()
        try:
            code, reply = self.mail(letter.sender, options)
            if code // 100 != 2:
                return self._refused("MAIL", code, reply, untouched=code == _CLOSING)
        except OSError as error:
            self.close()
            return Verdict(Outcome.UNSENT, error=_describe(error), untouched=True)
        try:
            code, reply = self.rcpt(letter.recipient)
            if code // 100 != 2:
                return self._refused("RCPT", code, reply)
            code, reply = self.docmd("DATA")
            if code != 354:
                return self._refused("DATA", code, reply)
            self.send(letter.data)
        except OSError as error:
            # Bytes go out in order: where sending them failed, the dot at their end did not arrive.
            self.close()
            return Verdict(Outcome.UNSENT, error=_describe(error))
        return self._answer()

    def cut(self) -> bool:
        """End what this connection is doing, from another thread. False where it is not connected yet.

        It then never will be: `open` fails.
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
        """smtplib's hook for making the connection."""
        wire = socket.create_connection((host, port), min(_CONNECT_TIMEOUT, self._server.timeout))
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
            if self._server.username is not None and self._server.password is not None:
                self.login(self._server.username, self._server.password)
        except (OSError, ValueError) as error:  # all of smtplib, ssl and socket; a host that is no name
            self.close()
            if isinstance(error, smtplib.SMTPResponseException):
                return Verdict(Outcome.UNSENT, error.smtp_code, _describe(error), _excerpt(error.smtp_error))
            return Verdict(Outcome.UNSENT, error=_describe(error))
        return None

    def _secure(self) -> None:
        wanted = self._server.tls
        if wanted == "required" or (wanted == "starttls" and self.has_extn("starttls")):
            self.starttls(context=self._server.context)
            self.ehlo_or_helo_if_needed()

    def _answer(self) -> Verdict:
        """What the server says to a letter that it has in full."""
        try:
            code, reply = self.getreply()
        except OSError as error:
            self.close()
            return Verdict(Outcome.AMBIGUOUS, error=_describe(error))
        if code // 100 == 2:
            return Verdict(Outcome.ACCEPTED, code, reply=_excerpt(reply))
        return self._refused("the message", code, reply, otherwise=Outcome.AMBIGUOUS)

    def _refused(
        self, what: str, code: int, reply: bytes, *, otherwise: Outcome = Outcome.UNSENT, untouched: bool = False
    ) -> Verdict:
        """The verdict of a negative reply; `otherwise` is that of a reply which is none."""
        if code == _CLOSING or code // 100 not in {4, 5}:
            self.close()
        else:
            self._reset()
        if code // 100 not in {4, 5}:
            return Verdict(otherwise, error=f"answer: not SMTP, to {what}", reply=_excerpt(reply))
        permanent = code // 100 == 5 and code not in _LOGIN_CODES
        outcome = Outcome.REJECTED if permanent else Outcome.UNSENT
        return Verdict(outcome, code, f"smtp {code} to {what}", _excerpt(reply), untouched)

    def _reset(self) -> None:
        """Make ready for the next letter, or close."""
        try:
            code, _ = self.rset()
        except OSError:
            code = 0
        if code != 250:
            self.close()


def _describe(error: Exception) -> str:
    """A class and a safe detail: nothing of a user's name or password is in it."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"auth: smtp {error.smtp_code}"
        case smtplib.SMTPResponseException():
            return f"smtp {error.smtp_code}"
        case smtplib.SMTPServerDisconnected():
            return "reset: the server closed the connection"
        case smtplib.SMTPNotSupportedError():
            return f"unsupported: {error}"
        case smtplib.SMTPException():
            return f"auth: {error}"
        case ssl.SSLCertVerificationError():
            return f"tls: {error.verify_message}"
        case ssl.SSLError():
            return f"tls: {error.reason or 'the handshake failed'}"
        case socket.gaierror():
            return "dns: the server's name does not resolve"
        case TimeoutError():
            return "timeout: no connection"
        case ConnectionRefusedError():
            return "refused: connection refused"
        case OSError(errno=int(number)):
            return f"connect: {os.strerror(number).lower()}"
        case _:
            return f"connect: {type(error).__name__}"


def _excerpt(reply: bytes | str) -> str | None:
    text = reply if isinstance(reply, str) else reply.decode(errors="replace")
    return text[:EXCERPT].replace("\0", "") or None
