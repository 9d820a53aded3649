"""`python -m api.serving`: listen, and serve with one process or several."""

import argparse
import resource
import socket
import sys

import uvloop

from api.serving.processes import CANNOT_START, serve_with
from notifier.runtime import memory


def _listener(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(2048)
    return listener


def _most_descriptors() -> int:
    """Have as many files and sockets as this process may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if most == resource.RLIM_INFINITY else min(most, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return wanted


def _serve(listener: socket.socket, threads: int, *, parent: int | None = None) -> None:
    """Serve until SIGTERM, or until the process that has the other end of the pipe `parent` is gone."""
    # Here, since they are most of the product, and the process that watches others does without.
    from api.app import create_app  # noqa: PLC0415 -- the process that watches does without
    from api.services import services  # noqa: PLC0415 -- the process that watches does without
    from api.serving.bounds import Bounds  # noqa: PLC0415 -- the process that watches does without
    from api.serving.server import Server  # noqa: PLC0415 -- the process that watches does without
    from config.settings import SettingsError  # noqa: PLC0415 -- the process that watches does without

    try:
        app = create_app()
    except SettingsError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(CANNOT_START) from None
    with app.app_context():
        settings = services().wiring.settings
    bounds = Bounds.of(settings, _most_descriptors())
    fast_path = app.extensions["fast_path"]
    server = Server(app.wsgi_app, app.extensions["heads"], bounds, threads=threads, fast_path=fast_path)
    memory.settle()
    uvloop.run(server.run(listener, parent=parent))


def main() -> None:
    """Serve as the arguments say."""
    memory.expect_imports()
    parser = argparse.ArgumentParser(prog="python -m api.serving", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=64)
    options = parser.parse_args()
    listener = _listener(options.host, options.port)
    if options.processes == 1:
        _serve(listener, options.threads)
    else:

        def serve(parent: int) -> None:
            _serve(listener, options.threads, parent=parent)

        raise SystemExit(serve_with(options.processes, listener, serve))


if __name__ == "__main__":
    main()
