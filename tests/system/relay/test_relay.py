"""`manage.py relay`: events go out if, and only if, the service's own transaction commits."""

import contextlib
import json
import shlex
import signal
from collections.abc import Callable
from uuid import uuid4

import psycopg2
import pytest

from notifier.security.permits import Permit
from notifier_client.relay import Moved
from tests.support.callers import Callers
from tests.support.relaying import INSERT, Shop
from tests.support.running import wait_for

EVENT = {"event_type": "order.paid", "payload": {"order": 42}}


def test_what_commits_is_sent_and_what_is_rolled_back_is_not(shop: Shop) -> None:
    with shop.relaying() as process, contextlib.closing(shop.connect()) as connection:
        gone = str(uuid4())
        with connection.cursor() as cursor:
            cursor.execute(INSERT, [gone, json.dumps(EVENT)])
        connection.rollback()
        kept = str(uuid4())
        with connection.cursor() as cursor:
            # Numbers and the order of members stay as they are written; line ends between them are nothing.
            cursor.execute(INSERT, [kept, '\n{"event_type":\r\n "order.paid", "payload": {"z": 12.50, "a": 1e2}}\n'])
        assert shop.events() == []
        connection.commit()
        shop.wait_until_moved()
        assert process.stop() == 0
        lines = process.lines("relayed")
        assert sum(line["sent"] for line in lines) == 1
        assert (lines[-1]["waiting"], lines[-1]["oldest_seconds"]) == (0, None)
    [(key, event_id)] = shop.events()
    assert key == kept
    row = shop.row(key)
    assert (row["event_id"], row["attempts"], row["last_error"], row["refused_at"]) == (event_id, 1, None, None)
    [[payload]] = shop.system.sql("SELECT payload::text FROM events WHERE id = :id", id=event_id)
    assert payload == '{"z": 12.50, "a": 1e2}'


def test_a_row_that_commits_after_higher_ids_is_not_passed_over(shop: Shop) -> None:
    with contextlib.closing(shop.connect()) as slow, slow.cursor() as cursor:
        cursor.execute(INSERT, [str(uuid4()), json.dumps(EVENT)])
        shop.write(EVENT, EVENT)
        assert shop.move() == Moved(sent=2)
        slow.commit()
    assert shop.move() == Moved(sent=1)
    assert sorted(row for [row] in shop.sql("SELECT id FROM notifier_relay WHERE sent_at IS NOT NULL")) == [1, 2, 3]
    shop.check_exactly_once()


def test_a_signal_ends_it_in_good_order(shop: Shop) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with shop.relaying() as process:
            wait_for(lambda process=process: "relay_started" in process.output())
            process.popen.send_signal(number)
            assert process.popen.wait(30) == 0
            assert "relay_stopped" in process.output()


# --- refused rows


def test_a_refused_row_is_parked_and_holds_up_no_other(shop: Shop) -> None:
    first, bad, last = shop.write(EVENT, {"event_type": "order.paid", "recipient": "nobody", "channel": "email"}, EVENT)
    assert shop.relay("--once") == ("Sent: 2, refused: 1.\n", 0)
    row = shop.row(bad)
    assert row["last_error"].startswith("422 /problems/validation-failed: recipient: ")
    assert (row["sent_at"], row["event_id"], row["attempts"]) == (None, None, 1)
    assert row["refused_at"]
    assert {key for key, _ in shop.events()} == {str(first), str(last)}
    assert "refused: 1." in shop.relay("--check").output
    # Parked is parked. Once somebody has put it right, it goes under the same key.
    assert shop.move() == Moved()
    shop.sql("UPDATE notifier_relay SET event = %s, refused_at = NULL WHERE key = %s", json.dumps(EVENT), str(bad))
    assert shop.move() == Moved(sent=1)
    row = shop.row(bad)
    assert (row["refused_at"], row["last_error"], row["attempts"]) == (None, None, 2)
    shop.check_exactly_once()


