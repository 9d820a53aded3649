"""What the views work with: this process's wiring, intake and publisher, kept with the Flask app."""

from dataclasses import dataclass

from flask import Flask, current_app

from config.wiring import Wiring
from notifier.events.intake import Intake
from tasks.hints import HintPublisher


@dataclass(frozen=True, slots=True)
class Parts:
    """What one API process is built of."""

    wiring: Wiring
    intake: Intake
    publisher: HintPublisher


def keep(app: Flask, parts: Parts) -> None:
    """Keep the parts with their app."""
    app.extensions["notifier"] = parts


def parts_of(app: Flask) -> Parts:
    """Return the parts that are kept with an app."""
    found: Parts = app.extensions["notifier"]
    return found


def parts() -> Parts:
    """The parts of the app that serves this request."""
    return parts_of(current_app)
