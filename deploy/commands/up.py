"""`manage.py up`: the whole stack on one machine, in one folder, until Ctrl-C."""

import contextlib
import fcntl
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import psycopg2

from config.settings import STACK_FILE, SettingsError, read_settings
from deploy import demo
from deploy.child_process import Child, StartError, write_private
from deploy.data_folder import make_folder
from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
from deploy.local_client import local_client
from deploy.ports import ADDRESS, free_port, is_free
from deploy.supervisor import Stopped, Supervisor, stop_left_over
from deploy.terminal import say
from notifier.security.secret_box import new_key
from notifier.security.webhook_signatures import new_secret
from notifier_client import NotifierError

_PROJECT: Final = Path(__file__).resolve().parents[2]
_API_PORT: Final = 8000
_FLOWER_PORT: Final = 5555
#: How many ports above a default one are tried where that is taken.
_NEXT_PORTS: Final = 50
_DATABASE: Final = "notifier"

#: Settings that are a credential or have one in them, and the processes that need them.
_BROKER_ALONE: Final = frozenset({"REDIS_URL", "BROKER_URL", "NOTIFIER_SENTINEL_PASSWORD"})
_ROLES: Final = frozenset({"DATABASE_URL", "NOTIFIER_MIGRATION_DATABASE_URL", "NOTIFIER_ADMIN_DATABASE_URL"})
_GAUGES: Final = _BROKER_ALONE | {"DATABASE_URL", "NOTIFIER_METRICS_TOKEN"}
_SENDING: Final = _GAUGES | {
    *("NOTIFIER_EMAIL", "NOTIFIER_SMS", "NOTIFIER_PUSH", "NOTIFIER_CHAT"),
    *("NOTIFIER_WEBHOOK_SECRET", "NOTIFIER_SECRET_KEY"),
}
_SECRETS: Final = _SENDING | _ROLES | {"NOTIFIER_BOUNCES", "NOTIFIER_READER_PASSWORD", "FLOWER_BASIC_AUTH"}
#: By the command that a process runs.
_NEEDED_SECRETS: Final[Mapping[str, frozenset[str]]] = {
    "roles": _ROLES,
    "migrate": frozenset({"NOTIFIER_MIGRATION_DATABASE_URL"}),
    "rekey": frozenset({"DATABASE_URL", "NOTIFIER_SECRET_KEY"}),
    "api": _SENDING,
    "worker": _SENDING,
    "beat": _BROKER_ALONE,
    "exporter": _GAUGES,
    "flower": _BROKER_ALONE | {"FLOWER_BASIC_AUTH"},
}

