"""Redis with a password, reached over TLS alone: Debian's, since the wheel of the embedded one knows no TLS."""

import shutil
from pathlib import Path
from typing import Final

import redis

from deploy.child_process import Child
from deploy.data_folder import make_folder
from deploy.ports import free_port
from tests.providers.receivers import certificate
from tests.services.libraries import unpacked_libraries

PASSWORD: Final = "of redis"


class RedisTls(Child):
    """A Redis on a free port of 127.0.0.1 whose certificate names that address and is vouched for by itself."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        assert program, "no redis-server here"
        folder = make_folder(folder)
        self.port = free_port()
        self.certificate = certificate(folder).file
        file = folder / "redis.conf"
        file.write_text(
            f'bind 127.0.0.1\nport 0\ntls-port {self.port}\ntls-auth-clients no\nrequirepass "{PASSWORD}"\n'
            f"tls-cert-file {self.certificate}\ntls-key-file {self.certificate}\ntls-ca-cert-file {self.certificate}\n"
            f'dir {folder}\nsave ""\ndatabases 64\n'
        )
        environment = unpacked_libraries(Path(program))
        super().__init__("redis", [program, file], log=folder / "log", environment=environment, ready=self._answers)

    def url(self, database: int = 0, host: str = "127.0.0.1", options: str | None = None) -> str:
        """REDIS_URL; `options` in place of the authority that vouches for the server."""
        asked = f"ssl_ca_certs={self.certificate}" if options is None else options
        return f"rediss://:{PASSWORD.replace(' ', '%20')}@{host}:{self.port}/{database}?{asked}"

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url(), socket_timeout=1, retry=None) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
