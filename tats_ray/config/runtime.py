"""A run's identity, where it executes and how it is tracked."""

from __future__ import annotations

import os
import re
from typing import Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from tats_ray.config.placement import PlacementSettings
from tats_ray.config.settings import Settings

_USER = re.compile(r"://[^/\s]*@")  # user:password@ of an address
_QUERY = re.compile(r"([?&][^=&\s]*(?:password|token|secret)[^=&\s]*=)[^&\s]+", re.IGNORECASE)
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")  # a server may echo them


class RunSettings(Settings):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of the run below output_dir, and its name in MLflow."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of weights, clips, masks and augmentation."""
    output_dir: str = "runs"
    """Folder of all runs."""

    @field_validator("output_dir")
    @classmethod
    def output_dir_is_a_folder(cls, folder: str) -> str:
        if "://" in folder:
            raise ValueError(
                f"'{folder}' is an address; only folders are written to so far: mount the "
                "storage and give its path"
            )
        return folder


class CheckpointSettings(Settings):
    interval: int = Field(500, ge=1)
    """Steps between checkpoints."""
    keep: int = Field(2, ge=1)
    """Newest checkpoints that stay on disk."""


class ClusterSettings(Settings):
    """Shares are of one CPU or GPU; an empty GPU share is an even part of what the cluster has."""

    mode: Literal["local", "address", "serial"] = "local"
    """A Ray of its own here, a running cluster, or one process without Ray."""
    address: str | None = None
    """Of the running cluster, for mode address; 'auto' finds it."""
    cpus: int | None = Field(None, ge=1)
    """CPUs that Ray may count in mode local; empty: as many as needed."""
    object_store_mb: int = Field(1024, ge=100)
    """Size of the object store in mode local, MB."""
    rollout_worker_cpus: float = Field(0.5, gt=0)
    """CPUs of a rollout worker."""
    learner_cpus: float = Field(0.5, gt=0)
    """CPUs of a PPO learner."""
    train_worker_cpus: float = Field(0.5, gt=0)
    """CPUs of a Train worker."""
    train_worker_gpus: float | None = Field(None, ge=0)
    """GPUs of a Train worker; empty: an even share; 0: the whole run stays on CPUs."""
    decode_cpus: float = Field(0.5, gt=0)
    """CPUs of a decode task."""
    threads: int = Field(1, ge=1)
    """PyTorch threads per process."""
    wait_seconds: float = Field(300.0, gt=0)
    """Time limit of every wait between components, seconds."""
    placement: PlacementSettings = PlacementSettings()

    @model_validator(mode="after")
    def address_goes_with_its_mode(self) -> ClusterSettings:
        if (self.mode == "address") != (self.address is not None):
            raise ValueError("cluster.address is given with cluster.mode=address, and only then")
        return self


class TrackingSettings(Settings):
    mlflow: bool = True
    """Whether MLflow is written to; else console, metrics.jsonl and pictures only."""
    uri: str | None = None
    """MLflow store; empty: SQLite file `<run.output_dir>/mlflow.db`."""
    experiment: str = "tats_ray"
    """MLflow experiment."""
    parent: str | None = None
    """Id of the MLflow run that this one is shown below."""
    wait_seconds: float = Field(30.0, ge=0)
    """Seconds that the end of a run waits for MLflow to take the rest."""
    log_interval: int = Field(10, ge=1)
    """Steps between logged metrics."""
    picture_interval: int | None = Field(None, ge=1)
    """Steps between pictures; empty: at the end only."""
    enrichment_interval: int | None = Field(None, ge=1)
    """Steps between measurements of motion enrichment; empty: at the end only."""

    @field_serializer("uri")
    def uri_without_credentials(self, uri: str | None) -> str | None:
        """What is saved, logged or sent to workers holds no password."""
        return None if uri is None else without_credentials(uri)


def without_credentials(address: str) -> str:
    """An address, or a text with addresses, without users, passwords and tokens in them."""
    return _QUERY.sub(r"\1***", _USER.sub("://", address))


def without_secrets(message: str) -> str:
    """A message without credentials in addresses, and without those that MLflow was given."""
    for name in _SECRETS:
        message = message.replace(os.environ.get(name) or "\0", "***")
    return without_credentials(message)
