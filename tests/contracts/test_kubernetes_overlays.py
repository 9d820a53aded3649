"""deploy/kubernetes: what each overlay adds, held against the code and the files that it speaks of."""

import copy
import json
import re
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml

from api.app import create_app
from config.parsers import parse_duration
from config.queues import WORKERS
from config.settings import read_settings
from config.wiring import Wiring
from deploy import prometheus_rule
from notifier.vocabulary.queues import DELIVERY, FAN_OUT
from tests.support.dashboards import DASHBOARDS
from tests.support.kubernetes import (
    KUBERNETES,
    OVERLAYS,
    Document,
    containers,
    data_of,
    environment,
    labels_of_pods,
    of_kind,
    one,
    pod_of,
    rendered,
    selects,
)
from tests.support.metrics import registered
from tests.support.prometheus_files import CONFIG

#: The queues that notifier_queue_oldest_due_seconds has values for.
WAITED_FOR = {*DELIVERY, FAN_OUT}


# --- mesh


def routes() -> dict[str, Any]:
    """The routes of the API in the mesh, by name."""
    return {each["name"]: each for each in one(rendered("mesh"), "VirtualService", "api")["spec"]["http"]}


def test_nothing_is_said_in_the_clear_but_metrics() -> None:
    documents = rendered("mesh")
    everything, metrics = sorted(of_kind(documents, "PeerAuthentication"), key=lambda each: "selector" in each["spec"])
    assert everything["spec"] == {"mtls": {"mode": "STRICT"}}
    assert metrics["spec"]["mtls"] == {"mode": "STRICT"}
    assert metrics["spec"]["portLevelMtls"] == {"9090": {"mode": "PERMISSIVE"}}
    chosen = {
        name for name, labels in labels_of_pods(documents).items() if selects(metrics["spec"]["selector"], labels)
    }
    assert chosen == {"worker-fresh", "worker-retry", "worker-clock", "exporter"}
    for container in containers(documents):
        if container.workload["metadata"]["name"] in chosen:
            assert [each["containerPort"] for each in container.spec["ports"]] == [9090]
    assert one(documents, "DestinationRule", "api")["spec"]["trafficPolicy"]["tls"] == {"mode": "ISTIO_MUTUAL"}


def test_every_pod_has_a_proxy_that_starts_first_and_ends_last() -> None:
    documents = rendered("mesh")
    [namespace] = of_kind(documents, "Namespace")
    assert namespace["metadata"]["labels"]["istio-injection"] == "enabled"
    for workload in of_kind(documents, "Deployment", "StatefulSet", "Job"):
        assert pod_of(workload)["metadata"]["annotations"]["sidecar.istio.io/nativeSidecar"] == "true"


def test_requests_are_shared_between_two_versions() -> None:
    documents = rendered("mesh")
    service = one(documents, "Service", "api")["spec"]["selector"]
    subsets = {each["name"]: each["labels"] for each in one(documents, "DestinationRule", "api")["spec"]["subsets"]}
    pods = labels_of_pods(documents)
    for name, workload in (("stable", "api"), ("canary", "api-canary")):
        chosen = [pod for pod, labels in pods.items() if selects({"matchLabels": {**service, **subsets[name]}}, labels)]
        assert chosen == [workload]
    for route in routes().values():
        assert {each["destination"]["subset"] for each in route["route"]} == subsets.keys()
        assert {each["destination"]["host"] for each in route["route"]} == {"api"}
        assert sum(each["weight"] for each in route["route"]) == 100
    assert routes()["changes"]["route"] == routes()["reads"]["route"], "a caller reads where it has written"


def test_the_second_version_differs_in_its_image_alone() -> None:
    documents = copy.deepcopy(rendered("mesh"))
    stable, canary = (pod_of(one(documents, "Deployment", name)) for name in ("api", "api-canary"))
    stable["metadata"]["labels"].pop("version")
    canary["metadata"]["labels"].pop("version")
    assert stable["metadata"] == canary["metadata"]
    [first], [second] = stable["spec"]["containers"], canary["spec"]["containers"]
    assert first["image"].replace("notifier:", "notifier-canary:") == second["image"]
    assert {**first, "image": ""} == {**second, "image": ""}
    assert stable["spec"].keys() - canary["spec"].keys() == {"topologySpreadConstraints"}


def test_the_second_version_migrates() -> None:
    # It is not ready before its migrations are done, and the first works on with them.
    images = {str(each): each.spec["image"] for each in containers(rendered("mesh"))}
    newer = images["Deployment api-canary/api"]
    assert images["Job migrate/roles"] == images["Job migrate/migrate"] == newer != images["Deployment api/api"]


