"""deploy/kubernetes: its documents are valid, whole, and name each other rightly."""

import copy
import functools
import json
import subprocess
from collections import Counter
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from notifier import VERSION
from tests.support.containers import SERVICES
from tests.support.kubernetes import (
    KUBERNETES,
    OVERLAYS,
    WORKLOADS,
    Document,
    containers,
    data_of,
    labels_of_pods,
    name_of,
    of_kind,
    one,
    pod_of,
    rendered,
    secrets,
    selects,
)
from tests.support.node_packages import NODE, node_modules
from tests.support.paths import ROOT

#: The oldest Kubernetes that docs/kubernetes.md promises, and the newest that there are schemas of.
VERSIONS = ("1.29.0", "1.37.0")
EXTENSIONS = ("keda.sh/", "istio.io/", "monitoring.coreos.com/")
#: Kinds that stand in no namespace.
GLOBAL = {"Namespace"}


def is_extension(document: Document) -> bool:
    """Whether a document is of a kind that Kubernetes itself does not know."""
    return any(group in document["apiVersion"] for group in EXTENSIONS)


def distinct(*, extensions: bool) -> list[Document]:
    """The documents of all overlays, each once."""
    found = {
        json.dumps(document, sort_keys=True): document
        for overlay in OVERLAYS
        for document in rendered(overlay)
        if is_extension(document) == extensions
    }
    return list(found.values())


