"""The ceiling: what the HTTP server and Flask give when nothing is done.

granian --interface wsgi --blocking-threads 64 benchmarks.ceiling:app
"""

from flask import Flask, request
from flask.typing import ResponseReturnValue

app = Flask(__name__)


@app.post("/api/v1/events")
def accept() -> ResponseReturnValue:
    """Parse the body and answer."""
    return {"event_type": request.get_json()["event_type"]}, 202
