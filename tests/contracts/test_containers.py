"""docker-compose.yml: its services, their health, and what they may reach."""

import os
import re
import shlex
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import click
import psutil
import pytest
import redis
import yaml
from flower.options import options as flower_options
from flower.urls import handlers as flower_handlers

from api.app import create_app
from api.serving.bounds import MAX_HEAD
from config.parsers import parse_duration
from config.queues import WORKERS
from config.settings import read_settings, unknown_settings
from config.wiring import Wiring
from deploy.child_process import Child
from deploy.commands.cli import cli
from deploy.dashboards import FOLDER
from deploy.embedded import EmbeddedValkey
from deploy.ports import free_port
from notifier.storage.dashboard_role import CONNECTIONS, ROLE
from tests.support.containers import (
    COMPOSE,
    ENTRYPOINT,
    FOREIGN,
    NEEDED,
    OURS,
    SERVICES,
    STORAGE,
    WORKER_SERVICES,
    Parsed,
    environment_of,
    health_check,
    parsed,
)
from tests.support.paths import ROOT
from tests.support.running import wait_for

#: Services that run to their end: the exit code is waited for, and there is no time in which to ask for its health.
ONCE = {"roles", "migrate", "reader", "bounces"}
PUBLISHED = {"proxy", "flower", "grafana"}
CHECKED = sorted(SERVICES.keys() - ONCE)
BEAT_SERVICES = [name for name in OURS if SERVICES[name]["command"][0] == "beat"]


def seconds(duration: str) -> float:
    """A duration as Compose writes it."""
    return parse_duration(f"PT{duration.upper()}").total_seconds()


@pytest.mark.parametrize("service", OURS)
def test_commands_are_understood(service: str) -> None:
    assert parsed(SERVICES[service]["command"]).command in cli.list_commands(click.Context(cli))


def test_each_lane_has_one_service() -> None:
    roles = Counter(parsed(SERVICES[name]["command"]).options["role"] for name in WORKER_SERVICES)
    assert roles == Counter(WORKERS.keys())


def test_node_names_are_unique_and_stay_so_when_scaled() -> None:
    names = Counter(parsed(SERVICES[name]["command"]).options["name"] for name in WORKER_SERVICES)
    assert names == Counter(WORKER_SERVICES)
    # A node name ends in the host name, which is a container's own as long as none is given.
    assert not any("hostname" in SERVICES[name] or "container_name" in SERVICES[name] for name in WORKER_SERVICES)


def test_there_are_two_beats() -> None:
    assert len(BEAT_SERVICES) == 2


def test_proxy_flower_and_grafana_alone_are_published_and_on_this_host_alone() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports.keys() == PUBLISHED
    for service, published in ports.items():
        [port] = published
        address, _, inside = port.split(":")
        assert address == "127.0.0.1"
        if service in FOREIGN:
            continue
        options = parsed(SERVICES[service]["command"]).options
        assert int(inside) == options["port"]
        assert (options.get("host") or options["address"]) == "0.0.0.0"
    assert all(SERVICES[name].get("network_mode") is None for name in SERVICES)


def test_metrics_ask_for_a_token_and_are_published_nowhere() -> None:
    for service in [*WORKER_SERVICES, "exporter"]:
        assert unknown_settings(environment_of(service, NEEDED)) == []
        settings = read_settings(environment_of(service, NEEDED))
        assert settings.metrics_token == NEEDED["NOTIFIER_METRICS_TOKEN"]
        if service in WORKER_SERVICES:
            assert settings.metrics_address == ("0.0.0.0", 9090)
        assert "ports" not in SERVICES[service]
    options = parsed(SERVICES["exporter"]["command"]).options
    assert (options["host"], options["port"]) == ("0.0.0.0", 9090)
    # /metrics speaks for the process that answers: with several, counters would seem to jump.
    assert parsed(SERVICES["api"]["command"]).options["processes"] == 1


def test_the_exporter_is_healthy_where_it_answers() -> None:
    assert _asked_url("exporter") == "/health"


def test_flower_asks_for_a_password() -> None:
    assert environment_of("flower", NEEDED)["FLOWER_BASIC_AUTH"] == NEEDED["FLOWER_BASIC_AUTH"]
    for name in (name for name in environment_of("flower", NEEDED) if name.startswith("FLOWER_")):
        assert name.removeprefix("FLOWER_").lower() in flower_options


