"""Debian's Chromium and its driver, installed or unpacked, without a window and without the internet."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.services.libraries import unpacked_libraries

#: The program itself, beside the driver's folder. Debian's `chromium` is a script: it looks for settings where it would
#: have been installed.
_PROGRAM: Final = "lib/chromium/chromium"
#: Where Debian's is not: the browser whose driver machines of GitHub have.
_OTHER: Final = "google-chrome"
_ARGUMENTS: Final = (
    "--headless=new",
    "--disable-gpu",
    # Root may not use the sandbox, nor may a program that was only unpacked. It shows pages of ours alone.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    # Only this machine has a name: a page that asks another host fails, and is seen to ask.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    # The same pixels everywhere.
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
    "--lang=en",
    "--window-size=1280,900",
)
#: What a fontconfig that was only unpacked does not find. {folders}: elements `dir`; {cache}: a folder.
_FONTS: Final = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
{folders}
<cachedir>{cache}</cachedir>
<alias binding="same"><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
<alias binding="same"><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias>
<alias binding="same"><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
<match target="pattern">
<edit name="family" mode="append" binding="weak"><string>DejaVu Sans</string></edit>
</match>
</fontconfig>
"""


class Programs(NamedTuple):
    """A browser and its driver, of one version."""

    browser: Path
    driver: Path


def find_chromium() -> Programs | None:
    """Debian's, or a Chrome that is installed with its driver; None where there is neither."""
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(":") if folder]
    for folder in folders:
        found = Programs(folder.parent / _PROGRAM, folder / "chromedriver")
        if found.browser.exists() and found.driver.exists():
            return found
    browser, driver = shutil.which(_OTHER), shutil.which("chromedriver")
    return Programs(Path(browser), Path(driver)) if browser and driver else None


@contextmanager
def chromium(folder: Path) -> Iterator[Chrome]:
    """Run one whose profile, fonts' cache and log are in a folder."""
    programs = find_chromium()
    assert programs, "no Chromium here"
    options = ChromeOptions()
    options.binary_location = str(programs.browser)
    for argument in (*_ARGUMENTS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    log = str(folder / "chromedriver.log")
    service = ChromeService(str(programs.driver), env=_environment(programs.driver, folder), log_output=log)
    driver = Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


def _environment(driver: Path, folder: Path) -> dict[str, str]:
    """The environment of the driver, and of the browser that it starts."""
    environment, root = unpacked_libraries(driver), driver.parents[2]
    libraries = [environment["LD_LIBRARY_PATH"], *map(str, root.glob("usr/lib/*-linux-gnu/pulseaudio"))]
    fonts = folder / "fonts.conf"
    places = dict.fromkeys((root / "usr/share/fonts", Path("/usr/share/fonts")))
    folders = "\n".join(f"<dir>{place}</dir>" for place in places)
    fonts.write_text(_FONTS.format(folders=folders, cache=folder / "fonts"))
    own = {"HOME": str(folder), "TMPDIR": str(folder), "TZ": "UTC", "FONTCONFIG_FILE": str(fonts)}
    return {**environment, "LD_LIBRARY_PATH": ":".join(libraries), **own}
