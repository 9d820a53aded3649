"""A browser in front of the console: what a person does with it, and what a page did to the browser."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from selenium.common import NoAlertPresentException, StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.support.node_packages import node_modules
from tests.support.running import wait_for

#: Width and height of a desk and of a telephone, in CSS pixels.
DESK: Final = (1280, 900)
TELEPHONE: Final = (360, 740)
#: Bytes of a page, uncompressed: its document, style sheets and scripts.
LARGEST_PAGE: Final = 100_000
_WEIGHING: Final = frozenset({"Document", "Stylesheet", "Script"})
_OF_THE_NETWORK: Final = frozenset({"http", "https", "ws", "wss"})
#: Levels of lines in the browser's console that are no warning and no error.
_ADVICE: Final = frozenset({"DEBUG", "INFO"})
#: How often an element is looked for that is replaced meanwhile.
_LOOKS: Final = 5
#: Seconds for which a page may be empty.
_EMPTY: Final = 2.0
#: Set on a document; it is gone once another one has come.
_MARK: Final = "notifierTestMark"
#: Rules that axe does not apply by itself: a finger must be able to hit what can be pressed (WCAG 2.2).
_AXE: Final = """
    const done = arguments[0]
    axe.run(document, {rules: {"target-size": {enabled: true}}, resultTypes: ["violations"]})
        .then((found) => done(found.violations), (error) => done([{id: "axe", help: String(error), nodes: []}]))
"""


@dataclass(slots=True)
class Request:
    """One request of a page. `status` is None where no answer came."""

    url: str
    kind: str
    status: int | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Visit:
    """A page that was loaded: all that it asked for, and what the browser's console said."""

    url: str
    requests: list[Request]
    console: list[str]

    @property
    def status(self) -> int | None:
        """The last status of the document."""
        found = [each.status for each in self.requests if each.kind == "Document"]
        return found[-1] if found else None

    @property
    def weight(self) -> int:
        """Bytes of the document, its style sheets and scripts."""
        return sum(each.size for each in self.requests if each.kind in _WEIGHING)

    def faults(self, status: int = 200) -> list[str]:
        """Everything that is wrong with it, in words; `status`: that of the document, if it is no 200."""
        host = urlsplit(self.url).netloc
        faults = [f"answers {self.status}"] if self.status != status else []
        faults += [f"asks another host: {each.url}" for each in self.requests if urlsplit(each.url).netloc != host]
        wrong = [each for each in self.requests if each.kind != "Document" and each.status != 200]
        faults += [f"{each.url} answers {each.status}" for each in wrong]
        # The console has a line about each document that is no 200.
        said = [each for each in self.console if status == 200 or "Failed to load resource" not in each]
        faults += [f"console: {each}" for each in said]
        faults += [f"weighs {self.weight:,} bytes"] if self.weight > LARGEST_PAGE else []
        return faults


def act(name: str) -> str:
    """The selector of the form of an act: its address ends with the act's name."""
    return f"form[method=post][action$='/{name}']"


