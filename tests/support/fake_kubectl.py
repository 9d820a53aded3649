"""A kubectl that keeps a small cluster in a folder, and answers as the real one does (tests/support/clusters.py).

It writes down its calls and what it is asked to apply. `broken.json` says what does not work:

    unready    Deployments whose newest template never becomes ready
    failing    the migration fails
    endless    the migration never ends
    lost       ReplicaSets that somebody deleted
    restarts   how often the canary's container was restarted
    forbidden  calls that the API server refuses, as "get pods"
    signals    a call at which the program that called is sent SIGTERM first
"""

# A rollout calls it thirty times, and pathlib takes longer to import than all else that it does.

import json
import os
import sys

FOLDER = os.environ["FAKE_KUBECTL"]
_REVISION = "deployment.kubernetes.io/revision"
_PLURALS = {"deployments": "Deployment", "replicasets": "ReplicaSet"}
_KINDS = {"deployment": "Deployment", "job": "Job", "configmap": "ConfigMap"}


class Failed(Exception):
    """An error that the real one would write to standard error, before it ends with 1."""


def read(name: str) -> dict:
    """Return what a file of the folder holds, nothing where it is missing."""
    try:
        with open(f"{FOLDER}/{name}") as file:  # noqa: PTH123 -- as above
            return json.load(file)
    except FileNotFoundError:
        return {}


class Cluster:
    """The objects, by kind and name."""

    def __init__(self) -> None:
        self.objects: dict[str, dict] = read("state.json")
        self.broken: dict = read("broken.json")

    def save(self) -> None:
        # At once: a call that is killed leaves the objects as they were, or as it made them.
        with open(f"{FOLDER}/state.new", "w") as state:  # noqa: PTH123 -- as above
            json.dump(self.objects, state)
        os.replace(f"{FOLDER}/state.new", f"{FOLDER}/state.json")  # noqa: PTH105 -- as above

    def check(self, call: str) -> None:
        if call in self.broken.get("forbidden", []):
            raise Failed(f"Error from server (Forbidden): {call} is forbidden")

    def find(self, kind: str, name: str) -> dict | None:
        return self.objects.get(f"{kind}/{name}")

    def need(self, kind: str, name: str) -> dict:
        found = self.find(kind, name)
        if found is None:
            raise Failed(f'Error from server (NotFound): {kind.lower()}s "{name}" not found')
        return found

    def of(self, kind: str) -> list[dict]:
        return [each for key, each in self.objects.items() if key.startswith(f"{kind}/")]

    def apply(self, given: dict) -> str:
        kind, name = given["kind"], given["metadata"]["name"]
        there = self.find(kind, name)
        if there and kind == "Job":
            raise Failed(f'The Job "{name}" is invalid: spec.template: Invalid value: …: field is immutable')
        # The annotations that the cluster writes are kept.
        annotations = (there or {"metadata": {}})["metadata"].get("annotations", {})
        made = {**given, "metadata": {"annotations": annotations, **given["metadata"], "uid": f"uid-{kind}-{name}"}}
        self.objects[f"{kind}/{name}"] = made
        if kind == "Deployment":
            self.roll(made)
        if kind == "Job":
            made["status"] = self.job_status()
        return f"{kind.lower()}/{name} {'configured' if there else 'created'}"

    def roll(self, deployment: dict) -> None:
        """Give a Deployment's template its ReplicaSet, the newest of all, as the controller does."""
        name, uid = deployment["metadata"]["name"], deployment["metadata"]["uid"]
        own = [each for each in self.of("ReplicaSet") if each["metadata"]["ownerReferences"][0]["uid"] == uid]
        newest = max((int(each["metadata"]["annotations"][_REVISION]) for each in own), default=0)
        current = next((each for each in own if each["spec"] == deployment["spec"]["template"]), None)
        if current is None:
            current = {
                "kind": "ReplicaSet",
                "metadata": {
                    "name": f"{name}-{len(own)}",
                    "ownerReferences": [{"uid": uid}],
                    "annotations": {_REVISION: "0"},
                },
                "spec": deployment["spec"]["template"],
            }
            self.objects[f"ReplicaSet/{name}-{len(own)}"] = current
        annotations = current["metadata"]["annotations"]
        if int(annotations[_REVISION]) < newest or not newest:
            annotations[_REVISION] = str(newest + 1)
        deployment["metadata"]["annotations"][_REVISION] = annotations[_REVISION]
        ready = 0 if self.is_unready(deployment) else deployment["spec"].get("replicas", 1)
        deployment["status"] = {"readyReplicas": ready} if ready else {}

    def is_unready(self, deployment: dict) -> bool:
        images = [each["image"] for each in deployment["spec"]["template"]["spec"]["containers"]]
        return deployment["metadata"]["name"] in self.broken.get("unready", []) and "@sha256:0" not in images[0]

    def job_status(self) -> dict:
        if self.broken.get("endless"):
            return {"active": 1}
        if self.broken.get("failing"):
            reached = "Job has reached the specified backoff limit"
            return {"conditions": [{"type": "Failed", "status": "True", "message": reached}]}
        return {"conditions": [{"type": "Complete", "status": "True"}]}

    def pods(self) -> list[dict]:
        """The canary's only pod, which is all that anybody asks for."""
        if not self.find("Deployment", "api-canary"):
            return []
        return [{"kind": "Pod", "status": {"containerStatuses": [{"restartCount": self.broken.get("restarts", 0)}]}}]


