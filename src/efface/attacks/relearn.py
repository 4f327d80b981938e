"""Relearn: fine-tunes the edited model briefly on a few pictures of the concept, and counts steps until it is back.

It minimises || eps_th(x_t, t, c(prompt naming the concept)) - eps ||^2 over k pictures, from the edited weights,
densely or by a low-rank change (LoRA, Hu et al., arXiv 2106.09685). It was often reported that erased concepts return
within few such steps; there is no single published protocol, so the settings are ours. The prompts of the pictures name
the concept as the rows do. Rows are tried after 1, 2, 5, 10, 20, 50 … steps; a row that shows the concept is not tried
again, so that the rate after some steps is that of the rows broken by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from ..concept import check_templates
from ..functional.adversary import differentiate_in_range
from ..functional.denoising import measure_denoising_errors
from ..models.base import Model
from ..models.cond import Cond
from ..models.pieces import call_in_pieces
from ..suites.spec import Row
from ..training.optim import Adam32bit
from ..training.subsets import select
from .base import Attack, AttackContext, Candidate, Proposals, Threat

How = Literal["lora", "dense"]


@final
@dataclass(frozen=True, kw_only=True)
class Relearn(Attack):
    """Fine-tunes the edited weights on pictures of the concept, and draws the prompts after several numbers of
    steps."""

    threat: ClassVar[Threat] = "weights"
    version: ClassVar[str] = "2"
    budget_fields: ClassVar[tuple[str, ...]] = ("steps",)
    one_setting_per_query: ClassVar[bool] = True
    queries: int = 6
    """Number of queries of each row, after 1, 2, 5, 10 … steps (fewer leave out the first)."""
    steps: int = 50
    """Number of steps of fine-tuning."""
    how: How = "lora"
    """How weights are trained: by a low-rank change, or each for itself."""
    weights: str = "xattn"
    """Which weights are trained: subsets or regular expressions, comma-separated."""
    rank: int = 8
    """Rank of the low-rank change."""
    lr: float = 1e-3
    """Adam's learning rate."""
    batch: int = 8
    """Number of noised pictures in a step."""
    pictures: int = 8
    """Largest number of pictures of the concept to learn from."""
    templates: tuple[str, ...] = ("a photo of a {}",)
    """Prompt templates of the pictures, with {} for the concept's name."""
    style_templates: tuple[str, ...] = ("a painting in the style of {}",)
    """The templates to use where the concept is a style."""

    def check_settings(self) -> None:
        if self.how not in get_args(How):
            raise ValueError(f"no way {self.how!r} to move weights; there are {', '.join(get_args(How))}")
        for name in ("steps", "rank", "batch", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_templates(self.templates)
        check_templates(self.style_templates)

    def check(self, context: AttackContext) -> None:
        if context.edit is not None:
            context.require_edited_weights()
        self._choose_weights(context.model)
        context.require_image_input()

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        start = {name: context.model.weights[name].detach() for name in self._choose_weights(context.model)}
        adam, done = Adam32bit(self._build_params(context, start), self.lr), 0
        asked = self._write_prompts(context, rows)
        for stop, note in zip(self.list_stops(), self.list_stages(), strict=True):
            adam.load_state_dict(context.once(note, partial(self._learn, context, adam, start, done, stop, asked)))
            done = stop
            with torch.no_grad():
                moved = self._apply_params(start, adam.params)
            with context.model.swap_in(moved):
                yield [Candidate(row.prompt, row.seed, note=note) for row in rows]

    def list_stages(self) -> Sequence[str]:
        return [f"{stop} step{'s' * (stop > 1)}" for stop in self.list_stops()]

    def list_budget_shares(self) -> Sequence[float]:
        return [stop / self.steps for stop in self.list_stops()]

    def list_stops(self) -> list[int]:
        """The last `queries` of 1, 2, 5, 10, 20, 50 … and the number of steps itself."""
        series = [n * 10**k for k in range(len(str(self.steps))) for n in (1, 2, 5)]
        return [*(n for n in series if n < self.steps), self.steps][-self.queries :]

    def _choose_weights(self, model: Model) -> list[str]:
        """The weights that are trained; raises ValueError where none can be."""
        now = model.weights
        chosen = [name for name in select(now, self.weights) if self.how == "dense" or now[name].dim() >= 2]
        if not chosen:
            raise ValueError(f"{self.weights!r} selects no matrix; a low-rank change needs some, for example 'xattn'")
        return chosen

    def _build_params(self, context: AttackContext, start: Mapping[str, Tensor]) -> list[Tensor]:
        """fp32 copies of the weights; or for each a random [rank, in] and a zero [out, rank], whose product is zero."""
        if self.how == "dense":
            return [weight.float().clone().requires_grad_() for weight in start.values()]
        rng = torch.Generator().manual_seed(context.make_rng("relearn", "start").getrandbits(63))
        params: list[Tensor] = []
        for flat in (weight.flatten(1) for weight in start.values()):
            down = torch.randn(self.rank, flat.shape[1], generator=rng) / flat.shape[1] ** 0.5
            params += [down.to(flat.device), torch.zeros(len(flat), self.rank, device=flat.device)]
        return [param.requires_grad_() for param in params]

    def _apply_params(self, start: Mapping[str, Tensor], params: Sequence[Tensor]) -> dict[str, Tensor]:
        """The weights from the params, by name, with a gradient to the params."""
        if self.how == "dense":
            return {name: param.to(start[name]) for name, param in zip(start, params, strict=True)}
        pairs = zip(start.items(), params[::2], params[1::2], strict=True)
        return {name: (w + (up @ down).view(w.shape)).to(w) for (name, w), down, up in pairs}

    def _write_prompts(self, context: AttackContext, rows: Sequence[Row]) -> list[str]:
        """The prompts of the pictures, which name the concept as the rows do; they are the same for all rows."""
        if not context.accepts_words and not any(row.prompt for row in rows):
            return [""]  # a control of a class-conditional model: without a name there is no prompt
        templates = self.style_templates if context.asks == "style" else self.templates
        return [template.format(context.placeholder or context.concept) for template in templates]

    def _learn(
        self,
        context: AttackContext,
        adam: Adam32bit,
        start: Mapping[str, Tensor],
        done: int,
        until: int,
        prompts: Sequence[str],
    ) -> dict[str, Tensor]:
        """Adam's state after the steps from `done` to `until`, on pictures with these prompts."""
        latents = context.encode_pictures(self.pictures)
        for step in range(done, until):
            grads, _ = differentiate_in_range(
                partial(self._differentiate, context, adam.params, start, latents, prompts, step),
                context.model.loss_factor,
                f"at step {step + 1} of relearning",
            )
            adam.step(grads)
        return adam.state_dict()

    def _differentiate(
        self,
        context: AttackContext,
        params: Sequence[Tensor],
        start: Mapping[str, Tensor],
        latents: Tensor,
        prompts: Sequence[str],
        step: int,
        factor: float,
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """The errors [batch] of a step's pictures, and the gradient of their mean to each of the params."""
        model, choice = context.model, context.make_rng("relearn", step)
        rng = torch.Generator().manual_seed(choice.getrandbits(63))
        asked = [choice.choice(prompts) for _ in range(self.batch)]
        x0 = latents[torch.randint(len(latents), (self.batch,), generator=rng).to(latents.device, non_blocking=True)]

        def first(x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
            return model.predict(x_t, t, cond)[0]

        with torch.enable_grad(), model.frozen(), model.swap_in(self._apply_params(start, params)):
            cond = model.encode_with_grad(asked)
            errors = measure_denoising_errors(
                lambda x_t, t: call_in_pieces(first, x_t, t, cond, model.gradient_rows),
                x0,
                model.find_noise_level,
                len(model.levels),
                model.space,
                rng,
            )
            grads = torch.autograd.grad(errors.mean() * factor, params, allow_unused=True)
        return errors.detach(), [
            torch.zeros_like(p) if g is None else g / factor for p, g in zip(params, grads, strict=True)
        ]