def test_the_mesh_repeats_nothing_that_changes_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.app.configure_logs", lambda _: None)  # it would take pytest's own handlers away
    app = create_app(Wiring(read_settings({"DATABASE_URL": "postgresql://nowhere"})))
    methods = {method for rule in app.url_map.iter_rules() for method in rule.methods or ()}
    first, second = one(rendered("mesh"), "VirtualService", "api")["spec"]["http"]
    assert (first["name"], first["retries"]) == ("changes", {"attempts": 0})
    [match] = first["match"]
    repeated = {method for method in methods if not re.fullmatch(match["method"]["regex"], method)}
    assert repeated == {"GET", "HEAD", "OPTIONS"}
    assert "match" not in second
    assert second["retries"]["attempts"] > 0


def test_attempts_of_workers_go_past_the_mesh_which_would_repeat_them() -> None:
    documents = rendered("mesh")
    [internet] = (
        each for each in of_kind(documents, "NetworkPolicy") if each["metadata"]["name"] == "workers-to-internet"
    )
    [rule] = internet["spec"]["egress"]
    reached = rule["to"][0]["ipBlock"]
    for name in ("worker-fresh", "worker-retry"):
        annotations = pod_of(one(documents, "Deployment", name))["metadata"]["annotations"]
        captured = annotations["traffic.sidecar.istio.io/includeOutboundIPRanges"].split(",")
        # The mesh takes all that is not the internet.
        assert reached["cidr"] == "0.0.0.0/0"
        assert set(captured) <= set(reached["except"])
    others = {"api", "worker-clock", "exporter", "beat"}
    for name in others:
        annotations = pod_of(one(documents, "Deployment", name))["metadata"]["annotations"]
        assert annotations.keys() == {"sidecar.istio.io/nativeSidecar"}


def test_a_version_that_fails_is_left_alone_but_never_all() -> None:
    documents = rendered("mesh")
    policy = one(documents, "DestinationRule", "api")["spec"]["trafficPolicy"]
    assert policy["outlierDetection"]["consecutive5xxErrors"] > 0
    assert policy["outlierDetection"]["maxEjectionPercent"] <= 50
    settings = settings_of_the_api(documents)
    idle = parse_duration(f"PT{policy['connectionPool']['http']['idleTimeout'].upper()}")
    assert idle < settings.idle_timeout, "the API must not close what is about to be used"


def settings_of_the_api(documents: list[Document]) -> Any:
    """The settings of the API."""
    [container] = (each for each in containers(documents) if each.workload["metadata"]["name"] == "api")
    return read_settings(environment(documents, container))


def test_a_sidecar_is_believed_who_asks() -> None:
    networks = settings_of_the_api(rendered("mesh")).trusted_proxies
    assert any(ip_address("127.0.0.6") in ip_network(str(each)) for each in networks if ":" not in str(each))
    assert set(settings_of_the_api(rendered("self-hosted")).trusted_proxies) < set(networks)


def test_istio_s_gateway_takes_the_place_of_the_ingress() -> None:
    documents = rendered("mesh")
    assert of_kind(rendered("self-hosted"), "Ingress")
    assert not of_kind(documents, "Ingress")
    gateway, route = one(documents, "Gateway", "notifier"), one(documents, "VirtualService", "api")["spec"]
    assert set(route["gateways"]) == {"mesh", gateway["metadata"]["name"]}
    assert route["hosts"] == ["api", *gateway["spec"]["servers"][0]["hosts"]]


# --- observability


def test_alerts_are_those_of_deploy_prometheus() -> None:
    assert prometheus_rule.FILE.read_text() == prometheus_rule.document(), "run `make prometheus-rule`"
    alerts = yaml.load((prometheus_rule.FILE).read_text(), yaml.CSafeLoader)["spec"]
    assert one(rendered("observability"), "PrometheusRule", "notifier")["spec"] == alerts


def test_everything_that_prometheus_scrapes_is_scraped_here() -> None:
    documents = rendered("observability")
    jobs = {each["job_name"]: each for each in CONFIG["scrape_configs"] if each["job_name"].startswith("notifier-")}
    found = {}
    for monitor in of_kind(documents, "ServiceMonitor"):
        [endpoint] = monitor["spec"]["endpoints"]
        [service] = [
            each
            for each in of_kind(documents, "Service")
            if selects(monitor["spec"]["selector"], each["metadata"].get("labels", {}))
        ]
        assert endpoint["port"] in {each["name"] for each in service["spec"]["ports"]}
        [label] = endpoint["relabelings"]
        assert label["targetLabel"] == "job"
        found[label["replacement"]] = service["metadata"]["name"]
        assert endpoint["interval"] == CONFIG["global"]["scrape_interval"]
        assert endpoint["scrapeTimeout"] == CONFIG["global"]["scrape_timeout"]
        reference = endpoint["authorization"]["credentials"]
        assert reference["key"] in data_of(documents, "Secret", reference["name"])
    assert found == {name: job["dns_sd_configs"][0]["names"][0] for name, job in jobs.items()}


