"""Transfers: one POST over an easy handle of libcurl, its limits and its outcome.

The limits apply to every HTTP provider: a total deadline, no redirects, no proxy from the environment, no
decompression, 64 KiB of an answer, and no connection to an address that is not public (see `address_guard`). The
address is checked when the socket is opened, after the name was resolved, so a name that changes its address gains
nothing.

HTTP/1.1 is used unless a vendor speaks only HTTP/2 (Apple): with one request a connection at a time it is known whether
any of a request was sent.

An exchange is one request. libcurl repeats even a POST by itself if a kept connection dies before the first byte of an
answer. `_allow_request` forbids that, so that a lost answer is reported as lost.
"""

import codecs
import errno
import math
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

import pycurl

from notifier.providers.http.address_guard import Network, refusal
from notifier.providers.http.kept_connections import Ends, IdleSockets, LossyOrigins
from notifier.providers.protocol import EXCERPT
from notifier.vocabulary.uris import ascii_uri

#: How much of an answer's body is read, in bytes. More than that is cut off, and the connection with it.
READ_AT_MOST: Final = 64 * 1024

_RETRY_AFTER_STATUSES: Final = frozenset({429, 503})
#: The longest Retry-After that is honoured, in seconds.
_RETRY_AFTER_CAP: Final = 24 * 3600.0

_TLS_ERRORS: Final = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
#: E_OK is among them: libcurl does not mind a head that breaks off.
_LOST_ERRORS: Final = frozenset(
    {pycurl.E_OK, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR, pycurl.E_GOT_NOTHING, pycurl.E_PARTIAL_FILE}
)
#: The longest idle time of a connection that is used again, in seconds. Less than the 5 seconds after which Node's,
#: Apache's and uvicorn's servers close one by default: a request that crosses with their closing is lost, and nobody
#: can tell whether it was read.
_KEEP_ALIVE: Final = 4


class Failure(StrEnum):
    """Why there is no answer, in a word."""

    URL = "url"
    ADDRESS = "address"
    DNS = "dns"
    REFUSED = "refused"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    RESET = "reset"
    ANSWER = "answer"


_NO_URL: Final = (Failure.URL, "not a URL that begins with http:// or https://")


@dataclass(frozen=True, slots=True)
class Request:
    """One request: a POST, or a GET without a body."""

    id: UUID
    url: str
    #: Lines, "name: value".
    headers: list[str]
    body: bytes
    method: Literal["POST", "GET"] = "POST"


