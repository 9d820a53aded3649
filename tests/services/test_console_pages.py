"""Every page of the console, in a real browser: well built, light, usable by anybody, and safe from what it shows."""

from typing import Any, Final

import pytest
from selenium.webdriver.common.keys import Keys

from tests.services.browser import LARGEST_PAGE, Browser, act
from tests.services.console import Console
from tests.services.crawling import Walk, shape, structure, walk

#: The walk takes one to three seconds for each page, of which there are some eighty.
pytestmark = pytest.mark.timeout(600)

#: The least there is to walk through.
SHAPES: Final = (
    *("console", "console/find", "console/dead-letters", "console/subscriptions", "console/templates"),
    *("console/routes", "console/keys", "console/audit", "console/notifications/*", "console/events/*"),
    *("console/people/*", "console/subscriptions/*", "console/templates/*", "console/routes/*"),
    "console/dead-letters/*",
)
#: Pages on which the marks must be seen as text: they were there, and could have been taken for markup.
MARKED: Final = ("console/events/*", "console/people/*", "console/subscriptions/*", "console/templates/*")


@pytest.fixture(scope="module")
def walked(window: Browser, console: Console) -> Walk:
    """A walk through all pages, by an operator."""
    window.fresh(console.url)
    window.sign_in(console.operator.key)
    notifications = [console.notification(name) for name in console.samples.notifications]
    events = [f"/console/events/{each}" for each in console.samples.events.values()]
    shown = [f"{path}?show=1" for path in (*notifications[:2], *events[:2])]
    # Other tests of this session make more of each: of those the walk looks at a few alone.
    own = ["/console/templates/welcome", f"/console/people/{console.samples.ada}"]
    own += [f"/console/subscriptions/{each}" for each in console.samples.subscriptions.values()]
    return walk(window, [*notifications, *events, *shown, *own])


def test_the_walk_has_seen_every_kind_of_page(walked: Walk) -> None:
    assert set(SHAPES) <= {shape(path).partition("?")[0] for path in walked.paths}


def test_each_page_loads_without_a_fault(walked: Walk) -> None:
    """It is a 200, asks no other host, breaks no rule of its policy, and its script raises nothing."""
    assert walked.loading == {}


def test_each_page_has_its_landmarks(walked: Walk) -> None:
    assert walked.structure == {}


def test_axe_finds_nothing(walked: Walk) -> None:
    """In light and dark, wide and narrow."""
    assert walked.axe == {}


def test_no_page_scrolls_sideways_on_a_telephone(walked: Walk) -> None:
    assert walked.narrow == {}


def test_each_page_is_light(walked: Walk) -> None:
    assert {path: weight for path, weight in walked.weights.items() if weight > LARGEST_PAGE} == {}
    assert min(walked.weights.values()) > 1000, "nothing was weighed"


def test_the_texts_of_others_stay_text(walked: Walk) -> None:
    assert walked.markup == {}
    assert set(MARKED) <= {shape(path).partition("?")[0] for path in walked.marked}


def test_a_text_of_somebody_is_rendered_once(at_work: Browser, console: Console) -> None:
    at_work.visit(f"/console/events/{console.samples.events['shipped']}?show=1")
    assert "{{7*7}}${7*7}" in at_work.text("main")


def test_the_sign_in_is_well_built_too(browser: Browser) -> None:
    visit = browser.visit("/console/sign-in")
    assert not visit.faults()
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        assert browser.findings() == []


@pytest.mark.parametrize(
    ("path", "status"),
    [("/console/nowhere", 404), ("/console/notifications/0190b0a0-0000-7000-8000-000000000000", 404)],
)
def test_a_page_that_is_not_there_says_so(at_work: Browser, path: str, status: int) -> None:
    visit = at_work.visit(path)
    assert not visit.faults(status)
    assert at_work.text("h1")
    assert at_work.findings() == []


def brightness(browser: Browser) -> float:
    """The brightness of the page's ground, from 0 to 255."""
    found = browser.run("return getComputedStyle(document.body).backgroundColor")
    red, green, blue = (int(each) for each in found.removeprefix("rgb(").removesuffix(")").split(","))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_pages_are_light_or_dark_as_the_browser_prefers(at_work: Browser) -> None:
    at_work.visit("/console")
    assert brightness(at_work) > 200
    at_work.prefer("dark")
    assert brightness(at_work) < 60


