"""Something of everything for the console to show: people, templates, routes, subscriptions, and what they came to.

The same samples are in the screenshots, with plain words, and in the tests, with markup in every text.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from notifier_client import Client
from tests.support.receivers import HttpReceiver
from tests.support.running import FINISHED, wait_for

#: Sets `pwned` on the page where any of it is taken for markup. Without a space, a quote or a slash it fits anywhere.
MARKUP: Final = "<img src=x onerror=top.pwned=1><script>top.pwned=1</script><x-pwned>"
UNSPACED: Final = "<x-pwned>"
UNSLASHED: Final = "<img src=x onerror=top.pwned=1><x-pwned>"
#: Ends attributes, elements and strings, and is 49 where a text is rendered as a template.
HOSTILE: Final = f"""'"`></textarea></title>{MARKUP}&lt;&amp;{{{{7*7}}}}${{7*7}}"""


@dataclass(frozen=True, slots=True)
class Words:
    """The marks that texts have at their ends, each for what it may consist of."""

    #: Any character.
    free: str = ""
    #: Of a Jinja template, of an id in a path, of an address.
    template: str = ""
    id: str = ""
    address: str = ""
    #: Of a header, whose value is a secret that is masked in all texts; of the raw string of a JMESPath.
    header: str = ""


PLAIN: Final = Words()
MARKED: Final = Words(HOSTILE, MARKUP, UNSLASHED, UNSPACED, f"<!--{UNSPACED}")


@dataclass(slots=True)
class Samples:
    """The ids of what was made, by what became of it."""

    notifications: dict[str, str] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)
    subscriptions: dict[str, str] = field(default_factory=dict)
    ada: str = "ada"