def test_servers_are_out_of_reach_from_outside() -> None:
    assert COMPOSE["networks"] == {"storage": {"internal": True}, "metrics": {"internal": True}}
    for name in STORAGE:
        assert SERVICES[name]["networks"] == ["storage"]
    # It may be reached by none but those that may: it has no password. And it has no business with the servers.
    assert SERVICES["prometheus"]["networks"] == ["metrics"]
    # The way in to both: it has a password, and reads Postgres as a role of its own.
    assert set(SERVICES["grafana"]["networks"]) == {"default", "storage", "metrics"}
    for name in OURS:
        assert set(SERVICES[name]["networks"]) == {"default", "storage", "metrics"}
    # Callers come by it, and it reaches the API alone.
    assert SERVICES["proxy"]["networks"] == ["default"]


NGINX = (ROOT / "deploy/nginx/nginx.conf").read_text()


def _nginx(directive: str) -> list[str]:
    """Return what the proxy's configuration gives for a directive, wherever it stands."""
    return re.findall(rf"^\s*{directive} +([^;{{]+);", NGINX, re.MULTILINE)


def _bytes(size: str) -> int:
    return int(size.rstrip("km")) * {"k": 1024, "m": 1024 * 1024}[size[-1]]


def test_the_proxy_stands_before_the_api_and_holds_callers_to_the_same_bounds() -> None:
    [mounted, inside, mode] = SERVICES["proxy"]["volumes"][0].split(":")
    assert (ROOT / mounted).read_text() == NGINX
    assert (inside, mode) == ("/etc/nginx/nginx.conf", "ro")
    [port] = SERVICES["proxy"]["ports"]
    assert port.rsplit(":", 1)[1] == _nginx("listen")[0]
    assert health_check("proxy")[-1] == f"http://127.0.0.1:{_nginx('listen')[0]}/health"
    assert _nginx("server") == [f"api:{parsed(SERVICES['api']['command']).options['port']} resolve"]
    assert set(_nginx("proxy_pass")) == {"http://api"}
    assert _nginx("proxy_request_buffering") == ["on"]
    settings = read_settings(environment_of("api", NEEDED))
    assert _nginx("client_header_timeout") == [f"{settings.head_timeout.total_seconds():g}s"]
    waits, behind = (seconds(each) for each in _nginx("keepalive_timeout"))
    assert waits == settings.idle_timeout.total_seconds() > behind
    assert _nginx("limit_conn") == [f"addresses {settings.connections_per_address}"]
    number, size = _nginx("large_client_header_buffers")[0].split()
    assert int(number) * _bytes(size) == MAX_HEAD
    # Nobody is believed who says where somebody else is.
    assert "X-Forwarded-For $remote_addr" in _nginx("proxy_set_header")
    assert settings.trusted_proxies


def test_the_proxy_takes_the_bodies_that_the_api_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.app.configure_logs", lambda _: None)  # it would take pytest's own handlers away
    app = create_app(Wiring(read_settings(environment_of("api", NEEDED))))
    given = re.findall(r"location (?:= )?(/\S+) \{\s*client_max_body_size (\w+);", NGINX)
    limits = {path: _bytes(size) for path, size in given}
    assert len(limits) == 7
    bodies = app.extensions["heads"].rules
    most: dict[str, int] = {}
    for route in app.url_map.iter_rules():
        largest = max(bodies[route.endpoint, method].limit for method in route.methods or ())
        most[route.rule] = max(largest, most.get(route.rule, 0))
    [otherwise] = set(_nginx("client_max_body_size")) - {size for _, size in given}
    for path, limit in most.items():
        taken = limits["/u/"] if path.startswith("/u/") else limits.get(path, _bytes(otherwise))
        assert limit <= taken <= max(limit * 1.2, 1024 * 1024), path


def test_grafana_asks_for_a_password_and_tells_nobody_anything() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"] == NEEDED["GRAFANA_PASSWORD"]
    assert environment["NOTIFIER_READER_PASSWORD"] == NEEDED["NOTIFIER_READER_PASSWORD"]
    assert {name for name, given in environment.items() if given == "false"} >= {
        "GF_AUTH_ANONYMOUS_ENABLED",
        "GF_USERS_ALLOW_SIGN_UP",
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
    }
    # The users' own DATABASE_URL is none of its business.
    assert not any(NEEDED["POSTGRES_PASSWORD"] in value for value in environment.values())
    assert SERVICES["grafana"]["depends_on"] == {"reader": {"condition": "service_completed_successfully"}}


