"""Acts of operators, in a real browser: each button does what the API does, and says what has come of it."""

from typing import Any, Final

import pytest

from tests.services.browser import Browser, act
from tests.services.console import Console
from tests.services.samples import HOSTILE, MARKED
from tests.support.callers import Caller, Callers
from tests.support.receivers import HttpReceiver
from tests.support.running import made, reaches, wait_for

DONE: Final = ".notice.done"
FAILED: Final = ".notice.failed"
FAR: Final = "2999-01-01T00:00:00Z"


def page(notification_id: str) -> str:
    """The path of a notification's page."""
    return f"/console/notifications/{notification_id}"


def refused(console: Console, **fields: Any) -> str:
    """The id of a notification of its own that its provider refused."""
    fresh = made(console.system, channel="chat", recipient="simulator://rejected+acts", **fields)
    reaches(console.system, fresh, "failed")
    return fresh


def waiting(console: Console, **fields: Any) -> str:
    """The id of a notification of its own that waits."""
    fields = {"channel": "sms", "recipient": "+4915112345678", **fields}
    return made(console.system, send_at=FAR, **fields)


# --- Find, and read


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("left@example.com", "suppressed"),
        ("+15005550006", "delivered"),
        ("{notification}", "rejected"),
        ("{user}", "delivered"),
    ],
)
def test_one_box_finds_it(at_work: Browser, console: Console, wanted: str, name: str) -> None:
    wanted = wanted.format(notification=console.samples.notifications[name], user=console.samples.ada)
    at_work.visit("/console")
    at_work.fill("#q", wanted)
    visit = at_work.press("form[role=search] button")
    assert not visit.faults()
    assert at_work.find("main input[name=q]").get_attribute("value") == wanted
    at_work.press(f"a[href='{console.notification(name)}']")
    assert at_work.path == console.notification(name)


def test_nothing_found_says_so(at_work: Browser) -> None:
    assert at_work.visit("/console/find?q=nobody@example.com").status == 200
    assert "Nothing" in at_work.text("main")


@pytest.mark.parametrize("wanted", ["%00", "%E2%80%AE" + "a" * 3000])
def test_a_search_that_cannot_be_says_why(at_work: Browser, wanted: str) -> None:
    visit = at_work.visit(f"/console/find?q={wanted}")
    assert visit.status in {200, 422}
    assert at_work.text("[role=alert]")


def test_the_story_of_a_webhook_that_fails(at_work: Browser, console: Console) -> None:
    [failing] = console.system.notifications(console.samples.events["broken"])
    at_work.visit(page(failing["id"]))
    story = at_work.text(".timeline")
    for told in ("Accepted", "Attempt 1", "500", "webhook"):
        assert told in story
    moments = [each.get_attribute("datetime") for each in at_work.all(".timeline > li > div > time")]
    assert moments == sorted(moments)
    assert not at_work.find("details").get_attribute("open")
    at_work.find("summary").click()
    exchange = at_work.text("details")
    assert f"No space left on the device{HOSTILE}" in exchange
    assert f"disk full{MARKED.header}" in exchange
    assert f"broken{MARKED.header}" not in exchange, "headers of a subscription may be credentials"


def test_personal_data_are_hidden_until_somebody_asks(at_work: Browser, console: Console) -> None:
    fresh = waiting(console, recipient="+4915112345670", body="between us", cancellation_key="for one alone")
    at_work.visit(page(fresh))
    for secret in ("+4915112345670", "between us", "for one alone"):
        assert secret not in at_work.driver.page_source
    at_work.press("a[href*='show=1']")
    for secret in ("+4915112345670", "between us", "for one alone"):
        assert secret in at_work.text("main")
    lines = console.system.client.operating.audit(target=f"notification_id={fresh}")
    assert [(line["actor"], line["action"]) for line in lines] == [("operator", "console: show personal data")]


def test_a_message_is_shown_in_a_frame_that_can_do_nothing(at_work: Browser, console: Console) -> None:
    [email] = [each for each in console.system.notifications(console.samples.events["signup"]) if each["user_id"]]
    at_work.visit(f"{page(email['id'])}?show=1")
    frame = at_work.find("iframe")
    assert frame.get_attribute("sandbox") == ""
    assert frame.get_attribute("title")
    at_work.driver.switch_to.frame(frame)
    assert "Hallo Ada" in at_work.text("h1")
    assert at_work.has("x-pwned"), "the template's markup is markup, in there"
    at_work.driver.switch_to.default_content()
    assert at_work.run("return window.pwned === undefined")


# --- One message


def test_sending_again(at_work: Browser, console: Console) -> None:
    fresh = refused(console)
    at_work.visit(page(fresh))
    visit = at_work.act("resend")
    assert not visit.faults()
    assert at_work.text(DONE)
    assert reaches(console.system, fresh, "failed")["attempts"] == 2
    at_work.visit(page(fresh))
    assert "operator" in at_work.text(".timeline")