class Browser:
    """One window. `fresh` makes it a stranger's again, so that tests share the program."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self._axe = (node_modules() / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
        self._home = "about:blank"

    # --- the window

    def fresh(self, home: str) -> None:
        """Forget all that was before. `home`: the URL that paths belong to."""
        self._home = home
        self.driver.get("about:blank")
        self._tell("Network.enable")
        # Each page is one that is seen for the first time.
        self._tell("Network.setCacheDisabled", cacheDisabled=True)
        self._tell("Network.clearBrowserCookies")
        self._tell("Network.setExtraHTTPHeaders", headers={})
        self._tell("Emulation.setScriptExecutionDisabled", value=False)
        self.resize(DESK)
        self.prefer("light")
        self._drain()

    def resize(self, size: tuple[int, int]) -> None:
        """Give the window another size."""
        width, height = size
        mobile = {"deviceScaleFactor": 1, "mobile": False}
        self._tell("Emulation.setDeviceMetricsOverride", width=width, height=height, **mobile)

    def prefer(self, scheme: str) -> None:
        """Prefer a scheme of colours, `light` or `dark`; nothing moves."""
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self._tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}, still])

    def hide_scrollbars(self) -> None:
        """Show no scrollbars from now on, as telephones do."""
        self._tell("Emulation.setScrollbarsHidden", hidden=True)

    def disable_scripts(self) -> None:
        """Run no script of any page from now on."""
        self._tell("Emulation.setScriptExecutionDisabled", value=True)

    def cookies(self) -> list[dict[str, Any]]:
        """All cookies, also those that scripts cannot read."""
        found: list[dict[str, Any]] = self._tell("Network.getAllCookies")["cookies"]
        return found

    def _tell(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    # --- pages

    def visit(self, path: str) -> Visit:
        """Load a page."""
        self._drain()
        self.driver.get(urljoin(self._home, path))
        return self._seen()

    @contextmanager
    def loading(self) -> Iterator[list[Visit]]:
        """Wait for the page that an act leads to; its visit is in the list afterwards."""
        self._drain()
        visits: list[Visit] = []
        self.driver.execute_script(f"document.{_MARK} = true")
        yield visits
        wait_for(self._has_come, 20, "another page")
        visits.append(self._seen())

    def _has_come(self) -> bool:
        asked = f"return !document.{_MARK} && document.readyState === 'complete' && location.href !== 'about:blank'"
        return bool(self.driver.execute_script(asked))

    def press(self, css: str) -> Visit:
        """Press a button or a link that leads to another page."""
        with self.loading() as visits:
            self.find(css).click()
        return visits[0]

    def fill(self, css: str, text: str) -> None:
        """Type a text into a field, in place of what it has."""
        field = self.find(css)
        field.clear()
        field.send_keys(text)

    def sign_in(self, key: str) -> Visit:
        """Sign in with a key, in the form for that."""
        self.visit("/console/sign-in")
        return self.give(key)

    def give(self, key: str) -> Visit:
        """Give a key to the page that asks for one."""
        self.fill(f"{act('sign-in')} input[name=key]", key)
        return self.press(f"{act('sign-in')} button")

    def wait_for_url(self, beginning: str) -> None:
        """Wait until the page is one below a URL."""
        wait_for(lambda: self.driver.current_url.startswith(beginning), 20, beginning)

    def act(self, name: str, *, sure: bool = True) -> Visit:
        """Press the button of an act, such as `resend`; `sure`: the answer to the page's question."""
        with self.loading() as visits:
            self.find(f"{act(name)} button").click()
            if self._asks():
                question = self.driver.switch_to.alert
                question.accept() if sure else question.dismiss()
        return visits[0]

    def _asks(self) -> bool:
        with suppress(NoAlertPresentException):
            return bool(self.driver.switch_to.alert)
        return False

    @property
    def path(self) -> str:
        """The path of the page that is shown, with its query."""
        parts = urlsplit(self.driver.current_url)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    # --- what is on a page

    def find(self, css: str) -> WebElement:
        """The first element of a selector, which must be there. A page that loads itself again is empty meanwhile."""
        until = time.monotonic() + _EMPTY
        while not (found := self.all(css)) and time.monotonic() < until:
            time.sleep(0.05)
        assert found, f"{self.driver.current_url} has no {css}; it says:\n{self.text('body')[:2000]}"
        return found[0]

    def all(self, css: str) -> list[WebElement]:
        """All elements of a selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def has(self, css: str) -> bool:
        """Whether there is such an element."""
        return bool(self.all(css))

    def text(self, css: str) -> str:
        """The text of the first element of a selector, as it is shown. A page may load itself again meanwhile."""
        for _ in range(_LOOKS):
            with suppress(StaleElementReferenceException):
                return self.find(css).text
        raise AssertionError(f"{css} never stays")

    def links(self) -> list[str]:
        """The addresses of the pages that links lead to, each once, without what follows a `#`."""
        found = self.driver.execute_script("""
            return Array.from(document.querySelectorAll("a[href]:not([download])"), (link) => link.href.split("#")[0])
        """)
        return list(dict.fromkeys(found))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script of the test's own, whatever the page allows to its own."""
        return self.driver.execute_script(script, *arguments)

    # --- the keyboard

    def type(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab(self) -> None:
        """Go to the next place of the keyboard."""
        self.type(Keys.TAB)

    @property
    def focused(self) -> WebElement:
        """The element that has the focus."""
        return self.driver.switch_to.active_element

    # --- faults

    def findings(self) -> list[str]:
        """Everything that axe finds wrong with the page as it is shown, in words."""
        if not self.driver.execute_script("return 'axe' in window"):
            self.driver.execute_script(self._axe)
        found: list[dict[str, Any]] = self.driver.execute_async_script(_AXE)
        return [line for violation in found for line in _in_words(violation)]

    def overflow(self) -> list[str]:
        """The elements that make the page wider than the window; none where it does not scroll sideways."""
        found: list[str] = self.driver.execute_script("""
            const width = document.documentElement.clientWidth
            if (document.documentElement.scrollWidth <= width) return []
            const wide = Array.from(document.body.querySelectorAll("*"))
                .filter((each) => each.getBoundingClientRect().right > width + 0.5)
            return [`scrolls sideways: ${document.documentElement.scrollWidth} of ${width} pixels`].concat(
                wide.slice(0, 5).map((each) => "too wide: " + each.outerHTML.slice(0, 120)))
        """)
        return found

    @property
    def height(self) -> int:
        """How high the page is, in CSS pixels."""
        return int(self.driver.execute_script("return document.documentElement.scrollHeight"))

    def screenshot(self, quality: int) -> bytes:
        """Take a picture of the window, as WebP of a quality of at most 100."""
        return base64.b64decode(self._tell("Page.captureScreenshot", format="webp", quality=quality)["data"])

    # --- what the browser wrote down

    def _drain(self) -> None:
        for name in ("performance", "browser"):
            self.driver.get_log(name)

    def _seen(self) -> Visit:
        requests = list(_requests(json.loads(line["message"])["message"] for line in self._log("performance")))
        console = [line["message"] for line in self._log("browser") if line["level"] not in _ADVICE]
        return Visit(self.driver.current_url, requests, console)

    def _log(self, name: str) -> list[Any]:
        lines: list[Any] = self.driver.get_log(name)
        return lines


def _requests(events: Iterator[dict[str, Any]]) -> Iterator[Request]:
    """Put the events of the network together; a redirect counts as a request of its own."""
    known: dict[str, Request] = {}
    for event in events:
        parameters = event["params"]
        id_ = parameters.get("requestId", "")
        match event["method"]:
            case "Network.requestWillBeSent":
                if id_ in known and "redirectResponse" in parameters:
                    known[id_].status = parameters["redirectResponse"]["status"]
                    yield known.pop(id_)
                if urlsplit(parameters["request"]["url"]).scheme in _OF_THE_NETWORK:
                    known[id_] = Request(parameters["request"]["url"], parameters.get("type", "Other"))
            case "Network.responseReceived" if id_ in known:
                known[id_].status = parameters["response"]["status"]
            case "Network.dataReceived" if id_ in known:
                known[id_].size += parameters["dataLength"]
    yield from known.values()


def _in_words(violation: dict[str, Any]) -> Iterator[str]:
    for node in violation["nodes"] or [{}]:
        where = " ".join(map(str, node.get("target", ["the page"])))
        why = " ".join(str(node.get("failureSummary", "")).split())
        yield f"axe {violation['id']}: {violation['help']}; at {where}: {node.get('html', '')[:160]} ({why[:300]})"
