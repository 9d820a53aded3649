"""The objects that a kustomization renders, with a release's image in them, parted by the step that applies them."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

#: One object of Kubernetes.
Manifest = dict[str, Any]

API: Final = "api"
CANARY: Final = "api-canary"
MIGRATION: Final = "migrate"
#: The label that tells the canary's pods from the API's.
_VERSION: Final = "version"

#: Kinds that the migration and the canary need. None of them restarts a pod of the release that runs.
_BEFORE: Final = {
    "Namespace",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "NetworkPolicy",
    "Service",
    "StatefulSet",
    "DestinationRule",
}
_PINNED: Final = re.compile(r"[a-z0-9][a-z0-9.:_/-]*@sha256:[0-9a-f]{64}")


class Unusable(Exception):
    """A release that cannot be rolled out as it is described. Nothing was changed."""


@dataclass(frozen=True)
class Release:
    """The objects of one release, each with its image."""

    #: Applied before the migration.
    before: list[Manifest]
    #: The Job that migrates the database.
    migration: Manifest
    #: One pod of the API, beside those that run; or the Deployment that the kustomization has for it.
    canary: Manifest
    #: Whether the canary is the kustomization's own, and so stays after the rollout.
    canary_stays: bool
    #: Applied one after the other, each once the one before it is ready. The API comes first: its canary was ready.
    deployments: list[Manifest]
    #: Applied once all Deployments are ready. Jobs among them run anew.
    after: list[Manifest]


def release_of(rendered: str, image: str) -> Release:
    """Part rendered YAML into a release of an image.

    Raises Unusable for an image without a digest, and where the API's Deployment or the migration's Job is missing.
    """
    if not _PINNED.fullmatch(image):
        raise Unusable(f"The image must be named by its digest, NAME@sha256:…, and is {image!r}.")
    manifests = list(_parsed(rendered))
    named = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    for kind, name in (("Deployment", API), ("Job", MIGRATION)):
        if (kind, name) not in named:
            raise Unusable(f"The kustomization has no {kind} {name}.")
    _set_image(manifests, image)
    api, migration = named["Deployment", API], named["Job", MIGRATION]
    canary = named.get(("Deployment", CANARY))
    deployments = [each for each in manifests if each["kind"] == "Deployment" and each not in (api, canary)]
    rest = [each for each in manifests if each["kind"] != "Deployment" and each is not migration]
    return Release(
        before=[each for each in rest if each["kind"] in _BEFORE],
        migration=migration,
        canary=canary or _canary_of(api),
        canary_stays=canary is not None,
        deployments=[api, *deployments],
        after=[each for each in rest if each["kind"] not in _BEFORE],
    )


def _parsed(rendered: str) -> Iterator[Manifest]:
    try:
        documents = list(yaml.safe_load_all(rendered))
    except yaml.YAMLError as error:
        raise Unusable(f"The kustomization renders no YAML: {' '.join(str(error).split())}") from error
    for document in documents:
        if document is None:
            continue
        try:
            document["kind"], document["metadata"]["name"]
        except (KeyError, TypeError) as error:
            raise Unusable("The kustomization renders an object without a kind or a name.") from error
        yield document


def _set_image(manifests: list[Manifest], image: str) -> None:
    """Give the image to each container that has the API's, or its canary's, whatever its tag or digest."""
    workloads = {each["metadata"]["name"]: each for each in manifests if each["kind"] == "Deployment"}
    containers = list(_containers(workloads[API]))
    if not containers:
        raise Unusable(f"The Deployment {API} has no container.")
    first = containers[0]
    # A canary of the kustomization's own has a name of its own, so that it can have a tag of its own.
    canaries = _containers(workloads[CANARY]) if CANARY in workloads else ()
    ours = {_repository(first["image"])} | {
        _repository(each["image"]) for each in canaries if each["name"] == first["name"]
    }
    for manifest in manifests:
        for container in _containers(manifest):
            if _repository(container["image"]) in ours:
                container["image"] = image


def _containers(manifest: Manifest) -> Iterator[Manifest]:
    """Yield the containers of a workload's pods, none for other kinds."""
    spec = manifest.get("spec") or {}
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod = (spec.get("template") or {}).get("spec") or {}
    yield from pod.get("initContainers") or []
    yield from pod.get("containers") or []


def _repository(image: str) -> str:
    """An image's name without its tag and digest. A colon before the last slash belongs to the registry's port."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


def _canary_of(api: Manifest) -> Manifest:
    """One pod like the API's. It keeps the labels that the Service asks for, and so gets its share of the requests."""
    canary = copy.deepcopy(api)
    canary["metadata"]["name"] = CANARY
    spec = canary["spec"]
    spec["replicas"] = 1
    spec["selector"]["matchLabels"][_VERSION] = "canary"
    spec["template"]["metadata"]["labels"][_VERSION] = "canary"
    return canary
