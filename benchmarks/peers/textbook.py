"""The textbook: Flask, a session and a commit an event, a Celery task a notification.

granian --interface wsgi benchmarks.peers.textbook:web
celery --app benchmarks.peers.textbook:queue worker
"""

import os
import uuid
from typing import Any

import requests
from celery import Celery
from flask import Flask, request
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from marshmallow import Schema, ValidationError, fields, validate
from sqlalchemy import JSON, ForeignKey
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The models' base."""


web = Flask(__name__)
web.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg2:", 1)
db = SQLAlchemy(web, model_class=Base)
queue = Celery("textbook", broker=os.environ["REDIS_URL"])
queue.conf.task_ignore_result = True


class Event(Base):
    """An event."""

    __tablename__ = "events"
    id: Mapped[str] = mapped_column(primary_key=True)
    event_type: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)


class Notification(Base):
    """A message to one recipient."""

    __tablename__ = "notifications"
    id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(ForeignKey("events.id"))
    channel: Mapped[str]
    recipient: Mapped[str]
    status: Mapped[str] = mapped_column(default="queued")


class EventSchema(Schema):
    """The event that callers post."""

    event_type = fields.String(required=True, validate=validate.Length(1, 128))
    channel = fields.String(required=True, validate=validate.OneOf(["webhook"]))
    recipient = fields.URL(required=True, require_tld=False)
    payload = fields.Dict(load_default=dict)
    idempotency_key = fields.String(load_default=None, validate=validate.Length(1, 255))


@web.post("/api/v1/events")
def accept() -> ResponseReturnValue:
    """Keep an event and its notification, and queue it."""
    try:
        given = EventSchema().load(request.get_json())
    except ValidationError as error:
        return {"errors": error.messages}, 422
    event = Event(
        id=str(uuid.uuid4()),
        event_type=given["event_type"],
        payload=given["payload"],
        idempotency_key=given["idempotency_key"],
    )
    notification = Notification(
        id=str(uuid.uuid4()), event_id=event.id, channel=given["channel"], recipient=given["recipient"]
    )
    db.session.add(event)
    try:
        db.session.flush()
    except IntegrityError:
        db.session.rollback()
        return {"duplicate": True}, 202
    db.session.add(notification)
    db.session.commit()
    deliver.delay(notification.id)
    return {"id": event.id}, 202


@queue.task(autoretry_for=(requests.RequestException,), retry_backoff=True, max_retries=5)  # type: ignore[untyped-decorator]  # Celery's
def deliver(notification_id: str) -> None:
    """Post a notification to its recipient."""
    with web.app_context():
        notification = db.session.get_one(Notification, notification_id)
        event = db.session.get_one(Event, notification.event_id)
        answer = requests.post(notification.recipient, json=event.payload, timeout=10)
        answer.raise_for_status()
        notification.status = "delivered"
        db.session.commit()


def create_tables() -> None:
    """Make the tables."""
    with web.app_context():
        db.create_all()


if __name__ == "__main__":
    create_tables()
