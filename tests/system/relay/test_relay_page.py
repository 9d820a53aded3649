"""docs/relay.md: its statements and programs work as they stand there."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from deploy import CLIENT_SOURCE
from notifier_client.relay_table import RelayTable
from tests.conftest import clean_environment
from tests.support.paths import ROOT
from tests.support.relaying import Shop, running

PAGE: Final = (ROOT / "docs/relay.md").read_text(encoding="utf-8")
STATEMENTS: Final = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
#: The programs by the files that their first lines name.
PROGRAMS: Final = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SETTINGS: Final = """
from sqlalchemy import make_url
import os
url = make_url(os.environ["SHOP_DATABASE_URL"])
INSTALLED_APPS = ["store"]
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": url.database, "USER": url.username,
    "PASSWORD": url.password, "HOST": url.host, "PORT": url.port}}
"""


class Project:
    """A service's code, as the page has it."""

    def __init__(self, shop: Shop, folder: Path, package: str) -> None:
        self._folder = folder
        for name, code in {**PROGRAMS, "settings.py": SETTINGS}.items():
            if name.startswith(package) or name == "settings.py":
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(code)
        for path in [folder / package, *(folder / package).rglob("*/")]:
            (path / "__init__.py").touch()
        self.environment = {
            **clean_environment(),
            "PYTHONPATH": f"{folder}:{CLIENT_SOURCE}",
            "DJANGO_SETTINGS_MODULE": "settings",
            "SHOP_DATABASE_URL": shop.url.replace("postgresql://", "postgresql+psycopg2://"),
            "NOTIFIER_API_URL": shop.caller.url,
            "NOTIFIER_API_KEY": shop.caller.key,
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python to its end."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def succeed(self, *arguments: str) -> None:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr


def columns_of(shop: Shop) -> dict[str, tuple[str, bool]]:
    """Return the type of each column of the relay table, and whether it may be null."""
    rows = shop.sql(
        "SELECT attname, atttypid::regtype::text, NOT attnotnull FROM pg_attribute"
        " WHERE attrelid = 'notifier_relay'::regclass AND attnum > 0"
    )
    return {name: (kind, nullable) for name, kind, nullable in rows}


def indexes_of(shop: Shop) -> set[str]:
    return {row for [row] in shop.sql("SELECT indexdef FROM pg_indexes WHERE tablename = 'notifier_relay'")}


def check_is_sent(shop: Shop, order: int) -> None:
    """Check that an order's event is at Notifier, once."""
    shop.wait_until_moved()
    shop.check_exactly_once()
    [[key, _]] = shop.events()
    found = shop.system.sql("SELECT event_type, user_id, payload FROM events WHERE idempotency_key = :key", key=key)
    assert [tuple(row) for row in found] == [("order.paid", "u_ada", {"order": order})]


def test_the_statements_that_make_the_table_are_those_of_the_command() -> None:
    assert STATEMENTS[0] == RelayTable().ddl


def test_the_statements_work(shop: Shop) -> None:
    _, insert, resend, refused, release = STATEMENTS
    shop.sql(insert)
    shop.write({"event_type": "?"})
    assert shop.relay("--once").output == "Sent: 1, refused: 1.\n"
    [row] = shop.sql(refused)
    assert row[3].startswith("422 /problems/validation-failed: event_type: ")
    shop.sql(release.replace("7", str(row[0])))
    shop.sql("UPDATE notifier_relay SET sent_at = '2026-11-21T09:30:00Z' WHERE sent_at IS NOT NULL")
    shop.sql(resend)
    assert shop.relay("--once", "--keep", "P9999D").output == "Sent: 1 (1 of them Notifier had already), refused: 1.\n"
    shop.check_exactly_once()


def test_the_example_with_sqlalchemy_works(shop: Shop, tmp_path: Path) -> None:
    columns, indexes = columns_of(shop), indexes_of(shop)
    shop.sql("DROP TABLE notifier_relay")
    project = Project(shop, tmp_path, "shop")
    project.succeed("-c", "from shop.checkout import *; from shop.orders import *; Base.metadata.create_all(engine)")
    assert columns_of(shop) == columns
    assert indexes_of(shop) == indexes
    shop.sql("INSERT INTO orders (id, customer, paid) VALUES (1, 'u_ada', false), (2, 'u_ben', false)")
    project.succeed("-m", "shop.checkout", "1")
    broken = (
        "from shop.checkout import *\nwith Session(engine) as s, s.begin():\n pay(s, 2)\n s.flush()\n raise OSError"
    )
    assert "OSError" in project.run("-c", broken).stderr
    assert shop.sql("SELECT paid FROM orders ORDER BY id") == [(True,), (False,)]
    with running(["-m", "shop.relay"], project.environment) as process:
        check_is_sent(shop, 1)
        assert process.stop() == 0, process.output()


def test_the_example_with_django_works(shop: Shop, tmp_path: Path) -> None:
    columns, indexes = columns_of(shop), indexes_of(shop)
    shop.sql("DROP TABLE notifier_relay")
    project = Project(shop, tmp_path, "store")
    project.succeed("-m", "django", "makemigrations", "store")
    project.succeed("-m", "django", "migrate")
    assert columns_of(shop) == {**columns, "event": ("jsonb", False)}
    assert indexes_of(shop) == indexes
    shop.sql("INSERT INTO store_order (customer, paid) VALUES ('u_ada', false), ('u_ben', false)")
    start = "import django; django.setup()\nfrom store.orders import *\n"
    project.succeed("-c", f"{start}pay(1)")
    broken = f"{start}with transaction.atomic():\n pay(2)\n raise OSError"
    assert "OSError" in project.run("-c", broken).stderr
    assert shop.sql("SELECT paid FROM store_order ORDER BY id") == [(True,), (False,)]
    with running(["-m", "django", "relay"], project.environment) as process:
        check_is_sent(shop, 1)
        assert process.stop() == 0, process.output()


def test_each_program_is_tried() -> None:
    assert {name.partition("/")[0] for name in PROGRAMS} == {"shop", "store"}
    assert len(PROGRAMS) == PAGE.count("```python")
