"""deploy/kubernetes, rendered as `kubectl apply -k` renders it, by kubectl itself."""

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.support.paths import ROOT

KUBERNETES: Final = ROOT / "deploy/kubernetes"
OVERLAYS: Final = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
#: Kinds that make pods.
WORKLOADS: Final = {"Deployment", "StatefulSet", "Job"}

#: A document of Kubernetes.
Document = dict[str, Any]


class Container(NamedTuple):
    """A container, and where it stands."""

    workload: Document
    spec: dict[str, Any]
    is_init: bool

    def __str__(self) -> str:
        return f"{name_of(self.workload)}/{self.spec['name']}"

    @property
    def is_ours(self) -> bool:
        """Whether it runs the image of Notifier."""
        return bool(self.spec["image"].partition(":")[0] in {"notifier", "notifier-canary"})


@functools.cache
def _copied() -> Path:
    """A copy of the folder with secrets of its own, since the tree has none."""
    temporary = tempfile.mkdtemp(prefix="notifier-kubernetes-")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    folder = Path(temporary) / "deploy"
    shutil.copytree(KUBERNETES, folder / "kubernetes", ignore=shutil.ignore_patterns("*.env.*"))
    for leftover in (folder / "kubernetes/secrets").rglob("*.env"):
        leftover.unlink()
    shutil.copytree(ROOT / "deploy/grafana/dashboards", folder / "grafana/dashboards")
    subprocess.run([folder / "kubernetes/secrets/make"], check=True, capture_output=True, timeout=20)
    return folder / "kubernetes"


def run_kustomize(folder: Path) -> list[Document]:
    """Return what `kubectl kustomize` makes of a folder. Raises CalledProcessError."""
    kubectl = Path(sys.prefix) / "bin/kubectl"
    done = subprocess.run([kubectl, "kustomize", folder], check=True, capture_output=True, text=True, timeout=60)
    assert not done.stderr, done.stderr
    return [document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document]


@functools.cache
def rendered(overlay: str) -> list[Document]:
    """The documents of an overlay."""
    return run_kustomize(_copied() / "overlays" / overlay)


def rendered_with(name: str, kustomization: str) -> list[Document]:
    """The documents of an overlay that is written beside ours, for this call."""
    folder = _copied() / "overlays" / name
    folder.mkdir()
    try:
        (folder / "kustomization.yaml").write_text(kustomization)
        return run_kustomize(folder)
    finally:
        shutil.rmtree(folder)


def secrets() -> dict[str, dict[str, str]]:
    """The files that the secrets are made of: name → variables."""
    found = {}
    for file in sorted((_copied() / "secrets").rglob("*.env")):
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        found[file.stem] = dict(line.split("=", 1) for line in lines)
    return found


def name_of(document: Document) -> str:
    """Return a document's kind and name."""
    return f"{document['kind']} {document['metadata']['name']}"


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    """Return the documents of some kinds."""
    return [document for document in documents if document["kind"] in kinds]


def one(documents: list[Document], kind: str, name: str) -> Document:
    """Return the only document of a kind and name. Raises ValueError."""
    [found] = [each for each in of_kind(documents, kind) if each["metadata"]["name"] == name]
    return found


def pod_of(workload: Document) -> dict[str, Any]:
    """Return the template of a workload's pods."""
    template: dict[str, Any] = workload["spec"]["template"]
    return template


def containers(documents: list[Document]) -> Iterator[Container]:
    """Yield all containers of all workloads."""
    for workload in of_kind(documents, *WORKLOADS):
        spec = pod_of(workload)["spec"]
        yield from (Container(workload, each, is_init=True) for each in spec.get("initContainers", ()))
        yield from (Container(workload, each, is_init=False) for each in spec["containers"])


def data_of(documents: list[Document], kind: str, name: str, *, optional: bool = False) -> dict[str, str]:
    """Return the values of a ConfigMap or a Secret, whose values are not decoded. Raises ValueError."""
    if optional and not [each for each in of_kind(documents, kind) if each["metadata"]["name"] == name]:
        return {}
    values: dict[str, str] = one(documents, kind, name).get("data") or {}
    return values


def secret_names(container: Container) -> list[str]:
    """The Secrets of a container, without the hash in their names."""
    given = [each["secretRef"]["name"] for each in container.spec.get("envFrom", ()) if "secretRef" in each]
    given += [
        each["valueFrom"]["secretKeyRef"]["name"]
        for each in container.spec.get("env", ())
        if "secretKeyRef" in each.get("valueFrom", {})
    ]
    return [name.rpartition("-")[0] for name in given]


def environment(documents: list[Document], container: Container) -> dict[str, str]:
    """The variables of a container, with Secrets' values as the files have them."""
    known = secrets()
    found: dict[str, str] = {}
    for each in container.spec.get("envFrom", ()):
        if "configMapRef" in each:
            found |= data_of(documents, "ConfigMap", each["configMapRef"]["name"])
        else:
            reference = each["secretRef"]
            if data_of(documents, "Secret", reference["name"], optional=reference.get("optional", False)):
                found |= known[reference["name"].rpartition("-")[0]]
    for each in container.spec.get("env", ()):
        if "secretKeyRef" in each.get("valueFrom", {}):
            reference = each["valueFrom"]["secretKeyRef"]
            assert reference["key"] in data_of(documents, "Secret", reference["name"])
            found[each["name"]] = known[reference["name"].rpartition("-")[0]][reference["key"]]
        else:
            found[each["name"]] = each.get("value", "")
    return found


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label selector chooses what has these labels; an empty one chooses all."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In", expression
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())


def labels_of_pods(documents: list[Document]) -> dict[str, dict[str, str]]:
    """The labels of each workload's pods, by its name."""
    return {each["metadata"]["name"]: pod_of(each)["metadata"]["labels"] for each in of_kind(documents, *WORKLOADS)}
