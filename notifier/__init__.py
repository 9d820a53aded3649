"""Notifier's product code: accept, route, schedule, deliver, record. Knows neither Flask nor Celery."""
