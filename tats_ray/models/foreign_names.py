"""The names that transformers' VideoMAE and timm's VisionTransformer give to our weights.

Both store attention otherwise: transformers queries, keys and values apart, timm with a bias for
keys, which is zero here. Values are the same numbers.
"""

from __future__ import annotations

import numpy as np

from tats_ray.config.model import ModelSettings
from tats_ray.models.state import State

# Within a block: our name -> that of transformers.
_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_ATTENTION = "attention.attention"
# Theirs, of version 4 and of version 5 -> ours.
_BIASES = {
    "q_bias": "q_bias",
    "query.bias": "q_bias",
    "v_bias": "v_bias",
    "value.bias": "v_bias",
}
# Around the blocks: our prefix -> that of transformers, for an autoencoder and for a classifier.
AUTOENCODER = {
    "patch_embedding.projection.": "videomae.embeddings.patch_embeddings.projection.",
    "encoder.blocks.": "videomae.encoder.layer.",
    "encoder.norm.": "videomae.layernorm.",
    "decoder.embedding.": "encoder_to_decoder.",
    "decoder.mask_token": "mask_token",
    "decoder.blocks.": "decoder.decoder_layers.",
    "decoder.norm.": "decoder.norm.",
    "decoder.head.": "decoder.head.",
}
CLASSIFIER = {
    "patch_embedding.projection.": "videomae.embeddings.patch_embeddings.projection.",
    "blocks.": "videomae.encoder.layer.",
    "norm.": "fc_norm.",
    "head.": "classifier.",
}


def to_huggingface(state: State, model: ModelSettings, prefixes: dict[str, str]) -> State:
    """Our weights under the names of transformers 4, which version 5 reads too.

    Args:
        prefixes: `AUTOENCODER` or `CLASSIFIER`.
    """
    named: State = {}
    for name, value in state.items():
        ours = next(prefix for prefix in prefixes if name.startswith(prefix))
        theirs, rest = prefixes[ours], name.removeprefix(ours)
        if "blocks." in ours:
            named |= {theirs + inner: part for inner, part in _apart(rest, value).items()}
        elif name == "patch_embedding.projection.weight":
            named[theirs + rest] = kernel(value, model)
        else:
            named[theirs + rest] = value[None, None] if theirs == "mask_token" else value
    return {name: np.ascontiguousarray(value) for name, value in named.items()}


def from_huggingface(state: State, prefixes: dict[str, str]) -> State:
    """The inverse of `to_huggingface`, from the names of versions 4 and 5, with `videomae.` before
    the encoder's or without. What has no other name keeps its own."""
    state = {_with_base(name): value for name, value in state.items()}
    named: State = {}
    for name, value in state.items():
        ours = next((our for our, their in prefixes.items() if name.startswith(their)), None)
        if ours is None:
            named[name] = value
            continue
        rest = name.removeprefix(prefixes[ours])
        if "blocks." in ours:
            named |= _together(ours, rest, prefixes[ours], state)
        elif value.ndim == 5:  # the kernel of the patch embedding; our tokens put the colour last
            named[ours + rest] = value.transpose(0, 2, 3, 4, 1).reshape(len(value), -1)
        else:
            named[ours + rest] = value.reshape(-1) if ours == "decoder.mask_token" else value
    return named


def to_timm(state: State, model: ModelSettings, positions: np.ndarray) -> State:
    """Encoder of an autoencoder under the names of timm's VisionTransformer without a class token.

    Args:
        positions: float32 [N, width].
    """
    named: State = {"pos_embed": positions[None]}
    for name, value in state.items():
        if name.startswith("patch_embedding."):
            kind = name.rpartition(".")[2]
            named[f"patch_embed.proj.{kind}"] = kernel(value, model) if kind == "weight" else value
        elif name.endswith(".attn.q_bias"):
            values = state[name.replace("q_bias", "v_bias")]
            joint = np.concatenate([value, np.zeros_like(value), values])
            named[name.removeprefix("encoder.").replace("q_bias", "qkv.bias")] = joint
        elif name.startswith("encoder.") and not name.endswith(".attn.v_bias"):
            named[name.removeprefix("encoder.")] = value
    return {name: np.ascontiguousarray(value) for name, value in named.items()}


def kernel(weight: np.ndarray, model: ModelSettings) -> np.ndarray:
    """Our patch embedding [d, u * p * p * 3], colours last, as the kernel of a 3-D convolution
    [d, 3, u, p, p]."""
    shape = (len(weight), model.tubelet, model.patch, model.patch, 3)
    return weight.reshape(shape).transpose(0, 4, 1, 2, 3)


def _apart(name: str, value: np.ndarray) -> State:
    """A weight of a block, `<number>.<name>`, under their name or names."""
    number, _, inner = name.partition(".")
    if inner == "attn.qkv.weight":
        parts = zip(("query", "key", "value"), np.split(value, 3), strict=True)
        return {f"{number}.{_ATTENTION}.{part}.weight": rows for part, rows in parts}
    if inner in ("attn.q_bias", "attn.v_bias"):
        return {f"{number}.{_ATTENTION}.{inner.removeprefix('attn.')}": value}
    layer, _, kind = inner.rpartition(".")
    return {f"{number}.{_BLOCK[layer]}.{kind}": value}


def _together(ours: str, rest: str, theirs: str, state: State) -> State:
    """What one of their weights means to a block of ours; a weight that is joined is given by its
    first part."""
    number, _, inner = rest.partition(".")
    if inner.startswith(f"{_ATTENTION}."):
        part = inner.removeprefix(f"{_ATTENTION}.")
        if part in _BIASES:
            return {f"{ours}{number}.attn.{_BIASES[part]}": state[theirs + rest]}
        names = [f"{theirs}{number}.{_ATTENTION}.{p}.weight" for p in ("query", "key", "value")]
        parts = [state[name] for name in names if name in state]
        if theirs + rest in names and len({part.shape for part in parts}) == 1 and len(parts) == 3:
            return {f"{ours}{number}.attn.qkv.weight": np.concatenate(parts)}
        return {theirs + rest: state[theirs + rest]}
    layer, _, kind = inner.rpartition(".")
    own = {their: our for our, their in _BLOCK.items()}.get(layer)
    name = theirs + rest if own is None else f"{ours}{number}.{own}.{kind}"
    return {name: state[theirs + rest]}


def _with_base(name: str) -> str:
    """`VideoMAEModel` alone stores the encoder without its prefix."""
    inner = ("embeddings.", "encoder.", "layernorm.")
    return f"videomae.{name}" if name.startswith(inner) else name
