"""The steps of a rollout, and the way back.

    before → migrate → canary → promote, one Deployment after the other → after
                │         └────────────┴ not ready: every Deployment gets its former template back
                └ failed: no Deployment is touched

A migration is not undone: the release before runs on the database of this one, as CONTRIBUTING.md asks of migrations.
The way back is on the cluster, in a ConfigMap, from before the first Deployment changes until all are ready. So a
rollout that was cut short, by a crash or a lost machine, can be taken back by anybody later.
"""

import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from deploy.rollout.kubectl import Kubectl, KubectlFailed
from deploy.rollout.manifests import API, CANARY, MIGRATION, Manifest, Release
from notifier.vocabulary.untrusted_text import printable

#: The ConfigMap that has the way back.
RECORD: Final = "rollout"
_REVISION: Final = "deployment.kubernetes.io/revision"


class Unready(Exception):
    """The migration or the canary did not do what the rollout waits for."""


class Stopped(Exception):
    """A signal that asks the rollout to end."""


class Refused(Exception):
    """The release was not rolled out; the cluster runs what it ran before."""


class Stuck(Exception):
    """The rollout failed, and so did the way back: somebody must look at the cluster."""


@dataclass(frozen=True)
class Patience:
    """How long each step may take, in seconds."""

    migration: int
    #: For each Deployment.
    ready: int
    #: How long the canary is watched once it is ready.
    watch: float
    #: Between two looks at the migration or the canary.
    poll: float = 2.0


#: Deployment → the ReplicaSet that it ran, or None for one that did not exist.
Record = dict[str, str | None]

_FAILURES: Final = (KubectlFailed, Unready, Stopped)


def roll_out(kubectl: Kubectl, release: Release, patience: Patience) -> None:
    """Roll a release out. Raises Refused or Stuck."""
    record: Record | None = None
    try:
        kubectl.apply(release.before)
        _migrate(kubectl, release, patience)
        record = _recorded(kubectl) or _write_record(kubectl, release)
        if record[API] is None:
            _say("No API runs here yet: there is nothing to compare a canary with.")
        else:
            _try_canary(kubectl, release, patience)
        _promote(kubectl, release, patience)
    except _FAILURES as failed:
        _say(f"The release is not rolled out. {failed}")
        if record is not None:
            _go_back(kubectl, patience, record)
        raise Refused(str(failed)) from failed
    _clean_up(kubectl, [] if release.canary_stays else [CANARY])
    _say("The release is rolled out.")


def roll_back(kubectl: Kubectl, patience: Patience) -> None:
    """Take back a rollout that was cut short. Raises Refused where there is none, or Stuck."""
    try:
        record = _recorded(kubectl)
    except KubectlFailed as failed:
        raise Refused(str(failed)) from failed
    if record is None:
        raise Refused(f"There is no rollout to take back: no ConfigMap {RECORD} is here.")
    _go_back(kubectl, patience, record)


def _migrate(kubectl: Kubectl, release: Release, patience: Patience) -> None:
    # A Job's template cannot change, so the last release's makes way.
    kubectl.delete("job", MIGRATION)
    kubectl.apply([release.migration])
    try:
        _wait_for_migration(kubectl, patience)
    except Unready:
        with suppress(KubectlFailed):
            _say(kubectl.last_logs(f"job/{MIGRATION}"))
        raise
    _say("The database is migrated.")


def _wait_for_migration(kubectl: Kubectl, patience: Patience) -> None:
    end = time.monotonic() + patience.migration
    while not _has_ended(kubectl.get("job", MIGRATION)):
        if time.monotonic() > end:
            raise Unready(f"The migration has not ended after {patience.migration} s.")
        time.sleep(patience.poll)


def _has_ended(job: Manifest | None) -> bool:
    """Whether the migration has succeeded. Raises Unready if it failed."""
    if job is None:
        raise Unready("Somebody deleted the migration.")
    for condition in job.get("status", {}).get("conditions", []):
        if condition["status"] == "True" and condition["type"] == "Failed":
            raise Unready(f"The migration failed: {condition.get('message', 'it gives no reason')}.")
        if condition["status"] == "True" and condition["type"] == "Complete":
            return True
    return False


def _try_canary(kubectl: Kubectl, release: Release, patience: Patience) -> None:
    kubectl.apply([release.canary])
    try:
        kubectl.wait_until_ready(CANARY, patience.ready)
        _say(f"The canary is ready, and is watched for {patience.watch:g} s.")
        _watch_canary(kubectl, release, patience)
    except (KubectlFailed, Unready):
        with suppress(KubectlFailed):
            _say(kubectl.last_logs(f"deployment/{CANARY}"))
        raise


def _watch_canary(kubectl: Kubectl, release: Release, patience: Patience) -> None:
    labels = release.canary["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{label}={value}" for label, value in sorted(labels.items()))
    end = time.monotonic() + patience.watch
    while True:
        _check_canary(kubectl, selector)
        if time.monotonic() > end:
            return
        time.sleep(patience.poll)


