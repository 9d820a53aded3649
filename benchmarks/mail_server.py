"""A mail server that costs little: takes every message, and counts them by the number that each has.

python -m benchmarks.mail_server --port 2525
"""

import argparse
import asyncio
import json
import re
import time
from typing import Final, cast

import uvloop

#: A message's number, on a line of its own.
NUMBER: Final = re.compile(rb"^n: (\d+)\r$", re.MULTILINE)
_END: Final = b"\r\n.\r\n"
_EHLO: Final = b"250-mail.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 10485760\r\n"
_OK: Final = b"250 2.0.0 OK\r\n"


class _Counts:
    """Everything that came since the last XRESET."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.messages = 0
        self.numbers: set[int] = set()
        self.first_at = self.last_at = 0.0
        self.sample = b""

    def add(self, message: bytes) -> None:
        self.messages += 1
        self.last_at = time.time()
        self.first_at = self.first_at or self.last_at
        self.sample = message
        if found := NUMBER.search(message):
            self.numbers.add(int(found[1]))

    def __str__(self) -> str:
        times = {"first_at": self.first_at, "last_at": self.last_at}
        return json.dumps({"messages": self.messages, "count": len(self.numbers), **times})


counts = _Counts()


class MailServer(asyncio.Protocol):
    """One connection: ESMTP (RFC 5321) as far as clients need it.

    Beside it XCOUNT gives the counts as JSON, XSAMPLE the last message as a JSON string, and XRESET forgets all.
    """

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._takes_message = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(b"220 mail.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer to all commands and messages that are there in full, at once."""
        self._buffer += data
        answers = []
        while (answer := self._take_message() if self._takes_message else self._take_command()) is not None:
            answers.append(answer)
        if self._transport is not None and answers:
            self._transport.write(b"".join(answers))
            if answers[-1].startswith(b"221"):
                self._transport.close()

    def _take_message(self) -> bytes | None:
        end = self._buffer.find(_END)
        if end < 0:
            return None
        counts.add(bytes(self._buffer[: end + 2]))
        del self._buffer[: end + len(_END)]
        self._takes_message = False
        return _OK

    def _take_command(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return None
        verb = bytes(self._buffer[:end]).partition(b" ")[0].upper()
        del self._buffer[: end + 2]
        self._takes_message = verb == b"DATA"
        return _answer(verb)


def _answer(verb: bytes) -> bytes:
    match verb:
        case b"MAIL" | b"RCPT" | b"RSET" | b"NOOP":
            return _OK
        case b"DATA":
            return b"354 Go on\r\n"
        case b"EHLO" | b"HELO":
            return _EHLO
        case b"QUIT":
            return b"221 2.0.0 Bye\r\n"
        case b"XCOUNT":
            return b"250 %s\r\n" % str(counts).encode()
        case b"XSAMPLE":
            return b"250 %s\r\n" % json.dumps(counts.sample.decode("latin-1")).encode()
        case b"XRESET":
            counts.forget()
            return _OK
        case _:
            return b"500 5.5.1 Unknown\r\n"


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(MailServer, "127.0.0.1", port, backlog=256)
    await server.serve_forever()


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=2525)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
