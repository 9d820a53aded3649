"""Migrations expand, and contract a release later: no SQL that stops the release before, or makes it wait for long.

squawk knows what locks long and what breaks others; what it does not know of is below. It is given the SQL that Alembic
would run, revision by revision.
"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from notifier.migrations import _config

#: Revisions that were released before there were rules, or make the first tables.
BEFORE_THE_RULES = {"0001", "0002", "0003"}
#: squawk's rules that are matters of taste, or are kept by the runner (it sets a lock_timeout for every revision).
NOT_OURS = (
    *("prefer-robust-stmts", "prefer-text-field", "prefer-bigint-over-int", "prefer-identity", "prefer-timestamptz"),
    *("require-lock-timeout", "require-statement-timeout", "transaction-nesting"),
    # It has a connection of its own: notifier.migrations.online.
    "ban-concurrent-index-creation-in-transaction",
)
#: Allowed by `-- contract: release X.Y` on the line above: things that the release before no longer uses.
CONTRACT = "ban-drop-column, ban-drop-table, ban-drop-not-null"
#: Allowed by `-- validated: CONSTRAINT`: SET NOT NULL reads no table where a validated CHECK says as much.
VALIDATED = "adding-not-nullable-field"
#: Allowed by `-- replaced by: INDEX`: Postgres drops no index of a partitioned table concurrently.
REPLACED = "require-concurrent-index-deletion"
#: On partitioned tables an index is first made on the parent alone (notifier.migrations.online).
ON_PARENT = re.compile(r"CREATE (UNIQUE )?INDEX (IF NOT EXISTS )?\w+ ON ONLY ", re.IGNORECASE)
#: Statements that squawk lets pass.
OURS = {
    "lock-table": re.compile(r"^LOCK\b", re.IGNORECASE),
    "truncate": re.compile(r"^TRUNCATE\b", re.IGNORECASE),
    "rewrites-the-table": re.compile(
        r"^(VACUUM\s+(\(.*)?FULL|CLUSTER)\b|^ALTER\s+TABLE\s.*\bSET\s+(UNLOGGED|LOGGED|TABLESPACE|ACCESS\s+METHOD)\b",
        re.IGNORECASE | re.DOTALL,
    ),
    # Of api_keys there are a few rows, and nobody waits for them.
    "changes-all-rows": re.compile(
        r"^(UPDATE|DELETE)\b(?!.*\balembic_version\b)(?! api_keys\b)", re.IGNORECASE | re.DOTALL
    ),
    "disables-triggers": re.compile(r"^ALTER\s+TABLE\s.*\b(DISABLE|ENABLE)\s+TRIGGER\b", re.IGNORECASE | re.DOTALL),
}
#: One statement with the comments before it, up to a semicolon that stands outside of quotes and comments.
STATEMENT = re.compile(r"(?:--[^\n]*\n|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|\"[^\"]*\"|[^;])+;?", re.DOTALL)
COMMENT = re.compile(r"--[^\n]*\n|/\*.*?\*/", re.DOTALL)


def statements(sql: str) -> list[str]:
    """The statements of a script, without their comments."""
    found = (COMMENT.sub("", each.group()).strip(" \n;") for each in STATEMENT.finditer(sql))
    return [each for each in found if each]


def refused(sql: str) -> set[str]:
    """The rules that a migration's SQL breaks."""
    sql = re.sub(r"^[ ]*-- contract: release \d+\.\d+$", f"-- squawk-ignore {CONTRACT}", sql, flags=re.MULTILINE)
    sql = re.sub(r"^[ ]*-- validated: \w+$", f"-- squawk-ignore {VALIDATED}", sql, flags=re.MULTILINE)
    sql = re.sub(r"^[ ]*-- replaced by: \w+$", f"-- squawk-ignore {REPLACED}", sql, flags=re.MULTILINE)
    sql = ON_PARENT.sub(r"CREATE INDEX CONCURRENTLY x ON ", sql)
    squawk = [
        Path(sys.executable).parent / "squawk",
        "--config",
        "/dev/null",
        "--pg-version",
        "14",
        "--assume-in-transaction",
    ]
    options = ["--reporter", "json", "--stdin-filepath", "migration.sql", *(f"--exclude={rule}" for rule in NOT_OURS)]
    ran = subprocess.run([*squawk, *options], input=sql, capture_output=True, text=True, check=False)
    assert ran.stdout, ran.stderr
    broken = {each["rule_name"] for each in json.loads(ran.stdout)}
    for statement in statements(sql):
        broken |= {rule for rule, pattern in OURS.items() if pattern.search(statement)}
    return broken


def sql_of(revision: str, down_revision: str) -> str:
    """Return what Alembic would run."""
    config = _config()
    config.output_buffer = io.StringIO()
    command.upgrade(config, f"{down_revision}:{revision}", sql=True)
    return config.output_buffer.getvalue()


def under_the_rules() -> Iterator[Any]:
    """The revisions that must keep them, with the one before each."""
    for script in ScriptDirectory.from_config(_config()).walk_revisions():
        if script.revision not in BEFORE_THE_RULES:
            yield pytest.param(script.revision, script.down_revision, id=script.revision)


