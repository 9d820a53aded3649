"""The bare view behind ASGI, for benchmarks.servers alone."""

from a2wsgi import WSGIMiddleware

from benchmarks.ceiling import app as wsgi_app
from benchmarks.stack import THREADS

app = WSGIMiddleware(wsgi_app, workers=int(THREADS))
