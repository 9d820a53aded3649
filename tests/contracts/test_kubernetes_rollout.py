"""The rollout takes every overlay of deploy/kubernetes as it is."""

import pytest
import yaml

from deploy.rollout.manifests import release_of
from tests.support.kubernetes import OVERLAYS, WORKLOADS, containers, of_kind, rendered

IMAGE = "registry.example.com/notifier@sha256:" + "a" * 64


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_a_release(overlay: str) -> None:
    documents = rendered(overlay)
    release = release_of(yaml.safe_dump_all(documents), IMAGE)
    assert release.migration["metadata"]["name"] == "migrate"
    assert release.canary_stays is (overlay == "mesh")
    parts = [*release.before, release.migration, release.canary, *release.deployments, *release.after]
    ours = [each for each in containers(of_kind(parts, *WORKLOADS)) if "notifier" in each.spec["image"]]
    assert {each.spec["image"] for each in ours} == {IMAGE}
    assert len(ours) >= len([each for each in containers(documents) if each.is_ours])
    # All of it is applied, and nothing twice but the canary, which the mesh has of its own.
    made = sorted((each["kind"], each["metadata"]["name"]) for each in parts if each is not release.canary)
    there = sorted((each["kind"], each["metadata"]["name"]) for each in documents)
    assert made == [each for each in there if each != ("Deployment", "api-canary") or not release.canary_stays]
