"""SAFREE (Yoon et al., ICLR 2025, arXiv 2410.12761): projects the words that carry a concept away from it.

With C the span of the concepts' pooled embeddings, p_i the pooled embedding of the prompt without token i, and I the
span of all p_i:

- token i is a trigger if d_i = ||(1 - P_C) p_i|| >= (1 + alpha) mean of the other d_j, that is, if the prompt without
  it is far from the concept. The only token of a prompt has no others to compare with and counts as a trigger.
- the embedding e_i of a trigger becomes (1 - P_C) P_I e_i; everything else in the prompt, padding too, stays.
- self-validation: z = 1 - mean cos(e_i, (1 - P_C) P_I e_i) over start, words and end; the new embeddings are used in
  steps 0 to round(up_t sigmoid(2 k (10 z - t_mid))), and the old ones after. Without it they are used in all steps.

These are taken from the authors' code: the order (1 - P_C) P_I (the paper prints the other one), the 2 within the
sigmoid, the inclusion of the last step, token 0 ("!" in CLIP) in place of a token that is left out, and for nudity the
phrases as a negative prompt too. `up_t` counts steps of 50; it is not rescaled. One difference: projections are
computed from singular vectors in double precision, without directions below RTOL of the strongest, where the code
inverts Gram matrices in single precision. Latent re-attention, which changes features within the U-Net, is not
implemented.

Two text encoders (SDXL) form one space: e_i are both encoders' concatenated penultimate states, as the U-Net reads
them, and p_i the same states at the prompt's end; a word is a trigger for both or for neither. The pooled embedding,
which SDXL reads beside the words, is filtered if any word is a trigger, by projections of such embeddings. This is our
reconstruction: the paper reports SDXL, but we have not read its code for it.

A strength s moves an embedding to e_i + s (new - e_i), and a negative prompt acts at strength s. A prompt that is given
as an embedding has no words and is not changed, so that an attack in embedding space avoids this guide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from ..models.adapters.sd import CLIP, ClipDiffusion
from ..models.adapters.sdxl import StableDiffusionXL
from ..models.cond import POOLED, Cond
from ..models.denoiser import Denoiser, Scale, is_plain
from ..models.guider import GuidedSampling, Guider
from .negative import Away

RTOL = 1e-5
SHIFT, LAST = "safree.shift", "safree.last"
"""The names of what `add_inputs` adds: the change of the embeddings, and the last step [n] in which it is used."""
SENTENCE = "safree.sentence"
"""The name of the change of the pooled embedding, if the model reads one."""
MOVED = {CLIP: SHIFT, POOLED: SENTENCE}
"""The conditions that are filtered, with the names of their changes."""


def find_span(vectors: Tensor) -> Tensor:
    """An orthonormal basis [r, d] of the span of vectors [n, d], in double precision."""
    _, weights, basis = torch.linalg.svd(vectors.double(), full_matrices=False)
    return basis[weights > RTOL * weights.max()]


def filter_embeddings(e: Tensor, prompt: Tensor, concept: Tensor) -> Tensor:
    """(1 - P_C) P_I e for embeddings [n, d], given orthonormal bases [r, d] of both spans."""
    within = e.double() @ prompt.T @ prompt
    return within - within @ concept.T @ concept


def find_triggers(left_out: Tensor, concept: Tensor, alpha: float) -> Tensor:
    """Which tokens [n] carry the concept, by the prompt's pooled embeddings [n, d] with each token left out."""
    p = left_out.double()
    distance = (p - p @ concept.T @ concept).norm(dim=1)
    if len(p) == 1:
        return torch.ones(1, dtype=torch.bool)
    others = (distance.sum() - distance) / (len(p) - 1)
    return distance >= (1 + alpha) * others


def find_last_step(z: float, up_t: int, k: float, t_mid: float) -> int:
    """The last step in which filtered embeddings are used, by the distance z = 1 - mean cosine of filtering."""
    return round(up_t / (1 + math.exp(-2 * k * (10 * z - t_mid))))


