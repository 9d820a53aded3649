"""docs/kubernetes.md: its overlays render, its commands are understood, and what it names is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from deploy.commands.cli import cli
from notifier import VERSION
from tests.support.kubernetes import KUBERNETES, OVERLAYS, containers, name_of, of_kind, one, rendered, rendered_with
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/kubernetes.md").read_text()
#: Each block's language, and the block.
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [block for language, block in _FENCED.findall(PAGE) if language == "yaml"]
COMMANDS = [line.strip() for language, block in _FENCED.findall(PAGE) if not language for line in block.splitlines()]
#: The overlays in the page, by the section that they stand in.
WRITTEN = {
    section.splitlines()[0].strip("# "): block
    for section in re.split(r"^(?=#{2,3} )", PAGE, flags=re.MULTILINE)
    for _, block in _FENCED.findall(section)
    if "kind: Kustomization" in block
}


def test_each_block_is_looked_at() -> None:
    others = [block for block in BLOCKS if block not in WRITTEN.values()]
    assert WRITTEN.keys() == {"An overlay of your own", "Scale", "Mesh", "Combined"}
    assert len(others) == 1
    kubernetes_validate.validate(yaml.safe_load(others[0]), kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("section", WRITTEN)
def test_the_overlays_in_it_render(section: str) -> None:
    documents = rendered_with("mine", WRITTEN[section])
    assert len({name_of(each) for each in documents}) == len(documents)
    for each in documents:
        if each["kind"] in {"Deployment", "StatefulSet", "Job", "Ingress"}:
            kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_an_overlay_of_one_s_own_names_its_registry_and_its_host() -> None:
    documents = rendered_with("mine", WRITTEN["An overlay of your own"])
    images = {each.spec["image"] for each in containers(documents)}
    assert f"registry.example.com/notifier:{VERSION}" in images
    assert not any(image.startswith("notifier:") for image in images)
    [rule] = one(documents, "Ingress", "api")["spec"]["rules"]
    assert rule["host"] == "notify.example.org"


def test_scaling_by_hand_is_what_it_says() -> None:
    documents = rendered_with("mine", WRITTEN["Scale"])
    assert one(documents, "Deployment", "worker-fresh")["spec"]["replicas"] == 4


def test_the_second_version_has_a_tag_and_a_share_of_its_own() -> None:
    documents = rendered_with("mine", WRITTEN["Mesh"])
    images = {str(each): each.spec["image"] for each in containers(documents)}
    assert images["Deployment api/api"] == f"registry.example.com/notifier:{VERSION}"
    assert images["Deployment api-canary/api"] == images["Job migrate/migrate"] == "registry.example.com/notifier:0.2.0"
    for route in one(documents, "VirtualService", "api")["spec"]["http"]:
        assert {each["destination"]["subset"]: each["weight"] for each in route["route"]} == {"stable": 95, "canary": 5}


def test_all_goes_together() -> None:
    documents = rendered_with("mine", WRITTEN["Combined"])
    assert {"ScaledObject", "ServiceMonitor", "VirtualService"} <= {each["kind"] for each in documents}
    for workload in of_kind(documents, "Deployment", "StatefulSet", "Job"):
        template: dict[str, Any] = workload["spec"]["template"]
        assert template["metadata"]["annotations"]["sidecar.istio.io/nativeSidecar"] == "true", name_of(workload)


def test_commands_of_manage_py_are_understood() -> None:
    found = [line.partition("python manage.py ")[2] for line in COMMANDS if "python manage.py " in line]
    assert len(found) == 3
    for command in found:
        context, words = click.Context(cli), shlex.split(command)
        name, each, words = cli.resolve_command(context, words)
        while isinstance(each, click.Group):
            context = click.Context(each, info_name=name, parent=context)
            name, each, words = each.resolve_command(context, words)
        assert each
        each.make_context(name, words, parent=context)  # raises where it does not understand


def test_commands_of_kubectl_are_known_to_it_and_name_what_there_is() -> None:
    there = {name_of(each).replace(" ", "/").lower() for overlay in OVERLAYS for each in rendered(overlay)}
    named = set(re.findall(r"\b((?:deployment|service|job)/[\w-]+)", PAGE))
    assert named
    assert named <= there
    kubectl = Path(sys.prefix) / "bin/kubectl"
    for line in {" ".join(each.split()) for each in COMMANDS if each.startswith("kubectl")}:
        words = [word for word in shlex.split(line)[1:] if word not in {"-n", "notifier"}]
        known = subprocess.run([kubectl, words[0], "--help"], check=True, capture_output=True, text=True, timeout=20)
        for option in (word.partition("=")[0] for word in words[1 : words.index("--") if "--" in words else None]):
            is_known = re.search(rf"(^|[ ,]){re.escape(option)}[=,]", known.stdout, re.MULTILINE)
            assert not option.startswith("-") or is_known, line


def test_folders_and_versions_are_there() -> None:
    for path in re.findall(r"`((?:base|secrets|components|overlays)(?:/[\w.-]+)*)`", PAGE):
        assert (KUBERNETES / path).exists(), path
    for name in re.findall(r"`\.\./([\w-]+)`", PAGE):
        assert name in OVERLAYS
    for path in re.findall(r"\bdeploy/kubernetes/[\w./-]+", PAGE):
        assert (ROOT / path).exists() or "overlays/mine" in path or path.endswith(".env"), path
    assert f"notifier:{VERSION}" in PAGE
    assert set(re.findall(r"^\| `overlays/([\w-]+)`", PAGE, re.MULTILINE)) == set(OVERLAYS)


def test_figures_are_those_of_the_code() -> None:
    keda = rendered("keda")
    for name, words in (("worker-fresh", "`worker-fresh` (2 to 6)"), ("worker-retry", "`worker-retry` (1 to 3)")):
        spec = one(keda, "ScaledObject", name)["spec"]
        assert f"({spec['minReplicaCount']} to {spec['maxReplicaCount']})" in words
        assert words in PAGE
    scaler = one(keda, "HorizontalPodAutoscaler", "api")["spec"]
    assert f"The API scales between {scaler['minReplicas']} and {scaler['maxReplicas']} pods" in PAGE
