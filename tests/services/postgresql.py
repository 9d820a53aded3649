"""Debian's Postgres, set up as clouds give one: TLS alone, and no superuser to be had."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg2

from deploy.child_process import Child
from deploy.ports import free_port
from deploy.unprivileged import User
from notifier.storage.database_roles import Login
from tests.providers.receivers import certificate

DATABASE: Final = "notifier"
#: The cloud's own superuser, whose password customers do not have.
_CLOUD: Final = Login("cloud_admin", "of the cloud")


def find_postgres() -> Path | None:
    """The folder of Debian's programs, installed or unpacked; None where there is none."""
    unpacked = [Path(folder).parent for folder in os.environ.get("PATH", "").split(":") if "/.services/" in folder]
    roots = [Path("/usr"), *unpacked]
    found = [each for root in roots for each in root.glob("lib/postgresql/*/bin") if (each / "initdb").exists()]
    return found[-1] if found else None


class ManagedPostgres(Child):
    """A Postgres on a free port of 127.0.0.1 whose certificate names that address and is vouched for by itself."""

    def __init__(self, folder: Path) -> None:
        programs = find_postgres()
        assert programs, "no Postgres of Debian's here"
        self.port, self._programs, self._folder = free_port(), programs, folder
        self.certificate = certificate(folder).file
        self._user = User.for_data(folder / "data") if os.geteuid() == 0 else None
        key = folder / "server.pem"
        shutil.copy(self.certificate, key)
        key.chmod(0o600)
        self._give(folder, key)
        settings = {
            **{"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""},
            **{"ssl": "on", "ssl_cert_file": str(key), "ssl_key_file": str(key), "fsync": "off"},
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        super().__init__(
            "postgres",
            [programs / "postgres", "-D", folder / "data", *options],
            log=folder / "log",
            environment={"LC_ALL": "C.UTF-8", "TZ": "UTC"},
            cwd=folder,
            ready=self._answers,
        )

    def launch(self) -> None:
        """Start it, as somebody who is not root."""
        self._spawn(**(self._user.credentials if self._user else {}))

    def make(self, master: Login) -> None:
        """Make the cluster, and start it with a database that the customer's role owns, which may make roles."""
        password = self._folder / "password"
        password.write_text(_CLOUD.password)
        self._give(password)
        subprocess.run(
            [
                *(self._programs / "initdb", "-D", self._folder / "data", f"--username={_CLOUD.name}"),
                *(f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"),
            ],
            cwd=self._folder,
            env={"LC_ALL": "C.UTF-8"},
            check=True,
            capture_output=True,
            **(self._user.credentials if self._user else {}),
        )
        (self._folder / "data" / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        self.start()
        connection = psycopg2.connect(self.url(_CLOUD, database="postgres"))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {master.name} LOGIN CREATEDB CREATEROLE PASSWORD %s", (master.password,))
            cursor.execute(f"CREATE DATABASE {DATABASE} OWNER {master.name}")
        connection.close()

    def url(
        self, login: Login, database: str = DATABASE, host: str = "127.0.0.1", authority: Path | None = None
    ) -> str:
        """A URL that asks for the server's certificate, and for the name in it."""
        user = f"{login.name}:{login.password}".replace(" ", "%20").replace("'", "%27")
        options = f"sslmode=verify-full&sslrootcert={authority or self.certificate}"
        return f"postgresql://{user}@{host}:{self.port}/{database}?{options}"

    def _give(self, *paths: Path) -> None:
        if self._user:
            self._user.own(*paths)

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url(_CLOUD, database="postgres"), connect_timeout=2).close()
        except psycopg2.Error:
            return False
        return True


@contextmanager
def managed_postgres(master: Login) -> Iterator[ManagedPostgres]:
    """Run one. Not below pytest's own folder, which is closed to other users."""
    with tempfile.TemporaryDirectory(prefix="notifier-") as folder:
        server = ManagedPostgres(Path(folder))
        try:
            server.make(master)
            yield server
        finally:
            server.stop()