def _check_canary(kubectl: Kubectl, selector: str) -> None:
    """Raise Unready unless the canary is ready and was never restarted."""
    canary = kubectl.get("deployment", CANARY)
    if canary is None or not canary.get("status", {}).get("readyReplicas"):
        raise Unready("The canary is no longer ready.")
    for pod in kubectl.all("pods", selector):
        if any(each["restartCount"] for each in pod.get("status", {}).get("containerStatuses", [])):
            raise Unready("The canary was restarted.")


def _promote(kubectl: Kubectl, release: Release, patience: Patience) -> None:
    deployments = release.deployments
    if release.canary_stays:
        deployments = [*deployments, release.canary]
    for deployment in deployments:
        name = deployment["metadata"]["name"]
        kubectl.apply([deployment])
        kubectl.wait_until_ready(name, patience.ready)
        _say(f"{name} is ready.")
    for each in release.after:
        if each["kind"] == "Job":
            kubectl.delete("job", each["metadata"]["name"])
    kubectl.apply(release.after)


def _go_back(kubectl: Kubectl, patience: Patience, record: Record) -> None:
    """Give each Deployment the template that it had. Does what it can, and raises Stuck if that is not all of it."""
    failed = []
    changed = []
    try:
        revisions = {each["metadata"]["name"]: _revision_of(each) for each in kubectl.all("replicasets")}
    except KubectlFailed as error:
        raise Stuck(f"Nothing is rolled back. {error}") from error
    for name, replica_set in record.items():
        try:
            if replica_set is not None and kubectl.undo(name, revisions.get(replica_set)):
                changed.append(name)
        except KubectlFailed as error:
            failed.append(str(error))
    for name in changed:
        try:
            kubectl.wait_until_ready(name, patience.ready)
        except KubectlFailed as error:
            failed.append(str(error))
    if failed:
        raise Stuck(f"Not all is rolled back. {' '.join(failed)}")
    # One that did not exist has no way back. The canary goes; another is left to be looked at, and harms nothing.
    new = [name for name, replica_set in record.items() if replica_set is None]
    _clean_up(kubectl, [name for name in new if name == CANARY])
    for name in new:
        if name != CANARY:
            _say(f"{name} is new, and stays: there is nothing to go back to.")
    _say("Every Deployment that ran before is what it was.")


def _clean_up(kubectl: Kubectl, deployments: list[str]) -> None:
    """Remove what belongs to the rollout alone. The way back goes last: the next rollout would take it for its own."""
    try:
        for name in deployments:
            kubectl.delete("deployment", name)
        kubectl.delete("configmap", RECORD)
    except (KubectlFailed, Stopped) as failed:
        left = ", ".join([*(f"Deployment {name}" for name in deployments), f"ConfigMap {RECORD}"])
        raise Stuck(f"All else is done, but delete yourself what is left of {left}: {failed}") from failed


def _recorded(kubectl: Kubectl) -> Record | None:
    """Return the way back of a rollout that was cut short."""
    found = kubectl.get("configmap", RECORD)
    if found is None:
        return None
    _say(f"An earlier rollout was cut short: the way back leads to what ran before it (ConfigMap {RECORD}).")
    record: Record = json.loads(found["data"]["replicasets"])
    return record


def _write_record(kubectl: Kubectl, release: Release) -> Record:
    """Write down the ReplicaSet of each Deployment: its name stays, while undoing gives it another revision."""
    running = {each["metadata"]["name"]: each for each in kubectl.all("deployments")}
    sets = kubectl.all("replicasets")
    record = {
        name: _replica_set_of(running[name], sets) if name in running else None
        for name in (each["metadata"]["name"] for each in [*release.deployments, release.canary])
    }
    if not release.canary_stays:
        record[CANARY] = None
    data = {"replicasets": json.dumps(record)}
    kubectl.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": RECORD}, "data": data}])
    return record


def _replica_set_of(deployment: Manifest, sets: list[Manifest]) -> str:
    """Return the name of a Deployment's newest ReplicaSet."""
    revision = _revision_of(deployment)
    for each in sets:
        owners = each["metadata"].get("ownerReferences", [])
        owned = any(owner["uid"] == deployment["metadata"]["uid"] for owner in owners)
        if owned and _revision_of(each) == revision:
            return str(each["metadata"]["name"])
    raise Unready(f"{deployment['metadata']['name']} has no ReplicaSet to go back to.")


def _revision_of(manifest: Manifest) -> str | None:
    """Return the number that the cluster gave to a Deployment's template, or a ReplicaSet's."""
    revision: str | None = manifest["metadata"].get("annotations", {}).get(_REVISION)
    return revision


def _say(line: str) -> None:
    sys.stdout.write(f"{printable(line, lines=True)}\n")
    sys.stdout.flush()