# --- Without script


def test_each_page_says_the_same_without_script(window: Browser, console: Console, walked: Walk) -> None:
    window.fresh(console.url)
    window.disable_scripts()
    window.sign_in(console.operator.key)
    faults: dict[str, Any] = {}
    for path in walked.paths:
        visit = window.visit(path)
        lacking = structure(window)
        if visit.status != 200 or lacking:
            faults[path] = (visit.status, lacking)
        hidden = [each.tag_name for each in window.all("main form button") if not each.is_enabled()]
        if hidden:
            faults[path] = "buttons that wait for a script"
    assert faults == {}


def test_an_act_works_without_script(browser: Browser, console: Console) -> None:
    browser.disable_scripts()
    browser.sign_in(console.operator.key)
    before = console.record("delivered")["attempts"]
    browser.visit(console.notification("delivered"))
    assert browser.act("resend").status == 200
    assert browser.has(".notice.done")
    assert console.reaches("delivered", "delivered")["attempts"] == before + 1
    browser.fill("#q", console.samples.notifications["delivered"])
    with browser.loading():
        browser.find("#q").send_keys(Keys.ENTER)
    assert browser.has(f"a[href='{console.notification('delivered')}']")
    browser.act("sign-out")
    assert browser.path.startswith("/console/sign-in")


# --- By keyboard

_FOCUS: Final = """
    const each = document.activeElement
    const style = getComputedStyle(each), box = each.getBoundingClientRect()
    const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2
    const seen = box.width > 1 && box.height > 1 && box.right > 0 && box.bottom > 0 && box.left < innerWidth
    return [each.tagName.toLowerCase(), each.id || each.className || each.name || "", ring && seen,
            each.closest("form")?.getAttribute("action") || each.getAttribute("href") || ""]
"""

#: How much on a page can be used.
_USABLE: Final = """
    const css = "a[href], button, input:not([type=hidden]), select, textarea, summary"
    return Array.from(document.querySelectorAll(css)).filter((each) => each.getClientRects().length).length
"""


def stops(browser: Browser) -> list[tuple[str, str, bool, str]]:
    """The places that the key Tab leads to, in their order: element, name, whether it is seen, where it leads."""
    found: list[tuple[str, str, bool, str]] = []
    browser.run("document.activeElement.blur()")
    for _ in range(300):
        browser.tab()
        stop = tuple(browser.run(_FOCUS))
        if stop[0] == "body" or stop in found[:1]:
            break
        found.append(stop)
    return found


@pytest.mark.parametrize("name", ["rejected", "scheduled"])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(at_work: Browser, console: Console, name: str) -> None:
    at_work.visit(console.notification(name))
    found = stops(at_work)
    assert found[0][1] == "skip"
    # A field for a time has several places, of which the browser marks each in its own way.
    seen = {stop[:2] for stop in found if stop[2]}
    assert {stop[:2] for stop in found} == seen, "the focus is not seen"
    assert "q" in {stop[1] for stop in found}
    assert len(found) >= at_work.run(_USABLE)
    acts = {str(each.get_attribute("action")).removeprefix(console.url) for each in at_work.all("form[method=post]")}
    assert acts
    assert acts <= {stop[3] for stop in found if stop[0] == "button"}


def test_one_can_skip_to_the_content(at_work: Browser, console: Console) -> None:
    at_work.visit(console.notification("rejected"))
    at_work.tab()
    at_work.type(Keys.ENTER)
    at_work.tab()
    assert at_work.run("return document.activeElement.closest('main') !== null")


def test_one_can_search_and_send_again_by_keyboard(at_work: Browser, console: Console) -> None:
    at_work.visit("/console")
    at_work.driver.find_element("tag name", "body").send_keys("/")
    assert at_work.focused.get_attribute("id") == "q"
    with at_work.loading():
        at_work.type(console.samples.notifications["rejected"], Keys.ENTER)
    link = at_work.find(f"a[href='{console.notification('rejected')}']")
    with at_work.loading():
        link.send_keys(Keys.ENTER)
    button = at_work.find(f"{act('resend')} button")
    with at_work.loading():
        button.send_keys(Keys.ENTER)
        at_work.driver.switch_to.alert.accept()
    assert at_work.has(".notice.done")
    console.reaches("rejected", "failed")