def test_rows_that_are_no_events_are_parked(shop: Shop) -> None:
    shop.sql("ALTER TABLE notifier_relay ALTER event TYPE text, ALTER event DROP NOT NULL")
    shop.sql("ALTER TABLE notifier_relay ALTER key TYPE text, ALTER key DROP NOT NULL")
    rows = {
        "no-json": "{",
        "lines": '{"event_type":\n\n}{\n',
        "list": "[1]",
        "empty": "",
        "nothing": None,
        "no-type": "{ }",
        "deep": "[" * 100_000,
        "deep-payload": '{"event_type": "a", "payload": ' + '{"a":' * 40 + "1" + "}" * 41,
        "nan": '{"event_type": "a", "payload": {"n": NaN}}',
        "digits": '{"event_type": "a", "payload": {"n": ' + "9" * 5000 + "}}",
        "twice": '{"event_type": "a", "event_type": "b"}',
        "own-key": '{"event_type": "a", "idempotency_key": "mine"}',
        "large": json.dumps({"event_type": "a", "payload": {"x": "x" * 300_000}}),
        "huge": json.dumps({"event_type": "a", "payload": {"x": "x" * 9_000_000}}),
        "k" * 256: json.dumps(EVENT),
    }
    for key, event in rows.items():
        shop.sql(INSERT, key, event)
    shop.sql(INSERT, None, json.dumps(EVENT))
    good = ['ключ "№1"\n', "k" * 255]
    for key in good:
        shop.sql(INSERT, key, '\t{"event_type": "order.paid"}')
    assert shop.move() == Moved(sent=len(good), refused=len(rows) + 1)
    assert {key for key, _ in shop.events()} == set(good)
    errors = dict(shop.sql("SELECT coalesce(key, 'none'), last_error FROM notifier_relay WHERE refused_at IS NOT NULL"))
    assert errors.keys() == rows.keys() | {"none"}
    assert all(errors.values())
    assert errors["huge"] == f"It has {len(str(rows['huge']))} bytes, more than 8388608."
    assert errors["large"].startswith("413 /problems/body-too-large: ")
    assert errors["list"] == "Its event is not a JSON object."


@pytest.mark.parametrize("kind", ["json", "jsonb", "text"])
def test_an_event_may_be_kept_as_any_kind_of_json(shop: Shop, kind: str) -> None:
    shop.sql(f"ALTER TABLE notifier_relay ALTER event TYPE {kind} USING event::text::{kind}")
    [key] = shop.write('{"event_type": "order.paid", "payload": {"total": 12.50, "name": "Zoë \\ud83d\\ude00"}}')
    assert shop.move() == Moved(sent=1)
    [[payload]] = shop.system.sql("SELECT payload FROM events WHERE idempotency_key = :key", key=str(key))
    assert payload == {"total": 12.5, "name": "Zoë 😀"}


def test_a_key_that_was_used_for_another_event_is_refused_and_for_the_same_one_makes_no_second(shop: Shop) -> None:
    [key] = shop.write(EVENT)
    assert shop.move() == Moved(sent=1)
    shop.sql(INSERT, str(key), json.dumps(EVENT))
    shop.sql(INSERT, str(key), json.dumps({**EVENT, "payload": {}}))
    assert shop.relay("--once").output == "Sent: 1 (1 of them Notifier had already), refused: 1.\n"
    [[error]] = shop.sql("SELECT last_error FROM notifier_relay WHERE refused_at IS NOT NULL")
    assert error.startswith("422 /problems/idempotency-key-reused: ")
    assert len(shop.events()) == 1


def test_a_row_that_the_key_may_not_send_is_parked(new_shop: Callable[..., Shop]) -> None:
    shop = new_shop(permit=Permit(event_types=("order.*",)))
    good, bad = shop.write(EVENT, {"event_type": "salary.paid"})
    assert shop.move() == Moved(sent=1, refused=1)
    assert shop.row(bad)["last_error"].startswith("403 /problems/key-restricted: ")
    assert [key for key, _ in shop.events()] == [str(good)]


# --- the command


def test_a_wrong_key_changes_nothing(shop: Shop, callers: Callers) -> None:
    [key] = shop.write(EVENT)
    before = shop.row(key)
    reads = callers.new(["read"]).key
    done = shop.relay_in_turn(*(["--once", "--key", wrong] for wrong in ("wrong", reads)))
    for each, status in zip(done, (401, 403), strict=True):
        assert each.code == 1
        assert each.output.startswith(f"Error: POST /api/v1/events/batch: {status} ")
        assert each.output.count("\n") == 1
        assert reads not in each.output
    assert shop.row(key) == before
    assert shop.move() == Moved(sent=1)
    shop.check_exactly_once()


def test_what_waits_too_long_fails_the_check(shop: Shop) -> None:
    assert shop.relay("--check") == ("Waiting: 0; refused: 0.\n", 0)
    shop.write(EVENT, EVENT)
    shop.sql("UPDATE notifier_relay SET created_at = now() - interval '10 minutes' WHERE id = 1")
    late, allowed = shop.relay_in_turn(["--check"], ["--check", "--max-lag", "PT20M"])
    assert late == ("Waiting: 2, the oldest for 10 min; refused: 0.\n", 1)
    assert allowed == ("Waiting: 2, the oldest for 10 min; refused: 0.\n", 0)
    assert shop.events() == [], "it only looks"


