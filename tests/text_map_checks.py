"""What the tests of joint-attention models share: whether the text maps name what really reads the prompt."""

from __future__ import annotations

import torch

from efface.models.base import Model


def check_text_maps(model: Model) -> None:
    """The embedders outside of the blocks read what `get_text_inputs` says; the roles are those of a tiny network."""
    cond, seen = model.encode(["a cat"]), {}
    maps = model.list_text_maps()
    hooks = [
        model.network.get_submodule(
            each.weight.removeprefix("transformer.").removesuffix(".weight")
        ).register_forward_pre_hook(lambda _, args, name=each.weight: seen.update({name: args[0]}))
        for each in maps
    ]
    with torch.no_grad():
        model.predict(torch.randn(1, 4, 8, 8), 5, cond)
    for hook in hooks:
        hook.remove()
    assert [each.role for each in maps] == ["embedder", "pooled", *["cross"] * 4]
    outer = [each for each in maps if each.role != "cross"]
    assert all(torch.equal(seen[each.weight], model.get_text_inputs(cond, each.part)) for each in outer)