def test_grafana_is_given_its_data_sources_and_dashboards_to_read() -> None:
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in SERVICES["grafana"]["volumes"])
    assert all(volume.endswith(":ro") for volume in SERVICES["grafana"]["volumes"])
    inside = {target: ROOT / source for source, target in mounts.items()}
    for kind in ("datasources", "dashboards"):
        assert inside[f"/etc/grafana/provisioning/{kind}"] == ROOT / "deploy/grafana/provisioning" / kind
    [provider] = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/notifier.yaml").read_text())[
        "providers"
    ]
    folder = inside[provider["options"]["path"]]
    assert folder == FOLDER
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (inside[str(home.parent)] / home.name).is_file()


def test_grafana_s_data_sources_are_services() -> None:
    document = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/notifier.yaml").read_text())
    prometheus, postgres = document["datasources"]
    assert urlsplit(prometheus["url"]).hostname in SERVICES
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert prometheus["jsonData"]["timeInterval"] == scraped
    host, _, port = postgres["url"].partition(":")
    assert (host, port) == ("postgres", "5432")
    assert postgres["jsonData"]["database"] == SERVICES["postgres"]["environment"]["POSTGRES_DB"]
    assert postgres["user"] == parsed(SERVICES["reader"]["command"]).options["role"]
    # Pools of one Grafana fit what the role may have.
    assert postgres["jsonData"]["maxOpenConns"] <= CONNECTIONS