def test_an_act_asks_first(at_work: Browser, console: Console) -> None:
    fresh = waiting(console)
    at_work.visit(page(fresh))
    at_work.find(f"{act('cancel')} button").click()
    at_work.driver.switch_to.alert.dismiss()
    assert at_work.path == page(fresh)
    assert at_work.find(f"{act('cancel')} button").is_enabled()
    assert console.system.notification(fresh)["status"] == "scheduled"


def test_cancelling(at_work: Browser, console: Console) -> None:
    fresh = waiting(console)
    at_work.visit(page(fresh))
    at_work.act("cancel")
    assert at_work.text(DONE)
    assert "cancelled" in at_work.text("h1")
    assert console.system.notification(fresh)["status"] == "cancelled"
    assert not at_work.has(act("cancel"))


def test_what_came_too_late_says_why(at_work: Browser, console: Console) -> None:
    fresh = waiting(console)
    at_work.visit(page(fresh))
    console.system.client.notifications.cancel(fresh)
    at_work.act("move")
    assert at_work.text(FAILED)
    assert console.system.notification(fresh)["status"] == "cancelled"


def test_moving(at_work: Browser, console: Console) -> None:
    fresh = waiting(console)
    at_work.visit(page(fresh))
    at_work.run("document.querySelector('input[name=send_at]').value = '2998-02-03T04:05:06'")
    at_work.act("move")
    assert at_work.text(DONE)
    assert console.system.notification(fresh)["due_at"] == "2998-02-03T04:05:06Z"


def test_suppressing_and_lifting(at_work: Browser, console: Console) -> None:
    fresh = waiting(console, recipient="+4915112345679")
    at_work.visit(page(fresh))
    at_work.act("suppress")
    assert at_work.text(DONE)

    def suppressed() -> list[Any]:
        return list(console.system.client.suppressions.list(address="+4915112345679"))

    [suppression] = suppressed()
    at_work.act(f"lift/{suppression['id']}")
    assert at_work.text(DONE)
    assert suppressed() == []


def test_requeueing_one_dead_letter(at_work: Browser, console: Console) -> None:
    fresh = refused(console)
    at_work.visit(page(fresh))
    at_work.press("a[href*='/dead-letters?']")
    at_work.press("main tbody a.id")
    at_work.act("requeue")
    assert at_work.text(DONE)
    assert reaches(console.system, fresh, "failed")["attempts"] == 2


def died(console: Console, event_type: str, url: str, count: int) -> None:
    """Have so many webhooks to a URL fail for good."""
    events: list[Any] = [{"event_type": event_type, "channel": "webhook", "recipient": url}] * count
    assert console.system.client.events.send_many(events)["accepted"] == count
    wait_for(lambda: len(standing(console, event_type)) == count, 60, f"{count} dead letters")


def standing(console: Console, event_type: str) -> list[Any]:
    """The dead letters of a type that nobody has requeued."""
    return console.system.sql(
        "SELECT id FROM dead_letters WHERE event_type = :type AND requeued_at IS NULL", type=event_type
    )


def test_requeueing_a_thousand_with_progress(at_work: Browser, console: Console) -> None:
    with HttpReceiver() as receiver:
        receiver.answer("/thousand", 410)
        died(console, "many.dead", receiver.url("/thousand"), 1000)
        receiver.answer("/thousand", 204)
        at_work.visit("/console/dead-letters?event_type=many.dead")
        assert "1,000" in at_work.text("#counted")
        visit = at_work.press("form[data-act=requeue-all] button")
        assert not visit.faults()
        assert "1,000" in at_work.text("h1")
        assert len(standing(console, "many.dead")) == 1000, "the first press does nothing yet"
        at_work.press("form[data-act=sure] button")
        assert at_work.find("#progress").get_attribute("max") == "1000"
        # The page loads itself again.
        wait_for(lambda: "finished" in at_work.text("#status"), 60, "the end of the act")
        assert at_work.find("#progress").get_attribute("value") == "1000"
        assert "1,000 of 1,000" in at_work.text("#progress-text")
        assert at_work.findings() == []
        assert standing(console, "many.dead") == []
        wait_for(lambda: len(receiver.received("/thousand")) == 2000, 60, "a thousand deliveries")
        assert set(receiver.times("/thousand").values()) == {2}


def test_dropping_those_of_a_filter(at_work: Browser, console: Console) -> None:
    with HttpReceiver() as receiver:
        receiver.answer("/dropped", 410)
        died(console, "dropped.dead", receiver.url("/dropped"), 3)
        before = console.system.sql("SELECT count(*) FROM dead_letters")[0][0]
        at_work.visit("/console/dead-letters?event_type=dropped.dead")
        at_work.press("form[data-act=drop-all] button")
        at_work.press("form[data-act=sure] button")
        wait_for(lambda: "finished" in at_work.text("#status"), 60, "the end of the act")
        assert standing(console, "dropped.dead") == []
        assert console.system.sql("SELECT count(*) FROM dead_letters")[0][0] == before - 3


def test_fanning_out_again(at_work: Browser, console: Console) -> None:
    event = console.system.event(channel="chat", recipient="simulator://sent+again")
    at_work.visit(f"/console/events/{event}")
    at_work.act("replay")
    assert at_work.text(DONE)
    assert len(console.system.notifications(event)) == 2


