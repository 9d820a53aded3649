"""deploy/rollout: a release reaches the cluster through its canary, or the cluster runs what it ran before.

kubectl is a fake that keeps a small cluster in a folder (tests/support/fake_kubectl.py); the rollout is the real
program. The last test asks the real kubectl whether it takes the calls that were made.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clusters import DEPLOYMENTS, NEW, OLD, FakeCluster, deployment, rendered

ALL_OLD = dict.fromkeys(DEPLOYMENTS, OLD)
ALL_NEW = dict.fromkeys(DEPLOYMENTS, NEW)


@pytest.fixture
def empty(tmp_path: Path) -> FakeCluster:
    """A cluster in which nothing was ever rolled out."""
    return FakeCluster(tmp_path)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> FakeCluster:
    """A cluster that runs the old release, to be copied."""
    cluster = FakeCluster(tmp_path_factory.mktemp("old"))
    done = cluster.roll_out(OLD)
    assert done.returncode == 0, done.stderr
    return cluster


@pytest.fixture
def cluster(old: FakeCluster, empty: FakeCluster) -> FakeCluster:
    """A cluster of the test's own that runs the old release."""
    empty.copy(old)
    assert empty.images() == ALL_OLD
    return empty


def verbs(cluster: FakeCluster, since: int = 0) -> list[str]:
    """The calls that changed the cluster, without those that only asked."""
    changing = ("apply", "delete", "rollout undo")
    lines = (" ".join(word for word in call if not word.startswith("--")) for call in cluster.calls()[since:])
    return [line for line in lines if line.startswith(changing)]


def test_a_first_rollout_needs_no_canary(empty: FakeCluster) -> None:
    done = empty.roll_out(OLD)
    assert done.returncode == 0, done.stderr
    assert empty.images() == ALL_OLD
    assert "nothing to compare a canary with" in done.stdout


def test_a_release_goes_through_its_canary_to_every_deployment(cluster: FakeCluster) -> None:
    since = len(cluster.calls())
    done = cluster.roll_out()
    assert done.returncode == 0, done.stderr
    assert cluster.images() == ALL_NEW
    # before, the migration, the way back, the canary, each Deployment, after; then both of the rollout's own are gone.
    assert verbs(cluster, since) == [
        "apply",
        "delete job migrate",
        *["apply"] * (1 + 1 + 1 + len(DEPLOYMENTS)),
        "delete job reader",
        "apply",
        "delete deployment api-canary",
        "delete configmap rollout",
    ]
    assert done.stdout.splitlines()[0] == "The database is migrated."
    assert done.stdout.index("The canary is ready") < done.stdout.index("api is ready")
    assert {"PodDisruptionBudget/api", "ConfigMap/settings-1"} <= cluster.objects.keys()
    assert not {"Deployment/api-canary", "ConfigMap/rollout"} & cluster.objects.keys()


def test_all_images_of_ours_are_set_and_no_other(cluster: FakeCluster) -> None:
    cluster.roll_out()
    for name in ("migrate", "reader"):
        job = cluster.objects[f"Job/{name}"]["spec"]["template"]["spec"]
        assert [job["initContainers"][0]["image"], job["containers"][0]["image"]] == [NEW, NEW]
    assert cluster.objects["Deployment/api"]["spec"]["template"]["spec"]["containers"][1]["image"] == "envoy:1"


def test_a_migration_that_fails_touches_no_deployment(cluster: FakeCluster) -> None:
    since = len(cluster.calls())
    cluster.break_down(failing=True)
    done = cluster.roll_out()
    assert done.returncode == 1
    assert done.stderr == "The migration failed: Job has reached the specified backoff limit.\n"
    assert "the last words of job/migrate" in done.stdout
    assert cluster.images() == ALL_OLD
    assert verbs(cluster, since) == ["apply", "delete job migrate", "apply"]
    assert "ConfigMap/rollout" not in cluster.objects


def test_a_migration_that_does_not_end_touches_no_deployment(cluster: FakeCluster) -> None:
    cluster.break_down(endless=True)
    done = cluster.roll_out(NEW, "--migration-seconds", "0")
    assert done.returncode == 1
    assert done.stderr == "The migration has not ended after 0 s.\n"
    assert cluster.images() == ALL_OLD


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"unready": ["api-canary"]}, 'deployment "api-canary" exceeded its progress deadline'),
        ({"restarts": 1}, "The canary was restarted."),
        ({"forbidden": ["get pods"]}, "get pods is forbidden"),
    ],
)
def test_a_canary_that_fails_is_removed(cluster: FakeCluster, broken: dict[str, object], said: str) -> None:
    cluster.break_down(**broken)
    done = cluster.roll_out()
    assert done.returncode == 1
    assert said in done.stderr
    assert "the last words of deployment/api-canary" in done.stdout
    assert cluster.images() == ALL_OLD
    assert "ConfigMap/rollout" not in cluster.objects