#: Defaults for a first try: it binds to this machine only, and sends nothing out.
_DEFAULTS: Final = {
    "NOTIFIER_AUTH": "off",
    "NOTIFIER_EMAIL": "outbox:",
    "NOTIFIER_SMS": "outbox:",
    "NOTIFIER_PUSH": "outbox:",
    "NOTIFIER_CHAT": "outbox:",
    "NOTIFIER_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `up`; a port that was not given is None."""

    data_dir: Path
    port: int | None
    flower: bool
    flower_port: int | None
    workers: int
    demo: bool


@click.command("up", short_help="Start everything on this machine, until Ctrl-C.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".notifier",
    envvar="NOTIFIER_DATA_DIR",
    show_default=True,
    help="Folder that keeps the data, the logs and the generated secrets.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"Port of the API. [default: {_API_PORT}, or the next free]"
)
@click.option(
    "--flower-port",
    type=click.IntRange(1, 65535),
    help=f"Port of Flower. [default: {_FLOWER_PORT}, or the next free]",
)
@click.option("--flower/--no-flower", default=True, help="Whether to start Flower, which shows the workers.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=min(2, os.cpu_count() or 1),
    help="Processes that deliver fresh notifications; one a core is plenty.  [default: 2, or 1 on a single core]",
)
@click.option("--demo", is_flag=True, help="Once up, send two sample events and show what became of them.")
def up(data_dir: Path, port: int | None, flower_port: int | None, flower: bool, workers: int, demo: bool) -> None:
    """Start Notifier with all it needs, and keep it running until Ctrl-C or SIGTERM.

    Postgres, Valkey, the API, three kinds of Celery workers, beat, an exporter of metrics and Flower run on
    127.0.0.1; their data is kept in one folder and found there by the next start. A process that crashes is
    started again.

    DATABASE_URL, REDIS_URL or BROKER_URL, where set, are used in place of the embedded servers. Without settings
    of your own, no API key is asked for, and messages go to a local outbox (see 'manage.py outbox').
    """
    if flower_port is not None and not flower:
        raise click.UsageError("--flower-port and --no-flower exclude one another")
    options = Options(data_dir=data_dir, port=port, flower=flower, flower_port=flower_port, workers=workers, demo=demo)
    try:
        # Whatever is wrong with the settings is said before anything starts.
        read_settings(_with_defaults(os.environ, {**_DEFAULTS, "DATABASE_URL": "postgresql://"}))
        os.umask(0o077)  # what is written is for its owner alone
        folder = make_folder(options.data_dir)
        with _locked(folder):
            _Stack(folder, options).run()
    except (StartError, SettingsError, OSError, psycopg2.Error) as error:
        raise click.ClickException(str(error)) from error


class _Stack:
    """One run of the stack, on a locked folder."""

    def __init__(self, folder: Path, options: Options) -> None:
        self._folder = folder
        self._options = options
        self._stack_file = folder / STACK_FILE
        self._records = folder / "children.json"
        embed_valkey = not (os.environ.get("REDIS_URL") or os.environ.get("BROKER_URL"))
        self._postgres = None if os.environ.get("DATABASE_URL") else EmbeddedPostgres(folder, say=_say)
        self._valkey = EmbeddedValkey(folder, say=_say) if embed_valkey else None
        self._port = 0
        self._flower_port = 0
        #: Of the workers and the exporter, by their names.
        self._metrics_ports: dict[str, int] = {}

    def run(self) -> None:
        """Start everything, and stay until a signal comes. Raises StartError."""
        _say(f"Notifier starts; its data: {self._folder}")
        self._stack_file.unlink(missing_ok=True)
        embedded = [server for server in (self._postgres, self._valkey) if server]
        stop_left_over(self._records, _say, keep=frozenset(server.name for server in embedded))
        self._choose_ports()
        with Supervisor(self._records, _say) as supervisor:
            try:
                supervisor.start(*embedded)
                environment = self._environment()
                if self._postgres:
                    supervisor.run(self._child("roles", "roles", environment=environment))
                supervisor.run(self._child("migrate", "migrate", environment=environment))
                # All processes here are of one release, which reads them encrypted too.
                if _has_open_keys(environment["DATABASE_URL"]):
                    supervisor.run(self._child("rekey", "rekey", environment=environment))
                supervisor.start(*self._processes(environment))
                self._announce(environment, supervisor)
                if self._options.demo:
                    harmless = read_settings(environment).sandbox or environment["NOTIFIER_EMAIL"].startswith("outbox:")
                    demo.show(f"http://{ADDRESS}:{self._port}", supervisor.watch, email=harmless)
                supervisor.watch()
            except Stopped:
                _say("Stopping; Ctrl-C again kills at once.")
            finally:
                with contextlib.suppress(OSError):
                    self._stack_file.unlink(missing_ok=True)
        _say("Stopped.")

    def _choose_ports(self) -> None:
        self._port = _choose_port("the API", "--port", self._options.port, _API_PORT)
        if self._options.flower:
            asked = self._options.flower_port
            self._flower_port = _choose_port("Flower", "--flower-port", asked, _FLOWER_PORT, besides=self._port)

        names = [*(f"worker-{name}" for name in self._workers()), "exporter"]
        self._metrics_ports = {name: free_port() for name in names}

    def _workers(self) -> list[str]:
        fresh = ["fresh", *(f"fresh-{number}" for number in range(2, self._options.workers + 1))]
        return [*fresh, "retry", "clock"]

    def _environment(self) -> dict[str, str]:
        """Return the environment of the children: the user's own, completed."""
        added = {**_DEFAULTS, "PYTHONUNBUFFERED": "1"}
        if not os.environ.get("NOTIFIER_WEBHOOK_SECRET"):
            added["NOTIFIER_WEBHOOK_SECRET"] = _kept(self._folder / "webhook-secret", new_secret)
        if self._postgres:
            self._postgres.create_database(_DATABASE)
            added |= self._databases(self._postgres.url(_DATABASE))
        elif not os.environ.get("NOTIFIER_MIGRATION_DATABASE_URL"):
            added["NOTIFIER_MIGRATION_DATABASE_URL"] = os.environ["DATABASE_URL"]
        if not os.environ.get("NOTIFIER_SECRET_KEY"):
            added["NOTIFIER_SECRET_KEY"] = _kept(self._folder / "secret-key", new_key)
        if not os.environ.get("NOTIFIER_PUBLIC_URL"):
            added["NOTIFIER_PUBLIC_URL"] = f"http://{ADDRESS}:{self._port}"
        if self._options.flower and not os.environ.get("NOTIFIER_FLOWER_URL"):
            added["NOTIFIER_FLOWER_URL"] = f"http://{ADDRESS}:{self._flower_port}"
        if self._valkey:
            added["REDIS_URL"] = self._valkey.url
        # Roles of another database are of no use to ours.
        own = {name: text for name, text in os.environ.items() if not (self._postgres and name in _ROLES)}
        return _with_defaults(own, added)

    def _databases(self, url: str) -> dict[str, str]:
        """Return the URLs of the embedded database: for the processes, for migrations, and the superuser's."""

        def of(role: str, file: str) -> str:
            password = _kept(self._folder / file, lambda: secrets.token_urlsafe(24))
            netloc = f"{role}:{password}@{urlsplit(url).netloc.rpartition('@')[2]}"
            return urlsplit(url)._replace(netloc=netloc).geturl()

        return {
            "DATABASE_URL": of("notifier_app", "app-password"),
            "NOTIFIER_MIGRATION_DATABASE_URL": of("notifier_owner", "owner-password"),
            "NOTIFIER_ADMIN_DATABASE_URL": url,
        }

    def _child(
        self,
        name: str,
        *arguments: str,
        environment: Mapping[str, str],
        ready: Callable[[], bool] | None = None,
        sign: Path | None = None,
    ) -> Child:
        return Child(
            name,
            [sys.executable, "manage.py", *arguments],
            log=self._folder / "logs" / f"{name}.log",
            environment=_only_needed(environment, arguments[0]),
            cwd=_PROJECT,
            ready=ready,
            sign=sign,
        )

    def _processes(self, environment: Mapping[str, str]) -> Iterator[Child]:
        port = str(self._port)
        yield self._child(
            "api", "api", "--host", ADDRESS, "--port", port, environment=environment, ready=lambda: _ready(self._port)
        )
        for name in self._workers():
            # Other stacks may share the broker; on one machine no two have the same port.
            node = ("--name", f"{name}-{port}", "--metrics-port", str(self._metrics_ports[f"worker-{name}"]))
            role = name.partition("-")[0]
            sign = self._folder / f"worker-{name}.alive"
            arguments = ("worker", role, *node, "--sign-file", str(sign))
            yield self._child(f"worker-{name}", *arguments, environment=environment, sign=sign)
        yield self._child("beat", "beat", environment=environment)
        exporter = ("--port", str(self._metrics_ports["exporter"]), "--host", ADDRESS)
        yield self._child("exporter", "exporter", *exporter, environment=environment)
        if self._options.flower:
            where = ("--port", str(self._flower_port), "--address", ADDRESS)
            yield self._child("flower", "flower", *where, environment=environment)

    def _announce(self, environment: Mapping[str, str], supervisor: Supervisor) -> None:
        api = f"http://{ADDRESS}:{self._port}"
        addresses = {"api": f"{api}/api/v1", "docs": f"{api}/docs"}
        if read_settings(environment).console:
            addresses["console"] = f"{api}/console"
        if self._options.flower:
            addresses["flower"] = f"http://{ADDRESS}:{self._flower_port}"
        names = ("DATABASE_URL", "REDIS_URL", "BROKER_URL")
        ours = {name: text for name, text in environment.items() if name in names or name.startswith("NOTIFIER_")}
        ours.pop("NOTIFIER_DATA_DIR", None)
        ports = {"api": self._port, **self._metrics_ports}
        metrics = {name: f"http://{ADDRESS}:{port}/metrics" for name, port in ports.items()}
        stack = {"pid": os.getpid(), "environment": ours, "addresses": addresses, "metrics": metrics}
        supervisor.write(self._stack_file, json.dumps(stack, indent=1))
        _say("\nNotifier is up. Ctrl-C stops it.")
        for name, address in {**addresses, "metrics": metrics["exporter"], "data": str(self._folder)}.items():
            _say(f"  {name:<7} {address}")
        if read_settings(environment).sandbox:
            _say("  Sandbox: nothing is sent anywhere; manage.py outbox shows what would have been.")
        elif "outbox:" in (environment["NOTIFIER_EMAIL"], environment["NOTIFIER_SMS"]):
            _say("  Channels without a provider deliver into the local outbox: manage.py outbox shows it.")


def _with_defaults(environ: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which unset and empty variables have their defaults."""
    return {**environ, **{name: value for name, value in defaults.items() if not environ.get(name)}}


def _only_needed(environment: Mapping[str, str], command: str) -> dict[str, str]:
    """Return the environment of a process, without the secrets that it does not need."""
    withheld = _SECRETS - _NEEDED_SECRETS[command]
    kept = {name: value for name, value in environment.items() if name not in withheld}
    # They are told all that they need: in the stack's file, which is for people, stands the rest.
    return {**kept, "NOTIFIER_DATA_DIR": os.devnull}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the kernel releases however this process ends. Raises StartError."""
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip()
            raise StartError(
                f"a stack runs on {folder} already (pid {pid}): stop it, or choose another --data-dir"
            ) from None
        with contextlib.suppress(OSError):  # the number is for people; on a full disk the lock holds without it
            file.truncate(0)
            os.write(file.fileno(), str(os.getpid()).encode())  # nothing of it is left over to be written at the end
        yield


def _choose_port(what: str, option: str, asked: int | None, default: int, *, besides: int = 0) -> int:
    """Return the given port, or the default one, or a free one near it. Raises StartError."""
    if asked is not None:
        if asked == besides or not is_free(asked):
            raise StartError(f"port {asked} is taken: give {what} another with {option}, or none for a free one")
        return asked
    for port in range(default, default + _NEXT_PORTS):
        if port != besides and is_free(port):
            break
    else:
        port = free_port()
    if port != default:
        _say(f"Port {default} is taken, so {what} listens on {port}")
    return port


def _kept(file: Path, make: Callable[[], str]) -> str:
    """Return a secret that is made once and kept."""
    if not file.exists():
        write_private(file, make())
    return file.read_text()


def _has_open_keys(url: str) -> bool:
    """Return whether signing keys are stored unencrypted: these have 32 bytes, encrypted ones over a hundred."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM signing_keys WHERE length(secret) <= 64)")
            [(found,)] = cursor.fetchall()
    finally:
        connection.close()
    return bool(found)


def _ready(port: int) -> bool:
    with local_client(f"http://{ADDRESS}:{port}", timeout=2) as client:
        try:
            return client.operating.ready().get("status") in {"ok", "degraded"}
        except NotifierError:
            return False


def _say(line: str) -> None:
    # A terminal that has gone away is no reason to stop, least of all in the middle of stopping.
    with contextlib.suppress(OSError):
        say(line, lines=True)
