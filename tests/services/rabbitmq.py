"""A RabbitMQ of a test's own, from Debian's package, installed or unpacked."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from deploy.child_process import Child
from deploy.data_folder import make_folder
from deploy.ports import free_port
from tests.conftest import clean_environment

#: Debian's own start script wants root and a user `rabbitmq`; the one of the program wants neither.
_PROGRAM = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"


def program() -> Path | None:
    """The script that starts RabbitMQ; None where there is none. `erl` must be on the PATH beside it."""
    erl = shutil.which("erl")
    root = Path(erl).parents[2] if erl else Path("/")
    return next(iter(sorted(root.glob(_PROGRAM))), None)


class RabbitMQ(Child):
    """A RabbitMQ with its management plugin, on free ports of 127.0.0.1; the same from start to start."""

    def __init__(self, folder: Path) -> None:
        folder = make_folder(folder)
        self.port, self.management_port, distribution, names = (free_port() for _ in range(4))
        (folder / "plugins").write_text("[rabbitmq_management].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n"
            # It refuses messages below so much free disk: a build machine may have little.
            "disk_free_limit.absolute = 50MB\n"
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

    @property
    def url(self) -> str:
        """BROKER_URL."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def management_url(self) -> str:
        """The management plugin's API, as Flower is told of it."""
        return f"http://guest:guest@127.0.0.1:{self.management_port}/api/"

    def get(self, path: str) -> requests.Response:
        """Ask the management API; a 503 of our own where it does not answer."""
        try:
            return requests.get(self.management_url + path, timeout=5)
        except requests.RequestException:
            silent = requests.Response()
            silent.status_code = 503
            return silent

    def queues(self) -> dict[str, dict[str, Any]]:
        """The queues by name."""
        return {queue["name"]: queue for queue in self.get("queues").json()}
