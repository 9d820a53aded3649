"""Serve the console in an app: its pages, and the filters of their templates."""

from flask import Flask

from api.console import design, finding, letters, messages, overview, people, sign_in, templates_pages
from api.console.pages import add_filters, pages
from config.settings import Settings

#: Each registers its pages when it is imported.
_PAGES = (sign_in, overview, finding, messages, people, letters, design, templates_pages)


def serve_console(app: Flask, settings: Settings) -> None:
    """Serve the console, unless the settings remove it."""
    if settings.console:
        add_filters(app)
        app.register_blueprint(pages)
