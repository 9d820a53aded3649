"""Notifications: one message to one recipient over one channel."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import orjson
from flask import Response, abort
from sqlalchemy import false, or_, select

from api.audit import action, put_on_record
from api.auth import caller, is_on_record, requires
from api.database import db
from api.intake import (
    KEY_HEADER_DOC,
    accept_one,
    accepted,
    check_channels,
    check_template,
    key_header,
    loaded,
    templates_of,
    with_key_header,
)
from api.pagination import filtered, page
from api.permits import check_notification, check_sender, check_use
from api.problems import problem
from api.request_bodies import Body, read_json
from api.request_heads import takes_body
from api.request_log import cause, note
from api.resources import Resource
from api.schemas.notifications import (
    MOST_ATTACHMENTS,
    AttemptPageSchema,
    CancelledSchema,
    CancelSchema,
    ContentSchema,
    DirectNotificationSchema,
    MoveSchema,
    NotificationPageSchema,
    NotificationQuery,
    NotificationsSchema,
    NotificationWithAttemptsSchema,
)
from api.schemas.resending import ResendSchema
from api.services import services
from api.visibility import remember_given, reveals
from config.settings import Settings
from notifier.content.attachments import drop, store
from notifier.content.rendering import Envelope, as_members
from notifier.delivery.composer import CannotCompose
from notifier.delivery.stored_message import Gone, content_of
from notifier.diagnostics.explanations import explain
from notifier.diagnostics.records import attempts_of, earlier_sends, receipts_of
from notifier.events.intake import Accepted
from notifier.models import Notification
from notifier.notifications.acceptance import settle
from notifier.notifications.cancellation import Cancelled, cancel, cancel_by_key
from notifier.notifications.filters import (
    ids_of_key,
    is_alone,
    is_called_by_provider,
    was_tried_by,
    ways_to,
    windows_of_provider,
)
from notifier.people.users import Person, people
from notifier.planning.drafts import Draft, draft_notifications
from notifier.planning.plans import Plan, shared_fields
from notifier.providers.protocol import Message
from notifier.resending import reschedule as changing
from notifier.security.api_keys import Scope
from notifier.security.redaction import secrets_of, without
from notifier.vocabulary.errors import Conflict, Invalid
from notifier.vocabulary.states import Channel, How

blp = Resource(
    "notifications", __name__, url_prefix="/api/v1/notifications", description="One message to one recipient."
)

#: Bytes of JSON that stand around an attachment's content at the most.
_AROUND: Final = 4096
NOTIFICATION_BODY_DOC: Final[dict[str, Any]] = {
    "required": True,
    "content": {"application/json": {"schema": DirectNotificationSchema}},
}


def notification_limit(settings: Settings) -> int:
    """Return the largest size of a notification: attachments are in base64, with names and types around them."""
    in_base64 = (settings.max_attachment_bytes + 2) // 3 * 4
    return settings.max_event_bytes + in_base64 + MOST_ATTACHMENTS * _AROUND


_direct = DirectNotificationSchema()
_out = NotificationsSchema()
_MISSING: Final = "There is no such notification."


@blp.route("", methods=["POST"])
@requires(Scope.SEND)
@takes_body(notification_limit)
@blp.doc(requestBody=NOTIFICATION_BODY_DOC, parameters=[KEY_HEADER_DOC])
@blp.response(202, NotificationsSchema, description="Committed to Postgres.")
@blp.alt_response(413, description="Larger than 256 KiB, not counting its attachments, or those are much too large.")
def post_notification() -> Response:
    """Send a message without an event: one notification for each channel, address and lead time.

    An email may name its sender (`from`), where answers go (`reply_to`), and carry files (`attachments`). `critical`
    needs the scope `critical`. A key that is limited to some channels names the channel; one that is limited to some
    event types may not send what has none.
    """
    return take_notification(read_notification())


def read_notification() -> Body:
    """Return the request's body, within the limits of a notification. Answers 400, 413 or 415; raises Invalid."""
    settings = services().wiring.settings
    room = notification_limit(settings) - settings.max_event_bytes
    return read_json(settings.max_event_bytes, beside="attachments", room=room)


