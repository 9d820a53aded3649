"""The workflows in .github, and the Dockerfile: checked by the tools of the trade, and held to what this project has.

GitHub itself runs none of this here; docs/releasing.md says what that leaves open.
"""

import re
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from deploy.commands.cli import cli
from deploy.rollout.__main__ import main
from tests.support.paths import ROOT
from tests.support.workflows import FILES, GITHUB, Job, checked, job, jobs, workflow

DEPENDABOT = GITHUB / "dependabot.yml"
PYTHONS = sorted(folder.name for folder in (ROOT / "locks").iterdir())
JOBS = list(jobs())
WITH_STEPS = [each for each in JOBS if each.steps]


def named(each: Job) -> str:
    return f"{each.workflow}.{each.name}"


def test_the_workflows_are_those_that_the_documents_describe() -> None:
    assert {file.stem for file in FILES} == {"audit", "ci", "deploy", "release"}
    described = (ROOT / "docs" / "releasing.md").read_text()
    assert all(f"`{file.name}`" in described for file in FILES)


def test_they_are_what_github_s_schema_describes() -> None:
    assert checked("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *FILES) == ""
    assert checked("check-jsonschema", "--builtin-schema", "vendor.dependabot", DEPENDABOT) == ""


def test_actionlint_finds_nothing() -> None:
    """jactionlint is actionlint in a wheel, with more rules. shellcheck is not there; the scripts are short."""
    assert checked("jactionlint", "--shellcheck=") == ""


def test_zizmor_finds_nothing() -> None:
    assert checked("zizmor", "--offline", "--quiet", "--no-progress", GITHUB) == ""


def test_hadolint_finds_nothing() -> None:
    assert checked("hadolint", ROOT / "Dockerfile") == ""


def test_actions_are_pinned_by_their_commit_and_say_their_version() -> None:
    used = [
        (file.name, line)
        for file in FILES
        for line in file.read_text().splitlines()
        if re.match(r"\s*(?:- )?uses:", line) and "uses: ./" not in line
    ]
    assert used
    pinned = r"\s*(?:- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    assert [(name, line) for name, line in used if not re.fullmatch(pinned, line)] == []


def test_an_action_has_one_version_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for file in FILES:
        for action, pin in re.findall(r"uses: ([\w-]+/[\w-]+)@(.+)", file.read_text()):
            pins.setdefault(action, set()).add(pin)
    assert {action: pin for action, pin in pins.items() if len(pin) > 1} == {}


def test_images_that_workflows_run_are_pinned_by_digest() -> None:
    images = [image for file in FILES for image in re.findall(r"docker\.io/\S+", file.read_text())]
    assert len(images) >= 5
    assert [each for each in images if not re.fullmatch(r"docker\.io/[\w/-]+:[\w.-]+@sha256:[0-9a-f]{64}", each)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_workflow_may_read_the_code_and_nothing_else(file: Path) -> None:
    """A job names itself the further permissions that it needs."""
    body = workflow(file.stem)
    assert body["permissions"] == {"contents": "read"}
    assert body["concurrency"]["group"]


def test_few_jobs_may_write_and_each_only_what_it_must() -> None:
    written = {
        named(each): {scope for scope, level in each.body.get("permissions", {}).items() if level != "read"}
        for each in JOBS
    }
    assert {name: scopes for name, scopes in written.items() if scopes} == {
        "release.build": {"packages"},
        "release.publish": {"attestations", "id-token", "packages"},
        "release.deploy": {"actions"},
    }


@pytest.mark.parametrize("each", WITH_STEPS, ids=named)
def test_a_job_ends_and_keeps_no_credentials(each: Job) -> None:
    assert 0 < each.body["timeout-minutes"] <= 120
    for step in each.steps:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("each", WITH_STEPS, ids=named)
def test_scripts_take_values_from_the_environment_alone(each: Job) -> None:
    """An expression in a script is put there before a shell reads it, quotes and all."""
    assert "${{" not in each.script


@pytest.mark.parametrize("each", WITH_STEPS, ids=named)
def test_the_commands_and_files_that_a_job_names_are_there(each: Job) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", each.script)) <= targets
    known = set(cli.list_commands(click.Context(cli)))
    assert set(re.findall(r"\bmanage\.py ([a-z-]+)", each.script)) <= known
    for path in re.findall(r"(?<![\w./-])(\.ci/\w+|locks/[\w./-]+\.txt)", each.script):
        assert (ROOT / path).is_file(), path
    for started in re.findall(r"gh workflow run (\w+)\.yml", each.script):
        assert "workflow_dispatch" in workflow(started)["on"]
    for module in re.findall(r"python -m ([\w.]+)", each.script):
        assert module == "venv" or (ROOT / module.replace(".", "/")).is_dir(), module


def test_pythons_are_those_that_are_locked() -> None:
    for each in WITH_STEPS:
        for step in each.steps:
            if step.get("uses", "").startswith("actions/setup-python@"):
                version = step["with"]["python-version"]
                matrix = each.body.get("strategy", {}).get("matrix", {}).get("python")
                assert set(matrix if "matrix" in version else [version]) <= set(PYTHONS), named(each)


# release.yml: what it proves is in the order of its jobs.


def test_a_tag_and_nothing_else_starts_a_release() -> None:
    assert workflow("release")["on"] == {"push": {"tags": ["v*"]}}
    assert "tags" not in workflow("ci")["on"]["push"], "a tag would be tested twice"


def test_nothing_is_built_before_all_tests_and_the_audit_pass() -> None:
    assert set(job("build", "release").body["needs"]) == {"test", "audit"}
    for name, called in {"test": "ci", "audit": "audit"}.items():
        assert job(name, "release").body["uses"] == f"./.github/workflows/{called}.yml"
        assert "workflow_call" in workflow(called)["on"]
    assert "make audit" in job("audit", "audit").script
    assert ".ci/run" in job("test", "ci").script


def test_both_architectures_are_built_at_once_with_sbom_and_provenance() -> None:
    given = job("build", "release").step_of("docker/build-push-action")["with"]
    assert given["platforms"] == "linux/amd64,linux/arm64"
    assert given["provenance"] == "mode=max"
    assert given["sbom"].startswith("generator=docker.io/docker/buildkit-syft-scanner:")


def test_the_image_has_no_tag_until_it_is_scanned_and_signed() -> None:
    given = job("build", "release").step_of("docker/build-push-action")["with"]
    assert "tags" not in given
    assert "push-by-digest=true" in given["outputs"]
    publish = job("publish", "release")
    assert "scan" in publish.body["needs"]
    script = publish.script
    assert script.index("cosign sign") < script.index("cosign verify") < script.index("imagetools create --tag")
    others = [each for each in JOBS if each.workflow == "release" and each.name != "publish"]
    assert not any("--tag" in each.script for each in others)


def test_only_the_release_writes_its_cache() -> None:
    given = job("build", "release").step_of("docker/build-push-action")["with"]
    assert all(given[name].startswith("type=registry,") for name in ("cache-from", "cache-to"))


def test_a_vulnerability_that_has_a_fix_stops_a_release_on_either_architecture() -> None:
    scan = job("scan", "release")
    platforms = job("build", "release").step_of("docker/build-push-action")["with"]["platforms"].split(",")
    assert scan.body["strategy"]["matrix"]["platform"] == platforms
    step = scan.step_of("aquasecurity/trivy-action")
    assert step["env"] == {"TRIVY_PLATFORM": "${{ matrix.platform }}"}
    assert step["with"]["severity"] == "HIGH,CRITICAL"
    assert step["with"]["ignore-unfixed"] is True
    assert step["with"]["exit-code"] == "1"
    assert step["with"]["image-ref"].endswith("@${{ needs.build.outputs.digest }}")


def test_a_pull_request_builds_the_same_image_and_pushes_nothing() -> None:
    released = job("build", "release").step_of("docker/build-push-action")["with"]
    tried = job("image", "ci").step_of("docker/build-push-action")["with"]
    assert tried["platforms"] == released["platforms"]
    assert tried["outputs"] == "type=cacheonly"
    assert tried["cache-from"] == "type=gha"


# deploy.yml: only what a release signed reaches a cluster.


def test_a_deployment_waits_for_its_environment() -> None:
    assert job("deploy", "deploy").body["environment"] == "${{ inputs.environment }}"
    concurrency = workflow("deploy")["concurrency"]
    assert concurrency == {"group": "deploy-${{ inputs.environment }}", "cancel-in-progress": False}


def test_the_signature_is_verified_before_the_cluster_is_touched() -> None:
    deploy = job("deploy", "deploy")
    steps = deploy.steps
    verify = next(index for index, each in enumerate(steps) if "cosign verify" in each.get("run", ""))
    touch = [index for index, each in enumerate(steps) if "KUBECONFIG" in str(each)]
    assert touch == [len(steps) - 1]
    assert verify < touch[0]
    assert steps[touch[0]]["env"]["IMAGE"] == "${{ steps.verified.outputs.image }}"
    assert steps[verify]["id"] == "verified"


def test_both_ask_for_the_identity_that_signs() -> None:
    signed = job("publish", "release").body["env"]["IDENTITY"]
    asked = next(each for each in job("deploy", "deploy").steps if each.get("id") == "verified")["env"]["IDENTITY"]
    tag = "refs/tags/${{ inputs.version }}"
    assert asked == signed.replace("${{ github.ref }}", tag)
    assert f"/{FILES[[file.stem for file in FILES].index('release')].name}@" in asked


def test_the_rollout_s_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["to", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    line = next(line for line in job("deploy", "deploy").script.splitlines() if "deploy.rollout" in line)
    assert line.split()[3] == "to"
    assert set(re.findall(r"--[a-z-]+", line)) <= options


# .ci/release_name: the tag, the version and the changelog agree.


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "release_name"
    script.write_text((ROOT / ".ci" / "release_name").read_text())
    script.chmod(0o755)
    (tmp_path / "notifier").mkdir()
    (tmp_path / "notifier/__init__.py").write_text('VERSION: Final = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 1.2.3 – 2030-01-01\n")
    return tmp_path


def name_of(project: Path, tag: str) -> tuple[int, str]:
    """Return the exit code, and what it writes for the next step or says."""
    output = project / "output"
    output.write_text("")
    environment = {"PATH": "/usr/bin:/bin", "GITHUB_REPOSITORY": "Acme/Notifier", "GITHUB_OUTPUT": str(output)}
    done = subprocess.run(
        [project / ".ci" / "release_name"],
        env={**environment, "GITHUB_REF_NAME": tag},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, output.read_text() + done.stderr


def test_an_image_is_named_as_the_repository_in_lower_case(project: Path) -> None:
    assert name_of(project, "v1.2.3") == (0, "image=ghcr.io/acme/notifier\n")


@pytest.mark.parametrize("tag", ["v1.2", "1.2.3", "v1.2.3-rc1", 'v1.2.3"; id; "', ""])
def test_another_kind_of_tag_is_refused(project: Path, tag: str) -> None:
    assert name_of(project, tag) == (1, f"A release's tag is vMAJOR.MINOR.PATCH, and not '{tag}'.\n")


def test_another_version_than_the_project_s_is_refused(project: Path) -> None:
    assert name_of(project, "v1.2.4") == (1, "The tag is v1.2.4, but notifier/__init__.py says 1.2.3.\n")


def test_a_version_without_its_changes_is_refused(project: Path) -> None:
    (project / "CHANGELOG.md").write_text("## Unreleased\n\n## 1.2.30\n\n## 1x2.3\n")
    assert name_of(project, "v1.2.3") == (1, "CHANGELOG.md has no section 1.2.3.\n")


# Updates are proposed for everything that is pinned.


def test_every_kind_of_pin_is_looked_after() -> None:
    looked_after = {
        (each["package-ecosystem"], folder)
        for each in yaml.safe_load(DEPENDABOT.read_text())["updates"]
        for folder in each.get("directories", [each.get("directory")])
    }
    manifests = {
        "docker": [*ROOT.glob("Dockerfile"), *(ROOT / "deploy").glob("**/Dockerfile")],
        "docker-compose": ROOT.glob("docker-compose.yml"),
        "npm": (ROOT / "tests").glob("**/package-lock.json"),
        "pip": [*ROOT.glob("requirements.txt"), *(ROOT / "tests").glob("**/requirements.txt")],
    }
    there = {(kind, f"/{file.parent.relative_to(ROOT)}".rstrip(".")) for kind in manifests for file in manifests[kind]}
    assert looked_after == there | {("github-actions", "/")}


def test_a_release_of_others_is_some_days_old_before_it_comes_in() -> None:
    for each in yaml.safe_load(DEPENDABOT.read_text())["updates"]:
        assert each["cooldown"]["default-days"] >= 7