class Filler:
    """Makes samples by a client with a key that may do everything."""

    def __init__(self, client: Client, receiver: HttpReceiver, words: Words = PLAIN) -> None:
        self._client, self._receiver, self._words = client, receiver, words
        self.samples = Samples(ada=f"ada{words.id}")

    def fill(self) -> Samples:
        """Make everything, and wait until it has come to what it comes to."""
        self._people()
        self._templates()
        self._routes()
        self._subscriptions()
        self._client.holds.put("newsletter")
        self._events()
        self._messages()
        wait_for(self._has_settled, 60, "the samples to be sent")
        return self.samples

    def _people(self) -> None:
        words, users = self._words, self._client.users
        users.put(
            self.samples.ada,
            {
                **{"email": "ada@example.com", "phone": "+15005550006", "timezone": "Europe/Berlin", "locale": "de"},
                "push_tokens": [f"simulator:delivered+ada{words.address}"],
                "chat_url": f"simulator://sent+ada{words.address}",
                "attributes": {"name": f"Ada Lovelace{words.free}", f"plan{words.free}": [f"gold{words.free}", 1]},
            },
        )
        users.put("ben", {"email": "ben@example.com", "phone": "+15005550003", "attributes": {"name": "Ben"}})
        self._client.preferences.put(
            "ben",
            {
                "channels": {"push": False},
                "categories": {"marketing": {"email": False, "*": False}},
                "quiet_hours": [{"channels": ["sms"], "start": "22:00", "end": "07:00", "timezone": "Europe/London"}],
            },
        )
        left = {"channel": "email", "address": "left@example.com", "reason": f"asked by telephone{words.free}"}
        self._client.suppressions.add(left)

    def _templates(self) -> None:
        end, templates = self._words.template, self._client.templates
        hello: dict[str, Any] = {"channel": "email", "subject": "Welcome, {{ user.attributes.name }}!" + end}
        templates.put("welcome", {**hello, "text": f"Hello {{{{ user.attributes.name }}}}.{end}"})
        html = f"<h1>Hello {{{{ user.attributes.name }}}}</h1><p>Good to have you.</p>{end}"
        templates.put("welcome", {**hello, "text": "Hello {{ user.attributes.name }}, good to have you.", "html": html})
        german = {"channel": "email", "locale": "de", "subject": "Willkommen, {{ user.attributes.name }}!"}
        german["html"] = f"<h1>Hallo {{{{ user.attributes.name }}}}</h1><p>Schön, dass Sie da sind.</p>{end}"
        templates.put("welcome", {**german, "text": f"Hallo {{{{ user.attributes.name }}}}.{end}"})
        templates.put("code", {"channel": "sms", "text": f"Your code is {{{{ payload.code }}}}.{end}"})

    def _routes(self) -> None:
        routes = self._client.routes
        raw = self._words.header.replace("'", "")
        routes.put(
            "welcome",
            {
                **{"event_type": "user.signup", "to": {"user_id": "payload.user_id"}, "template": "welcome"},
                **{"channels": ["email"], "category": "account", "filter": f"payload.plan != '{raw}none'"},
            },
        )
        readers = {"user_id": "payload.user_id"}
        routes.put("newsletter", {"event_type": "news.*", "to": readers, "category": "marketing"})

    def _subscriptions(self) -> None:
        words, subscriptions = self._words, self._client.subscriptions
        self._receiver.answer("/flaky", 503)
        self._receiver.answer("/broken", (500, {"X-Fault": f"disk full{words.header}"}))
        self._receiver.say("/broken", f"No space left on the device{words.free}")
        mark = f"?of={words.address}" if words.address else ""
        for name, path in (("orders", "/orders"), ("flaky", "/flaky"), ("broken", "/broken")):
            made = subscriptions.create(
                {
                    "url": self._receiver.url(path + mark * (name == "orders")),
                    "event_types": ["order.*", "user.signup"] if name == "orders" else [f"{name}.*"],
                    "description": f"The {name} service{words.free}",
                    "headers": {"X-Team": f"{name}{words.header}"},
                }
            )
            self.samples.subscriptions[name] = made["id"]
        off = subscriptions.create({"url": self._receiver.url("/off"), "event_types": ["audit.*"], "enabled": False})
        self.samples.subscriptions["off"] = off["id"]

    def _events(self) -> None:
        end = self._words.free
        note = {f"note{end}": {f"deep{end}": [f"text{end}", 1.5, None]}} if end else {}
        signup = {"user_id": self.samples.ada, "plan": f"gold{end}", **note}
        self._event("signup", {"event_type": "user.signup", "payload": signup, "idempotency_key": f"signup-1{end}"})
        shipped = {"order": f"A-1001{end}", "items": [{"name": f"Lamp{end}", "price": 49.9}]}
        key = f"order-1001{end}"
        self._event("shipped", {"event_type": "order.shipped", "payload": shipped, "cancellation_key": key})
        self._event("flaky", {"event_type": "flaky.order", "payload": {}})
        self._event("broken", {"event_type": "broken.order", "payload": {}})
        self._event("news", {"event_type": "news.weekly", "payload": {"user_id": self.samples.ada}})

    def _event(self, name: str, event: Any) -> None:
        self.samples.events[name] = self._client.events.send(event)["id"]

    def _messages(self) -> None:
        end, address = self._words.free, self._words.address
        self._send("delivered", channel="sms", user_id=self.samples.ada, template="code", data={"code": f"1234{end}"})
        self._send("bounced", channel="chat", recipient=f"simulator://bounce+carl{address}")
        self._send("rejected", channel="chat", recipient=f"simulator://rejected+dora{address}")
        self._send("retrying", channel="push", recipient=f"simulator:unavailable+ed{address}", category="account")
        self._send("ambiguous", channel="chat", recipient=f"simulator://ambiguous+eve{address}")
        self._send("mailed", channel="email", user_id="ben", category="account")
        self._send("suppressed", channel="email", recipient="left@example.com")
        self._send("opted_out", channel="email", user_id="ben", category="marketing")
        late = {"send_at": _ahead(days=2), "cancellation_key": f"order-1002{end}", "dedup_key": f"once{end}"}
        self._send("scheduled", channel="email", user_id=self.samples.ada, dedup_window="P1D", **late)
        self._send("reminder", channel="email", user_id="ben", target_date=_ahead(days=30), lead_time=["P7D"])
        self._send("cancelled", channel="email", user_id="ben", send_at=_ahead(days=3))
        self._client.notifications.cancel(self.samples.notifications["cancelled"])
        self._send("expired", channel="email", user_id="ben", expires_at=_ahead(seconds=-1))

    def _send(self, name: str, **fields: Any) -> None:
        end = self._words.free
        texts = {} if "template" in fields else {"subject": f"Your order{end}", "body": f"It is on its way.{end}"}
        body: Any = {**texts, **fields}
        [notification] = self._client.notifications.send(body)["items"]
        self.samples.notifications[name] = notification["id"]

    def _has_settled(self) -> bool:
        waiting = {"scheduled", "retrying"}
        seen = [self._client.events.get(event) for event in self.samples.events.values()]
        of_events = [each for event in seen for each in event["notifications"]]
        single = [self._client.notifications.get(each) for each in self.samples.notifications.values()]
        statuses = [each["status"] for each in (*of_events, *single)]
        told = {name: self._status(name) for name in ("delivered", "bounced")}
        is_told = told == {"delivered": "delivered", "bounced": "failed"}
        return is_told and all(event["status"] == "processed" for event in seen) and set(statuses) <= FINISHED | waiting

    def _status(self, name: str) -> str:
        return self._client.notifications.get(self.samples.notifications[name])["status"]


def _ahead(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()