def take_notification(body: Body) -> Response:
    """Accept a notification without an event. Raises Invalid, Forbidden or Unavailable."""
    settings = services().wiring.settings
    fields = loaded(_direct, body)
    check_channels(fields, services().wiring.channels)
    fields = with_key_header(fields, key_header())
    check_notification(fields)
    check_sender(fields["sender"])
    remember_given({"recipient": fields["recipient"], "key": fields["cancellation_key"]})
    _check_attachments(fields, settings.max_attachment_bytes)
    templates = templates_of([fields])
    check_template(fields, templates)
    engine = services().wiring.engine
    with engine.connect() as connection:
        person = people(connection, [fields["user_id"]]).get(fields["user_id"] or "")
    files = store(engine, fields["attachments"] or ())
    draft = draft_notifications(
        caller().source,
        _plan(fields, body, files),
        fields["idempotency_key"],
        body.fingerprint("notification"),
        services().planner,
        person,
        templates,
        cause(),
    )
    answer = _accept(draft, files)
    note(notifications=len(answer.ids), notification_id=str(answer.ids[0]), duplicate=answer.duplicate)
    items = settle(engine, answer.ids, () if answer.duplicate else draft.notifications)
    return accepted(_out.dump({"items": items}), duplicate=answer.duplicate)


def _check_attachments(fields: dict[str, Any], most: int) -> None:
    """Raise Invalid where attachments have more than `most` bytes in all."""
    if sum(len(each.content) for each in fields["attachments"] or ()) > most:
        raise Invalid({"attachments": [f"More than {most} bytes in all, decoded."]})


def _accept(draft: Draft, files: Sequence[UUID]) -> Accepted:
    """Write a draft, whose attachments were kept before; they go again where it turns out not to be new."""
    engine = services().wiring.engine
    try:
        answer = accept_one(draft)
    except Invalid:
        drop(engine, files)
        raise
    if answer.duplicate:
        drop(engine, files)
    return answer


def _plan(fields: dict[str, Any], body: Body, files: Sequence[UUID]) -> Plan:
    channels = fields["channels"] or ([fields["channel"]] if fields["channel"] else [])
    if fields["template"] is None:
        content = {"subject": fields["subject"], "body": fields["body"]}
    else:
        raw = body.raw_member("data") if fields["data"] is not None else None
        content = {"data": orjson.Fragment(raw or b"{}")}
    content |= as_members(Envelope(fields["sender"], fields["reply_to"], tuple(files)))
    return Plan(
        recipient=fields["recipient"],
        user_id=fields["user_id"],
        channels=tuple(channels),
        strategy=fields["strategy"],
        content=content,
        **shared_fields(fields),
    )


_EQUAL: Final = (
    *("status", "channel", "user_id", "recipient", "event_type", "event_id", "request_id", "subscription_id"),
    *("source", "category", "template", "reason", "cancellation_key", "dedup_key"),
)


@blp.route("")
@requires(Scope.READ)
@blp.arguments(NotificationQuery, location="query", as_kwargs=False)
@blp.response(200, NotificationPageSchema)
def list_notifications(asked: dict[str, Any]) -> Any:  # noqa: ANN401 -- a page's schema dumps it
    """List notifications, newest first."""
    query = filtered(select(Notification), Notification, asked, _EQUAL)
    if asked["message_id"] is not None:
        query = query.where(is_called_by_provider(asked["message_id"]))
    if asked["idempotency_key"] is not None:
        ids = db.session.scalars(ids_of_key(asked["idempotency_key"])).all()
        query = query.where(or_(Notification.id.in_(ids), Notification.event_id.in_(ids)) if ids else false())
    if is_alone("provider", asked):
        bounds = {"before": asked["cursor"], "since": asked["created_after"], "until": asked["created_before"]}
        windows = windows_of_provider(db.session(), asked["provider"], asked["limit"] + 1, **bounds)
        return page(query, Notification.id, asked, windows=windows)
    if asked["provider"] is not None:
        query = query.where(was_tried_by(asked["provider"]))
    return page(query, Notification.id, asked, ways=ways_to(asked))