def test_grafana_is_given_every_dashboard() -> None:
    found = [
        each
        for each in of_kind(rendered("observability"), "ConfigMap")
        if each["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    ]
    shipped = {file.name: file.read_text() for file in (KUBERNETES.parent / "grafana/dashboards").glob("*.json")}
    assert len(shipped) == len(DASHBOARDS)
    assert {name: text for each in found for name, text in each["data"].items()} == shipped


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_documents_are_small_enough_for_kubectl_apply(overlay: str) -> None:
    # It writes each into an annotation of itself, and annotations may have 256 KiB in all.
    assert max(len(json.dumps(document)) for document in rendered(overlay)) < 200 * 1024


# --- keda


@pytest.mark.parametrize(("name", "role"), [("worker-fresh", "fresh"), ("worker-retry", "retry")])
def test_workers_are_scaled_by_the_age_of_their_own_queues(name: str, role: str) -> None:
    spec = one(rendered("keda"), "ScaledObject", name)["spec"]
    assert spec["scaleTargetRef"] == {"name": name}
    [trigger] = spec["triggers"]
    assert trigger["type"] == "prometheus"
    query = re.fullmatch(r'max\((\w+)\{(\w+)(=~|!~)"([^"]+)"\}\)', trigger["metadata"]["query"])
    assert query
    metric, label, operator, pattern = query.groups()
    assert label in registered()[metric]
    matched = {queue for queue in WAITED_FOR if bool(re.fullmatch(pattern, queue)) == (operator == "=~")}
    assert matched == WAITED_FOR & set(WORKERS[role])
    assert trigger["metadata"]["ignoreNullValues"] == "false", "no answer is not the same as nothing to do"
    assert float(trigger["metadata"]["threshold"]) > 0
    assert 1 <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    before = one(rendered("self-hosted"), "Deployment", name)["spec"]["replicas"]
    assert spec["minReplicaCount"] == before


def test_the_clock_is_not_scaled() -> None:
    assert {each["metadata"]["name"] for each in of_kind(rendered("keda"), "ScaledObject")} == {
        "worker-fresh",
        "worker-retry",
    }
    assert one(rendered("keda"), "Deployment", "worker-clock")["spec"]["replicas"] == 2


# --- rabbitmq


def test_every_process_takes_its_messages_from_rabbitmq() -> None:
    documents = rendered("rabbitmq")
    for container in containers(documents):
        given = environment(documents, container) if container.is_ours else {}
        if "REDIS_URL" in given:
            assert read_settings(given, database="DATABASE_URL" in given).broker.startswith("amqp://"), container


def test_rabbitmq_s_nodes_know_each_other() -> None:
    documents = rendered("rabbitmq")
    workload = one(documents, "StatefulSet", "rabbitmq")
    replicas, service = workload["spec"]["replicas"], workload["spec"]["serviceName"]
    assert replicas == 3, "a majority outlives one"
    lines = (KUBERNETES / "components/rabbitmq/rabbitmq.conf").read_text().splitlines()
    configured = dict(line.split(" = ", 1) for line in lines if line and not line.startswith("#"))
    nodes = [value for key, value in configured.items() if key.startswith("cluster_formation.classic_config.nodes.")]
    assert nodes == [f"rabbit@rabbitmq-{number}.{service}" for number in range(replicas)]
    assert int(configured["quorum_queue.continuous_membership_reconciliation.target_group_size"]) == replicas
    [container] = pod_of(workload)["spec"]["containers"]
    named = {each["name"]: each.get("value") for each in container["env"]}
    assert named["RABBITMQ_NODENAME"] == f"rabbit@$(POD_NAME).{service}"
    headless = one(documents, "Service", service)["spec"]
    assert headless["clusterIP"] == "None"
    assert headless["publishNotReadyAddresses"] is True
    # The users' virtual host is the one that the URL names.
    [api] = (each for each in containers(documents) if each.workload["metadata"]["name"] == "api")
    assert environment(documents, api)["BROKER_URL"].endswith(f"/{named['RABBITMQ_DEFAULT_VHOST']}")


# --- managed


def test_managed_servers_are_not_run_here() -> None:
    documents = rendered("managed")
    assert not of_kind(documents, "StatefulSet")
    assert {each["metadata"]["name"].rpartition("-")[0] for each in of_kind(documents, "Secret")} >= {
        "app-database",
        "broker",
    }
    assert not {"postgres", "redis"} & {each["metadata"]["name"] for each in of_kind(documents, "Service")}
