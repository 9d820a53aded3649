"""With a million rows behind, no search, no list and no statement of the usual work reads more than its own rows.

One database for all of them, since it takes a quarter of a minute to fill: what only reads comes first.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from api.app import create_app
from benchmarks.filled_days import FILLED, vacuum
from benchmarks.search_cases import cases
from benchmarks.varied_days import fill
from config.settings import read_settings
from config.wiring import Wiring
from notifier.storage.engines import autocommit_of
from tests.conftest import QUICK, app_url, engine_of, new_postgres, owner_url
from tests.support.receivers import HttpReceiver
from tests.support.running import Running, wait_for

_DATABASE: Final = "large"
_DAYS: Final = 8
_ROWS_A_DAY: Final = 42_000
#: Pages of 8 KiB that a statement of a search or a list may look at: a day of notifications has 1,500, and the smallest
#: of the tables without days 400.
_PAGES_OF_A_LIST: Final = 1000
_PAGES_WITHOUT_DAYS: Final = 100
_WITHOUT_DAYS: Final = ("users", "suppressions", "subscriptions")
#: The same for one call of a statement of the usual work, and for each row that it returns or changes.
_PAGES: Final = 1400
_PAGES_A_ROW: Final = 150
#: The same for a call of the statement that records notifications, and for all that it records. It returns none of
#: them, and busy workers call it seldom, with many at a time.
_PAGES_OF_A_RECORD: Final = 300
_PAGES_OF_RECORDS: Final = 40 * 250
#: From so many rows on a table is large.
_LARGE: Final = 10_000


@pytest.fixture(scope="module")
def superuser() -> Iterator[tuple[Engine, str]]:
    """A superuser's engine over a database with a million rows, and the URL that processes have."""
    settings = {"shared_preload_libraries": "pg_stat_statements", "maintenance_work_mem": "256MB", "jit": "off"}
    with new_postgres(_DATABASE, **settings) as server:
        owner = engine_of(owner_url(server, _DATABASE))
        fill(owner, _DAYS, _ROWS_A_DAY)
        owner.dispose()
        engine = engine_of(server.url(_DATABASE))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CREATE EXTENSION pg_stat_statements"))
        vacuum(engine)
        yield engine, app_url(server, _DATABASE)
        engine.dispose()


@dataclass
class Searched:
    """An API over a large database, and a superuser's engine over that."""

    client: FlaskClient
    engine: Engine

    def pages(self, path: str) -> tuple[Any, int]:
        """Return an answer, and the most pages that one of its statements looked at."""
        with self.engine.begin() as connection:
            connection.execute(text("SELECT pg_stat_statements_reset()"))
        answer = self.client.get(path)
        with self.engine.connect() as connection:
            pages = connection.scalar(
                text("""
                    SELECT max((shared_blks_hit + shared_blks_read) / calls)
                    FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid WHERE r.rolname = 'notifier_app'
                """)
            )
        return answer, int(pages or 0)


@pytest.fixture(scope="module")
def searched(superuser: tuple[Engine, str]) -> Iterator[Searched]:
    """An API over that database."""
    engine, url = superuser
    wires = Wiring(read_settings({**QUICK, "DATABASE_URL": url}))
    yield Searched(create_app(wires).test_client(), engine)
    wires.template_process.close()
    wires.engine.dispose()
    autocommit_of(wires.engine).dispose()


def test_there_are_a_million_rows(superuser: tuple[Engine, str]) -> None:
    with superuser[0].connect() as connection:
        rows = [int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0) for table in FILLED]
    assert sum(rows) > 1_000_000