def test_a_deployment_that_does_not_become_ready_takes_all_of_them_back(cluster: FakeCluster) -> None:
    cluster.break_down(unready=["worker-fresh"])
    done = cluster.roll_out()
    assert done.returncode == 1
    assert 'deployment "worker-fresh" exceeded its progress deadline' in done.stderr
    assert "api is ready" in done.stdout
    assert cluster.images() == ALL_OLD
    assert all(cluster.objects[f"Deployment/{name}"]["status"] for name in DEPLOYMENTS)
    assert "ConfigMap/rollout" not in cluster.objects


def test_a_release_that_was_rolled_back_can_be_rolled_out_later(cluster: FakeCluster) -> None:
    cluster.break_down(unready=["worker-fresh"])
    assert cluster.roll_out().returncode == 1
    cluster.break_down()
    assert cluster.roll_out().returncode == 0
    assert cluster.images() == ALL_NEW


def test_what_comes_last_is_left_alone_by_a_release_that_is_rolled_back(cluster: FakeCluster) -> None:
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "worker-fresh"}}
    cluster.render(rendered(budget))
    cluster.break_down(unready=["beat"])
    assert cluster.roll_out().returncode == 1
    assert "PodDisruptionBudget/worker-fresh" not in cluster.objects


def test_the_same_release_twice_changes_nothing(cluster: FakeCluster) -> None:
    revisions = {key: each for key, each in cluster.objects.items() if key.startswith("ReplicaSet/")}
    assert cluster.roll_out(OLD).returncode == 0
    after = {key: each for key, each in cluster.objects.items() if key.startswith("ReplicaSet/")}
    assert {key: each for key, each in after.items() if "canary" not in key} == revisions


@pytest.mark.parametrize("call", ["rollout status deployment/api-canary", "rollout status deployment/worker-fresh"])
def test_a_signal_takes_the_rollout_back(cluster: FakeCluster, call: str) -> None:
    cluster.break_down(signals=call)
    done = cluster.roll_out()
    assert done.returncode == 1
    assert done.stderr == "Stopped by SIGTERM.\n"
    assert cluster.images() == ALL_OLD
    assert "ConfigMap/rollout" not in cluster.objects


def killed_halfway(cluster: FakeCluster) -> None:
    """Leave a cluster as a rollout does that is lost once the API runs the new release."""
    cluster.break_down(unready=["worker-fresh"], forbidden=["rollout undo deployment/api"])
    assert cluster.roll_out().returncode == 3
    cluster.break_down()
    assert cluster.images()["api"] == NEW


def test_a_way_back_that_fails_says_so_and_can_be_tried_again(cluster: FakeCluster) -> None:
    cluster.break_down(unready=["worker-fresh"], forbidden=["rollout undo deployment/api"])
    done = cluster.roll_out()
    assert done.returncode == 3
    assert "Not all is rolled back." in done.stderr
    assert "deployment/api is forbidden" in done.stderr
    # Each that can go back did.
    assert cluster.images()["worker-fresh"] == OLD
    cluster.break_down()
    again = cluster.run("back")
    assert again.returncode == 0, again.stderr
    assert cluster.images() == ALL_OLD
    assert cluster.run("back").returncode == 1, "there is nothing left to take back"


def test_a_rollout_after_one_that_was_cut_short_goes_back_to_what_ran_before_both(cluster: FakeCluster) -> None:
    killed_halfway(cluster)
    newer = NEW.replace("1" * 64, "2" * 64)
    cluster.break_down(unready=["beat"])
    done = cluster.roll_out(newer)
    assert done.returncode == 1
    assert "An earlier rollout was cut short" in done.stdout
    assert cluster.images() == ALL_OLD


def test_a_rollout_after_one_that_was_cut_short_finishes_it(cluster: FakeCluster) -> None:
    killed_halfway(cluster)
    assert cluster.roll_out().returncode == 0
    assert cluster.images() == ALL_NEW
    assert not {"Deployment/api-canary", "ConfigMap/rollout"} & cluster.objects.keys()


