"""deploy/rollout/manifests.py: what a kustomization renders, parted into the steps of a release."""

from typing import Any

import pytest
import yaml

from deploy.rollout.manifests import Release, Unusable, release_of
from tests.support.clusters import NEW, deployment, rendered


def parted(manifests: list[dict[str, Any]]) -> Release:
    return release_of(yaml.safe_dump_all(manifests), NEW)


def names(manifests: list[dict[str, Any]]) -> list[str]:
    return [f"{each['kind']}/{each['metadata']['name']}" for each in manifests]


def test_what_a_migration_needs_comes_before_it_and_the_rest_comes_last() -> None:
    more = [
        {"kind": kind, "metadata": {"name": "x"}}
        for kind in ("Namespace", "Secret", "NetworkPolicy", "Service", "StatefulSet", "Ingress", "ScaledObject")
    ]
    release = parted(rendered(*more))
    assert names(release.before) == [
        "ConfigMap/settings-1",
        *(f"{kind}/x" for kind in ("Namespace", "Secret", "NetworkPolicy", "Service", "StatefulSet")),
    ]
    assert names([release.migration]) == ["Job/migrate"]
    assert names(release.deployments) == ["Deployment/api", "Deployment/beat", "Deployment/worker-fresh"]
    assert names(release.after) == ["PodDisruptionBudget/api", "Job/reader", "Ingress/x", "ScaledObject/x"]


def test_the_canary_is_one_pod_that_the_service_selects_and_the_api_s_deployment_does_not() -> None:
    release = parted(rendered())
    canary, api = release.canary, release.deployments[0]
    assert canary["metadata"]["name"] == "api-canary"
    assert canary["spec"]["replicas"] == 1
    labels = canary["spec"]["template"]["metadata"]["labels"]
    assert canary["spec"]["selector"]["matchLabels"] == labels
    assert labels == {"app.kubernetes.io/name": "notifier", "app.kubernetes.io/component": "api", "version": "canary"}
    assert api["spec"]["template"]["metadata"]["labels"]["version"] == "stable"
    assert "replicas" not in api["spec"]
    assert canary["spec"]["template"]["spec"] == api["spec"]["template"]["spec"]
    assert not release.canary_stays


def test_a_canary_of_the_kustomization_s_own_stays() -> None:
    own = deployment("api", "notifier-canary:0.1.0", version="canary")
    own["metadata"]["name"] = "api-canary"
    release = parted(rendered(own))
    assert release.canary_stays
    assert "Deployment/api-canary" not in names(release.deployments)
    images = [each["image"] for each in release.canary["spec"]["template"]["spec"]["containers"]]
    assert images == [NEW, "envoy:1"]


@pytest.mark.parametrize(
    ("image", "ours"),
    [
        ("registry.example.com:5000/notifier", True),
        ("registry.example.com:5000/notifier:0.1.0@sha256:" + "a" * 64, True),
        ("registry.example.com:5000/notifier-tools:0.1.0", False),
        ("registry.example.com/notifier:0.1.0", False),
        ("notifier", False),
    ],
)
def test_an_image_is_ours_by_its_name(image: str, ours: bool) -> None:
    release = parted(rendered(deployment("other", image)))
    [other] = [each for each in release.deployments if each["metadata"]["name"] == "other"]
    assert other["spec"]["template"]["spec"]["containers"][0]["image"] == (NEW if ours else image)


def test_a_cron_job_s_image_is_set_too() -> None:
    pod = deployment("x")["spec"]["template"]
    job = {"kind": "CronJob", "metadata": {"name": "x"}, "spec": {"jobTemplate": {"spec": {"template": pod}}}}
    [made] = [each for each in parted(rendered(job)).after if each["kind"] == "CronJob"]
    assert made["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"] == NEW


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The kustomization has no Deployment api."),
        ("a: [", "The kustomization renders no YAML: "),
        ("just words", "The kustomization renders an object without a kind or a name."),
        ("kind: Job", "The kustomization renders an object without a kind or a name."),
    ],
)
def test_what_cannot_be_rolled_out_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(Unusable) as refused:
        release_of(text, NEW)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_an_api_without_a_container_is_refused() -> None:
    manifests = rendered()
    next(each for each in manifests if each["metadata"]["name"] == "api")["spec"]["template"]["spec"] = {}
    with pytest.raises(Unusable, match="has no container"):
        parted(manifests)
