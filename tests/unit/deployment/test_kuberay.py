"""The files for KubeRay: every field exists, the run fits the cluster, the token stays a secret."""

from __future__ import annotations

import copy
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tats_ray.actors.auth_token import guard_token
from tats_ray.actors.cluster import preflight
from tats_ray.actors.object_store import store_warning
from tats_ray.config import load_config
from tats_ray.errors import ResourceError
from tests.kuberay_schema import (
    Container,
    PodDisruptionBudget,
    PodTemplate,
    RayCluster,
    RayClusterSpec,
    RayJob,
)

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "configs" / "cluster"
VIT_B = 94_000_000  # weights of ViT-B with its decoder
STORE_SHARE = 0.3  # of a node's memory that Ray takes for its object store


def _read(name):
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


JOB, JOB_BUDGET = _read("kuberay_rayjob.yaml")
CLUSTER, CLUSTER_BUDGET = _read("kuberay_raycluster.yaml")
SPEC = RayClusterSpec.model_validate(CLUSTER["spec"])
GROUPS = {group.groupName: group for group in SPEC.workerGroupSpecs}


def _templates() -> list[PodTemplate]:
    return [SPEC.headGroupSpec.template, *(group.template for group in SPEC.workerGroupSpecs)]


def _containers() -> list[Container]:
    return [container for template in _templates() for container in template.spec.containers]


def _config():
    python, job, option, file, *overrides = JOB["spec"]["entrypoint"].split()
    assert (python, option) == ("python", "--config")
    assert (ROOT / job).is_file()
    return load_config(ROOT / file, overrides)


def _amount(group: str, resource: str) -> int:
    """Of all pods of a group that are there at the start."""
    (container,) = GROUPS[group].template.spec.containers
    quantity = container.resources.limits.get(resource, "0")
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    unit = units.get(quantity[-2:], 1)
    return GROUPS[group].minReplicas * int(quantity.rstrip("KMGi")) * unit


def test_every_field_exists_with_its_type():
    RayJob.model_validate(JOB)
    RayCluster.model_validate(CLUSTER)
    PodDisruptionBudget.model_validate(CLUSTER_BUDGET)


def _misspelt(tree, *path):
    broken = copy.deepcopy(tree)
    node = broken
    for key in path[:-1]:
        node = node[key]
    node[path[-1] + "x"] = node.pop(path[-1])
    return broken


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "backoffLimit"),
        ("spec", "rayClusterSpec", "enableInTreeAutoscaling"),
        ("spec", "rayClusterSpec", "authOptions", "secretName"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 1, "maxReplicas"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "volumes"),
    ],
    ids=str,
)
def test_an_unknown_field_is_refused(path):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        RayJob.model_validate(_misspelt(JOB, *path))


def test_a_number_where_text_belongs_is_refused():
    broken = copy.deepcopy(CLUSTER)
    broken["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(ValidationError, match="num-cpus"):
        RayCluster.model_validate(broken)


def test_the_jobs_cluster_is_the_one_that_stays():
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]
    assert JOB_BUDGET == CLUSTER_BUDGET


def test_replicas_lie_in_their_bounds_and_only_cpu_pods_come_and_go():
    for group in GROUPS.values():
        assert group.minReplicas <= group.replicas <= group.maxReplicas
    assert SPEC.enableInTreeAutoscaling
    assert GROUPS["gpu"].minReplicas == GROUPS["gpu"].maxReplicas
    assert GROUPS["cpu"].minReplicas < GROUPS["cpu"].maxReplicas


def test_the_run_uses_every_gpu_and_fits_without_any_cpu_pod():
    config = _config()
    cpus, gpus = _amount("gpu", "cpu"), _amount("gpu", "nvidia.com/gpu")
    assert config.train.workers == gpus
    assert config.cluster.address == "auto"
    assert preflight(config, cpus, gpus).train_gpus > 0.5
    with pytest.raises(ResourceError, match=r"train\.workers=2 need a GPU each"):
        preflight(config, cpus, gpus - 1)


def test_the_object_store_of_the_gpu_pods_holds_what_the_run_keeps_in_it():
    store = STORE_SHARE * _amount("gpu", "memory")
    assert store_warning(_config(), VIT_B, store) is None


def test_the_run_is_written_to_the_volume_that_all_pods_share():
    config = _config()
    for template in _templates():
        (container,) = template.spec.containers
        paths = {mount.name: mount.mountPath for mount in container.volumeMounts}
        claims = {volume.name for volume in template.spec.volumes if volume.persistentVolumeClaim}
        assert Path(config.run.output_dir).is_relative_to(paths["shared"])
        assert Path(config.data.manifest).is_relative_to(paths["shared"])
        assert claims == {"shared"}


def test_the_token_is_a_file_of_the_secret_that_the_operator_knows():
    for template in _templates():
        (container,) = template.spec.containers
        (secret,) = (volume.secret for volume in template.spec.volumes if volume.secret)
        (mount,) = (mount for mount in container.volumeMounts if mount.name == "token")
        variables = {variable.name: variable.value for variable in container.env}
        assert secret.defaultMode == 0o600
        assert mount.readOnly
        assert SPEC.authOptions.model_dump() == {"mode": "token", "secretName": secret.secretName}
        assert variables == {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "",  # else the operator would add the token itself
            "RAY_AUTH_TOKEN_PATH": f"{mount.mountPath}/auth_token",
        }


def test_pods_run_confined_and_within_limits():
    for template in _templates():
        assert template.spec.securityContext.runAsNonRoot
        assert template.spec.securityContext.runAsUser == template.spec.securityContext.fsGroup
    for container in _containers():
        assert container.resources.requests == container.resources.limits
        assert {"cpu", "memory"} <= container.resources.limits.keys()
        assert not container.securityContext.allowPrivilegeEscalation
    assert SPEC.headGroupSpec.serviceType == "ClusterIP"


def test_all_pods_have_one_image_of_a_named_version_and_the_installed_ray():
    (image,) = {container.image for container in _containers()}
    assert image.rpartition(":")[2] not in {"latest", image}
    assert SPEC.rayVersion == version("ray")


def test_head_and_gpu_pods_are_not_drained():
    budget = PodDisruptionBudget.model_validate(CLUSTER_BUDGET).spec
    (expression,) = budget.selector.matchExpressions
    kept = [
        template.metadata.labels[expression.key]
        for template in _templates()
        if budget.selector.matchLabels.items() <= template.metadata.labels.items()
        and template.metadata.labels[expression.key] in expression.values
    ]
    assert budget.maxUnavailable == 0
    assert kept == ["head", "gpu"]


def test_a_stopped_job_has_time_for_its_checkpoint():
    variables = yaml.safe_load(JOB["spec"]["runtimeEnvYAML"])["env_vars"]
    grace = SPEC.headGroupSpec.template.spec.terminationGracePeriodSeconds
    assert 3 < int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) <= grace


def test_a_mounted_token_is_taken_as_it_is(tmp_path, monkeypatch, capsys):
    """Kubernetes owns the file, and lets the pod's group read it."""
    token = tmp_path / "auth_token"
    token.write_text("0" * 64)
    token.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setattr("os.getuid", lambda: token.stat().st_uid + 1)
    guard_token(create=False)
    assert capsys.readouterr().out == ""
    assert token.stat().st_mode & 0o777 == 0o640
    token.chmod(0o644)
    guard_token(create=False)
    assert "other users of this machine could read the token" in capsys.readouterr().out