def _find(notification_id: UUID) -> Notification:
    return db.get_or_404(Notification, notification_id, description=_MISSING)


def _own(notification_id: UUID) -> Notification:
    """Return a notification on which the caller may act. Answers 404, as for an unknown id, where it is another's."""
    notification = _find(notification_id)
    db.session.remove()
    if not caller().owns(notification.source):
        abort(404, _MISSING)
    return notification


def _check_own(notification_id: UUID) -> Notification:
    """Return a notification that the caller may have sent, as _own does, where its key's limits allow it."""
    notification = _own(notification_id)
    check_use([notification.channel], notification.event_type)
    return notification


def _read(notification_id: UUID) -> dict[str, Any]:
    """Return a notification with its attempts and related records."""
    notification, session = _find(notification_id), db.session()
    return {
        **vars(notification),
        "pinned_template": notification.pinned_template,
        "explanation": explain(notification),
        "attempt_log": attempts_of(session, notification.id),
        "earlier_sends": earlier_sends(session, notification.id),
        "receipts": receipts_of(session, notification.id),
    }


@blp.route("/<uuid:notification_id>")
@requires(Scope.READ)
@blp.response(200, NotificationWithAttemptsSchema)
@blp.alt_response(404, description="There is no such notification.")
def get_notification(notification_id: UUID) -> dict[str, Any]:
    """Read a notification: where it stands, why, when it goes, and its attempts."""
    return _read(notification_id)


@blp.route("/<uuid:notification_id>/attempts")
@requires(Scope.READ)
@blp.response(200, AttemptPageSchema)
@blp.alt_response(404, description="There is no such notification.")
def list_notification_attempts(notification_id: UUID) -> dict[str, Any]:
    """List a notification's attempts."""
    _find(notification_id)
    return {"items": attempts_of(db.session(), notification_id), "next_cursor": None}


@blp.route("/<uuid:notification_id>/content")
@requires(Scope.READ)
@blp.response(200, ContentSchema)
@blp.alt_response(404, description="There is no such notification, or what it said is not kept any more: which.")
@blp.alt_response(409, description="No message can be made of it: `detail` says why. It was not sent so.")
def get_notification_content(notification_id: UUID) -> dict[str, Any] | Response:
    """Read what a notification says: what was sent, or before that what would be sent now.

    It is made again from what is kept: for as long as `NOTIFIER_RETENTION` keeps it, and not once its user was deleted.
    """
    here = services().wiring
    notification = _find(notification_id)
    db.session.remove()
    found = content_of(
        here.engine, here.template_process, here.vault, here.settings.public_url, here.sender_rules, notification
    )
    if isinstance(found, Gone):
        return problem(404, found.why)
    if isinstance(found, CannotCompose):
        return problem(409, f"No message can be made of it: {found}.")
    with here.engine.connect() as connection:
        person = people(connection, [notification.user_id]).get(notification.user_id or "")
    person = person and person.opened(here.seals)
    secrets = frozenset[str]() if reveals() else _secrets_in(found, person)
    return {
        "id": notification.id,
        "channel": notification.channel,
        "status": notification.status,
        "attempts": notification.attempts,
        "pinned_template": notification.pinned_template,
        "rendered_now": notification.template_id is not None,
        "subject": found.subject and without(secrets, found.subject),
        "text": without(secrets, found.text),
        "html": found.html and without(secrets, found.html),
        "sender": found.sender,
        "reply_to": found.reply_to,
        "attachments": [
            {"name": each.name, "content_type": each.content_type, "bytes": len(each.content)}
            for each in found.attachments
        ],
    }


def _secrets_in(message: Message, person: Person | None) -> frozenset[str]:
    """Return the credentials that a message may show: of where it goes, and of its user, whom a template knows."""
    own = [address for channel in Channel for address in person.addresses(channel)] if person else []
    return secrets_of(message.recipient, message.headers).union(*map(secrets_of, own))


