"""`make screenshots`: pictures of each page of the console, for docs/console.md.

Starts a stack of its own, fills it with samples, and looks at it in the browser of `make test-services`. The first
picture is a stranger's.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from deploy.child_process import Child
from deploy.ports import free_port
from notifier_client import Client
from tests.conftest import clean_environment
from tests.services.browser import DESK, TELEPHONE, Browser
from tests.services.chromium import chromium, find_chromium
from tests.services.samples import Filler, Samples
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver
from tests.support.running import wait_for

FOLDER: Final = ROOT / "docs" / "screenshots"
#: Bytes of a picture, and the qualities that are tried until it is as light.
_LARGEST: Final = 100_000
_QUALITIES: Final = (80, 60, 40)
#: Seconds within which the minute of the samples has been counted: figures come once a minute.
_COUNTED: Final = 200


@dataclass(frozen=True, slots=True)
class Picture:
    """A page and how it is looked at."""

    name: str
    path: str
    scheme: str = "light"
    size: tuple[int, int] = DESK
    #: In pixels: a page that goes on is cut.
    highest: int = 1200


#: Each page as it says most. Names in braces are those of `_places`.
PICTURES: Final = (
    Picture("sign-in", "/console/sign-in"),
    Picture("overview", "/console", highest=2400),
    Picture("overview-dark", "/console", scheme="dark", highest=2400),
    Picture("find", "/console/find?q={person}"),
    Picture("notification", "/console/notifications/{webhook}"),
    Picture("notification-narrow", "/console/notifications/{webhook}", size=TELEPHONE),
    Picture("message", "/console/notifications/{email}?show=1"),
    Picture("event", "/console/events/{event}"),
    Picture("person", "/console/people/{person}"),
    Picture("dead-letters", "/console/dead-letters"),
    Picture("dead-letter-act", "/console/dead-letters/acts/{act}"),
    Picture("subscriptions", "/console/subscriptions"),
    Picture("subscription", "/console/subscriptions/{subscription}"),
    Picture("templates", "/console/templates"),
    Picture("template", "/console/templates/welcome?channel=email&locale=default"),
    Picture("routes", "/console/routes"),
    Picture("route", "/console/routes/welcome"),
    Picture("keys", "/console/keys"),
    Picture("audit", "/console/audit"),
)


def _places(client: Client, samples: Samples) -> dict[str, str]:
    """The ids that the paths of pictures name."""

    def made(event: str, channel: str) -> str:
        notifications = client.events.get(samples.events[event])["notifications"]
        return next(each["id"] for each in notifications if each["channel"] == channel)

    return {
        "person": quote(samples.ada),
        "webhook": made("broken", "webhook"),
        "email": made("signup", "email"),
        "event": samples.events["signup"],
        "subscription": samples.subscriptions["orders"],
        "act": client.dead_letters.begin({"act": "requeue", "filter": {"channel": "chat"}})["id"],
    }


@contextlib.contextmanager
def _stack(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run the embedded stack with keys required; gives its URL and the environment of commands."""
    environment = {**clean_environment(), "NOTIFIER_AUTH": "required", "NOTIFIER_DATA_DIR": str(folder / "data")}
    port, file = free_port(), folder / "data" / "stack.json"
    command = [sys.executable, ROOT / "manage.py", "up", "--port", str(port), "--no-flower", "--workers", "1"]
    log = folder / "up.log"
    child = Child("up", command, log=log, environment=environment, cwd=ROOT, ready=file.exists)
    child.start()
    try:
        yield str(json.loads(file.read_text())["addresses"]["api"]).removesuffix("/api/v1"), environment
    finally:
        child.stop()


def _new_key(environment: dict[str, str], name: str, scopes: str) -> str:
    command = [sys.executable, ROOT / "manage.py", "api-keys", "create", "--name", name, "--scope", scopes]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def draw(folder: Path, only: str | None = None) -> list[Path]:
    """Write the pictures into a folder; `only`: the one with this name. Returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as running:
        temporary = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="notifier-")))
        receiver = running.enter_context(HttpReceiver())
        url, environment = running.enter_context(_stack(temporary))
        browser = Browser(running.enter_context(chromium(temporary)))
        browser.fresh(url)
        key = _new_key(environment, "operations", "send,read,admin")
        _new_key(environment, "support", "read")
        with Client(url, key=key, timeout=30) as client:
            places = _places(client, Filler(client, receiver).fill())
            if only is None:
                wait_for(lambda: client.operating.statistics({"by": "channel"})["items"], _COUNTED, "figures")
        door, *others = (each for each in PICTURES if only in {None, each.name} or each == PICTURES[0])
        files = [_draw(browser, door, folder, places)] if only in {None, door.name} else []
        browser.sign_in(key)
        return files + [_draw(browser, each, folder, places) for each in others]


def _draw(browser: Browser, picture: Picture, folder: Path, places: dict[str, str]) -> Path:
    browser.prefer(picture.scheme)
    browser.resize(picture.size)
    browser.visit(picture.path.format(**places))
    width, height = picture.size
    browser.hide_scrollbars()
    browser.resize((width, min(picture.highest, max(height // 2, browser.height))))
    file = folder / f"{picture.name}.webp"
    for quality in _QUALITIES:
        file.write_bytes(browser.screenshot(quality))
        if file.stat().st_size <= _LARGEST:
            break
    return file


def main() -> int:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.services.screenshots", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="draw this one [all]")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where they go [{FOLDER.relative_to(ROOT)}]")
    arguments = parser.parse_args()
    if find_chromium() is None:
        print("chromedriver not found: let .ci/run unpack Debian's into .services", file=sys.stderr)
        return 1
    files = draw(arguments.folder, arguments.only)
    for file in files:
        print(f"{file.stat().st_size:>8,} {file}")
    return 0 if files else 1


if __name__ == "__main__":
    sys.exit(main())
