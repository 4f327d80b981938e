"""SPM's facilitated transport (Lyu et al., CVPR 2024, arXiv 2312.16145): adapters weighted by a prompt's similarity.

Every adapted layer computes W x + gamma up (down x). gamma is the maximum over the concepts of max(cos, overlap), where
cos is the cosine of the embeddings of prompt and concept, with all tokens concatenated, and overlap is the share of the
concept's tokens that the prompt contains. As in the authors' code, the conditional and the unconditional prediction use
the prompt's gamma, and all concepts of one training share their adapters. A negative cosine counts as 0. The authors'
release multiplies both factors of an adapter by gamma, so that it acts with gamma^2: `power` 2. At strength s the
factor is s gamma^power.

A prompt that contains a concept word for word has gamma 1 and is drawn as by the merged edit; one with gamma 0 is drawn
as by the base. Each row of a batch has its own factor: hooks add the product to the layers' outputs, and no weight
changes.

A prompt that is given as an embedding is compared by its cosine alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from ..models.adapters.latent import LatentDiffusion
from ..models.cond import Cond
from ..models.denoiser import Denoiser, Scale, is_plain
from ..models.guider import GuidedSampling, Guider

MATCH = "gate.match"
"""The name of gamma [n], which `add_inputs` adds to conditions."""
LEAF = ".weight"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Gate(Guider):
    """Low-rank adapters of the denoiser's layers, with a factor for each row of a batch."""

    in_network: ClassVar[bool] = True
    concepts: tuple[str, ...]
    """The concepts that the adapters erase; the more similar a prompt is to one of them, the larger is its factor."""
    layers: tuple[str, ...]
    """The weights that are adapted, by checkpoint name."""
    rank: int
    """The rank of every adapter."""
    down: Tensor
    """All `down` factors [rank, in], flattened, one layer after the other; a kernel counts as [out, in * h * w]."""
    up: Tensor
    """All `up` factors [out, rank], flattened in the same way."""
    power: int = 1
    """The power of gamma in the layers' outputs: 1 as in the paper, 2 as in the authors' release."""

    def __post_init__(self) -> None:
        if self.power not in (1, 2):
            raise ValueError(f"the gate acts with gamma or gamma squared: its power is 1 or 2, got {self.power}")

    def check(self, model: Denoiser) -> None:
        if not isinstance(model, LatentDiffusion):
            raise ValueError(f"the gate compares prompts, which {model.name} ({type(model).__name__}) does not read")
        weights = model.weights
        if strange := [name for name in self.layers if name not in weights or not _fits(model, name)]:
            raise ValueError(f"{strange[0]!r} is no linear or plain convolution layer of the denoiser of {model.name}")
        wide = sum(self.rank * math.prod(weights[name].shape[1:]) for name in self.layers)
        high = sum(self.rank * weights[name].shape[0] for name in self.layers)
        if (self.down.numel(), self.up.numel()) != (wide, high):
            raise ValueError(
                f"adapters of rank {self.rank} on {len(self.layers)} layers of {model.name} have {wide} and {high} "
                f"numbers, the gate has {self.down.numel()} and {self.up.numel()}"
            )

    def load_factors(self, model: Denoiser) -> dict[str, tuple[Tensor, Tensor]]:
        """The factors down [rank, in] and up [out, rank] of each layer, on the model's device."""
        shapes = [model.weights[name].shape for name in self.layers]
        downs = self.down.to(model.device).split([self.rank * math.prod(shape[1:]) for shape in shapes])
        ups = self.up.to(model.device).split([self.rank * shape[0] for shape in shapes])
        parts = zip(self.layers, downs, ups, strict=True)
        return {name: (down.view(self.rank, -1), up.view(-1, self.rank)) for name, down, up in parts}

    def add_inputs(self, model: Denoiser, texts: Sequence[str], cond: Cond) -> Cond:
        """Adds each prompt's gamma to the conditions."""
        assert isinstance(model, LatentDiffusion)
        rows, own = (c.attended.flatten(1).float() for c in (cond, model.encode_with_grad(self.concepts)))
        alike = torch.cosine_similarity(rows[:, None], own[None], dim=2).clamp(0, 1)
        concepts = [_tokenize(model, concept) for concept in self.concepts]
        held = [[len(ours & words) / max(1, len(ours)) for ours in concepts] for words in _tokenize_each(model, texts)]
        match = torch.maximum(alike, torch.tensor(held).to(alike)).amax(dim=1)
        return cond.with_extra({MATCH: match})

    @contextmanager
    def act_in_network(self, model: Denoiser, cond: Cond) -> Iterator[None]:
        """Lets the adapters act, each row with its own gamma, which has a gradient to the conditions."""
        assert isinstance(model, LatentDiffusion)
        with adapt_layers(model, self.load_factors(model), self._weigh(cond)):
            yield

    def begin(self, model: Denoiser, cond: Cond, uncond: Cond, guidance: Scale) -> GuidedSampling:
        assert isinstance(model, LatentDiffusion)
        return _GateSampling(model, self.load_factors(model), self._weigh(cond), cond, uncond, guidance)

    def _weigh(self, cond: Cond) -> Tensor:
        """The factor [n] of the adapters in each row."""
        return self.strength * cond.tensors[MATCH] ** self.power


