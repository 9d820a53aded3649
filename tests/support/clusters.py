"""A cluster that stands in for Kubernetes: the program kubectl is a fake, and the rollout is the real one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.paths import ROOT

OLD: Final = "ghcr.io/example/notifier@sha256:" + "0" * 64
NEW: Final = "ghcr.io/example/notifier@sha256:" + "1" * 64
_NAME: Final = "app.kubernetes.io/name"
_COMPONENT: Final = "app.kubernetes.io/component"
DEPLOYMENTS: Final = ("api", "beat", "worker-fresh")


def deployment(name: str, image: str = "registry.example.com:5000/notifier:0.1.0", **labels: str) -> dict[str, Any]:
    """A Deployment as the kustomization has it: its pods are told by name and component."""
    labels = {_NAME: "notifier", _COMPONENT: name, **labels}
    pod = {"containers": [{"name": name, "image": image}, {"name": "proxy", "image": "envoy:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": dict(labels)}, "spec": pod}},
    }


def rendered(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """The output of kustomize for a small installation, in its order, with some more objects."""
    image = "registry.example.com:5000/notifier:0.1.0"
    pod = {"initContainers": [{"name": "roles", "image": image}], "containers": [{"name": "migrate", "image": image}]}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings-1"}},
        deployment("beat"),
        deployment("api", version="stable"),
        deployment("worker-fresh"),
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "api"}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"}, "spec": {"template": {"spec": pod}}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "reader"}, "spec": {"template": {"spec": pod}}},
        *more,
    ]


class FakeCluster:
    """A cluster in a folder, and rollouts onto it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        programs = folder / "bin"
        programs.mkdir()
        kubectl = programs / "kubectl"
        # As the caller's own child, so that it may send its parent a signal.
        code = f"import sys; sys.path.insert(0, '{ROOT}/tests/support'); import fake_kubectl as fake; "
        kubectl.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -I -S -c "{code}sys.exit(fake.main(sys.argv[1:]))" "$@"\n'
        )
        kubectl.chmod(0o755)
        self._environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "FAKE_KUBECTL": str(folder),
        }
        self.render(rendered())

    def copy(self, other: "FakeCluster") -> None:
        """Hold what another cluster holds."""
        shutil.copy(other._folder / "state.json", self._folder)

    def render(self, manifests: list[dict[str, Any]]) -> None:
        """Set what the kustomization has."""
        (self._folder / "rendered.yaml").write_text(yaml.safe_dump_all(manifests))

    def break_down(self, **how: object) -> None:
        """Have something fail from now on; without arguments nothing does. tests/support/fake_kubectl.py lists it."""
        (self._folder / "broken.json").write_text(json.dumps(how))

    def forget(self, key: str) -> None:
        """Delete an object by hand."""
        left = {other: each for other, each in self.objects.items() if other != key}
        (self._folder / "state.json").write_text(json.dumps(left))

    def roll_out(self, image: str = NEW, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a rollout to its end."""
        return self.run("to", image, "--kustomization", str(self._folder), *options)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the rollout's command line, in a hurry."""
        hurry = ["--watch-seconds", "0", "--poll-seconds", "0.01"]
        return subprocess.run(
            [sys.executable, "-m", "deploy.rollout", *arguments, *hurry],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def objects(self) -> dict[str, Any]:
        """The objects of the cluster, by kind and name."""
        state = self._folder / "state.json"
        found: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {}
        return found

    def images(self) -> dict[str, str]:
        """The image of each Deployment, the canary's among them."""
        return {
            each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]["image"]
            for key, each in self.objects.items()
            if key.startswith("Deployment/")
        }

    def calls(self) -> list[list[str]]:
        """The arguments of each call of kubectl so far."""
        written = self._folder / "calls.jsonl"
        return [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []
