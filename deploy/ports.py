"""Free ports of this machine."""

import atexit
import contextlib
import secrets
import socket
from collections import deque
from typing import Final

from deploy.child_process import StartError

#: The embedded stack listens nowhere else.
ADDRESS: Final = "127.0.0.1"
#: Ports are drawn from below those that outgoing connections get (from 32768 on Linux, 49152 elsewhere). From
#: among them a client that tries again and again to reach a stopped server would one day be given the server's
#: port as its own and connect to itself.
_PORTS: Final = range(20_000, 32_000)
#: A server listens within seconds of being given its port: by then so many more have not been given out.
_CLAIMS: Final[deque[socket.socket]] = deque(maxlen=64)


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1 now."""
    try:
        try_to_listen(ADDRESS, port)
    except OSError:
        return False
    return True


def try_to_listen(host: str, port: int) -> None:
    """Raise OSError if no server could listen there now."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, else old connections count
        listener.bind(address)
        listener.listen()


def url_of(host: str, port: int) -> str:
    """Return the URL of a server that listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens, and which nobody else is given meanwhile.

    Until a server listens on it, its number is claimed by the UDP port of that number: two stacks that start at once on
    one machine are given different ones.
    """
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with contextlib.ExitStack() as stack:
            claim = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            try:
                claim.bind((ADDRESS, port))
            except OSError:
                continue
            if is_free(port):
                stack.pop_all()
                _keep(claim)
                return port
    raise StartError(f"no free port found between {_PORTS.start} and {_PORTS.stop}")


def _keep(claim: socket.socket) -> None:
    if len(_CLAIMS) == _CLAIMS.maxlen:
        _CLAIMS.popleft().close()
    _CLAIMS.append(claim)


@atexit.register
def _let_go() -> None:
    while _CLAIMS:
        _CLAIMS.pop().close()
