"""Services of the views: this process's wiring, intake and publisher, kept with the Flask app."""

from dataclasses import dataclass

from flask import Flask, current_app

from config.wiring import Wiring
from notifier.events.intake import Intake
from notifier.planning.plans import Planner
from tasks.hints import HintPublisher


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one API process."""

    wiring: Wiring
    intake: Intake
    publisher: HintPublisher
    #: It turns requests into rows.
    planner: Planner


def keep(app: Flask, wires: Wiring, publisher: HintPublisher) -> None:
    """Make the services of an app, and keep them with it."""
    app.extensions["notifier"] = Services(wires, wires.intake(publisher), publisher, wires.planner(publisher.lease))


def services_of(app: Flask) -> Services:
    """Return the services that are kept with an app."""
    found: Services = app.extensions["notifier"]
    return found


def services() -> Services:
    """Return the services of the app that serves this request."""
    return services_of(current_app)
