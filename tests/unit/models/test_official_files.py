"""Official files of the fine-tuned models and of TrackMAE, under our names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tats_ray.errors import CheckpointError
from tats_ray.models.official import read_official
from tats_ray.models.state import model_state
from tats_ray.models.tokens import sinusoid_1d
from tats_ray.training.classifier import build_classifier
from tats_ray.training.initial_weights import load_initial_encoder
from tats_ray.training.mae_trainer import MAETrainer
from tats_ray.training.pretrained import read_pretrained
from tests.conftest import tiny_config
from tests.exports import kernel, official_classifier, randomized, save_official
from tests.finetuning import finetune_config


def test_a_fine_tuned_file_gives_the_classifier_and_its_encoder(tmp_path):
    model, weights = official_classifier()
    file = save_official(tmp_path, weights)
    given, wanted = read_pretrained(file).classifier, model_state(model)
    assert given.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(torch.from_numpy(given[name]), torch.from_numpy(value)), name
    config = finetune_config()
    started = build_classifier(config, 9)
    load_initial_encoder(started, config.model, str(file))
    assert torch.equal(started.blocks[1].attn.v_bias, model.blocks[1].attn.v_bias)


def _trackmae(config):
    """A model with a second decoder, and its weights as TrackMAE stores them: tables of positions,
    one bias for queries, keys and values, of which the keys' means nothing."""
    parts = randomized(MAETrainer(config, torch.device("cpu")).parts)
    names = {
        "mae.patch_embedding.projection.": "encoder.patch_embed.proj.",
        "mae.encoder.": "encoder.",
        "mae.decoder.embedding.": "encoder_to_decoder.",
        "mae.decoder.mask_token": "mask_token",
        "mae.decoder.": "decoder.",
        "motion_decoder.embedding.": "encoder_to_tracker.",
        "motion_decoder.": "tracker_decoder.",
    }
    weights = {
        "encoder.pos_embed": sinusoid_1d(torch.arange(16), 24)[None],
        "decoder_pos_embed": sinusoid_1d(torch.arange(16), 16)[None],
    }
    state = parts.state_dict()
    for name, value in state.items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        theirs = names[prefix] + name.removeprefix(prefix)
        if name.endswith("attn.q_bias"):
            keys = torch.randn(len(value))
            joint = [value, keys, state[name.replace("q_bias", "v_bias")]]
            weights[theirs.replace("q_bias", "qkv.bias")] = torch.cat(joint)
        elif name == "mae.patch_embedding.projection.weight":
            weights[theirs] = kernel(value)
        elif not name.endswith(("v_bias", "motion_decoder.mask_token")):
            weights[theirs] = value[None, None] if theirs == "mask_token" else value
    return parts, weights


TRACKMAE = ["masking.system=trackmae", "model.motion_target.weight=1"]


def test_a_trackmae_file_gives_both_decoders(tmp_path):
    parts, weights = _trackmae(tiny_config(*TRACKMAE))
    file = save_official(tmp_path, weights)
    config = tiny_config(f"train.initial_weights={file}", "run.seed=9", *TRACKMAE)
    started = MAETrainer(config, torch.device("cpu")).parts.state_dict()
    for name, value in parts.state_dict().items():
        assert torch.equal(started[name], value), name


def test_a_bias_of_keys_changes_nothing():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    tokens = torch.randn(2, 5, 8)
    nn.init.normal_(attention.in_proj_bias)
    with torch.no_grad():
        before = attention(tokens, tokens, tokens)[0]
        attention.in_proj_bias[8:16] = 3.0
        assert torch.allclose(attention(tokens, tokens, tokens)[0], before, atol=1e-6)


def test_learned_positions_are_refused(tmp_path):
    _, weights = _trackmae(tiny_config(*TRACKMAE))
    weights["encoder.pos_embed"] = torch.randn(1, 16, 24)
    with pytest.raises(CheckpointError, match=r"'encoder.pos_embed' holds learned positions"):
        read_official(save_official(tmp_path, weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embed": torch.ones(1, 16, 24)}, "holds learned positions"),
        ({"cls_token": torch.ones(1, 1, 24)}, "weight 'cls_token' does not belong to"),
        ({"patch_embed.proj.weight": torch.ones(24, 3, 16, 16)}, "give a checkpoint of a video"),
        ({"head.bias": torch.full((3,), torch.nan)}, "'head.bias' holds values that are not fin"),
    ],
)
def test_what_no_classifier_has_is_named(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        read_official(save_official(tmp_path, official_classifier()[1] | change))
