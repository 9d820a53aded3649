"""The release before works beside this one, on the database that this one has migrated: `make test-mixed`.

Not among the tests that `make test` runs: it needs the history of a git checkout, which archives and shallow clones
have not. The release before is the newest tag `v*` before this commit. As long as there is none, it is the commit
before the newest migration: the last one that knew less of the database.
"""

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from notifier import migrations
from tests.conftest import OWNER, QUICK, as_login, clean_environment
from tests.support.paths import ROOT
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

VERSIONS = "notifier/migrations/versions"


def _git(*arguments: str) -> bytes | None:
    """Return what git prints; None where it fails."""
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    return ran.stdout if ran.returncode == 0 else None


def _release_before() -> str:
    """Its tag or commit. Fails where the history does not go back to it."""
    if tag := _git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^"):
        return tag.decode().strip()
    newest = max(path.name for path in (ROOT / VERSIONS).glob("[0-9]*.py"))
    added = _git("log", "--diff-filter=A", "--format=%H", "--reverse", "--", f"{VERSIONS}/{newest}")
    before = _git("rev-parse", "--verify", f"{added.decode().split()[0]}^") if added else None
    if before is None:
        pytest.fail(
            f"This needs a git checkout whose history goes back to before {newest} (git fetch --unshallow).",
            pytrace=False,
        )
    return before.decode().strip()


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A folder with the code of the release before."""
    archive = _git("archive", _release_before())
    assert archive is not None
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tmp_path / "before", filter="data")
    return tmp_path / "before"


@pytest.fixture
def both(
    before: Path, new_database: Callable[[], str], new_redis: Callable[[], str], tmp_path: Path
) -> Iterator[tuple[Running, Running]]:
    """The release before and this one, on one database, which this one has migrated, and one Redis."""
    urls = {"DATABASE_URL": new_database(), "REDIS_URL": new_redis()}
    # It refuses settings that it does not know.
    known = set(re.findall(r"`([A-Z][A-Z_]+)`", (before / "docs/settings.md").read_text()))
    quick = {name: value for name, value in QUICK.items() if name in known}
    systems = []
    for name, root, settings in (("old", before, quick), ("new", ROOT, QUICK)):
        (tmp_path / name).mkdir()
        # Before there were roles one did everything.
        own = urls if name == "new" else {**urls, "DATABASE_URL": as_login(urls["DATABASE_URL"], OWNER)}
        systems.append(Running(tmp_path / name, {**clean_environment(), **settings, **own}, root=root))
    old, new = systems
    try:
        workers = [old.add_worker(role, f"{role}-before") for role in ("fresh", "retry", "clock")]
        old.fresh = workers[0]
        with ThreadPoolExecutor(1) as pool:  # both at once
            started = pool.submit(old.start, only=[old.api, old.beat, *workers])
            new.start()
            started.result()
        yield old, new
    finally:
        old.stop()
        new.stop()


def test_both_releases_deliver_what_either_accepts_once(both: tuple[Running, Running], http: HttpReceiver) -> None:
    old, new = both
    assert migrations.pending(new.engine) is None
    http.answer("/fails", 503, 503, 204)
    answer = old.post("/api/v1/subscriptions", {"url": http.url("/subscribed"), "event_types": ["mixed.*"]})
    assert answer.status_code == 201, answer.text
    template = {"channel": "sms", "text": "Hello {{ payload.name }}"}
    assert old.http.put(f"{new.url}/api/v1/templates/mixed", json=template, timeout=20).ok
    events = []
    for number in range(30):
        for system in both:
            events.append(system.event(channel="webhook", recipient=http.url("/direct")))
            events.append(system.event(event_type="mixed.event", payload={"number": number}))
    for system in both:
        text = {"payload": {"name": "Ada"}, "template": "mixed"}
        events.append(system.event(channel="sms", recipient="+4915112345678", **text))
        events.append(system.event(channel="webhook", recipient=http.url("/fails")))
    wait_for(lambda: len(http.times("/direct")) == 60 and len(http.times("/subscribed")) == 60, 60)
    alive = "SELECT count(*) FROM notifications WHERE due_at IS NOT NULL"
    wait_for(lambda: new.sql("SELECT count(*) FROM events WHERE due_at IS NOT NULL")[0][0] == 0, 30)
    wait_for(lambda: new.sql(alive)[0][0] == 0, 30)

    assert set(http.times("/direct").values()) == set(http.times("/subscribed").values()) == {1}
    assert len(http.received("/fails")) == 4
    rows = new.sql("SELECT status, count(*) FROM notifications GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in rows] == [("delivered", 122), ("sent", 2)]
    assert [row.text for row in new.sql("SELECT text FROM outbox")] == ["Hello Ada"] * 2
    # Each reads what the other made; and both have worked.
    for event_id in events:
        assert old.get(f"/api/v1/events/{event_id}").json()["status"] == "processed"
    for system in both:
        assert " batch " in re.sub(r"\x1b\[\d+m", "", system.fresh.log.read_text()), os.fspath(system.fresh.log)
