"""What training starts from (`train.initial_weights`): weights as `read_pretrained` knows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from tats_ray.config.foreign_weights import is_foreign
from tats_ray.config.load import flatten
from tats_ray.config.model import ModelSettings
from tats_ray.errors import CheckpointError
from tats_ray.models.classifier import VideoClassifier
from tats_ray.models.samplers import TrajectorySampler
from tats_ray.models.state import State, load_model_state, model_state
from tats_ray.training.checkpoint import newest_checkpoint, read_optional_tensors
from tats_ray.training.pretrained import Pretrained, below, read_pretrained
from tats_ray.training.pretraining_model import PretrainingModel

_FIELD = "train.initial_weights"
# Settings that change what the encoder or decoder computes, or its shape.
_ENCODER = ("patch", "tubelet", "width", "depth", "heads", "positions")
_DECODER = ("decoder.attention", "decoder.width", "decoder.depth", "decoder.heads")
# Encoder's prefix in the autoencoder -> in the classifier.
_PREFIXES = {"patch_embedding.": "patch_embedding.", "encoder.blocks.": "blocks."}


def load_initial_weights(model: PretrainingModel, settings: ModelSettings, source: str) -> None:
    """Starts pre-training from a pre-trained autoencoder.

    The parts beside it (AdaMAE's sampler, further decoders) are taken where both sides have one of
    the same shape, and stay as they are otherwise.

    Args:
        source: a run (its newest checkpoint), a checkpoint or export of one, a folder of the
            transformers library, or an official file.

    Raises:
        CheckpointError: there is no checkpoint, or it is of another autoencoder; names the setting
            or the weight. Nothing in the file is executed.
    """
    with _naming(_FIELD):
        given = read_pretrained(Path(source))
        if given.classifier:
            raise CheckpointError(
                f"{source}: is a fine-tuned classifier, which has no decoder to pre-train further; "
                "start from pre-trained weights"
            )
        _check_architecture(given, settings, (*_ENCODER, *_DECODER))
    with _naming(f"{_FIELD}: {source}", "model.size, model.decoder, model.target.frames"):
        load_model_state(model.mae, given.autoencoder)
    for name, part in model.named_children():
        if part is not model.mae:
            _load_if_it_fits(part, below(f"{name}.", given.weights))


def load_initial_policy(sampler: TrajectorySampler, source: str) -> None:
    """Starts a policy from that of a run or checkpoint, where it has one of the same shape.

    Raises:
        CheckpointError: names the file and the fault.
    """
    if Path(source).is_dir() and not is_foreign(Path(source)):
        with _naming(_FIELD):
            given = read_optional_tensors(newest_checkpoint(Path(source)), "sampler")
        _load_if_it_fits(sampler, given)


def load_initial_encoder(model: VideoClassifier, settings: ModelSettings, source: str) -> None:
    """Starts a classifier from a pre-trained encoder; the head stays as it is. Arguments and errors
    as `load_initial_weights`."""
    with _naming(_FIELD):
        given = read_pretrained(Path(source))
        _check_architecture(given, settings, _ENCODER)
    ours = tuple(_PREFIXES.values())
    weights = {k: v for k, v in model_state(model).items() if not k.startswith(ours)}  # the head's
    for theirs, prefix in _PREFIXES.items():
        weights |= {prefix + name: value for name, value in below(theirs, given.encoder).items()}
    with _naming(f"{_FIELD}: {source}", "model.size"):
        load_model_state(model, weights)


@contextmanager
def _naming(before: str, settings: str = "") -> Iterator[None]:
    """Puts the field, and perhaps settings to check, into a message."""
    try:
        yield
    except CheckpointError as error:
        behind = f" ({settings})" if settings else ""
        raise CheckpointError(f"{before}: {error}{behind}") from None


def _check_architecture(
    given: Pretrained, settings: ModelSettings, compared: tuple[str, ...]
) -> None:
    """Compares what weights do not tell, such as the number of heads."""
    if not given.model:
        return
    stored, asked = flatten(given.model), flatten(settings.model_dump())
    for name in compared:
        value = stored.get(name, asked[name])
        if value != asked[name]:
            raise CheckpointError(
                f"{given.origin} was pre-trained with model.{name}={value}, not {asked[name]}; "
                f"set model.{name}={value}"
            )


def _load_if_it_fits(model: nn.Module, given: State) -> None:
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if {name: value.shape for name, value in given.items()} == shapes:
        load_model_state(model, given)