def test_old_rows_that_were_sent_go_and_no_others(shop: Shop) -> None:
    old, _, refused = shop.write(EVENT, EVENT, {"event_type": "?"})
    assert shop.move() == Moved(sent=2, refused=1)
    shop.sql("UPDATE notifier_relay SET sent_at = now() - interval '8 days' WHERE key = %s", str(old))
    shop.sql("UPDATE notifier_relay SET created_at = now() - interval '8 days'")
    done = shop.relay_in_turn(["--once"], ["--once"], ["--once", "--keep", "0"])
    assert [each.output.partition(" D")[2] for each in done] == ["eleted 1 old rows.\n", "", "eleted 1 old rows.\n"]
    assert shop.sql("SELECT key::text FROM notifier_relay") == [(str(refused),)]


def test_the_table_is_made_once_in_any_schema(shop: Shop) -> None:
    shop.sql('CREATE SCHEMA "Order"')
    options = ("--table", "Order.Relay")
    first, again, ddl = shop.relay_in_turn(*[["--create-table", *options]] * 2, ["--ddl"])
    assert first == again == ('The table "Order"."Relay" is there.\n', 0)
    shop.sql('INSERT INTO "Order"."Relay" (event) VALUES (%s)', json.dumps(EVENT))
    assert shop.relay("--once", *options) == ("Sent: 1, refused: 0.\n", 0)
    indexes = shop.sql("SELECT indexname FROM pg_indexes WHERE schemaname = 'Order' ORDER BY 1")
    assert [name for [name] in indexes] == ["Relay_pkey", "Relay_refused", "Relay_sent", "Relay_waiting"]
    # The statements are also for whoever may make tables.
    shop.sql("DROP TABLE notifier_relay")
    shop.sql(ddl.output)
    shop.write(EVENT)
    assert shop.move() == Moved(sent=1)


def test_it_works_with_the_least_rights(shop: Shop) -> None:
    shop.write(EVENT)
    shop.sql("CREATE ROLE \"relay-of-a-shop\" LOGIN PASSWORD 'hunter2'")
    shop.sql('GRANT SELECT, UPDATE, DELETE ON notifier_relay TO "relay-of-a-shop"')
    host = shop.url.partition("@")[2]
    assert shop.relay("--once", NOTIFIER_RELAY_DSN=f"postgresql://relay-of-a-shop:hunter2@{host}").code == 0
    shop.check_exactly_once()


#: Options, and words of the one line that they get.
BAD = [
    ("--table 'a; DROP TABLE notifier_relay'", "is no table"),
    ("--table 'a\"b'", "is no table"),
    ("--table a.b.c", "is no table"),
    (f"--table {'t' * 56}", "is no table"),
    ("--table nowhere", 'There is no table "nowhere"'),
    ("--table pg_catalog.pg_class", "lacks attempts, created_at, event"),
    ("--check", "one of --once, --check"),
    ("--interval 0", "0.05 seconds"),
    ("--batch 1001", "1<=x<=1000"),
    ("--keep -1", "is not a duration"),
    ("--dsn mysql://root:hunter2@localhost/shop", "relay tables are in Postgres"),
    ("--dsn sqlite:///shop.db", "relay tables are in Postgres"),
    ("--dsn 'host=localhost hunter2'", "give postgresql://"),
    ("--dsn postgresql://shop:hunter2@127.0.0.1:9/shop", "Postgres: "),
    ("--dsn ''", "Give --dsn"),
    ("--api ftp://localhost", "--api or --key: base_url must be an http"),
    ("--api http://user:hunter2@localhost", "--api or --key: base_url must hold no user"),
    ("--key 'hunter2 \u00e9'", "--api or --key: key must be"),
]


def test_bad_input_gets_one_line_and_changes_nothing(shop: Shop) -> None:
    shop.write(EVENT)
    ended = shop.relay_in_turn(*(["--once", *shlex.split(options)] for options, _ in BAD))
    for (options, words), done in zip(BAD, ended, strict=True):
        assert done.code in {1, 2}, options
        assert words in done.output, options
        [line] = [line for line in done.output.splitlines() if not line.startswith(("Usage:", "Try '")) and line]
        assert line.startswith("Error: "), options
        assert "hunter2" not in line
    assert shop.waiting() == 1


def test_a_service_that_begins_where_something_is_wrong_ends_at_once(shop: Shop) -> None:
    done = shop.relay("--table", "nowhere")
    assert (done.code, done.output.count("\n")) == (1, 1)


def test_a_dsn_may_be_written_as_sqlalchemy_and_libpq_do(shop: Shop) -> None:
    url = shop.url.replace("postgresql://", "postgresql+psycopg2://")
    words = " ".join(f"{name}={value}" for name, value in psycopg2.extensions.parse_dsn(shop.url).items())
    done = shop.relay_in_turn(["--check", "--dsn", url], ["--check", "--dsn", words])
    assert [each.code for each in done] == [0, 0]
