"""The ceiling: what the HTTP server and Flask give when nothing is done.

python -m benchmarks.ceiling --port 8000
"""

import argparse
import socket

import uvloop
from flask import Flask, request
from flask.typing import ResponseReturnValue

from api.serving.bounds import Bounds
from api.serving.messages import Environ
from api.serving.server import Server
from api.serving.workers import Reader
from benchmarks.stack import THREADS

app = Flask(__name__)


@app.post("/api/v1/events")
def accept() -> ResponseReturnValue:
    """Parse the body and answer."""
    return {"event_type": request.get_json()["event_type"]}, 202


class _AnyBody:
    """An admission that takes what the API takes."""

    def at_once(self, environ: Environ, length: int) -> int:
        """Take it."""
        del environ, length
        return 256 * 1024

    def check(self, environ: Environ, reader: Reader) -> None:
        """Never needed."""

    def refuse(self, environ: Environ, status: int, detail: str, reader: Reader) -> None:
        """Say nothing of it."""
        del environ, status, detail
        reader.break_off()


def main() -> None:
    """Serve the view as the API is served."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    listener = socket.create_server(("127.0.0.1", parser.parse_args().port))
    uvloop.run(Server(app.wsgi_app, _AnyBody(), Bounds(), threads=int(THREADS)).run(listener))


if __name__ == "__main__":
    main()
