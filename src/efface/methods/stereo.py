"""STEREO: search thoroughly, erase robustly once (Srivatsan et al., CVPR 2025, arXiv 2408.16807), in two stages.

1. The search has `rounds`. Each round erases what last brought the target back (at first the target's own prompt) from
   the model of the round before, by L = || eps_th(x_t, c) - [eps(x_t, "") - search_eta (eps(x_t, c) - eps(x_t, ""))]
   ||^2, where eps is the model before the round. Then it attacks: it learns the embedding of a token with which the
   erased model denoises pictures of the target (textual inversion, Gal et al., ICLR 2023, arXiv 2208.01618).
2. The base is erased once, with everything that was found as negatives n and prompts around the target as anchors a: L
   = || eps_th(x_t, c) - [eps* - push mean_n (eps*(n) - eps*) + pull (eps*(a) - eps*)] ||^2, where eps* = eps*(x_t, "")
   and c is any n.

In the authors' code the settings are `n_iterations`, `ste_lr`, `reo_lr`, `ti_max_train_steps` and `ci_lr`. Their
`negative_guidance` of 2 around eps(c) is our search_eta 0. Their `compositional_guidance_scale` of 2 is our pull 1 and
push 3, because it is lowered by one for anchors and raised by one for negatives. Their anchors are two hundred
sentences about the target in some place each; ours are the target in a few contexts.

Ours differs in these points: Adam has no decay; c and a are drawn at random, theirs are stratified; x_t is exactly at
the timestep t at which it is scored; the learned token is the whole prompt and starts from a word of your choice; the
base draws the pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from ..concept import Erasure, check_templates, require_positive
from ..edits.edit import Edit
from ..edits.provenance import check_same_run, read_versions
from ..files import read_tensors, write_tensors
from ..functional.adversary import RowwiseAdam, measure_steepness
from ..functional.denoising import measure_denoising_errors
from ..functional.schedules import Space
from ..functional.tokens import find_nearest
from ..models.base import Model
from ..models.cond import Cond
from ..training.balance.sum import Sum
from ..training.config import TrainConfig
from ..training.objectives.composition import Composition
from ..training.seeds import APART, find_first_seed
from ..training.states.conditions import Conditions
from ..training.states.trajectories import Student
from ..training.subsets import select
from ..training.trainer import Trainer
from ..training.updates.dense import Dense
from .base import Kind, Method


@final
@dataclass(frozen=True, kw_only=True)
class STEREO(Method):
    """Gathers what brings the target back by erasing and attacking in turns, then erases it all at once."""

    needs_uncond: ClassVar[bool] = True
    kind: ClassVar[Kind] = "in stages"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl")
    unserved: ClassVar[Mapping[str, str]] = {
        "pixart": "its search puts token embeddings after CLIP's start token, and T5 has none",
        "flow": "its search reads the prompt by CLIP alone, and its stages are made for noise predictions",
    }
    weights: str = "noxattn"
    """Which weights of the U-Net may change: subsets or regular expressions, comma-separated."""
    steps: int = 200
    """Number of updates of each erasing: of one in each round for each target, and of the last one."""
    search_lr: float = 5e-6
    """Adam's learning rate of a round's erasing."""
    lr: float = 2e-5
    """Adam's learning rate of the last erasing."""
    batch: int = 1
    """Number of rows of an update, and of a step of the attack."""
    rounds: int = 4
    """Rounds of erasing and attacking; 0 erases the prompt alone."""
    search_eta: float = 0.0
    """How far beyond the unconditional prediction a round pushes the target."""
    push: float = 3.0
    """How far the last erasing pushes away from the negatives."""
    pull: float = 1.0
    """How far the last erasing pulls towards the anchors."""
    attack_steps: int = 3000
    """Number of steps of the attack in each round."""
    attack_lr: float = 5e-3
    """AdamW's learning rate of the attack."""
    attack_decay: float = 0.01
    """AdamW's weight decay of the attack."""
    attack_tokens: int = 1
    """Number of token embeddings that the attack learns."""
    start_word: str = "object"
    """The word from which the attack starts; the authors take person, object or art."""
    contexts: tuple[str, ...] = ("a photo of {} outdoors", "{} in a garden", "{} on a table", "{} in front of a wall")
    """Prompts around the target, towards which the last erasing pulls; with none it only pushes."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts of the target, all of which are erased."""
    pictures: int = 25
    """Number of pictures of each target that the base draws for the attack."""
    picture_guidance: float = 7.5
    """Guidance of these pictures."""
    source: Literal["student", "frozen"] = "student"
    """Whose trajectories are trained on: new ones of the model in training (student), or stored ones of the model
    before the erasing (frozen)."""
    paths: int = 32
    """Number of stored trajectories of each thing to erase, if the source is frozen."""
    draw_steps: int = 50
    """Sampling steps of trajectories and pictures."""
    guidance: float = 3.0
    """Guidance of trajectories."""
    space: Space = "eps"
    """The space in which squared errors are measured, which decides how much noisy timesteps count."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        require_positive(
            self, "steps", "batch", "lr", "search_lr", "attack_steps", "attack_lr", "attack_tokens", "pictures"
        )
        require_positive(self, "draw_steps", "paths")
        if self.rounds < 0:
            raise ValueError(f"rounds must be at least 0, got {self.rounds}")
        if self.source not in ("student", "frozen"):
            raise ValueError(f"no source {self.source!r}; there are student, frozen")
        check_templates(self.templates)
        if self.contexts:
            check_templates(self.contexts, "context")

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        Method.check(self, erasure, model)
        if model is None:
            return
        if other := [name for name in select(model.weights, self.weights) if not name.startswith("unet.")]:
            raise ValueError(
                f"STEREO's attack reads by the text encoder, so {other[0]} must not move; noxattn would do"
            )
        room = model.tokenize([""]).shape[1] - 2
        if self.attack_tokens > room:
            raise ValueError(f"an attack of {self.attack_tokens} tokens does not fit; {model.name} reads {room}")

    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Trainer | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Searches for each target by itself; the results of finished stages are stored beside the checkpoint."""
        bench = Bench(self, model, erasure, self.build_record(model, erasure), progress, checkpoint)
        found = [bench.search(i) for i in range(len(erasure.targets))]
        negatives = [
            bench.encode_prompts(i) | {name: bench.encode_word(word) for name, word in words.items()}
            for i, words in enumerate(found)
        ]
        values = bench.erase("once", erasure, negatives, self.lr, self.push)
        bench.clear()
        table = model.get_embedding_table().detach()
        notes = {
            "found": {
                name: model.detokenize(find_nearest(word, table)) for words in found for name, word in words.items()
            }
        }
        return Edit(values, {**bench.record, "versions": read_versions(), "notes": notes})