def test_a_template_that_is_gone_is_told(cluster: FakeCluster) -> None:
    cluster.break_down(unready=["worker-fresh"], forbidden=["rollout undo deployment/api"])
    cluster.roll_out()
    cluster.break_down(lost=["api-0"])
    done = cluster.run("back")
    assert done.returncode == 3
    assert "The ReplicaSet that api had is gone." in done.stderr
    assert "ConfigMap/rollout" in cluster.objects


def test_what_is_left_of_a_rollout_is_told(cluster: FakeCluster) -> None:
    cluster.break_down(forbidden=["delete configmap rollout"])
    done = cluster.roll_out()
    assert done.returncode == 3
    assert "ConfigMap rollout" in done.stderr
    assert cluster.images() == ALL_NEW


def test_a_canary_that_was_left_has_no_way_back(cluster: FakeCluster) -> None:
    cluster.break_down(forbidden=["delete deployment api-canary"])
    assert cluster.roll_out(OLD).returncode == 3
    cluster.forget("ConfigMap/rollout")
    cluster.break_down(unready=["beat"])
    assert cluster.roll_out().returncode == 1
    assert cluster.images() == ALL_OLD


def test_a_new_deployment_has_no_way_back_and_is_named(cluster: FakeCluster) -> None:
    cluster.render(rendered(deployment("worker-new")))
    cluster.break_down(unready=["worker-new"])
    done = cluster.roll_out()
    assert done.returncode == 1
    assert "worker-new is new, and stays" in done.stdout
    assert cluster.images() == {**ALL_OLD, "worker-new": NEW}


class TestAMeshsCanary:
    """Where the kustomization has a canary of its own, between which and the API a mesh splits requests."""

    @pytest.fixture
    def mesh(self, empty: FakeCluster) -> FakeCluster:
        canary = deployment("api", "notifier-canary:0.1.0", version="canary")
        canary["metadata"]["name"] = "api-canary"
        empty.render(rendered(canary))
        assert empty.roll_out(OLD).returncode == 0
        assert empty.images() == {**ALL_OLD, "api-canary": OLD}
        return empty

    def test_it_comes_first_and_stays(self, mesh: FakeCluster) -> None:
        done = mesh.roll_out()
        assert done.returncode == 0, done.stderr
        assert done.stdout.index("The canary is ready") < done.stdout.index("api is ready")
        assert mesh.images() == {**ALL_NEW, "api-canary": NEW}

    def test_it_goes_back_and_is_not_removed(self, mesh: FakeCluster) -> None:
        mesh.break_down(restarts=1)
        assert mesh.roll_out().returncode == 1
        assert mesh.images() == {**ALL_OLD, "api-canary": OLD}


@pytest.mark.parametrize("image", ["ghcr.io/example/notifier:v1.2.3", "notifier@sha256:123", "@sha256:" + "1" * 64])
def test_an_image_without_its_digest_is_refused(cluster: FakeCluster, image: str) -> None:
    since = len(cluster.calls())
    done = cluster.roll_out(image)
    assert done.returncode == 2
    assert done.stderr.startswith("The image must be named by its digest")
    assert verbs(cluster, since) == []
    assert cluster.images() == ALL_OLD


def test_a_kustomization_without_a_migration_is_refused(cluster: FakeCluster) -> None:
    cluster.render([each for each in rendered() if each["metadata"]["name"] != "migrate"])
    since = len(cluster.calls())
    done = cluster.roll_out()
    assert (done.returncode, done.stderr) == (2, "The kustomization has no Job migrate.\n")
    assert verbs(cluster, since) == []


def test_the_real_kubectl_takes_every_call(cluster: FakeCluster) -> None:
    """Ask it, where no server answers: a call that it does not understand fails in another way."""
    cluster.break_down(unready=["worker-fresh"], restarts=1)
    cluster.roll_out()
    cluster.break_down(failing=True)
    cluster.roll_out()
    cluster.break_down(unready=["worker-fresh"])
    cluster.roll_out()
    distinct = {tuple(call[:2]): call for call in cluster.calls() if call[0] != "kustomize"}
    assert len(distinct) >= 9
    real = Path(sys.executable).with_name("kubectl")
    for call in distinct.values():
        done = subprocess.run(
            [real, "--server=http://127.0.0.1:9", *call],
            input='{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}',
            env={**os.environ, "KUBECONFIG": os.devnull},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert "connection refused" in done.stderr, (call, done.stderr)
        assert "unknown" not in done.stderr, (call, done.stderr)
