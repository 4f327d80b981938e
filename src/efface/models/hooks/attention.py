"""Records a U-Net's cross-attention, and finds the tokens of a concept in a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..adapters.latent import LatentDiffusion
from ..adapters.sd import ClipDiffusion
from ..base import Model


@contextmanager
def record_cross_attention(model: Model) -> Iterator[dict[str, Tensor]]:
    """Records the attention probabilities [n, heads, positions, tokens] of each layer, with a gradient.

    The layers are named as in the denoiser; each prediction replaces the record of the one before. Queries and keys are
    computed a second time, outside the attention processor, because fused processors never compute the probabilities;
    predictions stay bit-identical. A compiled network runs uncompiled meanwhile.

    Raises:
        ValueError: the model has no cross-attention to a text.
    """
    layers = _find_layers(model)
    maps: dict[str, Tensor] = {}

    def noting(name: str) -> Any:
        def note(attn: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = dict(zip(("hidden_states", "encoder_hidden_states", "attention_mask"), args, strict=False)) | named
            seen, words, barred = given["hidden_states"], given["encoder_hidden_states"], given.get("attention_mask")
            maps[name] = _compute_probabilities(attn, seen, words, barred)

        return note

    handles = [layer.register_forward_pre_hook(noting(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        with model.uncompiled():
            yield maps
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def detach_start_token(model: Model) -> Iterator[None]:
    """Stops gradients at the keys and values of a prompt's first token; predictions stay bit-identical.

    In CLIP that is the start token, whose state is the same in every prompt. Models without a start token (of classes,
    or with T5) and models with joint attention are left as they are.
    """

    def detach(layer: Any, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return torch.cat([out[:, :1].detach(), out[:, 1:]], dim=1)

    own = isinstance(model, ClipDiffusion) and model.denoiser == "unet"
    named = model.network.named_modules() if own else ()
    layers: list[Any] = [layer for name, layer in named if name.endswith("attn2")]
    handles = [part.register_forward_hook(detach) for layer in layers for part in (layer.to_k, layer.to_v)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_places(model: Model, template: str, concept: str) -> range:
    """The positions of a concept's tokens in the prompt that the template makes of it; the start token has position 0.

    Raises:
        ValueError: the model reads no text, or the prompt is cut off before the concept ends.
    """
    if not isinstance(model, LatentDiffusion):
        raise ValueError(f"{model.name} has no tokenizer; a model that reads text has, such as Stable Diffusion")
    tokenizer = model.tokenizer
    prompt, first = template.format(concept), len(template.partition("{}")[0])
    read = tokenizer(prompt, truncation=True, max_length=model.max_tokens, return_offsets_mapping=True)
    # Special tokens have empty spans; no token covers pieces of two words, because words are split first.
    spans = enumerate(read["offset_mapping"])
    found = [i for i, (start, stop) in spans if start < first + len(concept) and stop > max(first, start)]
    whole = tokenizer(prompt, truncation=False)["input_ids"]
    if not found or (len(whole) > model.max_tokens and found[-1] == model.max_tokens - 2):
        raise ValueError(f"{concept!r} does not fit into the {model.max_tokens} tokens of {prompt!r}")
    return range(found[0], found[-1] + 1)


def _find_layers(model: Model) -> dict[str, Any]:
    network = model.network if isinstance(model, LatentDiffusion) else None
    found = {name: layer for name, layer in network.named_modules() if name.endswith("attn2")} if network else {}
    if not found:
        raise ValueError(f"{model.name} has no cross-attention to a text; Stable Diffusion and similar models have")
    return found


def _compute_probabilities(attn: Any, seen: Tensor, words: Tensor, barred: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(d)) [n, heads, positions, tokens] in fp32, as the layer computes it for these inputs."""
    read = attn.norm_encoder_hidden_states(words) if attn.norm_cross else words
    query, key = attn.head_to_batch_dim(attn.to_q(seen)), attn.head_to_batch_dim(attn.to_k(read))
    return attn.get_attention_scores(query, key, barred).float().unflatten(0, (-1, attn.heads))
