"""deploy/kubernetes: each process is given what the code needs, asked for its health where it tells, and contained."""

import subprocess
from dataclasses import fields
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import requests
from flower.options import options as flower_options
from flower.urls import handlers as flower_handlers
from prometheus_client import CollectorRegistry
from sqlalchemy import make_url

from api import health
from api.app import create_app
from api.serving import server
from config import wiring
from config.metrics_server import MetricsServer
from config.parsers import parse_duration
from config.queues import WORKERS
from config.settings import Settings, read_settings, unknown_settings
from config.wiring import Wiring
from deploy.commands.cli import cli
from notifier import migrations
from notifier.storage.database_roles import APP, OWNER
from tests.support.containers import ENTRYPOINT, FILE, NEEDED, SERVICES, parsed, the_one
from tests.support.kubernetes import (
    KUBERNETES,
    OVERLAYS,
    Container,
    Document,
    containers,
    environment,
    of_kind,
    one,
    pod_of,
    rendered,
    secret_names,
    secrets,
)

SETTINGS = {entry.metadata["env"] for entry in fields(Settings)}
#: Each process → the Secrets that it is given.
SECRETS = {
    "roles": {"admin-database", "owner-database", "app-database"},
    "migrate": {"owner-database"},
    "reader": {"admin-database", "reader"},
    "api": {"app-database", "broker", "sending", "metrics"},
    "worker": {"app-database", "broker", "sending", "metrics"},
    "beat": {"broker"},
    "exporter": {"app-database", "broker", "metrics"},
    "flower": {"broker", "flower"},
}
#: Variables that the Secrets of a broker beside Redis add.
BROKER_BESIDE = {"rabbitmq-url", "rabbitmq-flower"}


def ours(overlay: str) -> list[Container]:
    """The containers that run manage.py."""
    return [each for each in containers(rendered(overlay)) if each.is_ours]


def service_of(container: Container) -> str:
    """The service of docker-compose.yml that runs the same."""
    name = container.workload["metadata"]["name"]
    return {"api-canary": "api", "beat": "beat-1", "migrate": container.spec["name"]}.get(name, name)


def settings_of(overlay: str, container: Container) -> Settings:
    """The settings that a process reads."""
    given = environment(rendered(overlay), container)
    return read_settings(given, database="DATABASE_URL" in given)


# --- Commands, ports and probes


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_are_those_of_docker_compose(overlay: str) -> None:
    for container in ours(overlay):
        assert "command" not in container.spec, "the image's entry point is manage.py"
        command = parsed(container.spec["args"])
        assert command.command in cli.list_commands(click.Context(cli))
        assert command == parsed(SERVICES[service_of(container)]["command"]), container


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_lane_and_service_is_run(overlay: str) -> None:
    found = {service_of(each) for each in ours(overlay)}
    assert found >= {"roles", "migrate", "api", "beat-1", "exporter", "flower"}
    roles = {parsed(each.spec["args"]).options["role"] for each in ours(overlay) if each.spec["name"] == "worker"}
    assert roles == WORKERS.keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_are_those_that_the_code_serves(overlay: str) -> None:
    for container in ours(overlay):
        given = {each["name"]: each["containerPort"] for each in container.spec.get("ports", ())}
        options = parsed(container.spec["args"]).options
        if container.spec["name"] == "worker":
            address = settings_of(overlay, container).metrics_address
            assert address
            assert (address[0], given) == ("0.0.0.0", {"metrics": address[1]})
        elif "port" in options:
            assert list(given.values()) == [options["port"]]
            assert (options.get("host") or options["address"]) == "0.0.0.0"
        else:
            assert not given