@final
@dataclass(eq=False)
class Bench:
    """One run of the method: its stages, and the files of those that are finished."""

    how: STEREO
    model: Model
    erasure: Erasure
    record: Mapping[str, Any]
    progress: Callable[..., None] | None
    checkpoint: str | Path | None

    def __post_init__(self) -> None:
        self.files: list[Path] = []
        self.stages = 0

    def search(self, i: int) -> dict[str, Tensor]:
        """Finds the token embeddings [k, d] that bring the i-th target back, one in each round, by name."""
        how, target = self.how, self.erasure.targets[i]
        found: dict[str, Tensor] = {}
        if not how.rounds:
            return found
        conds, so_far, pictures = self.encode_prompts(i), {}, self._draw_pictures(i)
        for r in range(how.rounds):
            name = f"{target} #{r + 1}"
            erase = partial(self.erase, name, Erasure((target,)), [conds], how.search_lr, how.search_eta)
            with self.model.swap_in(so_far):
                values = self._run_stage(f"{i}.{r}.erased", erase)
            self.stages += 1
            so_far = {key: value.to(self.model.weights[key]) for key, value in values.items()}
            with self.model.swap_in(so_far):
                attack = partial(self._attack, pictures, (how.seed * 1_009 + i) * 1_009 + r)
                found[name] = self._run_stage(f"{i}.{r}.found", attack)["word"].to(self.model.device)
            conds = {name: self.encode_word(found[name])}
        return found

    def erase(
        self, stage: str, erasure: Erasure, negatives: Sequence[Mapping[str, Cond]], lr: float, push: float
    ) -> Mapping[str, Tensor]:
        """Trains new values of the weights, by name, which erase the negatives of each target."""
        how, last = self.how, stage == "once"
        before, of = self.stages * how.steps, (len(self.erasure.targets) * how.rounds + 1) * how.steps

        def on_progress(step: int, _of: int, **more: Any) -> None:
            if self.progress:
                self.progress(before + step, of, **more)

        named = {name: cond for conds in negatives for name, cond in conds.items()}
        source = Student(how.draw_steps, how.guidance)
        if how.source == "frozen":
            source = Conditions(named, how.draw_steps, how.guidance, how.paths)
        anchors = [[a.format(target) for a in how.contexts] for target in erasure.targets if last and how.contexts]
        trainer = Trainer(
            self.model,
            erasure,
            name=type(how).__name__,
            arguments={**dataclasses.asdict(how), "micro_batch": 0, "request": self.record["request"], "stage": stage},
            config=TrainConfig(
                steps=how.steps,
                batch=how.batch,
                draw_steps=how.draw_steps,
                templates=how.templates,
                seed=how.seed,
            ),
            terms=(Composition(source, negatives, anchors, how.pull, push, how.space),),
            update=Dense(how.weights, lr),
            balance=Sum(),
        )
        return trainer.train(on_progress, self.checkpoint).values

    def encode_prompts(self, i: int) -> dict[str, Cond]:
        """Conditions of the i-th target's own prompts, by prompt."""
        prompts = [template.format(self.erasure.targets[i]) for template in self.how.templates]
        return {prompt: self.model.encode([prompt]) for prompt in prompts}

    @torch.no_grad()
    def encode_word(self, word: Tensor) -> Cond:
        """The condition of a prompt that consists of these token embeddings [k, d] alone."""
        return self.model.encode_with_grad([""], word[None])

    def clear(self) -> None:
        """Removes the files of finished stages."""
        for file in self.files:
            file.unlink(missing_ok=True)

    def _run_stage(self, stage: str, make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """The result of a stage: read from its file if it was finished before, else made, and written if there are
        files."""
        if self.checkpoint is None:
            return make()
        self.files.append(file := Path(f"{self.checkpoint}.{stage}"))
        ours = {**self.record, "kind": stage}
        if not file.exists():
            write_tensors(file, make(), ours)
        tensors, meta = read_tensors(file)
        check_same_run(file, meta, ours)
        return tensors

    def _draw_pictures(self, i: int) -> Tensor:
        """Latents [pictures, c, h, w] of the i-th target as the base draws it."""
        how, conds = self.how, Cond.cat(list(self.encode_prompts(i).values()))
        first, size = find_first_seed("stereo", how.seed), self.model.drawn_together
        drawn = [
            self.model.sample(
                conds[[k % len(conds) for k in part]],
                self.model.encode([""]),
                [first + k for k in part],
                steps=how.draw_steps,
                guidance=how.picture_guidance,
                sampler="ddim",
            ).x
            for part in (range(how.pictures)[k : k + size] for k in range(0, how.pictures, size))
        ]
        return torch.cat(drawn)

    def _attack(self, pictures: Tensor, seed: int) -> dict[str, Tensor]:
        """Learns token embeddings [k, d] with which the weights in place denoise the pictures."""
        how, model = self.how, self.model
        start = model.embed(model.tokenize([how.start_word])[:, 1]).detach().float()
        word = RowwiseAdam(start.expand(how.attack_tokens, -1)[None], how.attack_lr, how.attack_decay)
        for step in range(how.attack_steps):
            rng = torch.Generator().manual_seed(seed * APART + step)
            rows = torch.randint(len(pictures), (how.batch,), generator=rng)
            x0 = pictures[rows.to(pictures.device, non_blocking=True)]

            def error(at: Tensor, x0: Tensor = x0, rng: torch.Generator = rng) -> Tensor:
                cond = model.encode_with_grad([""], at).expand(len(x0))
                how_noised = (model.find_noise_level, len(model.levels), model.space, rng)
                errors = measure_denoising_errors(lambda x_t, t: model.predict(x_t, t, cond)[0], x0, *how_noised)
                return errors.mean()[None]

            word.step(measure_steepness(error, word.at, model.loss_factor)[1])
        return {"word": word.at[0]}
