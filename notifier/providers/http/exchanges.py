"""HTTP POSTs to untrusted servers, many at once, through libcurl's multi interface."""

import math
import select
import ssl
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Final

import pycurl

from notifier.providers import unused_connections
from notifier.providers.http.address_guard import Network
from notifier.providers.http.kept_connections import IdleSockets, LossyOrigins
from notifier.providers.http.transfers import Exchange, Request, Transfer, TransferLimits

#: The longest that a connection may take, name and TLS included, in seconds.
_CONNECT_TIMEOUT: Final = 10.0
#: As many threads' connections are kept while nobody uses them. More are used at once where receivers hang.
_MOST_IDLE: Final = 8
#: The longest time for which `send` does not yield, in seconds.
_SLICE: Final = 0.1
#: The connections of a thread that has sent nothing for so many seconds are closed. libcurl uses none of them after
#: 4 seconds, but closes them only when it is asked for another one.
_UNUSED: Final = 10.0


class Exchanges:
    """Sends requests from any number of threads, each `send` over connections of its own, kept for the next one."""

    def __init__(
        self,
        *,
        timeout: float,
        allowed_networks: Sequence[Network],
        concurrency: int,
        allowed_ports: Collection[int] = (),
        keep: int = 0,
        http2: bool = False,
    ) -> None:
        """`timeout`: the total for one request, in seconds. `concurrency`: requests in flight in one `send`.
        `keep`: bytes of an answer's body that are kept. `http2`: see TransferLimits.
        """
        self._limits = TransferLimits(
            timeout=timeout,
            connect_timeout=min(_CONNECT_TIMEOUT, timeout),
            allowed_networks=tuple(allowed_networks),
            allowed_ports=frozenset(allowed_ports),
            # The CA certificates that Python's TLS trusts, SSL_CERT_FILE included; libcurl would use those of its build
            # machine.
            ca_file=ssl.get_default_verify_paths().cafile,
            keep=keep,
            http2=http2,
        )
        self._concurrency = concurrency
        self._lossy = LossyOrigins()
        self._idle: list[_Multi] = []
        unused_connections.register(self)

    def send(self, requests: Iterator[Request]) -> Generator[Sequence[Exchange], None, None]:
        """Send the requests, each as soon as there is room for it, and yield finished ones.

        Yields an empty list after 100 ms in which nothing finished. Requests in flight when the generator is closed are
        dropped.
        """
        try:
            multi = self._idle.pop()  # atomic, as append is: no other thread gets the same one
        except IndexError:
            multi = _Multi(self._limits, self._lossy, self._concurrency)
        try:
            yield from multi.run(requests)
        finally:
            multi.drop()
            multi.used_at = time.monotonic()
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(multi)
            else:
                multi.close()

    def close(self) -> None:
        """Close idle connections."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def close_unused(self, now: float) -> None:
        """See Keeper."""
        since = now - _UNUSED
        for _ in range(len(self._idle)):
            try:
                multi = self._idle.pop(0)
            except IndexError:  # another thread took it
                return
            if multi.used_at < since:
                multi.close()
            else:
                self._idle.append(multi)


class _Multi:
    """The transfers of one thread, driven by epoll.

    libcurl's own waiting is select(), which spins once the process holds a thousand descriptors.
    """

    def __init__(self, limits: TransferLimits, lossy: LossyOrigins, concurrency: int) -> None:
        self._limits = limits
        self._lossy = lossy
        self._idle_sockets = IdleSockets(concurrency * 2, multiplexed=limits.http2)
        self._concurrency = concurrency
        #: When it was last used, on the monotonic clock.
        self.used_at = time.monotonic()
        self._idle: list[Transfer] = []
        self._busy: dict[pycurl.Curl, Transfer] = {}
        self._epoll = select.epoll()
        self._watched: set[int] = set()
        self._timer_at = math.inf
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, concurrency)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def run(self, requests: Iterator[Request]) -> Iterator[Sequence[Exchange]]:
        while True:
            unbegun = self._begin_what_fits(requests)
            if not self._busy and not unbegun:
                return
            yield unbegun or self._turn()

    def drop(self) -> None:
        """Drop the requests in flight."""
        for transfer in list(self._busy.values()):
            self._release(transfer)

    def close(self) -> None:
        self.drop()
        for transfer in self._idle:
            transfer.curl.close()
        self._multi.close()
        self._epoll.close()

    def _begin_what_fits(self, requests: Iterator[Request]) -> list[Exchange]:
        """Begin requests while there is room; returns those that cannot be begun at all."""
        unbegun: list[Exchange] = []
        while len(self._busy) + len(unbegun) < self._concurrency and (request := next(requests, None)) is not None:
            transfer = self._idle.pop() if self._idle else self._new_transfer()
            if transfer.prepare(request):
                self._busy[transfer.curl] = transfer
                self._multi.add_handle(transfer.curl)
            else:
                unbegun.append(transfer.refuse())
                transfer.forget()
                self._idle.append(transfer)
        return unbegun

    def _new_transfer(self) -> Transfer:
        return Transfer(self._limits, self._idle_sockets, self._lossy)

    def _turn(self) -> list[Exchange]:
        """Drive the requests in flight until one has finished, for at most a slice."""
        until = time.monotonic() + _SLICE
        while True:
            began = time.monotonic()
            self._drive(until)
            finished = [*self._reap(), *self._expire(began)]
            if finished or time.monotonic() >= until:
                return finished

    def _drive(self, until: float) -> None:
        # All have the same time, so that the first one's ends first.
        deadline = next((transfer.deadline for transfer in self._busy.values()), math.inf)
        wait = min(until, self._timer_at, deadline) - time.monotonic()
        for descriptor, events in self._epoll.poll(max(wait, 0)):
            readable = pycurl.CSELECT_IN if events & select.EPOLLIN else 0
            writable = pycurl.CSELECT_OUT if events & select.EPOLLOUT else 0
            broken = pycurl.CSELECT_ERR if events & (select.EPOLLERR | select.EPOLLHUP) else 0
            self._multi.socket_action(descriptor, readable | writable | broken)
        if self._timer_at <= time.monotonic():
            self._timer_at = math.inf
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _reap(self) -> list[Exchange]:
        finished = []
        unread = 1
        while unread:
            unread, good, bad = self._multi.info_read()
            for curl, code, message in [*((curl, pycurl.E_OK, "") for curl in good), *bad]:
                transfer = self._busy[curl]
                if transfer.begins_again():
                    self._multi.remove_handle(curl)
                    self._multi.add_handle(curl)
                    continue
                finished.append(transfer.finish(code, message))
                self._release(transfer)
        return finished

    def _expire(self, before: float) -> list[Exchange]:
        """End requests that were out of time before the last drive, which has read all answers until then.

        Between two turns the caller may take any time, to record results for example. An answer that came meanwhile
        counts: it was in time, and sending the message again would duplicate it.
        """
        late = list(takewhile(lambda transfer: transfer.deadline <= before, self._busy.values()))
        expired = [transfer.finish(pycurl.E_OPERATION_TIMEDOUT, "") for transfer in late]
        for transfer in late:
            self._release(transfer)  # and with it its connection
        return expired

    def _release(self, transfer: Transfer) -> None:
        del self._busy[transfer.curl]
        self._multi.remove_handle(transfer.curl)
        transfer.forget()
        self._idle.append(transfer)

    def _watch(self, what: int, descriptor: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        """Register a socket's interest: libcurl wants to know when it can be read or written, or not any more."""
        if what == pycurl.POLL_REMOVE:
            self._watched.discard(descriptor)
            with suppress(OSError):  # it may be closed already
                self._epoll.unregister(descriptor)
            return
        events = (select.EPOLLIN if what & pycurl.POLL_IN else 0) | (select.EPOLLOUT if what & pycurl.POLL_OUT else 0)
        if descriptor in self._watched:
            self._epoll.modify(descriptor, events)
        else:
            self._watched.add(descriptor)
            self._epoll.register(descriptor, events)

    def _set_timer(self, milliseconds: int) -> None:
        self._timer_at = math.inf if milliseconds < 0 else time.monotonic() + milliseconds / 1000
