"""deploy/kubernetes: NetworkPolicies let through what the processes need of each other, and nothing else."""

from collections.abc import Iterator

import pytest

from tests.support.containers import SERVICES, parsed
from tests.support.kubernetes import (
    OVERLAYS,
    Document,
    containers,
    environment,
    labels_of_pods,
    of_kind,
    one,
    rendered,
)
from tests.support.network_policies import Party, lets_through

#: Others, who are not ours.
ELSEWHERE = [
    Party("ingress", namespace={"notifier/ingress": "allowed"}),
    Party("monitoring", namespace={"notifier/metrics": "allowed"}),
    Party("stranger", namespace={"kubernetes.io/metadata.name": "default"}),
    Party("names", namespace={"kubernetes.io/metadata.name": "kube-system"}),
    Party("istiod", namespace={"kubernetes.io/metadata.name": "istio-system"}),
    Party("internet", address="203.0.113.7"),
    Party("internet-6", address="2001:db8::7"),
    Party("private", address="10.20.30.40"),
    Party("private-6", address="fd12::7"),
    Party("cloud-metadata", address="169.254.169.254"),
]
INTERNET = {"internet", "internet-6"}
#: Ports that somebody serves or asks for: ours, the servers', DNS, mail, the web, istiod and another.
PORTS = [
    ("UDP", 53),
    *(("TCP", port) for port in (53, 25, 80, 443, 587, 4369, 5432, 5555, 5672, 6379, 8000, 9090)),
    *(("TCP", port) for port in (12345, 15012, 15672, 25672)),
]

#: Who asks, whom, by which port.
Flow = tuple[str, str, tuple[str, int]]


def parties(documents: list[Document]) -> list[Party]:
    """All that there are, of this overlay and elsewhere."""
    return [*(Party(name, labels=labels) for name, labels in labels_of_pods(documents).items()), *ELSEWHERE]


def let_through(documents: list[Document]) -> set[Flow]:
    """Every flow that the policies let through, but for those between others."""
    return {
        (client.name, server.name, port)
        for client in parties(documents)
        for server in parties(documents)
        if client.labels or server.labels
        if client.name != server.name
        for port in PORTS
        if lets_through(documents, client, server, port)
    }


def of_servers(documents: list[Document]) -> Iterator[Flow]:
    """The flows to servers, by the URLs that a process has."""
    is_managed = not of_kind(documents, "StatefulSet")
    for container in containers(documents):
        if not container.is_ours:
            continue
        name, given = container.workload["metadata"]["name"], environment(documents, container)
        if any(variable.endswith("DATABASE_URL") for variable in given):
            yield name, "private" if is_managed else "postgres", ("TCP", 5432)
        if "REDIS_URL" in given:
            yield name, "private" if is_managed else "redis", ("TCP", 6379)
        if "BROKER_URL" in given:
            yield name, "rabbitmq", ("TCP", 5672)
        if "FLOWER_BROKER_API" in given:
            yield name, "rabbitmq", ("TCP", 15672)


def needed(overlay: str) -> set[Flow]:
    """The flows that the processes need."""
    documents = rendered(overlay)
    pods = labels_of_pods(documents)
    flows = set(of_servers(documents))
    flows |= {(name, "names", (protocol, 53)) for name in pods for protocol in ("UDP", "TCP")}
    apis = {name for name, labels in pods.items() if labels["app.kubernetes.io/component"] == "api"}
    port = parsed(SERVICES["api"]["command"]).options["port"]
    flows |= {("ingress", name, ("TCP", port)) for name in apis}
    # Amazon's certificates.
    flows |= {(name, place, ("TCP", 443)) for name in apis for place in INTERNET}
    # Receivers and providers, wherever they listen.
    flows |= {(name, place, each) for name in ("worker-fresh", "worker-retry") for place in INTERNET for each in PORTS}
    if of_kind(documents, "ServiceMonitor"):
        flows |= {("monitoring", name, ("TCP", port)) for name in apis}
        flows |= {
            ("monitoring", name, ("TCP", 9090)) for name in pods if name.startswith("worker-") or name == "exporter"
        }
        flows.add(("monitoring", "postgres", ("TCP", 5432)))  # Grafana
    if of_kind(documents, "PeerAuthentication"):
        flows |= {(name, "istiod", ("TCP", 15012)) for name in pods}
    return flows


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_needed_is_let_through_and_nothing_else(overlay: str) -> None:
    found, wanted = let_through(rendered(overlay)), needed(overlay)
    assert found - wanted == set(), "let through, and not needed"
    assert wanted - found == set(), "needed, and not let through"


def test_rabbitmq_s_nodes_reach_each_other_and_nobody_else_reaches_them_so() -> None:
    documents = rendered("rabbitmq")
    labels = labels_of_pods(documents)
    one_node, other = (Party(name, labels=labels["rabbitmq"]) for name in ("rabbitmq-0", "rabbitmq-1"))
    served = {each["port"] for each in one(documents, "Service", "rabbitmq-nodes")["spec"]["ports"]}
    for port in sorted(served):
        assert lets_through(documents, one_node, other, ("TCP", port))
        assert not lets_through(documents, Party("flower", labels=labels["flower"]), other, ("TCP", port))


def test_one_api_reaches_no_other() -> None:
    labels = labels_of_pods(rendered("self-hosted"))["api"]
    assert not lets_through(
        rendered("self-hosted"), Party("api-1", labels=labels), Party("api-2", labels=labels), ("TCP", 8000)
    )
