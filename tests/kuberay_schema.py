"""The fields of Kubernetes and KubeRay that our files use, with their types; any other is an error.

Written by hand after the CRDs `rayclusters.ray.io` and `rayjobs.ray.io`, version v1, of KubeRay at
commit feeaf72 (August 2026, after 1.7.0), and after the API of Kubernetes 1.32. A new field in a
file needs a line here; look it up in the CRD first. `authOptions.secretName` needs KubeRay 1.6.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Quantity = Annotated[str, Field(pattern=r"^\d+(m|Ki|Mi|Gi|Ti)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Replicas = Annotated[int, Field(ge=0)]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Closed):
    name: Name


class Labels(Closed):
    labels: dict[str, str]


class Resources(Closed):
    requests: dict[str, Quantity]
    limits: dict[str, Quantity]


class Variable(Closed):
    name: str
    value: str


class Port(Closed):
    containerPort: int
    name: Annotated[str, Field(max_length=15)]


class Capabilities(Closed):
    drop: list[str]


class ContainerSecurity(Closed):
    allowPrivilegeEscalation: bool
    capabilities: Capabilities


class VolumeMount(Closed):
    mountPath: str
    name: Name
    readOnly: bool = False


class Container(Closed):
    name: Name
    image: str
    workingDir: str
    securityContext: ContainerSecurity
    env: list[Variable]
    ports: list[Port] = []
    resources: Resources
    volumeMounts: list[VolumeMount]


class Claim(Closed):
    claimName: Name


class Secret(Closed):
    secretName: Name
    defaultMode: int


class Volume(Closed):
    name: Name
    persistentVolumeClaim: Claim | None = None
    secret: Secret | None = None


class PodSecurity(Closed):
    runAsNonRoot: bool
    runAsUser: int
    runAsGroup: int
    fsGroup: int


class PodSpec(Closed):
    securityContext: PodSecurity
    terminationGracePeriodSeconds: int
    containers: list[Container]
    volumes: list[Volume]


class PodTemplate(Closed):
    metadata: Labels
    spec: PodSpec


class HeadGroup(Closed):
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    rayStartParams: dict[str, str]
    template: PodTemplate


class WorkerGroup(Closed):
    groupName: Name
    replicas: Replicas
    minReplicas: Replicas
    maxReplicas: Replicas
    rayStartParams: dict[str, str]
    template: PodTemplate


class AuthOptions(Closed):
    mode: Literal["disabled", "token"]
    secretName: Name


class AutoscalerOptions(Closed):
    version: Literal["v1", "v2"]
    upscalingMode: Literal["Default", "Aggressive", "Conservative"]
    idleTimeoutSeconds: Annotated[int, Field(ge=0)]
    resources: Resources


class RayClusterSpec(Closed):
    rayVersion: str
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions
    authOptions: AuthOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class RayCluster(Closed):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class RayJobSpec(Closed):
    entrypoint: str
    runtimeEnvYAML: str
    backoffLimit: Annotated[int, Field(ge=0)]
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: Annotated[int, Field(ge=0)]
    rayClusterSpec: RayClusterSpec


class RayJob(Closed):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class Expression(Closed):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str]


class Selector(Closed):
    matchLabels: dict[str, str]
    matchExpressions: list[Expression]


class DisruptionSpec(Closed):
    maxUnavailable: int
    selector: Selector


class PodDisruptionBudget(Closed):
    apiVersion: Literal["policy/v1"]
    kind: Literal["PodDisruptionBudget"]
    metadata: Metadata
    spec: DisruptionSpec