# --- Holds, subscriptions, templates, routes


def test_holding_and_releasing(at_work: Browser, console: Console) -> None:
    def held() -> set[str]:
        return {each["target"] for each in console.system.client.holds.list()}

    at_work.visit("/console")
    at_work.fill(f"{act('holds')} input[name=target]", "webhook")
    at_work.act("holds")
    assert at_work.text(DONE)
    assert "webhook" in held()
    forms = at_work.all(act("holds/release"))
    [form] = [each for each in forms if each.find_element("name", "target").get_attribute("value") == "webhook"]
    with at_work.loading():
        form.find_element("tag name", "button").click()
    assert at_work.text(DONE)
    assert "webhook" not in held()


def test_a_test_event(at_work: Browser, console: Console) -> None:
    at_work.visit(f"/console/subscriptions/{console.samples.subscriptions['orders']}")
    at_work.act("test")
    assert at_work.path.startswith("/console/notifications/")
    assert reaches(console.system, at_work.path.split("/")[-1].partition("?")[0], "delivered")["event_type"]


def test_editing_a_template(at_work: Browser, console: Console) -> None:
    """A text is kept to the letter: browsers leave out the first line of a field where that is empty."""
    text = "\nHello {{ name }},\n\n<b>not bold</b> & done\n"
    console.system.client.templates.put("edited", {"channel": "sms", "text": text})
    console.system.client.templates.put("edited", {"channel": "sms", "locale": "de", "text": "Hallo {{ name }}"})
    at_work.visit("/console/templates/edited?channel=sms&locale=default")
    field = at_work.find("textarea[name=text]")
    field.send_keys("P.S.")
    at_work.act("save")
    assert at_work.text(DONE)
    saved = console.system.client.templates.get("edited", locale="default")
    assert (saved["version"], saved["text"]) == (2, text + "P.S.")
    assert "+P.S." in at_work.text(".diff")
    assert "operator" in at_work.text("main")
    at_work.fill("textarea[name=data]", '{"name": "Grace"}')
    at_work.act("preview#previews")
    assert "Hello Grace" in at_work.text("#previews")
    assert "Hallo Grace" in at_work.text("#previews")


def test_a_template_that_is_wrong_is_not_saved(at_work: Browser, console: Console) -> None:
    console.system.client.templates.put("kept", {"channel": "sms", "text": "Hello"})
    at_work.visit("/console/templates/kept")
    at_work.fill("textarea[name=text]", "{% if %}")
    assert at_work.act("save").status == 422
    assert at_work.text("[role=alert]")
    assert at_work.find("textarea[name=text]").get_attribute("value") == "{% if %}"
    assert console.system.client.templates.get("kept")["version"] == 1


def test_editing_a_route(at_work: Browser, console: Console) -> None:
    at_work.visit("/console/routes/welcome")
    before = console.system.client.routes.get("welcome")
    at_work.act("save")
    assert at_work.text(DONE)
    after = console.system.client.routes.get("welcome")
    assert {**after, "updated_at": None} == {**before, "updated_at": None}
    at_work.fill("textarea[name=definition]", "{")
    assert at_work.act("save").status == 422
    assert at_work.find("textarea[name=definition]").get_attribute("value") == "{"


# --- Who may


def test_who_may_look_sees_no_buttons(browser: Browser, console: Console) -> None:
    browser.sign_in(console.reader.key)
    for name in ("rejected", "scheduled", "delivered"):
        assert not browser.visit(console.notification(name)).faults()
        assert [each.get_attribute("action") for each in browser.all("main form[method=post]")] == []
    for path in ("", f"/events/{console.samples.events['signup']}", "/dead-letters", "/subscriptions"):
        browser.visit(f"/console{path}")
        assert browser.all("main form[method=post]") == []
    assert not browser.has("a[href='/console/keys'], a[href='/console/audit']")
    for path in ("keys", "audit"):
        assert browser.visit(f"/console/{path}").status == 403


def test_who_may_look_cannot_act_either(browser: Browser, console: Console) -> None:
    """The button is not what keeps them from it."""
    fresh = waiting(console)
    browser.sign_in(console.reader.key)
    browser.visit(page(fresh))
    for name in ("cancel", "resend", "move", "suppress"):
        browser.run(
            "const form = document.querySelector('form[action$=sign-out]'); form.action = arguments[0]",
            f"{page(fresh)}/{name}",
        )
        with browser.loading():
            browser.find(f"{act(name)} button").click()
        assert "scope" in browser.text(FAILED)
    assert console.system.notification(fresh)["status"] == "scheduled"


def test_one_sees_what_the_key_sees(browser: Browser, console: Console) -> None:
    """An id of another source is unknown to a key that does not cross sources, for acts as well."""
    other: Caller = Callers(console.system).new(("send", "read", "requeue"), name="other")
    browser.fresh(other.url)
    fresh = waiting(console)
    browser.sign_in(other.key)
    browser.visit(page(fresh))
    if browser.has(act("cancel")):
        browser.act("cancel")
        assert browser.text(FAILED)
    assert console.system.notification(fresh)["status"] == "scheduled"