@pytest.mark.parametrize(("revision", "down_revision"), list(under_the_rules()))
def test_a_migration_lets_the_release_before_go_on(revision: str, down_revision: str) -> None:
    sql = sql_of(revision, down_revision)
    assert f"'{revision}'" in sql
    assert refused(sql) == set()


@pytest.mark.parametrize(
    ("rule", "sql"),
    [
        ("changing-column-type", "ALTER TABLE events ALTER COLUMN source TYPE varchar(10)"),
        ("adding-not-nullable-field", "ALTER TABLE events ALTER source SET NOT NULL"),
        ("adding-required-field", "ALTER TABLE events ADD COLUMN a text NOT NULL"),
        ("ban-drop-column", "ALTER TABLE events DROP COLUMN source"),
        ("ban-drop-column", "alter table events\n    drop source"),
        ("ban-drop-table", "DROP TABLE events"),
        ("renaming-column", "ALTER TABLE events RENAME source TO origin"),
        ("renaming-table", "ALTER TABLE events RENAME TO happenings"),
        ("adding-field-with-default", "ALTER TABLE events ADD a uuid DEFAULT gen_random_uuid()"),
        ("adding-field-with-default", "ALTER TABLE events ADD a timestamptz DEFAULT clock_timestamp()"),
        ("constraint-missing-not-valid", "ALTER TABLE events ADD CONSTRAINT a CHECK (source <> '')"),
        ("adding-foreign-key-constraint", "ALTER TABLE events ADD FOREIGN KEY (user_id) REFERENCES users (id)"),
        ("disallowed-unique-constraint", "ALTER TABLE users ADD UNIQUE (email)"),
        ("require-concurrent-index-creation", "CREATE INDEX a ON events (source)"),
        ("require-concurrent-index-creation", "CREATE UNIQUE INDEX a ON users (email)"),
        ("require-concurrent-index-deletion", "DROP INDEX events_due_idx"),
        ("require-concurrent-reindex", "REINDEX TABLE events"),
        ("require-concurrent-partition-detach", "ALTER TABLE events DETACH PARTITION events_default"),
        ("lock-table", "SELECT 1; LOCK TABLE events IN SHARE MODE"),
        ("lock-table", "-- Locked first.\nlock events"),
        ("truncate", "TRUNCATE events"),
        ("rewrites-the-table", "VACUUM FULL events"),
        ("rewrites-the-table", "VACUUM (ANALYZE, FULL) events"),
        ("rewrites-the-table", "CLUSTER events"),
        ("rewrites-the-table", "ALTER TABLE events SET UNLOGGED"),
        ("changes-all-rows", "ALTER TABLE users ADD a text; UPDATE users SET a = 'x;'"),
        ("changes-all-rows", "DELETE FROM users"),
        ("disables-triggers", "ALTER TABLE users DISABLE TRIGGER ALL"),
        ("syntax-error", "ALTER TABEL users ADD a text"),
        # A contract may drop, and no more.
        ("renaming-column", "-- contract: release 1.2\nALTER TABLE events RENAME source TO origin"),
        ("require-concurrent-index-creation", "-- contract: release 1.2\nCREATE INDEX a ON events (source)"),
        # It is of the statement below it alone, and names its release.
        ("ban-drop-table", "-- contract: release 1.2\nALTER TABLE users DROP a;\nDROP TABLE routes"),
        ("ban-drop-table", "-- contract: later\nDROP TABLE routes"),
        ("require-concurrent-index-deletion", "-- replaced by:\nDROP INDEX events_due_idx"),
        ("ban-drop-column", "-- replaced by: x_idx\nALTER TABLE events DROP source"),
    ],
)
def test_what_locks_or_breaks_is_refused(rule: str, sql: str) -> None:
    assert rule in refused(f"{sql};")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE api_keys SET scopes = array_append(scopes, 'new')",
        "ALTER TABLE events ADD a text, ADD b integer NOT NULL DEFAULT 0, ADD c boolean DEFAULT false",
        "CREATE TABLE a (id uuid PRIMARY KEY, name text NOT NULL);\nCREATE INDEX a_name_idx ON a (name)",
        "CREATE TABLE a (id uuid PRIMARY KEY) PARTITION BY RANGE (id);\nCREATE TABLE b PARTITION OF a DEFAULT",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON users (email)",
        "CREATE INDEX IF NOT EXISTS a ON ONLY events (source)",
        "ALTER TABLE events ADD CONSTRAINT a CHECK (source <> '') NOT VALID",
        "ALTER TABLE events VALIDATE CONSTRAINT a",
        "-- validated: a\nALTER TABLE events ALTER source SET NOT NULL",
        "-- contract: release 1.2\nALTER TABLE users DROP a",
        "-- replaced by: events_newest_idx\nDROP INDEX IF EXISTS events_due_idx",
        "INSERT INTO listeners (version) VALUES (1)",
        "COMMENT ON TABLE events IS 'LOCK TABLE; UPDATE events; TRUNCATE'",
        "UPDATE alembic_version SET version_num='0009' WHERE alembic_version.version_num = '0008'",
    ],
)
def test_what_only_adds_is_allowed(sql: str) -> None:
    assert refused(f"{sql};") == set()