@cache
def served_by_the_exporter(path: str) -> bool:
    """Whether the server of metrics answers there."""
    with MetricsServer(CollectorRegistry(), ("127.0.0.1", 0), "token") as served:
        served.start()
        return requests.get(f"http://127.0.0.1:{served.server_address[1]}{path}", timeout=10).status_code == 200


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_the_code_answers(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.app.configure_logs", lambda _: None)  # it would take pytest's own handlers away
    urls = create_app(Wiring(read_settings({"DATABASE_URL": "postgresql://nowhere"}))).url_map.bind("127.0.0.1")
    for container in ours(overlay):
        probes = {name: each for name, each in container.spec.items() if name.endswith("Probe")}
        ports = {each["name"] for each in container.spec.get("ports", ())}
        name = container.spec["name"]
        if name in {"roles", "migrate", "reader"}:
            assert not probes, "it runs to its end"
            continue
        paths = {kind: each["httpGet"]["path"] for kind, each in probes.items() if "httpGet" in each}
        assert {each["httpGet"]["port"] for each in probes.values() if "httpGet" in each} <= ports
        if name == "api":
            endpoints = {kind: urls.match(path, "GET")[0] for kind, path in paths.items()}
            alive, ready = "operating.get_health", "operating.get_readiness"
            assert endpoints == {"startupProbe": alive, "livenessProbe": alive, "readinessProbe": ready}
        elif name in {"exporter", "flower"}:
            assert paths.keys() == {"startupProbe", "livenessProbe", "readinessProbe"}
            [path] = set(paths.values())
            if name == "exporter":
                assert served_by_the_exporter(path)
            else:
                assert path in [handler[0] for handler in flower_handlers if isinstance(handler, tuple)]
        else:
            # Of its file, not of the database: a worker that waits for Postgres is well.
            assert probes.keys() == {"startupProbe", "livenessProbe"}
            for probe in probes.values():
                assert probe["exec"]["command"][:2] == ENTRYPOINT
                asked = parsed(probe["exec"]["command"][2:])
                file: Path = parsed(container.spec["args"]).options["sign_file"]
                assert (asked.command, asked.options) == ("alive", {"name": None, "sign_file": file})
                assert str(file.parent) in [each["mountPath"] for each in container.spec["volumeMounts"]]


def test_probes_have_the_time_that_answers_take() -> None:
    for container in ours("self-hosted"):
        if container.spec["name"] == "worker":
            startup = container.spec["startupProbe"]
            # It waits for a migration, whose every revision may wait for its locks.
            assert startup["periodSeconds"] * startup["failureThreshold"] >= 4 * migrations.PATIENCE
        if container.spec["name"] == "api":
            assert container.spec["readinessProbe"]["timeoutSeconds"] > 2 * health._READY_SECONDS


# --- Ending in order


def test_processes_have_the_time_that_they_take_to_end() -> None:
    for workload in of_kind(rendered("self-hosted"), "Deployment", "StatefulSet"):
        name, spec = workload["metadata"]["name"], pod_of(workload)["spec"]
        composed = SERVICES["beat-1" if name == "beat" else name].get("stop_grace_period", "10s")
        assert spec["terminationGracePeriodSeconds"] >= parse_duration(f"PT{composed.upper()}").total_seconds(), name


@pytest.mark.parametrize("name", ["worker-fresh", "worker-retry"])
def test_workers_end_what_they_send(name: str) -> None:
    workload = one(rendered("self-hosted"), "Deployment", name)
    # Email has the longest deadline of the channels, once for each provider.
    two = {"DATABASE_URL": "postgresql://nowhere", "NOTIFIER_EMAIL": "smtp://one, smtp://two"}
    longest = Wiring(read_settings(two)).longest_batch
    assert longest > 60
    assert pod_of(workload)["spec"]["terminationGracePeriodSeconds"] >= longest


def test_the_api_ends_what_is_under_way_after_no_more_comes() -> None:
    spec = pod_of(one(rendered("self-hosted"), "Deployment", "api"))["spec"]
    [container] = spec["containers"]
    program, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert float(pause) + server._GRACE < spec["terminationGracePeriodSeconds"]


# --- Settings and secrets


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_variables_are_settings_and_are_understood(overlay: str) -> None:
    for container in ours(overlay):
        given = environment(rendered(overlay), container)
        assert unknown_settings(given) == []
        for name in given.keys() - SETTINGS:
            assert name.removeprefix("FLOWER_").lower() in flower_options, container
        settings = settings_of(overlay, container)
        assert settings.log_format == "json"
        assert settings.auth == "required"
        assert settings.trusted_proxies
    keys = {key for values in secrets().values() for key in values if key.startswith("NOTIFIER_")}
    assert keys <= SETTINGS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_process_has_the_secrets_that_it_needs_and_no_others(overlay: str) -> None:
    for container in ours(overlay):
        given = set(secret_names(container))
        assert given - BROKER_BESIDE == SECRETS[container.spec["name"]], container
        # None has more than docker-compose.yml gives it.
        variables = {key for name in given for key in secrets()[name]} - {"FLOWER_BROKER_API"}
        assert variables <= FILE["services"][service_of(container)]["environment"].keys(), container
        literal = [each for each in container.spec.get("env", ()) if "value" in each]
        assert {each["name"] for each in literal} <= {"FLOWER_MAX_TASKS"}


def test_the_urls_of_the_secrets_lead_to_the_servers() -> None:
    documents = rendered("rabbitmq")
    made = {key: value for values in secrets().values() for key, value in values.items()}
    postgres = {each["name"]: each["value"] for each in database(documents)["env"]}
    for variable, user in (
        ("NOTIFIER_ADMIN_DATABASE_URL", postgres["POSTGRES_USER"]),
        ("NOTIFIER_MIGRATION_DATABASE_URL", OWNER),
        ("DATABASE_URL", APP),
    ):
        url = make_url(made[variable])
        assert (url.username, url.host, url.database) == (user, "postgres", postgres["POSTGRES_DB"])
        assert url.port in ports_of(documents, "postgres")
    assert make_url(made["NOTIFIER_ADMIN_DATABASE_URL"]).password == made["POSTGRES_PASSWORD"]
    assert len({make_url(made[name]).password for name in made if name.endswith("DATABASE_URL")}) == 3
    redis, rabbitmq, pages = (urlsplit(made[name]) for name in ("REDIS_URL", "BROKER_URL", "FLOWER_BROKER_API"))
    assert redis.password == made["REDISCLI_AUTH"]
    assert rabbitmq.password == pages.password == made["RABBITMQ_DEFAULT_PASS"]
    assert rabbitmq.username == pages.username == made["RABBITMQ_DEFAULT_USER"]
    for url, name in ((redis, "redis"), (rabbitmq, "rabbitmq"), (pages, "rabbitmq")):
        assert url.hostname == name
        assert url.port in ports_of(documents, name)


def database(documents: list[Document]) -> dict[str, list[dict[str, str]]]:
    """The container of Postgres."""
    [container] = pod_of(one(documents, "StatefulSet", "postgres"))["spec"]["containers"]
    return container  # type: ignore[no-any-return]  # a document of YAML


def ports_of(documents: list[Document], service: str) -> list[int]:
    """The ports of a Service."""
    return [each["port"] for each in one(documents, "Service", service)["spec"]["ports"]]


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    for folder in (KUBERNETES / "secrets").iterdir():
        if folder.is_dir():
            (tmp_path / folder.name).mkdir()
    (tmp_path / "make").write_text((KUBERNETES / "secrets/make").read_text())
    first = subprocess.run(["sh", tmp_path / "make"], check=True, capture_output=True, text=True, timeout=20)
    files = {file: file.read_text() for file in tmp_path.rglob("*.env")}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert first.stderr == ""
    (tmp_path / "flower.env").unlink()
    again = subprocess.run(["sh", tmp_path / "make"], check=False, capture_output=True, text=True, timeout=20)
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 1
    assert not (tmp_path / "flower.env").exists()
    assert all(file.read_text() == text for file, text in files.items() if file.exists())
    # As long as what .env.example asks for.
    assert len(files[tmp_path / "metrics.env"].strip().partition("=")[2]) == 48
    assert read_settings(
        {"DATABASE_URL": "postgresql://nowhere"}
        | dict(line.split("=", 1) for line in files[tmp_path / "sending.env"].splitlines() if not line.startswith("#"))
    ).email == ("outbox:",)


# --- Contained


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_containers_are_contained(overlay: str) -> None:
    user, _, group = the_one("USER").partition(":")
    for container in containers(rendered(overlay)):
        pod = pod_of(container.workload)["spec"]
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostAliases", "serviceAccountName"}
        assert pod["automountServiceAccountToken"] is False
        # Kubernetes' variables for a Service called flower would be taken for Flower's own, and worse.
        assert pod["enableServiceLinks"] is False
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["runAsUser"] > 0
        if container.is_ours:
            assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
        assert container.spec["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container.spec["resources"]["limits"]["memory"]
        assert container.spec["resources"]["requests"].keys() == {"cpu", "memory"}
        for volume in pod.get("volumes", ()):
            assert volume.keys() <= {"name", "emptyDir", "configMap", "secret"}, container
            assert volume.get("emptyDir", {"sizeLimit": ""}).keys() >= {"sizeLimit"}


# --- Kept running


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_drains_are_not_held_up(overlay: str) -> None:
    documents = rendered(overlay)
    for budget in of_kind(documents, "PodDisruptionBudget"):
        spec = budget["spec"]
        assert "minAvailable" not in spec, "with one pod it would hold a drain up for ever"
        assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    several = {
        each["metadata"]["name"]
        for each in of_kind(documents, "Deployment", "StatefulSet")
        if each["spec"].get("replicas", 2) > 1
    }
    assert several <= {each["metadata"]["name"] for each in of_kind(documents, "PodDisruptionBudget")}


def test_two_beats_are_on_different_nodes() -> None:
    beat = one(rendered("self-hosted"), "Deployment", "beat")
    assert beat["spec"]["replicas"] == 2
    # A third pod would find no node where there are two.
    assert beat["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    rules = pod_of(beat)["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [each["topologyKey"] for each in rules] == ["kubernetes.io/hostname"]


def test_pods_are_spread_over_zones_and_nodes() -> None:
    for name in ("api", "worker-fresh", "worker-retry", "worker-clock"):
        spread = pod_of(one(rendered("self-hosted"), "Deployment", name))["spec"]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}


def test_postgres_has_a_connection_for_each_that_may_ask() -> None:
    keda, mesh = rendered("keda"), rendered("mesh")
    scalers = of_kind(keda, "ScaledObject", "HorizontalPodAutoscaler")
    most = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"].get("maxReplicaCount") or each["spec"]["maxReplicas"]
        for each in scalers
    }
    engine = wiring.make_engine(read_settings({"DATABASE_URL": "postgresql://nowhere"}))
    each_has = engine.pool.size() + engine.pool._max_overflow + wiring._MOST_BESIDE  # type: ignore[attr-defined]  # QueuePool's
    asked = 0
    for workload in of_kind(mesh, "Deployment"):
        [container] = (each for each in containers([workload]))
        if "DATABASE_URL" in environment(mesh, container):
            name = workload["metadata"]["name"]
            asked += most.get(name, workload["spec"].get("replicas", 1)) + 1  # one more in a rollout
    arguments = [each.removeprefix("-c") for each in database(mesh)["args"]]
    given = dict(each.split("=", 1) for each in arguments if "=" in each)  # type: ignore[attr-defined]  # of words
    # And some for Jobs, and for who looks.
    assert asked * each_has + 50 <= int(given["max_connections"])


def test_servers_are_those_of_docker_compose() -> None:
    documents = rendered("self-hosted")
    postgres, redis = (
        pod_of(one(documents, "StatefulSet", name))["spec"]["containers"][0] for name in ("postgres", "redis")
    )
    own = {"max_connections", "shared_buffers"}
    composed = [word for word in SERVICES["postgres"]["command"] if word != "-c"]
    assert [word for word in composed if word.partition("=")[0] not in own] == [
        word.removeprefix("-c") for word in postgres["args"] if word.removeprefix("-c").partition("=")[0] not in own
    ]
    literal = {each["name"]: each["value"] for each in postgres["env"]}
    assert literal.items() <= SERVICES["postgres"]["environment"].items()
    assert SERVICES["postgres"]["environment"].keys() - literal.keys() == {"POSTGRES_PASSWORD"}
    assert redis["command"] == SERVICES["redis"]["entrypoint"]
    assert redis["args"] == SERVICES["redis"]["command"]
    for container, name in ((postgres, "postgres"), (redis, "redis")):
        kind, *check = SERVICES[name]["healthcheck"]["test"]
        assert kind == "CMD"
        assert {tuple(container[each]["exec"]["command"]) for each in container if each.endswith("Probe")} == {
            tuple(check)
        }
        mounted = {each["mountPath"] for each in container["volumeMounts"] if each["name"] == "data"}
        assert mounted == {volume.split(":")[1] for volume in SERVICES[name]["volumes"]}


def test_the_examples_of_secrets_are_those_of_docker_compose() -> None:
    """All that .env.example asks for is made here too, but for what only docker-compose.yml runs."""
    made = {key for values in secrets().values() for key in values}
    by_url = {"POSTGRES_OWNER_PASSWORD", "POSTGRES_APP_PASSWORD", "REDIS_PASSWORD"}
    assert NEEDED.keys() - made == by_url | {"GRAFANA_PASSWORD"}
