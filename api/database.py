"""The database as views read it: `db.session`, by Flask-SQLAlchemy, over the engine that this process has already.

A session takes a connection with its first statement, and gives it back once its view has returned, before the answer
is serialized (`api.resources`). A view that goes on to change something, or to wait, calls `db.session.remove()` first:
more threads serve than there are connections, so a request never holds two, nor one while it waits. Nothing is written
through a session: rows are changed in `notifier`, in transactions of their own.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.services import services_of
from notifier.models import Base

View = TypeVar("View", bound=Callable[..., Any])


class _ReadingSession(Session):
    """A session whose connection may have died by the time it is given back: all that was read is there."""

    def close(self) -> None:
        """Give the connection back, or throw it away where it does not answer any more."""
        try:
            super().close()
        except SQLAlchemyError:
            self.invalidate()


class _Database(SQLAlchemy):
    """Flask-SQLAlchemy without an engine of its own, so that a process has one pool.

    Its settings could make an engine, and not what ours carries: deadlines, seals and the engine beside it.
    """

    def _make_engine(self, bind_key: str | None, options: dict[str, Any], app: Flask) -> Engine:
        return services_of(app).wiring.engine


db = _Database(
    model_class=Base,
    session_options={"class_": _ReadingSession, "autoflush": False},
    add_models_to_shell=False,
)


def use_database(app: Flask) -> None:
    """Have the views of an app read through `db`. To be called once its services are kept (`api.services`)."""
    app.config["SQLALCHEMY_DATABASE_URI"] = services_of(app).wiring.engine.url
    db.init_app(app)


def giving_back(view: View) -> View:
    """Return a view that gives its session's connection back when it returns or raises."""

    @wraps(view)
    def serve(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- the view's
        try:
            return view(*args, **kwargs)
        finally:
            db.session.remove()  # makes no session where the view had none

    return cast(View, serve)