def test_each_answer_reads_its_own_rows(searched: Searched) -> None:
    with searched.engine.connect() as connection:
        paths = cases(connection)
    assert len(paths) > 80
    # A session makes its plans when it first searches, and reads the catalogue for that.
    searched.client.get("/api/v1/search?q=nothing-yet&status=sent")
    wrong = {}
    for name, path in paths.items():
        answer, pages = searched.pages(path)
        assert answer.status_code == 200, f"{name}: {answer.text}"
        if pages > _allowed(name):
            wrong[name] = pages
        is_found = not any(word in name for word in ("no-", "no.", "nobody", "no_", "nothing", "0190"))
        if is_found and not any(word in name for word in ("sms", "retrying", "sending", "skipped")):
            assert answer.get_json()["items"], name
    assert wrong == {}, "\n".join(f"{name}: {pages} pages" for name, pages in wrong.items())


def _allowed(name: str) -> int:
    return _PAGES_WITHOUT_DAYS if name.startswith(_WITHOUT_DAYS) else _PAGES_OF_A_LIST


@pytest.mark.parametrize("address", ["user7@example.com", "device-7", "nobody@example.com"])
def test_few_users_are_read_for_an_address(searched: Searched, address: str) -> None:
    """Postgres keeps no statistics by which it knew how few have one, and a short page tempts it to read them all."""
    answer, pages = searched.pages(f"/api/v1/users?address={address}&limit=1")
    assert len(answer.get_json()["items"]) == (address != "nobody@example.com")
    assert pages <= _PAGES_WITHOUT_DAYS