@blp.route("/<uuid:notification_id>/cancel", methods=["POST"])
@requires(Scope.SEND)
@is_on_record
@blp.response(200, NotificationWithAttemptsSchema, description="No further attempt is made.")
@blp.alt_response(404, description="There is no such notification.")
@blp.alt_response(409, description="It was or is being sent, or has ended otherwise; `notification` is its record.")
def cancel_notification(notification_id: UUID) -> dict[str, Any] | Response:
    """Cancel a notification that was not sent yet. One that was cancelled before stays so.

    One of another source is unknown (404) to a key without the scope `admin`.
    """
    _own(notification_id)
    if cancel(services().wiring.engine, notification_id):
        return _read(notification_id)
    found = _read(notification_id)
    record = NotificationWithAttemptsSchema().dump(found)
    return problem(409, f"It can not be cancelled any more: it is {found['status']}.", notification=record)


@blp.route("/cancel", methods=["POST"])
@requires(Scope.SEND)
@blp.arguments(CancelSchema)
@blp.response(200, CancelledSchema)
def cancel_notifications(asked: dict[str, Any]) -> Cancelled:
    """Cancel all with a cancellation key that still can be; the key may be used again.

    It counts and cancels those of the key's own source; with the scope `admin` those of all sources.
    """
    named = services().wiring.audit.fingerprint(asked["cancellation_key"])
    put_on_record(action(), f"cancellation_key={named}")
    return cancel_by_key(services().wiring.engine, asked["cancellation_key"], caller().bounds)


@blp.route("/<uuid:notification_id>", methods=["PATCH"])
@requires(Scope.ADMIN)
@blp.arguments(MoveSchema)
@blp.response(200, NotificationWithAttemptsSchema)
@blp.alt_response(404, description="There is no such notification.")
@blp.alt_response(409, description="It is not scheduled.")
def move_notification(changes: dict[str, Any], notification_id: UUID) -> dict[str, Any]:
    """Move a scheduled notification to another time."""
    _check_own(notification_id)
    here = services().wiring
    changing.move(here.engine, notification_id, changes, zone=here.settings.timezone)
    return _read(notification_id)


@blp.route("/<uuid:notification_id>/resend", methods=["POST"])
@requires(Scope.REQUEUE)
@blp.arguments(ResendSchema, required=False)
@blp.response(202, NotificationWithAttemptsSchema)
@blp.alt_response(404, description="There is no such notification.")
@blp.alt_response(
    409,
    description="It goes out by itself, was cancelled, or a rule forbids it (`reason`: `opted_out`, `suppressed`,"
    " `subscription_disabled`, `no_address` …); or its channel has no other provider. Nothing was changed.",
)
def resend_notification(asked: dict[str, Any], notification_id: UUID) -> dict[str, Any]:
    """Send a finished notification again, or a retrying one now: the same id, its full number of attempts.

    The rules are asked first, as they would be asked at the moment of sending. Expiry forbids nothing here: somebody
    asks for it. `earlier_sends` of the notification tells how it stood before. With `another_provider` it goes by
    another provider than before. One of another source is unknown (404) to a key without the scope `admin`.
    """
    here = services()
    notification = _check_own(notification_id)
    if asked["another_provider"]:
        _check_choice(notification.channel)
    how = How.ANOTHER_PROVIDER if asked["another_provider"] else How.RESEND
    wires, lease, by = here.wiring, here.publisher.lease, caller().name
    here.publisher.hint([changing.resend(wires.engine, notification_id, lease, by, wires.standards, how=how)])
    return _read(notification_id)


def _check_choice(channel: str | None) -> None:
    """Raise Conflict where a channel has not several providers to choose from."""
    count = sum(name == channel for name, _ in services().wiring.provider_names)
    if count < 2:
        # Subscriptions are called with secrets of their own, also where the channel names no provider.
        number = "one" if count or channel == Channel.WEBHOOK else "no"
        raise Conflict(f"There is {number} provider for {channel or 'it: it has no channel'}.")
