"""Notifier's product code: accept, route, schedule, deliver, record. Knows neither Flask nor Celery.

Each package is a room with one job; a room imports only rooms below it (`.importlinter`). Packages of handlers and
providers import `notifier.plugin_api` and nothing else.
"""

from typing import Final

VERSION: Final = "0.1.0"