@pytest.mark.parametrize("service", CHECKED)
def test_health_is_checked_in_time(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    assert health_check(service)
    assert check.keys() == {"test", "interval", "timeout", "retries", "start_period"}
    assert seconds(check["timeout"]) <= seconds(check["interval"])


@pytest.mark.parametrize("service", [*WORKER_SERVICES, *BEAT_SERVICES])
def test_workers_and_beats_are_healthy_where_they_were_seen(service: str) -> None:
    program, script, *arguments = health_check(service)
    assert [program, script] == ENTRYPOINT
    check = parsed(arguments)
    assert check.command == "alive"
    file = parsed(SERVICES[service]["command"]).options["sign_file"]
    assert check.options == {"name": None, "sign_file": file}
    assert str(file.parent) in SERVICES[service]["tmpfs"]


def _asked_url(service: str) -> str:
    """The URL that a service's health check asks for; anything but a 2xx is an exception there."""
    program, option, code = health_check(service)
    assert [program, option] == ["python", "-c"]
    compile(code, service, "exec")
    found = re.search(r'urlopen\("([^"]+)", timeout=(\d+)\)', code)
    assert found
    assert float(found[2]) < seconds(SERVICES[service]["healthcheck"]["timeout"])
    url = urlsplit(found[1])
    assert (url.scheme, url.hostname) == ("http", "127.0.0.1")
    assert url.port == parsed(SERVICES[service]["command"]).options["port"]
    return url.path


def test_the_api_is_healthy_where_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.app.configure_logs", lambda _: None)  # it would take pytest's own handlers away
    app = create_app(Wiring(read_settings(environment_of("api", NEEDED))))
    endpoint, _ = app.url_map.bind("127.0.0.1").match(_asked_url("api"), "GET")
    assert endpoint == "operating.get_readiness"


def test_flower_is_healthy_where_it_answers() -> None:
    assert _asked_url("flower") in [handler[0] for handler in flower_handlers if isinstance(handler, tuple)]


def test_postgres_is_healthy_where_it_takes_connections_by_tcp() -> None:
    program, *arguments = health_check("postgres")
    postgres = SERVICES["postgres"]["environment"]
    assert program == "pg_isready"
    assert {
        "--host=127.0.0.1",
        f"--username={postgres['POSTGRES_USER']}",
        f"--dbname={postgres['POSTGRES_DB']}",
    } <= set(arguments)


def test_redis_is_durable_and_forgets_nothing() -> None:
    [script] = SERVICES["redis"]["command"]
    program, _, *arguments = shlex.split(script.partition("exec ")[2].replace("\\\n", ""))
    assert program == "valkey-server"
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert SERVICES["redis"]["volumes"] == [f"redis:{given['--dir']}"]
    assert given["--appendonly"] == "yes"
    assert given["--appendfsync"] == "everysec"
    assert given["--maxmemory-policy"] == "noeviction"
    # noeviction means something only under a limit, which must be reached before the container's own.
    assert 0 < _megabytes(given["--maxmemory"]) < _megabytes(SERVICES["redis"]["mem_limit"])
    assert health_check("redis") == ["valkey-cli", "-e", "ping"]


def test_redis_asks_for_its_password_which_no_command_line_shows(tmp_path: Path) -> None:
    """Run what the container runs, with the program of the embedded stack."""
    server = EmbeddedValkey(tmp_path / "other")._find_program()
    port = free_port()
    (tmp_path / "valkey-server").write_text(
        f'#!/bin/sh\nexec {server} "$1" --port {port} --bind 127.0.0.1 --appendonly no --dir {tmp_path}\n'
    )
    (tmp_path / "valkey-server").chmod(0o700)
    [script] = SERVICES["redis"]["command"]
    environment = environment_of("redis", NEEDED)
    child = Child(
        "redis",
        [*SERVICES["redis"]["entrypoint"], script.replace("/tmp/", f"{tmp_path}/")],
        log=tmp_path / "log",
        environment={**environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    child.start()
    try:
        with redis.Redis(port=port, retry=None) as stranger:
            wait_for(lambda: _says_no(stranger), what="an answer")
        with redis.Redis(port=port, password=NEEDED["REDIS_PASSWORD"]) as client:
            assert client.ping()
        process = psutil.Process(child.pid)
        assert not any(value in word for value in NEEDED.values() for word in process.cmdline())
        assert not set(NEEDED.values()) & set(process.environ().values())
        assert (tmp_path / "password.conf").stat().st_mode & 0o077 == 0
    finally:
        child.stop()
    assert "valkey-cli" in health_check("redis")
    assert environment["REDISCLI_AUTH"] == NEEDED["REDIS_PASSWORD"]


def _says_no(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.AuthenticationError:
        return True
    except redis.ConnectionError:
        return False
    raise AssertionError("it took one without a password")


def _megabytes(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(mb?|gb?)", size).groups()  # type: ignore[union-attr]  # the file says one
    return int(number) * (1024 if unit.startswith("g") else 1)


def test_data_is_on_volumes() -> None:
    # Up to 17 it was …/data; mounted there, an image of 18 or later would write past the volume.
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]
    assert "prometheus:/prometheus" in SERVICES["prometheus"]["volumes"]
    assert COMPOSE["volumes"].keys() == FOREIGN - {"grafana", "proxy"}


def test_images_of_others_are_pinned_by_digest() -> None:
    for name in FOREIGN:
        assert re.fullmatch(r"[\w/-]+:v?\d+(\.\d+)*(-\w+)?@sha256:[0-9a-f]{64}", SERVICES[name]["image"]), name


@pytest.mark.parametrize("service", SERVICES)
def test_containers_are_contained(service: str) -> None:
    given = SERVICES[service]
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert given["init"] is True
    assert 0 < _megabytes(given["mem_limit"]) <= 1024
    for more in ("privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"):
        assert more not in given
    if service in FOREIGN:
        assert given["user"] not in {"root", "0"}
    else:
        assert "user" not in given, "the Dockerfile says who runs it"
    assert not any("docker.sock" in volume for volume in given.get("volumes", []))


@pytest.mark.parametrize("service", SERVICES)
def test_what_ends_is_started_again(service: str) -> None:
    assert SERVICES[service]["restart"] == ("no" if service in ONCE else "unless-stopped")


def test_processes_wait_for_what_they_need() -> None:
    assert SERVICES["roles"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["depends_on"] == {"roles": {"condition": "service_completed_successfully"}}
    assert parsed(SERVICES["roles"]["command"]) == Parsed("roles", {})
    for name in OURS:
        if name not in ONCE:
            assert SERVICES[name]["depends_on"] == {
                "migrate": {"condition": "service_completed_successfully"},
                "redis": {"condition": "service_healthy"},
            }
    for name in FOREIGN - {"grafana"}:
        assert "depends_on" not in SERVICES[name]
    assert parsed(SERVICES["migrate"]["command"]) == Parsed("migrate", {})
    # Its grants are for the tables that a migration has left.
    assert SERVICES["reader"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert parsed(SERVICES["reader"]["command"]) == Parsed("reader", {"role": ROLE})


@pytest.mark.parametrize("service", [name for name in WORKER_SERVICES if name != "worker-clock"])
def test_workers_get_the_time_to_end_their_batches(service: str) -> None:
    settings = read_settings(environment_of(service, NEEDED))
    longest = settings.sending_window + max(settings.email_timeout, settings.webhook_timeout)
    assert seconds(SERVICES[service]["stop_grace_period"]) > longest.total_seconds()


def test_one_service_builds_the_image_for_all() -> None:
    # Several that build the same name do it side by side, and the containerd image store refuses the second.
    assert [name for name in SERVICES if "build" in SERVICES[name]] == ["roles"]
    for name in OURS:
        assert (SERVICES[name]["image"], SERVICES[name]["pull_policy"]) == ("notifier", "never")
        assert "entrypoint" not in SERVICES[name]
