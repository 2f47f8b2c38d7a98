"""The sampler's policy and value."""

import pytest
import torch

from tats_ray.config.geometry import TokenGrid
from tats_ray.errors import ConfigError
from tats_ray.models.initialization import seeded
from tats_ray.models.samplers import TrajectorySampler

GRID = TokenGrid(2, 3, 3)


def _sampler(**settings):
    return seeded(0, lambda: TrajectorySampler(20, GRID, width=12, heads=2, **settings))


@pytest.mark.parametrize("settings", [{}, {"mlp": True}, {"critic": "shared"}, {"pool": 3}])
def test_an_untrained_sampler_is_uniform_and_values_nothing(settings):
    output = _sampler(**settings)(torch.randn(4, GRID.tokens, 20))
    assert torch.allclose(output.log_probs.exp(), torch.full((4, GRID.tokens), 1 / GRID.tokens))
    assert torch.equal(output.value, torch.zeros(4))


def test_parts_agree_with_the_whole():
    sampler = _sampler()
    for parameter in sampler.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randn(4, GRID.tokens, 20)
    whole = sampler(tokens)
    assert torch.allclose(whole.log_probs, sampler.log_probs(tokens))
    assert torch.allclose(whole.value, sampler.value(tokens))
    assert torch.allclose(whole.log_probs.exp().sum(1), torch.ones(4), atol=1e-5)


def test_no_gradient_reaches_the_tokens():
    """AdaMAE's code lets the sampling loss into the patch embedding; the paper does not."""
    tokens = torch.randn(2, GRID.tokens, 20, requires_grad=True)
    output = _sampler()(tokens)
    (output.log_probs[:, 0].sum() + output.value.sum()).backward()
    assert tokens.grad is None


def test_a_shared_trunk_halves_the_network_and_an_actor_alone_is_its_actor():
    own, shared, alone = (
        sum(parameter.numel() for parameter in sampler.parameters())
        for sampler in (_sampler(), _sampler(critic="shared"), _sampler(critic="none"))
    )
    heads = 12 + 13  # weights of both, bias of the critic's
    assert own - heads == 2 * (shared - heads)
    assert alone == shared - 13
    tokens = torch.randn(4, GRID.tokens, 20)
    whole, actor = _sampler(), _sampler(critic="none")
    for name, weight in actor.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), "the same start weights"
    assert actor(tokens).value is None
    assert torch.equal(actor(tokens).log_probs, whole(tokens).log_probs)


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(ConfigError, match="width 12 is not divisible by heads 5"):
        TrajectorySampler(20, GRID, width=12, heads=5)


def test_pooled_attention_sees_groups_and_each_token_itself():
    """A token's score depends on its own input, and on others through the means of their groups."""
    grid = TokenGrid(2, 4, 4)
    sampler = seeded(0, lambda: TrajectorySampler(20, grid, width=12, heads=2, pool=2))
    torch.nn.init.normal_(sampler.actor_head.weight)
    tokens = torch.randn(1, grid.tokens, 20)

    def scores(given):
        features = sampler.actor_trunk(given)
        return sampler.actor_head(features)[0, :, 0]

    before = scores(tokens)
    swapped = tokens.clone()  # two tokens of the group of rows 2-3, columns 0-1 in the first slice
    swapped[:, [8, 13]] = tokens[:, [13, 8]]
    with torch.no_grad():
        sampler.actor_trunk.positions.zero_()
    changed = (scores(swapped) - scores(tokens)).abs() > 1e-6
    assert changed.nonzero().flatten().tolist() == [8, 13]
    moved = tokens.clone()
    moved[:, 8] += 1.0
    assert ((scores(moved) - before).abs() > 1e-6).all(), "a group's mean reaches all"


def test_groups_at_the_edges_are_smaller():
    """3 x 3 tokens in groups of 2 x 2: what a group finds is found from the mean of its members."""
    sampler = _sampler(pool=2)
    trunk, seen = sampler.actor_trunk, []
    trunk.block.register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    tokens = torch.randn(1, GRID.tokens, 20)
    features = trunk(tokens)
    own = (trunk.embedding(tokens) + trunk.positions).view(2, 3, 3, 12)
    bounds = [slice(0, 2), slice(2, 3)]
    means = [own[t, r, c].mean(dim=(0, 1)) for t in (0, 1) for r in bounds for c in bounds]
    assert torch.allclose(seen[0][0], torch.stack(means), atol=1e-6)
    found = trunk.block(seen[0]).view(2, 2, 2, 12)
    corner = trunk.norm(own[1, 2, 2] + found[1, 1, 1])
    edge = trunk.norm(own[0, 2, 1] + found[0, 1, 0])
    assert torch.allclose(features.view(2, 3, 3, 12)[[1, 0], [2, 2], [2, 1]],
                          torch.stack([corner, edge]), atol=1e-6)  # fmt: skip