@pytest.mark.parametrize("provider", ["old-provider", "smtp", "rare-provider"])
def test_a_list_by_provider_has_each_row_once_on_all_its_pages(searched: Searched, provider: str) -> None:
    seen: list[str] = []
    path = f"/api/v1/notifications?provider={provider}&limit=200"
    for _ in range(4):
        page = searched.client.get(path).get_json()
        seen += [each["id"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        path = f"/api/v1/notifications?provider={provider}&limit=200&cursor={page['next_cursor']}"
    with searched.engine.connect() as connection:
        expected = connection.scalars(
            text("SELECT notification_id FROM attempts WHERE provider = :provider ORDER BY id DESC LIMIT 800"),
            {"provider": provider},
        )
        assert seen == sorted(map(str, expected), reverse=True)


@pytest.fixture(scope="module")
def large(new_system: Callable[..., Running], superuser: tuple[Engine, str]) -> Iterator[Running]:
    """A system on that database."""
    with new_system(DATABASE_URL=superuser[1], NOTIFIER_WEBHOOK_RETRY_BACKOFF="1") as running:
        yield running


@dataclass(frozen=True)
class _Statement:
    query: str
    calls: int
    rows: int
    pages: int

    @property
    def allowed(self) -> int:
        if "FROM recorded" in self.query:
            return _PAGES_OF_A_RECORD * self.calls + _PAGES_OF_RECORDS
        return _PAGES * self.calls + _PAGES_A_ROW * self.rows

    def __str__(self) -> str:
        words = " ".join(self.query.split())
        return f"{self.pages} pages, {self.calls} calls, {self.rows} rows: {words[:60]} ... {words[-120:]}"


def _statements(engine: Engine) -> list[_Statement]:
    with engine.connect() as connection:
        found = connection.execute(
            text("""
                SELECT query, calls, rows, shared_blks_hit + shared_blks_read AS pages
                FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid WHERE r.rolname = 'notifier_app'
            """)
        )
        return [_Statement(row.query, row.calls, row.rows, row.pages) for row in found]


def _read_in_sequence(engine: Engine) -> dict[str, int]:
    """Return how many rows of each large table were read by going through all of it."""
    with engine.connect() as connection:
        found = connection.execute(
            text("""
                SELECT relname, seq_tup_read FROM pg_stat_user_tables
                WHERE n_live_tup > :large AND relname ~ '^(events|notifications|attempts)_'
            """),
            {"large": _LARGE},
        )
        return {row.relname: row.seq_tup_read for row in found}


def _work(system: Running, http: HttpReceiver, turn: str) -> None:
    """Do what a system usually does."""
    good, bad, heard = f"/good-{turn}", f"/bad-{turn}", f"large.heard.{turn}"
    http.answer(bad, 500)
    direct: dict[str, Any] = {"channel": "webhook", "recipient": http.url(good)}
    keyed = [
        {"event_type": "large.batch", "payload": {"n": n}, "idempotency_key": f"{turn}-{n}", **direct}
        for n in range(200)
    ]
    for _ in range(2):
        assert system.post("/api/v1/events/batch", {"events": keyed}).json()["rejected"] == 0
    system.post("/api/v1/subscriptions", {"url": http.url(good), "event_types": [heard]})
    events = [system.event(**direct) for _ in range(20)]
    events += [system.event(event_type=heard) for _ in range(20)]
    failing = [system.event(channel="webhook", recipient=http.url(bad)) for _ in range(5)]
    later = system.event(**direct, send_at="2099-01-01T00:00:00Z", cancellation_key=f"c-{turn}")
    system.post("/api/v1/notifications/cancel", {"cancellation_key": f"c-{turn}"})
    system.event(event_type="large.due", **direct, send_at=(datetime.now(UTC) + timedelta(seconds=2)).isoformat())
    for event in events:
        system.finished(event)
    letters = [system.dead_letter(event)["id"] for event in failing]
    http.answer(bad, 200)
    for letter in letters:
        assert system.post(f"/api/v1/dead-letters/{letter}/requeue").status_code == 202
    system.post(f"/api/v1/notifications/{system.notifications(events[0])[0]['id']}/resend")
    _look(system, events[0], later, http.url(good))
    due = "SELECT FROM notifications WHERE due_at IS NOT NULL AND event_type NOT LIKE 'order.%'"  # which are filled in
    wait_for(lambda: not system.sql(due), 30, "all to be done")


def _look(system: Running, event: str, later: str, recipient: str) -> None:
    """Read what callers and operators read."""
    notification = system.notifications(event)[0]["id"]
    lists = (
        *("/api/v1/notifications", f"/api/v1/notifications?event_id={later}", "/api/v1/notifications?user_id=nobody"),
        *(f"/api/v1/notifications?recipient={recipient}", "/api/v1/notifications?created_after=2099-01-01T00:00:00Z"),
        *("/api/v1/events", "/api/v1/events?user_id=nobody", "/api/v1/events?created_after=2099-01-01T00:00:00Z"),
        *("/api/v1/dead-letters", "/api/v1/subscriptions"),
    )
    for path in lists:
        answer = system.get(path)
        assert answer.status_code == 200, answer.text
        if cursor := answer.json().get("next_cursor"):
            assert system.get(f"{path}{'&' if '?' in path else '?'}cursor={cursor}").status_code == 200
    for path in (f"/api/v1/notifications/{notification}", f"/api/v1/notifications/{notification}/attempts", "/ready"):
        assert system.get(path).status_code == 200


@dataclass(frozen=True)
class _Seen:
    """Postgres' counts: rows read in sequence before and after the work, and the statements of its second turn."""

    before: dict[str, int]
    after: dict[str, int]
    statements: list[_Statement]


@pytest.fixture(scope="module")
def seen(large: Running, superuser: tuple[Engine, str]) -> _Seen:
    """The usual work, done twice."""
    engine = superuser[0]
    with HttpReceiver() as http:
        _work(large, http, "first")
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_stat_statements_reset()"))
        before = _read_in_sequence(engine)
        _work(large, http, "second")
    return _Seen(before, _read_in_sequence(engine), _statements(engine))


def test_no_large_table_is_read_from_end_to_end(seen: _Seen) -> None:
    assert len(seen.before) >= _DAYS * len(FILLED)
    assert {name: seen.after[name] - read for name, read in seen.before.items() if seen.after[name] != read} == {}


def test_each_statement_reads_its_own_rows(seen: _Seen) -> None:
    assert len(seen.statements) > 30
    assert [str(each) for each in seen.statements if each.pages > each.allowed] == []


def test_statements_have_one_text_whatever_their_values(seen: _Seen) -> None:
    texts = Counter(" ".join(each.query.split()) for each in seen.statements)
    assert {query: count for query, count in texts.items() if count > 1} == {}
