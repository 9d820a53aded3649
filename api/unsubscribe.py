"""The pages behind unsubscribe links (RFC 8058): GET shows, POST switches. The link is the permission."""

from typing import Final

from flask import Response, request

from api.auth import is_open
from api.browser_security import Page
from api.request_heads import takes_body
from api.resources import Resource
from api.services import services
from notifier.people.preferences import GENERAL
from notifier.people.unsubscribe import Subscription, switch

blp = Resource("unsubscribing", __name__, url_prefix="/u", description="Links in messages; no key is needed.")

_HTML: Final = {"type": "string"}
_PAGE: Final = Page("unsubscribe.html")
#: The form's action that subscribes again. Any other POST unsubscribes, as mail programs' one click does.
_SUBSCRIBE: Final = "subscribe"
#: Mail programs send a word or two, whatever the form around it.
_MAX_FORM: Final = 16 * 1024


def _page(status: int, title: str, text: str, *, action: str = "", button: str = "") -> Response:
    return _PAGE.response(status, title=title, text=text, action=action, button=button)


def _read(token: str) -> Subscription | None:
    return services().wiring.links.read(token)


def _named(subscription: Subscription) -> str:
    return "this kind of message" if subscription.category == GENERAL else f"“{subscription.category}”"


def _unknown() -> Response:
    return _page(404, "This link is not valid", "It may have been cut off. Please use the link in the message itself.")


@blp.route("/<token>")
@is_open
@blp.doc(security=[])
@blp.response(200, _HTML, description="A page that asks.", content_type="text/html")
@blp.alt_response(404, schema=_HTML, description="The link is not one of ours.", content_type="text/html")
def show_unsubscribe_page(token: str) -> Response:
    """Ask. Changes nothing: programs that follow links in mail must not unsubscribe anybody."""
    subscription = _read(token)
    if subscription is None:
        return _unknown()
    text = f"You will get no more {subscription.channel} about {_named(subscription)}."
    return _page(200, "Unsubscribe?", text, action="unsubscribe", button="Unsubscribe")


@blp.route("/<token>", methods=["POST"])
@is_open
@takes_body(lambda _: _MAX_FORM)
@blp.doc(security=[])
@blp.response(200, _HTML, description="Done; the page offers to undo it.", content_type="text/html")
@blp.alt_response(404, schema=_HTML, description="The link is not one of ours.", content_type="text/html")
def unsubscribe_category(token: str) -> Response:
    """Switch the category off for the channel; the form on the page that follows switches it on again."""
    subscription = _read(token)
    if subscription is None:
        return _unknown()
    wanted = request.form.get("action") == _SUBSCRIBE
    switch(services().wiring.engine, subscription, wanted=wanted)
    if wanted:
        return _page(
            200, "You are subscribed again", f"You will get {subscription.channel} about {_named(subscription)}."
        )
    text = f"You will get no more {subscription.channel} about {_named(subscription)}. That was a mistake?"
    return _page(200, "You are unsubscribed", text, action=_SUBSCRIBE, button="Subscribe again")
