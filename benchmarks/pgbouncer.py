"""PgBouncer in transaction mode, as docs/production.md has it, and a stack on a Postgres behind it."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import psycopg2
from sqlalchemy import create_engine, make_url

from benchmarks.stack import ROOT, stack
from deploy.child_process import Child
from deploy.embedded import EmbeddedPostgres
from deploy.ports import free_port
from deploy.unprivileged import User
from notifier.storage import database_roles
from notifier.storage.database_roles import APP, OWNER, Login

#: Where .ci/run unpacks Debian's package on a machine that has not installed it.
_UNPACKED: Final = ROOT / ".services" / "usr" / "sbin"
_CONF: Final = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {pool}
ignore_startup_parameters = extra_float_digits
"""


def find_pgbouncer() -> Path:
    """Return the program. Ends this one where it is missing."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:{_UNPACKED}")
    if not found:
        raise SystemExit("pgbouncer not found: install Debian's package, or let .ci/run unpack it into .services")
    return Path(found)


class PgBouncer(Child):
    """A PgBouncer on a free port of 127.0.0.1."""

    def __init__(self, folder: Path, database_url: str, logins: Sequence[Login], *, pool: int = 40) -> None:
        """`database_url`: a database of the server that it stands before; `logins`: who may come by it, one of them the
        URL's; `pool`: connections to the server.
        """
        program, server, port = find_pgbouncer(), make_url(database_url), free_port()
        #: The way to the same database through it.
        self.url = server.set(port=port).render_as_string(hide_password=False)
        conf, users = folder / "pgbouncer.ini", folder / "users.txt"
        users.write_text("".join(f'"{each.name}" "{each.password}"\n' for each in logins))
        conf.write_text(_CONF.format(host=server.host, port=server.port, own_port=port, users=users, pool=pool))
        self._user: User | None = None
        if os.geteuid() == 0:  # which it refuses to be
            self._user = User.for_data(conf)
            self._user.own(folder, users, conf)
        libraries = ":".join(map(str, sorted(program.parents[2].glob("usr/lib/*-linux-gnu"))))
        super().__init__(
            "pgbouncer",
            [program, conf],
            log=folder / "pgbouncer.log",
            environment={"LD_LIBRARY_PATH": libraries},
            ready=self._answers,
        )

    def launch(self) -> None:
        """Start it, as somebody who is not root."""
        self._spawn(**(self._user.credentials if self._user else {}))

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url, connect_timeout=2).close()
        except psycopg2.Error:
            return False
        return True


@contextlib.contextmanager
def _started(server: EmbeddedPostgres | PgBouncer) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.stop()


def _as(login: Login, url: str) -> str:
    return make_url(url).set(username=login.name, password=login.password).render_as_string(hide_password=False)


@contextlib.contextmanager
def stack_on_postgres(folder: Path, *, pooled: bool) -> Iterator[str]:
    """A stack on a new Postgres with the two roles, migrated directly; gives the API's address."""
    owner, app = (Login(name, secrets.token_urlsafe(24)) for name in (OWNER, APP))
    postgres = EmbeddedPostgres(folder / "server")
    with contextlib.ExitStack() as running:
        running.enter_context(_started(postgres))
        postgres.create_database("bench")
        engine = create_engine(make_url(postgres.url("bench")).set(drivername="postgresql+psycopg2"))
        database_roles.set_up(engine, owner, app)
        engine.dispose()
        url = _as(app, postgres.url("bench"))
        settings = {"NOTIFIER_MIGRATION_DATABASE_URL": _as(owner, url), "DATABASE_URL": url}
        if pooled:
            own = folder / "pgbouncer"
            own.mkdir()
            bouncer = PgBouncer(own, url, [app])
            running.enter_context(_started(bouncer))
            settings["DATABASE_URL"] = bouncer.url
        yield running.enter_context(stack(folder, **settings))
