"""MACE: Mass Concept Erasure (Lu et al., CVPR 2024, arXiv 2403.06135), in three stages.

1. Refinement. In a prompt that contains a target, every token besides the target's own also carries it. The keys and
   values of cross-attention learn to read these tokens as in the prompt with the anchor instead: W1 = argmin_W sum |W
   c_f - W0 c_g|^2 + preserve_scale sum |W k - W0 k|^2 + lamb |W - W0|^2. Here c_f and c_g are aligned before and after
   the tokens that differ, so a token that target and anchor share ("red car", "blue car") is aligned too.
2. For each target by itself, starting from W1: low-rank changes D_i of keys and values reduce the attention to the
   target's tokens where the target is seen, see `efface.training.objectives.attention`.
3. Fusion: W = argmin_W sum_i sum |W c_f - (W1 + D_i) c_f|^2 + preserve_scale sum |W k - W1 k|^2 + lamb |W - W1|^2, over
   all tokens of each target's own prompts.

In the authors' code these are `closed_form_refinement`, `AttnController.loss` and `fuse_lora_close_form`; the anchor is
their `mapping_concept`. Of the defaults, 120 steps are theirs for explicit content; importance sampling of timesteps
(sigmoids at 200 and 400) and rank 1 are those for objects, which have 50 steps; lamb 1000 is that of the ship alone,
while bird has 10 and automobile 100. Celebrities and explicit content have lamb 0, so that only what is preserved makes
the matrix invertible.

This differs from the code in these points. Without a segmenter, masks are computed from the attention. The authors
train `up` with 1e-5 against a `down` of unit variance; our `down` has variance 1 / in, so our lr is sqrt(768) times
theirs. Adam has neither decay nor clipping. The contexts are our own, and so is preserving words of the vocabulary in
place of cached COCO captions. Without an anchor a target becomes "object", which is neutral and still a word that fits
into a prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..concept import Erasure, check_templates, require_positive
from ..edits.edit import Edit
from ..edits.provenance import check_same_run, read_versions
from ..functional.closed_form import solve_shared
from ..functional.fusion import fuse
from ..functional.tokens import find_difference
from ..functional.words import exclude_overlaps
from ..models.adapters.latent import LatentDiffusion
from ..models.base import Model
from ..models.hooks.attention import find_places
from ..models.segmenter import Segmenter, open_segmenter
from ..training.balance.sum import Sum
from ..training.config import TrainConfig
from ..training.objectives.attention import Attention, Focus, check_threshold
from ..training.states.pictures import Pictures
from ..training.trainer import Trainer
from ..training.updates.lowrank import LowRank
from .base import Kind, Method
from .closed_form import find_text_projections, multiply_weights

NEUTRAL = "object"


@final
@dataclass(frozen=True, kw_only=True)
class MACE(Method):
    """Refines the words around the targets, then trains attention away from each target, and fuses all changes in
    closed form."""

    kind: ClassVar[Kind] = "in stages"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl")
    unserved: ClassVar[Mapping[str, str]] = {
        "pixart": "it refines every token after the concept, and those past a prompt's end are masked out there",
        "flow": "it reads in cross-attention where the picture attends to a word, and joint attention has none",
    }
    uses_anchor: ClassVar[bool] = True
    uses_keep: ClassVar[bool] = True
    steps: int = 120
    """Number of updates for each target."""
    lr: float = 3e-4
    """Adam's learning rate for the low-rank factors."""
    rank: int = 1
    """Rank of each target's change of a layer."""
    batch: int = 1
    """Batch size: rows of an update."""
    lamb: float = 1000.0
    """Weight, in both closed forms, of the term that keeps the weights near their former values."""
    preserve_scale: float = 0.1
    """Weight of the tokens of preserved words, in both closed forms. 0.1 and the words are ours: the authors preserve
    nothing for objects, and with weight 7e-7 the tokens of COCO's captions for explicit content."""
    preserve_words: int = 500
    """Number of words of the model's vocabulary, the most common first, that are preserved beside the concepts to
    keep."""
    segmenter: str = ""
    """What locates the target in a picture: a CLIPSeg's folder or hub id, or `module:function` of uint8 pictures
    [n, 3, h, w] and the target, which gives [n, h, w] in 0 to 1. By default the attention itself locates it."""
    threshold: float = 0.5
    """Threshold of the target's region, as a share of its strongest attention or of the segmenter's certainty."""
    end_tokens: bool = True
    """Also reduce the attention of the end tokens, which summarise the prompt."""
    focal: bool = True
    """Train on timesteps around 200 to 400 of 1000, where the content of the picture is decided; otherwise on all."""
    pictures: int = 8
    """Pictures of each target in each context that the model draws to train on."""
    draw_steps: int = 50
    """Sampling steps of these pictures."""
    guidance: float = 7.5
    """Guidance of these pictures."""
    contexts: tuple[str, ...] = ("{}", "a photo of {}", "a picture of {} outdoors", "{} on a table", "a small {}")
    """Prompt templates, used in all stages; the refinement concerns the words after the concept."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch", "rank", "lr", "lamb", "pictures", "draw_steps")
        check_threshold(self.threshold)
        check_templates(self.contexts, "context")

    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Trainer | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Refines, trains each target by itself, and fuses; changes of finished targets are stored beside the
        checkpoint."""
        segment = open_segmenter(self.segmenter, model.device) if self.segmenter else None
        weights = find_text_projections(model)
        pairs = [self._align(model, target, erasure.anchor or NEUTRAL) for target in erasure.targets]
        record = self.build_record(model, erasure)
        words = exclude_overlaps(model.list_words(self.preserve_words), (*erasure.targets, *erasure.keep))
        kept = self._encode_all(model, [*erasure.keep, *words])
        inputs, outputs = (torch.cat([pair[side] for pair in pairs]) for side in (0, 1))
        refined = multiply_weights(weights, solve_shared(inputs, outputs, kept, self.lamb, 1.0, self.preserve_scale))
        with model.swap_in({name: value.to(weights[name].dtype) for name, value in refined.items()}):
            trained = [
                self._train_target(model, erasure, i, segment, progress, checkpoint)
                for i in range(len(erasure.targets))
            ]
        whole = [self._encode_all(model, [target]) for target in erasure.targets]
        moments, held = [rows.T @ rows for rows in whole], kept.T @ kept
        values = {
            name: fuse(w, [_multiply(e, name, w) for e in trained], moments, held, self.lamb, self.preserve_scale).to(
                w.dtype
            )
            for name, w in refined.items()
        }
        for file in _list_files(checkpoint, len(trained)):
            file.unlink(missing_ok=True)
        notes = {"anchor": erasure.anchor or NEUTRAL, "preserved": [*erasure.keep, *words]}
        return Edit(
            {name: w.cpu() for name, w in values.items()}, {**record, "versions": read_versions(), "notes": notes}
        )

    def _train_target(
        self,
        model: Model,
        erasure: Erasure,
        i: int,
        segment: Segmenter | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Trains a low-rank change of the weights in place that reduces the attention to the i-th target."""

        def on_progress(step: int, of: int, **more: Any) -> None:
            if progress:
                progress(i * of + step, len(erasure.targets) * of, **more)

        focus = Focus() if self.focal else None
        trainer = Trainer(
            model,
            Erasure((erasure.targets[i],)),
            name=type(self).__name__,
            arguments={
                **dataclasses.asdict(self),
                "templates": self.contexts,
                "micro_batch": 0,
                "request": dataclasses.asdict(erasure),
            },
            config=TrainConfig(
                steps=self.steps,
                batch=self.batch,
                draw_steps=self.draw_steps,
                templates=self.contexts,
                seed=self.seed,
            ),
            terms=(
                Attention(
                    Pictures(self.pictures, self.draw_steps, self.guidance),
                    self.threshold,
                    self.end_tokens,
                    focus,
                    segment,
                ),
            ),
            update=LowRank("xattn-strict", self.lr, self.rank),
            balance=Sum(),
        )
        if checkpoint is None:
            return trainer.train(on_progress)
        done = _list_files(checkpoint, i + 1)[-1]
        if not done.exists():
            trainer.train(on_progress, checkpoint).save(done)
        edit = Edit.load(done)
        ours = {
            key: value for key, value in trainer.build_edit().meta.items() if key != "notes"
        }  # it may not have trained
        check_same_run(done, edit.meta, ours)
        return edit

    def _align(self, model: Model, target: str, anchor: str) -> tuple[Tensor, Tensor]:
        """The rows c_f [n, d] of the target's prompts and c_g [n, d] of the anchor's, without the tokens that
        differ."""
        for context in self.contexts:  # this comes first, because it refuses a concept that does not fit
            for concept in (target, anchor):
                find_places(model, context, concept)
        ids = [[_read(model, context.format(concept)) for concept in (target, anchor)] for context in self.contexts]
        old, new = self._encode(model, target), self._encode(model, anchor)
        rows: list[tuple[Tensor, Tensor]] = []
        for (own, others), c, g in zip(ids, old, new, strict=True):
            at, there = find_difference(own, others)
            n = len(c) - max(at.stop, there.stop)
            rows.append((c[: at.start], g[: there.start]))
            rows.append((c[at.stop : at.stop + n], g[there.stop : there.stop + n]))
        return torch.cat([c for c, _ in rows]), torch.cat([g for _, g in rows])

    def _encode(self, model: Model, concept: str) -> Tensor:
        """The embeddings [contexts, tokens, d] of a concept's prompts, in fp64."""
        return model.encode([template.format(concept) for template in self.contexts]).tokens.double()

    def _encode_all(self, model: Model, concepts: Sequence[str]) -> Tensor:
        """The embeddings [n, d] of every token in every prompt of these concepts, in fp64."""
        nothing = model.encode([""]).tokens.double()[0, :0]
        return torch.cat([nothing, *(self._encode(model, concept).flatten(0, 1) for concept in concepts)])


def _read(model: Model, text: str) -> list[int]:
    """The token ids of a prompt, from the start token to the end token."""
    assert isinstance(model, LatentDiffusion)
    return model.tokenizer(text, truncation=True, max_length=model.max_tokens)["input_ids"]


def _multiply(edit: Edit, name: str, like: Tensor) -> Tensor:
    """The change of a weight, up down [m, d]."""
    parts = {side: edit.values[f"{name}:{side}"].to(like.device, torch.double) for side in ("up", "down")}
    return parts["up"] @ parts["down"]


def _list_files(checkpoint: str | Path | None, count: int) -> list[Path]:
    """The files in which the changes of finished targets are stored until all targets are done."""
    return [Path(f"{checkpoint}.{i}.done") for i in range(count)] if checkpoint else []