def test_the_overlays_are_those_that_are_documented() -> None:
    assert OVERLAYS == ["keda", "managed", "mesh", "observability", "rabbitmq", "self-hosted"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # It would read a megabyte of definitions anew for each document.
    monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    documents = distinct(extensions=False)
    assert len(documents) > 60
    faults = []
    for document in documents:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            faults.append(f"{name_of(document)}: {error.message}")
    assert not faults


def test_the_newest_schemas_are_asked() -> None:
    assert VERSIONS[1] == kubernetes_validate.latest_version(), "name the newer one in VERSIONS"


def checked_by_node(documents: list[Document]) -> list[str]:
    """Return the objections of the extensions' schemas to documents."""
    script = (ROOT / "tests/data/check_resources.mjs").read_text()
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", script],
        cwd=node_modules().parent,  # where Node looks for packages
        input=json.dumps(documents),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    complaints: list[str] = json.loads(done.stdout)
    return complaints


def test_the_extensions_know_every_field() -> None:
    documents = distinct(extensions=True)
    assert {document["kind"] for document in documents} == {
        *{"Gateway", "VirtualService", "DestinationRule", "PeerAuthentication"},
        *{"ServiceMonitor", "PrometheusRule", "ScaledObject"},
    }
    assert checked_by_node(documents) == []


def test_a_misspelt_field_of_an_extension_is_found() -> None:
    misspelt, mistyped = (copy.deepcopy(one(rendered("keda"), "ScaledObject", "worker-fresh")) for _ in range(2))
    misspelt["spec"]["maxReplicas"] = misspelt["spec"].pop("maxReplicaCount")
    assert checked_by_node([misspelt]) == ["ScaledObject worker-fresh: no schema knows spec.maxReplicas"]
    mistyped["spec"]["pollingInterval"] = "15"
    [complaint] = checked_by_node([mistyped])
    assert "pollingInterval must be integer" in complaint


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_are_unique_and_in_one_namespace(overlay: str) -> None:
    documents = rendered(overlay)
    assert max(Counter(map(name_of, documents)).values()) == 1
    assert {each["metadata"].get("namespace") for each in documents if each["kind"] not in GLOBAL} == {"notifier"}
    [namespace] = of_kind(documents, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_document_says_what_it_is_part_of(overlay: str) -> None:
    for document in rendered(overlay):
        if document["kind"] in WORKLOADS:
            assert pod_of(document)["metadata"]["labels"]["app.kubernetes.io/part-of"] == "notifier", name_of(document)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_configmaps_and_secrets_that_are_named_are_there(overlay: str) -> None:
    documents = rendered(overlay)
    for container in containers(documents):
        for each in container.spec.get("envFrom", ()):
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in each:
                    assert data_of(documents, kind, each[key]["name"]), container
        mounted = {each["name"] for each in container.spec.get("volumeMounts", ())}
        volumes = {each["name"]: each for each in pod_of(container.workload)["spec"].get("volumes", ())}
        claims = {each["metadata"]["name"] for each in container.workload["spec"].get("volumeClaimTemplates", ())}
        assert mounted <= volumes.keys() | claims, container
        for volume in volumes.values():
            if "configMap" in volume:
                data = data_of(documents, "ConfigMap", volume["configMap"]["name"])
                paths = {
                    each.get("subPath") for each in container.spec["volumeMounts"] if each["name"] == volume["name"]
                }
                assert paths <= {*data, None}
            if "secret" in volume:
                data = data_of(documents, "Secret", volume["secret"]["secretName"])
                assert {each["key"] for each in volume["secret"]["items"]} <= data.keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_made_of_files_changes_its_name_with_them(overlay: str) -> None:
    documents = rendered(overlay)
    for document in of_kind(documents, "ConfigMap", "Secret"):
        name, _, digest = document["metadata"]["name"].rpartition("-")
        assert name
        assert len(digest) == 10
    named = {each["metadata"]["name"].rpartition("-")[0] for each in of_kind(documents, "Secret")}
    assert named <= secrets().keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_choose_what_they_mean(overlay: str) -> None:
    documents = rendered(overlay)
    pods = labels_of_pods(documents)
    for workload in of_kind(documents, "Deployment", "StatefulSet"):
        name, selector = workload["metadata"]["name"], workload["spec"]["selector"]
        # Its own pods and nobody else's: two that share pods fight for them.
        assert [each for each, labels in pods.items() if selects(selector, labels)] == [name]
        spec = pod_of(workload)["spec"]
        spread = spec.get("topologySpreadConstraints", ())
        rules = spec.get("affinity", {}).get("podAntiAffinity", {})
        for each in (*spread, *rules.get("requiredDuringSchedulingIgnoredDuringExecution", ())):
            assert selects(each["labelSelector"], pods[name]), name_of(workload)
    for document in of_kind(documents, "Service", "PodDisruptionBudget"):
        selector = document["spec"]["selector"]
        wanted = selector if document["kind"] == "PodDisruptionBudget" else {"matchLabels": selector}
        assert [each for each, labels in pods.items() if selects(wanted, labels)], name_of(document)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_and_the_ingress_lead_to_ports_that_there_are(overlay: str) -> None:
    documents = rendered(overlay)
    for service in of_kind(documents, "Service"):
        for workload in of_kind(documents, *WORKLOADS):
            template = pod_of(workload)
            if not selects({"matchLabels": service["spec"]["selector"]}, template["metadata"]["labels"]):
                continue
            given = [port for each in template["spec"]["containers"] for port in each.get("ports", ())]
            ports: dict[Any, int] = {port["name"]: port["containerPort"] for port in given}
            ports |= {port["containerPort"]: port["containerPort"] for port in given}
            for port in service["spec"]["ports"]:
                target = ports[port.get("targetPort", port["port"])]
                # A headless service has no port of its own: whoever asks by its name gets the pod's.
                assert service["spec"].get("clusterIP") != "None" or target == port["port"]
    for ingress in of_kind(documents, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                ports = {
                    each["name"]: each["port"] for each in one(documents, "Service", backend["name"])["spec"]["ports"]
                }
                assert backend["port"]["name"] in ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_scales_has_something_to_scale(overlay: str) -> None:
    documents = rendered(overlay)
    for scaler in of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        workload = one(documents, target.get("kind", "Deployment"), target["name"])
        assert "replicas" not in workload["spec"], "applying it again would undo what was scaled"
        for container in pod_of(workload)["spec"]["containers"]:
            assert container["resources"]["requests"]["cpu"], "a share of nothing is no number"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_of_this_version_or_pinned(overlay: str) -> None:
    foreign = {service["image"] for service in SERVICES.values()}
    for container in containers(rendered(overlay)):
        image = container.spec["image"]
        if container.is_ours:
            assert image.partition(":")[2] == VERSION, container
        elif container.spec["name"] in {"rabbitmq", "cookie"}:  # which docker-compose.yml does not run
            assert "@sha256:" in image
        else:
            assert image in foreign, container


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_host_stands_in_one_place(overlay: str) -> None:
    documents = rendered(overlay)
    [settings] = [each for each in of_kind(documents, "ConfigMap") if each["metadata"]["name"].startswith("settings-")]
    host = settings["data"]["NOTIFIER_PUBLIC_URL"].removeprefix("https://")
    for ingress in of_kind(documents, "Ingress"):
        assert [rule["host"] for rule in ingress["spec"]["rules"]] == [host]
        assert [each["hosts"] for each in ingress["spec"]["tls"]] == [[host]]
    for gateway in of_kind(documents, "Gateway"):
        assert gateway["spec"]["servers"][0]["hosts"] == [host]
    for route in of_kind(documents, "VirtualService"):
        assert host in route["spec"]["hosts"]


def test_no_secret_is_in_the_tree() -> None:
    assert "/deploy/kubernetes/secrets/**/*.env" in (ROOT / ".gitignore").read_text().splitlines()
    # The image takes the folder deploy, and must not take these with it.
    assert "deploy/kubernetes" in (ROOT / ".dockerignore").read_text().splitlines()
    for file in KUBERNETES.rglob("*.yaml"):
        for document in yaml.load_all(file.read_text(), yaml.CSafeLoader):
            assert document.get("kind") != "Secret", file
