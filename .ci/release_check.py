#!/usr/bin/env python3
"""Check that what is committed can be released: `make release-check`. It takes an hour, and changes nothing but build/.

Fresh clones are set up and run as a new user would, for each Python here and for each kind of user: `make run` until
the sample notification has arrived, and `make test`. Then come the release before beside this one (`make test-mixed`),
and two lists in build/release: the SBOM of what `make run` installs, and its licences.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

ROOT: Final = Path(__file__).resolve().parents[1]
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
PARTS: Final = ("version", "run", "test", "mixed", "papers")
#: Seconds that `make run` has, with all that it installs.
STARTED_WITHIN: Final = 600
STOPPED_WITHIN: Final = 60
#: An ordinary user of every Linux.
NOBODY: Final = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def main() -> None:
    """Check what the arguments name, and say what was found."""
    parser = argparse.ArgumentParser(prog="make release-check", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="a part, once or several times; all without it")
    parser.add_argument("--python", choices=PYTHONS, action="append", help="a Python; all that are here without it")
    asked = parser.parse_args()
    parts = asked.only or list(PARTS)
    if git("status", "--porcelain"):
        fail("there are changes that are not committed, and a clone would be without them")
    if "version" in parts:
        check_version()
    for python, user in [*combinations(asked.python or PYTHONS)] if {"run", "test", "papers"} & {*parts} else []:
        check_clone(python, user, parts)
    if "mixed" in parts:
        with step("the release before, beside this one"):
            subprocess.run(["make", "test-mixed"], cwd=ROOT, check=True)
    print(f"All that was asked for holds: {', '.join(parts)}.")


def check_version() -> None:
    """The version is new, and CHANGELOG.md says what it changes."""
    found = re.search(r'^VERSION: Final = "(.+)"$', (ROOT / "notifier/__init__.py").read_text(), re.MULTILINE)
    version = found[1] if found else fail("notifier/__init__.py has no VERSION")
    if f"v{version}" in git("tag", "--list").split():
        fail(f"v{version} is tagged already: notifier/__init__.py needs the next one")
    if not re.search(rf"^## \[?{re.escape(version)}\]?( |$)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE):
        fail(f"CHANGELOG.md has no section {version}")
    say(f"version {version}: new, and in CHANGELOG.md")


def combinations(pythons: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each Python that is here, with each kind of user that can run it; says what is left out."""
    users = [(), NOBODY] if os.geteuid() == 0 else [()]
    for version in pythons:
        candidates = [shutil.which(f"python{version}"), f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"]
        for user in users:
            usable = (each for each in candidates if each and Path(each).exists() and can_make_environments(each, user))
            if found := next(usable, None):
                yield found, user
            else:
                say(f"left out: Python {version} for {name_of(user)}, which is not here or makes no environments")


def can_make_environments(python: str, user: Sequence[str]) -> bool:
    """Whether that user can run this Python, and make a virtual environment with it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        command = [*user, python, "-m", "venv", f"{folder}/venv"]
        return subprocess.run(command, capture_output=True, cwd=folder, check=False).returncode == 0


def check_clone(python: str, user: Sequence[str], parts: Sequence[str]) -> None:
    """Both commands of the README, in a clone of that user's own."""
    title = f"{Path(python).name} as {name_of(user)}"
    with tempfile.TemporaryDirectory(prefix="notifier-release-", ignore_cleanup_errors=True) as folder:
        clone, home = Path(folder, "notifier"), Path(folder, "home")
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        home.mkdir()
        if user:
            subprocess.run(["chown", "--recursive", "65534:65534", folder], check=True)
        names = ("PATH", "LANG", "PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE", "SSL_CERT_FILE")
        environment = {name: os.environ[name] for name in names if name in os.environ} | {"HOME": str(home)}
        make = [*user, "make", f"PYTHON={python}"]
        if {"run", "papers"} & {*parts}:
            with step(f"make run, {title}"):
                check_run(make, clone, environment)
        if "papers" in parts and not user:
            write_papers(clone, Path(python).name)
        if "test" in parts:
            with step(f"make test, {title}"):
                subprocess.run([*make, "test"], cwd=clone, env=environment, check=True)


def check_run(make: Sequence[str], clone: Path, environment: dict[str, str]) -> None:
    """The system starts from nothing, delivers its sample, and stops on Ctrl-C."""
    log = clone.parent / "run.log"
    with log.open("w") as out:
        running = subprocess.Popen(
            [*make, "run"], cwd=clone, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_for_sample(log, running)
        os.killpg(running.pid, signal.SIGINT)
        code = running.wait(STOPPED_WITHIN)
    except BaseException:
        with suppress(ProcessLookupError):  # it may be what has ended
            os.killpg(running.pid, signal.SIGTERM)
        raise
    told = log.read_text()
    if "Traceback" in told or code not in {0, 2, -signal.SIGINT}:  # make's own after Ctrl-C, by its version
        fail(f"make run ended with code {code}:\n{told}")


def wait_for_sample(log: Path, running: subprocess.Popen[bytes]) -> None:
    """Wait until the sample webhook is shown as delivered; stops the check where the process ends before."""
    until = time.monotonic() + STARTED_WITHIN
    while not re.search(r"Notifier is up\.[\s\S]*\bdelivered\b", told := log.read_text()):
        if running.poll() is not None or time.monotonic() > until or "The demo" in told:
            fail(f"make run delivered no sample:\n{told}")
        time.sleep(0.2)


def write_papers(clone: Path, python: str) -> None:
    """Write the SBOM of what `make run` installed for a Python, and a list of the licences in it."""
    folder = ROOT / "build/release" / python
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "sbom.cdx.json"
    with step("SBOM and licences"):
        subprocess.run(["make", ".venv/audit/.installed"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        tool = ROOT / ".venv/audit/bin/cyclonedx-py"
        command = [tool, "environment", "--output-reproducible", "--output-file", file, clone / ".venv/bin/python"]
        subprocess.run(command, check=True)
    components = json.loads(file.read_text())["components"]
    lines = sorted(f"{each['name']} {each['version']}: {licence_of(each)}" for each in components)
    if unknown := [line for line in lines if line.endswith(": ")]:
        fail(f"packages without a licence: {unknown}")
    (folder / "licences.txt").write_text("\n".join(lines) + "\n")
    say(f"build/release/{python}: sbom.cdx.json and licences.txt, {len(lines)} packages")


def licence_of(component: dict[str, Any]) -> str:
    """A component's licence: an SPDX expression, an SPDX id, or the name that its authors give it."""
    said = component.get("licenses", [])
    words = [each.get("expression") or each["license"].get("id") or each["license"].get("name", "") for each in said]
    return " AND ".join(dict.fromkeys(" ".join(word.split())[:80] for word in words if word))


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is done, and how long it took; stops the check where a command fails."""
    say(f"{title} …")
    began = time.monotonic()
    try:
        yield
    except subprocess.CalledProcessError as error:
        fail(f"{title}: {error}")
    say(f"{title}: {time.monotonic() - began:.0f} s")


def git(*arguments: str) -> str:
    """Return what git prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def name_of(user: Sequence[str]) -> str:
    """The user's name."""
    return "nobody" if user else "root" if os.geteuid() == 0 else "this user"


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def fail(text: str) -> NoReturn:
    """Stop with one sentence."""
    sys.exit(f"Not ready for a release: {text}")


if __name__ == "__main__":
    main()
