"""Flower with its /metrics behind its password, as everything else of it: `python -m deploy.flower`.

Flower itself gives those to anybody, whatever password is set, and they name workers and tasks.
"""

from celery.__main__ import main
from flower.views.monitor import Metrics
from tornado.web import authenticated

Metrics.get = authenticated(Metrics.get)

if __name__ == "__main__":
    main()
