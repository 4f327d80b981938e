"""Cross-attention seen from outside, against q and k taken by other hooks; and where words stand."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from efface.models.adapters.sd import StableDiffusion
from efface.models.hooks.attention import find_places, record_cross_attention
from tiny_ddpm import tiny_ddpm


def state(model: StableDiffusion, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 700])[:n]


def record_layers(
    model: StableDiffusion, name: str, x: torch.Tensor, t: torch.Tensor, cond: object
) -> list[torch.Tensor]:
    """What the layer's q, k, v and output layers answer in one prediction without the probe."""
    layer, out = model.unet.get_submodule(name), []
    parts = (layer.to_q, layer.to_k, layer.to_v, layer.to_out[0])
    handles = [part.register_forward_hook(lambda _m, _a, answer: out.append(answer)) for part in parts]
    model.predict(x, t, cond)
    for handle in handles:
        handle.remove()
    return out


@pytest.mark.parametrize("fused", [True, False])
@torch.no_grad()
def test_probabilities_by_hand_and_predictions_to_the_bit(eps_model, fused):
    if not fused:
        eps_model.unet.set_attn_processor(AttnProcessor())
    x, t = state(eps_model)
    cond = eps_model.encode(["a cat", "dog"])
    (before,) = eps_model.predict(x, t, cond)
    processors = dict(eps_model.unet.attn_processors)
    with record_cross_attention(eps_model) as maps:
        (within,) = eps_model.predict(x, t, cond)
    assert torch.equal(before, within)
    assert all(eps_model.unet.attn_processors[name] is kept for name, kept in processors.items())
    assert len(maps) == 4
    for name, found in maps.items():
        q, k, v, out = record_layers(eps_model, name, x, t, cond)
        heads, layer = found.shape[1], eps_model.unet.get_submodule(name)
        q, k, v = (part.view(2, part.shape[1], heads, -1).transpose(1, 2) for part in (q, k, v))
        by_hand = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
        assert torch.allclose(found, by_hand, atol=1e-6)
        assert torch.allclose(found.sum(-1), torch.ones(()), atol=1e-5)
        # They are what the layer itself mixed its values by.
        mixed = (found @ v).transpose(1, 2).flatten(2)
        assert torch.allclose(layer.to_out[0](mixed), out, atol=1e-5)
    kept = dict(maps)
    eps_model.predict(x, t, cond)
    assert all(maps[name] is kept[name] for name in kept)


def test_it_has_a_gradient_and_goes_at_the_end(eps_model):
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    weight = eps_model.weights[name].detach().clone().requires_grad_()
    x, t = state(eps_model)
    with eps_model.swap_in({name: weight}), record_cross_attention(eps_model) as maps:
        eps_model.predict(x, t, eps_model.encode(["a cat", "dog"]))
        (grad,) = torch.autograd.grad(sum(a.square().sum() for a in maps.values()), [weight])
    assert grad.abs().max() > 0
    with pytest.raises(RuntimeError, match="on the way"), record_cross_attention(eps_model):
        raise RuntimeError("on the way")
    assert not any(layer._forward_pre_hooks for layer in eps_model.unet.modules())


@pytest.mark.parametrize(
    ("template", "concept", "found"),
    [
        ("{}", "cat", range(1, 2)),
        ("a {}", "cat", range(2, 3)),
        ("a red {} car", "cat", range(3, 4)),
        ("a {} car", "red cat", range(2, 4)),
        ("cat {} cat", "cat", range(2, 3)),
        ("{}", "xy", range(1, 3)),
    ],
)
def test_where_words_stand(eps_model, template, concept, found):
    assert find_places(eps_model, template, concept) == found
    ids = eps_model.tokenizer(template.format(concept))["input_ids"]
    alone = eps_model.tokenizer(concept)["input_ids"][1:-1]
    assert [ids[i] for i in found] == alone


def test_what_has_no_words_is_refused(eps_model):
    with pytest.raises(ValueError, match="'cat' does not fit into the 8 tokens"):
        find_places(eps_model, "a red red red red red {}", "cat")
    with pytest.raises(ValueError, match="does not fit"):
        find_places(eps_model, "{}", "abcdefghijk")
    with pytest.raises(ValueError, match="no tokenizer"):
        find_places(tiny_ddpm(), "{}", "cat")
    with pytest.raises(ValueError, match="no cross-attention"), record_cross_attention(tiny_ddpm()):
        pass