@final
@dataclass(frozen=True, kw_only=True)
class SAFREE(Guider):
    """Filters the concepts out of the prompt's token embeddings for the first steps."""

    concepts: tuple[str, ...]
    """The phrases that span the unwanted concept."""
    alpha: float
    """How much farther from the concept than on average a prompt without a token must be for it to be a trigger."""
    self_validation: bool
    """Whether the prompt's similarity to the target decides how many steps are filtered; otherwise all are."""
    up_t: int
    """The largest number of filtered steps."""
    sharpness: float
    """How fast the number of filtered steps grows with the similarity: the code's k."""
    midpoint: float
    """Ten times the z at which half the steps are filtered: the code's t."""
    negative: bool
    """Whether the concepts are used as a negative prompt as well."""

    def check(self, model: Denoiser) -> None:
        if not isinstance(model, ClipDiffusion):
            raise ValueError(
                f"SAFREE filters what CLIP text encoders make of words, and {model.name} ({type(model).__name__}) has "
                "none; negative and sld work by predictions alone"
            )

    def add_inputs(self, model: Denoiser, texts: Sequence[str], cond: Cond) -> Cond:
        assert isinstance(model, ClipDiffusion)
        limit = model.max_tokens
        phrases = model.tokenizer(list(self.concepts), truncation=True, max_length=limit)["input_ids"]
        ends = [_encode_ends(model, [ids]) for ids in phrases]
        concept = {name: find_span(torch.cat([end[name] for end in ends])) for name in ends[0]}
        shifts = {MOVED[name]: torch.zeros_like(cond.tensors[name]) for name in concept}
        last = torch.full((len(cond),), -1.0, device=model.device)
        ids = model.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
        for row, text in enumerate(ids):
            if len(text) > 2:
                new, last[row] = self._filter(model, text, cond[[row]], concept)
                for name, shift in new.items():
                    shifts[MOVED[name]][row, : len(shift)] = shift.to(cond.tensors[name])
        return cond.with_extra({**shifts, LAST: last})

    def _filter(
        self, model: ClipDiffusion, ids: Sequence[int], cond: Cond, concept: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], float]:
        """The change of one prompt's conditions by filtering, and the last step in which it is used.

        The change is that of the tokens [n, d] of start, words and end, and of the pooled embedding [d], if there is
        one.
        """
        places = range(1, len(ids) - 1)
        left_out = _encode_ends(
            model, [[0 if i == place else token for i, token in enumerate(ids)] for place in places]
        )
        e = cond.tokens[0, : len(ids)].double().cpu()
        new = filter_embeddings(e, find_span(left_out[CLIP]), concept[CLIP])
        carries = torch.zeros(len(ids), 1, dtype=torch.bool)
        carries[1:-1, 0] = find_triggers(left_out[CLIP], concept[CLIP], self.alpha)
        shift = {CLIP: torch.where(carries, new - e, 0)}
        if POOLED in left_out:
            own = cond.tensors[POOLED].double().cpu()
            moved = filter_embeddings(own, find_span(left_out[POOLED]), concept[POOLED]) - own
            shift[POOLED] = moved[0] * carries.any()
        if not self.self_validation:
            return shift, math.inf
        z = 1 - torch.cosine_similarity(new, e).mean().item()
        return shift, find_last_step(z, self.up_t, self.sharpness, self.midpoint)

    def begin(self, model: Denoiser, cond: Cond, uncond: Cond, guidance: Scale) -> GuidedSampling:
        negative = model.encode([", ".join(self.concepts)]).expand(len(cond)) if self.negative else uncond
        return _SAFREESampling(self, model, cond, Away(uncond, negative, self.strength), guidance)


@final
class _SAFREESampling(GuidedSampling):
    def __init__(self, guide: SAFREE, model: Denoiser, cond: Cond, away: Away, guidance: Scale) -> None:
        self.guide, self.model, self.cond, self.away, self.guidance = guide, model, cond, away, guidance
        self.now = cond

    def list_conds(self, i: int) -> Sequence[Cond]:
        held, moved = self.cond.tensors, {}
        for name, shift in MOVED.items():
            if shift in held:
                serves = (held[LAST] >= i).to(held[shift]).view(-1, *[1] * (held[shift].dim() - 1))
                moved[name] = held[name] + serves * self.guide.strength * held[shift]
        now = self.cond.with_embedding(moved[CLIP]) if CLIP in moved else self.cond
        self.now = replace(now, pooled=moved.get(POOLED, now.pooled))
        return [self.now] if is_plain(self.guidance) else [*self.away.list_conds(), self.now]

    def combine(self, i: int, x_t: Tensor, t: Tensor, predictions: Mapping[Cond, Tensor]) -> Tensor:
        if is_plain(self.guidance):
            return predictions[self.now]
        return self.model.guide(predictions[self.now], self.away.combine(predictions), self.guidance)


@torch.no_grad()
def _encode_ends(model: ClipDiffusion, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Encodes n equally long rows of token ids to [n, d], in the space of each condition that is filtered.

    It is the state at the end of the text, as CLIP pools it, where the U-Net reads final states; in double precision,
    on the CPU.
    """
    rows = torch.tensor(ids, device=model.device)
    if isinstance(model, StableDiffusionXL):
        said = [encoder(rows, output_hidden_states=True) for _, encoder in model.towers]
        ends = {CLIP: torch.cat([out.hidden_states[-2][:, -1] for out in said], dim=1)}
        ends[POOLED] = said[-1].text_embeds
    else:
        ends = {CLIP: model.pipeline.text_encoder(rows).pooler_output}
    return {name: end.double().cpu() for name, end in ends.items()}