@dataclass(frozen=True, slots=True)
class Exchange:
    """The outcome of one Request: an answer's status, or a failure."""

    request: Request
    #: With a time zone.
    started_at: datetime
    duration_ms: float
    #: Some of the request went out, so that it may have been received.
    sent: bool
    #: None where no complete head of an answer arrived.
    status_code: int | None
    #: The header lines of the answer, as received.
    head: Sequence[bytes]
    #: The beginning of the answer's body, at most EXCERPT characters; None where it is empty.
    excerpt: str | None
    #: See Result; None where the request was not begun.
    timing: Mapping[str, float | None] | None
    failure: Failure | None = None
    #: The failure in a few words, safe to show: no part of the URL but an address is in it.
    detail: str = ""
    #: The beginning of the answer's body, as long as TransferLimits.keep, or an excerpt.
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the first value of a header; names are compared without regard to case."""
        for line in self.head:
            key, colon, value = line.decode("latin-1").partition(":")
            if colon and key.strip().lower() == name.lower():
                return value.strip()
        return None

    @property
    def retry_after(self) -> float | None:
        """Seconds, from a number of them or an HTTP-date (RFC 9110, section 10.2.3); None where it is neither."""
        value = self.header("retry-after") if self.status_code in _RETRY_AFTER_STATUSES else None
        if value is None:
            return None
        if re.fullmatch(r"[0-9]+", value):
            return min(float(value), _RETRY_AFTER_CAP)
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        # The asctime form names no zone; all HTTP-dates are UTC (RFC 9110, section 5.6.7).
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)
        return min(max(math.ceil(seconds.total_seconds()), 0.0), _RETRY_AFTER_CAP)


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """The limits of every transfer. Times are in seconds."""

    #: For all of it.
    timeout: float
    #: For the connection, name and TLS included.
    connect_timeout: float
    #: Networks that may be connected to beside public addresses.
    allowed_networks: Sequence[Network]
    #: The ports that may be connected to; none: all.
    allowed_ports: frozenset[int]
    #: The certificates to trust; None: those that libcurl was built to trust.
    ca_file: str | None
    #: How much of an answer's body is kept, in bytes, where that is more than its excerpt takes.
    keep: int = 0
    #: Ask for HTTP/2 in the TLS handshake. Requests then share connections.
    http2: bool = False


class _HandedOver(socket.socket):
    """A socket of which libcurl took a duplicate: this one closes without a warning when it is dropped."""

    def __del__(self) -> None:
        self.close()


class Transfer:
    """An easy handle and the data of its current exchange; used again and again."""

    def __init__(self, limits: TransferLimits, idle: IdleSockets, lossy: LossyOrigins) -> None:
        self._limits = limits
        self._idle = idle
        self._lossy = lossy
        self._has_own_connection = False
        self._kept = max(EXCERPT, limits.keep)
        self._head: list[bytes] = []
        self.curl = pycurl.Curl()
        options: dict[int, object] = {
            pycurl.NOSIGNAL: 1,
            pycurl.CONNECTTIMEOUT_MS: math.ceil(limits.connect_timeout * 1000),
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_2TLS if limits.http2 else pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.PIPEWAIT: int(limits.http2),
            pycurl.FOLLOWLOCATION: 0,
            pycurl.PROXY: "",  # not unset: without this libcurl looks for a proxy in the environment
            pycurl.HEADERFUNCTION: self._head.append,
            pycurl.WRITEFUNCTION: self._take,
            pycurl.OPENSOCKETFUNCTION: self._open_socket,
            pycurl.PREREQFUNCTION: self._allow_request,
            pycurl.MAXAGE_CONN: _KEEP_ALIVE,
        }
        if limits.ca_file:
            options[pycurl.CAINFO] = limits.ca_file
        for option, value in options.items():
            self.curl.setopt(option, value)

    def prepare(self, request: Request) -> bool:
        """Return whether the request can be begun at all; if not, call `refuse`."""
        self._request = request
        self._started_at = datetime.now(UTC)
        self._began = time.monotonic()
        #: By the monotonic clock. libcurl would apply its own timeout before it reads data that has arrived meanwhile.
        self.deadline = self._began + self._limits.timeout
        self._head.clear()
        self._body = b""
        self._read = 0
        self._refusal: str | None = None
        self._sought = False
        self._opened = False
        self._requested = False
        self._lost = False
        self._stale = False
        self._ends: Ends = ()
        self._trouble: OSError | None = None
        # libcurl guesses a scheme where there is none.
        if not request.url.lower().startswith(("http://", "https://")):
            return False
        try:
            self._url = ascii_uri(request.url)
            self.curl.setopt(pycurl.URL, self._url)
            self.curl.setopt(pycurl.HTTPHEADER, request.headers)
            if request.method == "GET":
                self.curl.setopt(pycurl.HTTPGET, 1)
            else:  # which makes it a POST
                self.curl.setopt(pycurl.POSTFIELDS, request.body)
            self._choose_connection()
        except (ValueError, pycurl.error):  # a host that is no name, a NUL
            return False
        return True

    def _choose_connection(self) -> None:
        """Have libcurl make a new connection, used once, for an origin that loses requests on kept ones."""
        is_lossy = self._lossy.has(self._url)
        if is_lossy != self._has_own_connection:
            self.curl.setopt(pycurl.FRESH_CONNECT, is_lossy)
            self.curl.setopt(pycurl.FORBID_REUSE, is_lossy)
            self._has_own_connection = is_lossy

    def forget(self) -> None:
        """Let go of the exchange that is over: a handle that waits for its next one would keep a request's body."""
        del self._request
        self._body = b""
        self._head.clear()
        self.curl.setopt(pycurl.POSTFIELDS, b"")

    def begins_again(self) -> bool:
        """Return whether to begin the request again: its connection was closed before any of it went out."""
        is_stale, self._stale = self._stale, False
        return is_stale

    def finish(self, code: int, message: str) -> Exchange:
        """Return the outcome, from libcurl's code and message."""
        is_over = self._requested and code != pycurl.E_OPERATION_TIMEDOUT  # else its connection is closed
        descriptor = int(self.curl.getinfo(pycurl.ACTIVESOCKET)) if is_over else -1
        if descriptor >= 0:  # the connection stays open
            self._idle.add(self._ends, descriptor)
        # An answer that is cut off, by us or by them, after its head still counts by its status.
        head = self._final_head()
        if head is not None:
            status = int(self.curl.getinfo(pycurl.RESPONSE_CODE))
            return self._exchange(sent=True, status_code=status, head=head, timing=self._timing(sent=True))
        sent = int(self.curl.getinfo(pycurl.REQUEST_SIZE)) > 0
        failure, detail = self._failure_to_answer(code) if sent else self._failure_to_send(code, message)
        if failure is Failure.RESET and not self._sought:
            self._lossy.add(self._url)
        timing = self._timing(sent=sent and not self._lost)  # libcurl's first byte would be that of the repeat
        return self._exchange(sent=sent, failure=failure, detail=detail, timing=timing)

    def refuse(self) -> Exchange:
        """Return the outcome of a request that cannot be begun."""
        failure, detail = _NO_URL
        return self._exchange(sent=False, failure=failure, detail=detail)

    def _exchange(
        self,
        *,
        sent: bool,
        status_code: int | None = None,
        head: Sequence[bytes] = (),
        failure: Failure | None = None,
        detail: str = "",
        timing: Mapping[str, float | None] | None = None,
    ) -> Exchange:
        return Exchange(
            request=self._request,
            started_at=self._started_at,
            duration_ms=(time.monotonic() - self._began) * 1000,
            sent=sent,
            status_code=status_code,
            head=head,
            excerpt=_excerpt(self._body),
            timing=timing,
            failure=failure,
            detail=detail,
            body=self._body,
        )

    def _timing(self, *, sent: bool) -> dict[str, float | None]:
        dns = connect = tls = None
        if self._sought:  # on a kept connection there is nothing to ask for
            dns = self._milliseconds(pycurl.NAMELOOKUP_TIME_T)
            connect = self._milliseconds(pycurl.CONNECT_TIME_T)
            tls = self._milliseconds(pycurl.APPCONNECT_TIME_T)
        return {
            "dns_ms": dns,
            "connect_ms": connect,
            "tls_ms": tls,
            # Where there was no request, libcurl has the moment at which it gave up.
            "first_byte_ms": self._milliseconds(pycurl.STARTTRANSFER_TIME_T) if sent else None,
            "total_ms": self._milliseconds(pycurl.TOTAL_TIME_T),
        }

    def _milliseconds(self, info: int) -> float | None:
        """Return one of libcurl's times, with one decimal; None if it has none."""
        microseconds = self.curl.getinfo(info)
        return (microseconds + 50) // 100 / 10 if microseconds else None

    def _take(self, chunk: bytes) -> int:
        if len(self._body) <= self._kept:
            self._body += chunk[: self._kept + 1]
        self._read += len(chunk)
        return len(chunk) if self._read < READ_AT_MOST else 0  # 0 ends the transfer

    def _allow_request(self, *ends: object) -> int:
        """Allow the request that is about to go out over a connection, unless that is closed or one has gone out."""
        if self._requested:
            self._lost = True
            return pycurl.PREREQFUNC_ABORT
        if not self._sought and not self._idle.take(ends):
            self._stale = True
            return pycurl.PREREQFUNC_ABORT
        self._ends = ends
        self._requested = True
        return pycurl.PREREQFUNC_OK

    def _open_socket(
        self, _purpose: int, address: tuple[int, int, int, tuple[str, int]]
    ) -> socket.socket | Literal[-1]:
        if self._requested:  # its connection died, and libcurl makes another one to repeat it
            self._lost = True
            return pycurl.SOCKET_BAD
        self._sought = True
        family, kind, protocol, (host, port, *_) = address
        refused = refusal(host, self._limits.allowed_networks)
        if self._limits.allowed_ports and port not in self._limits.allowed_ports:
            refused = f"port {port} is not allowed"
        if refused:
            self._refusal = refused
            return pycurl.SOCKET_BAD
        self._opened = True
        try:
            return _HandedOver(family, kind, protocol)
        except OSError as error:  # out of descriptors, or no such family on this machine
            self._trouble = error
            return pycurl.SOCKET_BAD

    def _final_head(self) -> list[bytes] | None:
        """Return the header lines after the last status line (a 100 or 103 may precede it), if the head is complete."""
        start = 0
        for at, line in enumerate(self._head, start=1):
            if line.startswith(b"HTTP/"):
                start = at
        fields = self._head[start:]
        return fields if start and (b"\r\n" in fields or b"\n" in fields) else None

    def _failure_to_send(self, code: int, message: str) -> tuple[Failure, str]:
        if self._lost:
            return Failure.RESET, "the kept connection closed before the request went out"
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return Failure.TIMEOUT, f"no connection within {self._limits.connect_timeout:g} s"
        if code in {pycurl.E_URL_MALFORMAT, pycurl.E_UNSUPPORTED_PROTOCOL}:
            return _NO_URL
        if code == pycurl.E_COULDNT_RESOLVE_HOST:
            return Failure.DNS, "the host's name does not resolve"
        if code in _TLS_ERRORS:
            return Failure.TLS, message[:200]
        return self._failure_to_connect(code)

    def _failure_to_answer(self, code: int) -> tuple[Failure, str]:
        # Before libcurl repeats a request it looks the name up again, which may fail or take too long.
        if self._lost or code == pycurl.E_COULDNT_RESOLVE_HOST:
            return Failure.RESET, "the connection closed before an answer"
        if code == pycurl.E_OPERATION_TIMEDOUT:
            taken, size = int(self.curl.getinfo(pycurl.SIZE_UPLOAD_T)), len(self._request.body)
            if taken < size:
                return Failure.TIMEOUT, f"{taken} of {size} bytes were taken within {self._limits.timeout:g} s"
            return Failure.TIMEOUT, f"no answer within {self._limits.timeout:g} s"
        if code in _LOST_ERRORS:
            return Failure.RESET, "the connection closed before an answer"
        return Failure.ANSWER, f"not HTTP (libcurl {code})"

    def _failure_to_connect(self, code: int) -> tuple[Failure, str]:
        if self._refusal and not self._opened:
            return Failure.ADDRESS, self._refusal
        number = self.curl.getinfo(pycurl.OS_ERRNO) or (self._trouble.errno if self._trouble else 0)
        reason = os.strerror(number).lower() if number else f"no connection (libcurl {code})"
        return (Failure.REFUSED if number == errno.ECONNREFUSED else Failure.CONNECT), reason


def _excerpt(body: bytes) -> str | None:
    if not body:
        return None
    # A decoder that awaits more leaves out a character which the cut has halved.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(body[:EXCERPT], final=len(body) <= EXCERPT).replace("\0", "") or None
