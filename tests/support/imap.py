"""A small IMAP server: one mailbox, as much of RFC 9051 as readers of bounces need."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class ImapServer:
    """Its mails by UID, and what became of them."""

    port: int
    mails: dict[int, bytes]
    capabilities: str = "IMAP4rev1 MOVE UIDPLUS"
    #: Says nothing more once this command comes.
    hangs_at: str = ""
    seen: set[int] = field(default_factory=set)
    moved: dict[int, str] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    commands: list[str] = field(default_factory=list)

    def answer(self, line: str) -> list[bytes]:
        """Return the untagged lines that answer a command; the tagged line is added."""
        words = line.split(" ", 3)
        match [word.upper() for word in words[:2]]:
            case ["CAPABILITY", *_]:
                return [f"* CAPABILITY {self.capabilities}".encode()]
            case ["SELECT", *_]:
                return [f"* {len(self.mails)} EXISTS".encode()]
            case ["UID", "SEARCH"]:
                new = [uid for uid in sorted(self.mails) if uid not in self.seen]
                return [b"* SEARCH " + " ".join(map(str, new)).encode()]
            case ["UID", "FETCH"]:
                [uid] = _uids(words[2])
                size = re.search(r"BODY\.PEEK\[\]<0\.(\d+)>", line)
                assert size, line
                raw = self.mails[uid][: int(size[1])]
                return [f"* {uid} FETCH (UID {uid} BODY[]<0> {{{len(raw)}}}\r\n".encode() + raw + b")"]
            case ["UID", "STORE"]:
                (self.deleted if "Deleted" in line else self.seen).update(_uids(words[2]))
            case ["UID", "MOVE" | "COPY"]:
                self.moved.update(dict.fromkeys(_uids(words[2]), words[3].strip('"')))
            case ["UID", "EXPUNGE"]:
                for uid in _uids(words[2]):
                    del self.mails[uid]
            case _:
                pass
        return []

    def serve(self, connection: socket.socket) -> None:
        """Talk to one client to the end."""
        with connection, suppress(OSError), connection.makefile("rb") as lines:
            connection.sendall(f"* OK [CAPABILITY {self.capabilities}] ready\r\n".encode())
            for raw in lines:
                tag, _, command = raw.decode().rstrip("\r\n").partition(" ")
                self.commands.append(command)
                if self.hangs_at and command.startswith(self.hangs_at):
                    lines.read()
                    return
                said = "NO" if command in {"LOGIN reader wrong", 'LOGIN reader "wrong"'} else "OK"
                answers = [*self.answer(command), f"{tag} {said} done".encode()]
                connection.sendall(b"".join(each + b"\r\n" for each in answers))
                if command == "LOGOUT":
                    return


def _uids(text: str) -> list[int]:
    return [int(uid) for uid in text.split(",")]


@contextmanager
def imap(mails: dict[int, bytes], **options: str) -> Iterator[ImapServer]:
    """An IMAP server with some mails."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ImapServer(listener.getsockname()[1], mails, **options)

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=server.serve, args=[connection], daemon=True).start()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