def answer(cluster: Cluster, words: list[str], options: dict[str, str]) -> str:
    """Return what a call writes to standard output."""
    match words:
        case ["kustomize", folder]:
            with open(f"{folder}/rendered.yaml") as file:  # noqa: PTH123 -- as above
                return file.read()
        case ["get", "pods"]:
            return json.dumps({"kind": "List", "items": cluster.pods()})
        case ["get", plural]:
            return json.dumps({"kind": "List", "items": cluster.of(_PLURALS[plural])})
        case ["get", kind, name]:
            found = cluster.find(_KINDS[kind], name)
            if found is None and "--ignore-not-found" not in options:
                cluster.need(_KINDS[kind], name)
            return json.dumps(found) if found else ""
        case ["apply"]:
            return "\n".join(cluster.apply(each) for each in json.load(sys.stdin)["items"])
        case ["delete", kind, name]:
            if cluster.objects.pop(f"{_KINDS[kind]}/{name}", None) is None and "--ignore-not-found" not in options:
                cluster.need(_KINDS[kind], name)
            return f'{kind} "{name}" deleted'
        case ["rollout", "status", workload]:
            return rollout_status(cluster, workload.partition("/")[2])
        case ["rollout", "undo", workload]:
            return undo(cluster, workload.partition("/")[2], options["--to-revision"])
        case ["logs", workload]:
            return f"the last words of {workload}\n"
    raise Failed(f"error: unknown command {words}")


def rollout_status(cluster: Cluster, name: str) -> str:
    if not cluster.need("Deployment", name)["status"]:
        raise Failed(f'error: deployment "{name}" exceeded its progress deadline')
    return f'deployment "{name}" successfully rolled out'


def undo(cluster: Cluster, name: str, revision: str) -> str:
    deployment = cluster.need("Deployment", name)
    for each in cluster.of("ReplicaSet"):
        owned = each["metadata"]["ownerReferences"][0]["uid"] == deployment["metadata"]["uid"]
        if owned and each["metadata"]["annotations"][_REVISION] == revision:
            if each["spec"] == deployment["spec"]["template"]:
                return f"deployment.apps/{name} skipped rollback (current template already matches revision {revision})"
            deployment["spec"]["template"] = each["spec"]
            cluster.roll(deployment)
            return f"deployment.apps/{name} rolled back"
    raise Failed(f"error: unable to find specified revision {revision} in history")


def main(arguments: list[str]) -> int:
    cluster = Cluster()
    for name in cluster.broken.get("lost", []):
        cluster.objects.pop(f"ReplicaSet/{name}", None)
    words = [each for each in arguments if not each.startswith("--")]
    options = dict(each.partition("=")[::2] for each in arguments if each.startswith("--"))
    call = " ".join(words)
    with open(f"{FOLDER}/calls.jsonl", "a") as calls:  # noqa: PTH123 -- as above
        calls.write(json.dumps(arguments) + "\n")
    if cluster.broken.get("signals") == call:
        os.kill(os.getppid(), 15)
    try:
        cluster.check(call)
        sys.stdout.write(answer(cluster, words, options))
    except Failed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    finally:
        cluster.save()
    return 0