@final
class _GateSampling(GuidedSampling):
    """Calls the network itself, because the loop predicts without adapters, and as often as plain guidance does."""

    def __init__(
        self,
        model: LatentDiffusion,
        factors: Mapping[str, tuple[Tensor, Tensor]],
        gamma: Tensor,
        cond: Cond,
        uncond: Cond,
        guidance: Scale,
    ) -> None:
        self.model, self.factors, self.gamma = model, factors, gamma
        self.cond, self.uncond, self.guidance = cond, uncond, guidance

    def list_conds(self, i: int) -> Sequence[Cond]:
        return []

    def combine(self, i: int, x_t: Tensor, t: Tensor, predictions: Mapping[Cond, Tensor]) -> Tensor:
        asked = [self.cond] if is_plain(self.guidance) else [self.uncond, self.cond]
        with adapt_layers(self.model, self.factors, self.gamma.repeat(len(asked))):
            answers = self.model.predict(x_t, t, *asked)
        return answers[0] if is_plain(self.guidance) else self.model.guide(answers[1], answers[0], self.guidance)


@contextmanager
def adapt_layers(model: LatentDiffusion, factors: Mapping[str, tuple[Tensor, Tensor]], gamma: Tensor) -> Iterator[None]:
    """Makes each layer compute W x + gamma up (down x), where gamma [n] has a number for each row of the batch.

    A compiled network runs uncompiled meanwhile, because it would ignore the hooks.
    """

    def adding(down: Tensor, up: Tensor) -> Any:
        def add(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            more = _compute_product(layer, args[0], down.to(args[0].dtype), up.to(args[0].dtype))
            return out + (gamma.to(more).view(-1, *[1] * (more.dim() - 1)) * more).to(out.dtype)

        return add

    handles = [_find_layer(model, name).register_forward_hook(adding(*parts)) for name, parts in factors.items()]
    try:
        with model.uncompiled():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _find_layer(model: LatentDiffusion, name: str) -> nn.Module:
    return model.network.get_submodule(name.removeprefix(f"{model.denoiser}.").removesuffix(LEAF))


def _fits(model: LatentDiffusion, name: str) -> bool:
    if not (name.startswith(f"{model.denoiser}.") and name.endswith(LEAF)):
        return False
    layer = _find_layer(model, name)
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    return isinstance(layer, nn.Linear) or plain


def _compute_product(layer: nn.Module, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Computes up (down x) with the layer's own stride and padding."""
    if not isinstance(layer, nn.Conv2d):
        return linear(linear(x, down), up)
    kernel = down.view(len(down), -1, *layer.kernel_size)
    return conv2d(conv2d(x, kernel, None, layer.stride, layer.padding, layer.dilation), up[:, :, None, None])


def _tokenize(model: LatentDiffusion, text: str) -> set[int]:
    """The tokens of a text, without the special ones."""
    ids = model.tokenizer(text, truncation=True, max_length=model.max_tokens)["input_ids"]
    return set(ids) - set(model.tokenizer.all_special_ids)


def _tokenize_each(model: LatentDiffusion, texts: Sequence[str]) -> list[set[int]]:
    return [_tokenize(model, text) for text in texts]
