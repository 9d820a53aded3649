"""A RabbitMQ of a test's own, from Debian's package, installed or unpacked."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import requests

from deploy.child_process import Child
from deploy.data_folder import make_folder
from deploy.ports import free_port
from tests.conftest import clean_environment

#: Debian's own start script wants root and a user `rabbitmq`; those of the program want neither.
_PROGRAMS: Final = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/{}"
_NO_ANSWER: Final = 503


def program(name: str = "rabbitmq-server") -> Path | None:
    """One of RabbitMQ's scripts; None where there is none. `erl` must be on the PATH beside it."""
    erl = shutil.which("erl")
    root = Path(erl).parents[2] if erl else Path("/")
    return next(iter(sorted(root.glob(_PROGRAMS.format(name)))), None)


class RabbitMQ(Child):
    """A RabbitMQ with its management plugin, on free ports of 127.0.0.1; the same from start to start."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        """`certificate`: a PEM file with a certificate and its key, to be reached over TLS as well."""
        folder = make_folder(folder)
        self.port, self.tls_port, self.management_port, distribution, names = (free_port() for _ in range(5))
        self._names = str(names)
        (folder / "plugins").write_text("[rabbitmq_management].\n")
        tls = f"listeners.ssl.default = 127.0.0.1:{self.tls_port}\n" if certificate else ""
        for name in ("cacertfile", "certfile", "keyfile") if certificate else ():
            tls += f"ssl_options.{name} = {certificate}\n"
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n"
            # It refuses messages below so much free disk: a build machine may have little.
            f"disk_free_limit.absolute = 50MB\n{tls}"
        )
        environment: Mapping[str, str] = {
            **clean_environment(),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"notifier{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        }
        server = program()
        assert server, "no RabbitMQ here"
        super().__init__(
            "rabbitmq",
            [server],
            log=folder / "rabbitmq.log",
            environment=environment,
            ready=lambda: self.get("health/checks/local-alarms").ok and self.get("overview").ok,
            stop_timeout=30,
        )

    def stop(self) -> None:
        """Stop it, and the daemon of names that Erlang has left behind."""
        super().stop()
        for epmd in sorted(Path("/").joinpath(shutil.which("erl") or "").parents[1].glob("lib/erlang/erts-*/bin/epmd")):
            subprocess.run([epmd, "-port", self._names, "-kill"], check=False, capture_output=True, timeout=10)

    @property
    def url(self) -> str:
        """BROKER_URL."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def management_url(self) -> str:
        """The management plugin's API, as Flower is told of it."""
        return f"http://guest:guest@127.0.0.1:{self.management_port}/api/"

    def new_virtual_host(self, name: str) -> str:
        """Make a virtual host, for a system that is to have its queues for itself; returns its BROKER_URL."""
        requests.put(f"{self.management_url}vhosts/{name}", timeout=10).raise_for_status()
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{name}"

    def get(self, path: str) -> requests.Response:
        """Ask the management API; a 503 of our own where it does not answer."""
        try:
            return requests.get(self.management_url + path, timeout=5)
        except requests.RequestException:
            silent = requests.Response()
            silent.status_code = _NO_ANSWER
            return silent

    def queues(self) -> dict[str, dict[str, Any]]:
        """The queues by name."""
        return {queue["name"]: queue for queue in self.get("queues").json()}

    def delete_queue(self, name: str) -> None:
        """Delete a queue of the first virtual host, whoever consumes it."""
        requests.delete(f"{self.management_url}queues/%2F/{quote(name)}", timeout=10).raise_for_status()

    def control(self, *arguments: str) -> None:
        """Run rabbitmqctl."""
        script = program("rabbitmqctl")
        assert script, "no rabbitmqctl here"
        environment = dict(self.environment or {})
        subprocess.run([script, *arguments], env=environment, check=True, capture_output=True, timeout=60)

    def raise_alarm(self) -> None:
        """Have it take no messages, as if its memory were used up."""
        self.control("set_vm_memory_high_watermark", "absolute", "1MB")

    def end_alarm(self) -> None:
        """Have it take messages again."""
        self.control("set_vm_memory_high_watermark", "0.6")
