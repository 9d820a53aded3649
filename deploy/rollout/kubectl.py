"""The cluster, as far as a rollout touches it: each method is one call of kubectl."""

import json
import subprocess
from collections.abc import Sequence
from typing import Final

from deploy.rollout.manifests import Manifest

#: Seconds that the API server may take for one answer. Not for `rollout status`, which watches.
_ANSWER: Final = 30


class KubectlFailed(Exception):
    """A call of kubectl that did not succeed: the command, and the last line that it wrote."""


class Kubectl:
    """Runs kubectl in one namespace, with the credentials that it finds as it always does (KUBECONFIG)."""

    def __init__(self, namespace: str, program: str = "kubectl") -> None:
        self._namespace = namespace
        self._program = program

    def rendered(self, kustomization: str) -> str:
        """Render a kustomization to YAML. Asks no cluster."""
        return self._run("kustomize", kustomization)

    def get(self, kind: str, name: str) -> Manifest | None:
        """Return an object, or None where there is none of that name."""
        answer = self._ask("get", kind, name, "--ignore-not-found", "--output=json")
        return json.loads(answer) if answer.strip() else None

    def all(self, kind: str, selector: str = "") -> list[Manifest]:
        """Return the objects of a kind, those that a label selects where one is given."""
        selected = [f"--selector={selector}"] if selector else []
        items: list[Manifest] = json.loads(self._ask("get", kind, *selected, "--output=json"))["items"]
        return items

    def apply(self, manifests: Sequence[Manifest]) -> None:
        """Create what is missing and change what differs."""
        if manifests:
            listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
            self._ask("apply", "--filename=-", given=json.dumps(listed))

    def delete(self, kind: str, name: str) -> None:
        """Delete an object, and return once it is gone. One that is missing is no error."""
        self._run("delete", kind, name, "--ignore-not-found", "--wait", "--timeout=120s")

    def wait_until_ready(self, deployment: str, seconds: int) -> None:
        """Return once all pods of a Deployment are of its newest template and ready. Raises KubectlFailed if not."""
        self._run("rollout", "status", f"deployment/{deployment}", f"--timeout={seconds}s")

    def undo(self, deployment: str, revision: str | None) -> bool:
        """Give a Deployment the template of an earlier revision; return False if it has that already."""
        if revision is None:
            raise KubectlFailed(f"The ReplicaSet that {deployment} had is gone.")
        said = self._ask("rollout", "undo", f"deployment/{deployment}", f"--to-revision={revision}")
        return "skipped rollback" not in said

    def last_logs(self, workload: str) -> str:
        """Return the last lines that a workload's pods wrote."""
        return self._ask("logs", workload, "--all-containers", "--tail=40")

    def _ask(self, *arguments: str, given: str = "") -> str:
        return self._run(*arguments, f"--request-timeout={_ANSWER}s", given=given)

    def _run(self, *arguments: str, given: str = "") -> str:
        command = [self._program, *arguments, f"--namespace={self._namespace}"]
        try:
            done = subprocess.run(  # noqa: S603 -- our own command, no shell
                command, input=given, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise KubectlFailed(f"{self._program} cannot be started: {error.strerror}") from error
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
            raise KubectlFailed(f"kubectl {' '.join(arguments[:3])}: {said[-1]}")
        return done.stdout
