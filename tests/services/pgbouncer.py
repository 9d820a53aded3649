"""A PgBouncer of a test's own, from Debian's package, installed or unpacked."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import psycopg2
from sqlalchemy import make_url

from deploy.child_process import Child
from deploy.ports import free_port
from deploy.unprivileged import User
from notifier.storage.database_roles import Login
from tests.conftest import clean_environment

_CONF = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 10
ignore_startup_parameters = extra_float_digits
"""


class PgBouncer(Child):
    """A PgBouncer in transaction mode, on a free port of 127.0.0.1."""

    def __init__(self, folder: Path, database_url: str, logins: Sequence[Login] = ()) -> None:
        """`database_url`: a database of the server that it stands before; `logins`: who may come by it besides."""
        server = make_url(database_url)
        self.port = free_port()
        self.url = server.set(port=self.port).render_as_string(hide_password=False)
        users, conf = folder / "users.txt", folder / "pgbouncer.ini"
        known = [*logins, Login(str(server.username), str(server.password))]
        users.write_text("".join(f'"{each.name}" "{each.password}"\n' for each in known))
        conf.write_text(_CONF.format(host=server.host, port=server.port, own_port=self.port, users=users))
        program = shutil.which("pgbouncer")
        assert program, "no PgBouncer here"
        libraries: Sequence[Path] = sorted(Path(program).parents[2].glob("usr/lib/*-linux-gnu"))
        self._user: User | None = None
        if os.geteuid() == 0:  # which it refuses to be
            self._user = User.for_data(conf)
            for path in (folder, users, conf):
                os.chown(path, self._user.uid, self._user.gid)
        super().__init__(
            "pgbouncer",
            [program, conf],
            log=folder / "pgbouncer.log",
            environment={**clean_environment(), "LD_LIBRARY_PATH": ":".join(map(str, libraries))},
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
