"""SalUn's saliency of weights: the gradient of a guided denoising loss, summed over the whole forget set.

It is the sum over batches of d/dth || eps - [(1 + g) eps_th(x_t, c_f) - g eps_th(x_t, "")] ||^2 at the base, each
picture once (Fan et al., ICLR 2024, arXiv 2310.12508; `generate_mask.py` of the authors' code, whose `c_guidance` is g
= 7.5; its minus sign makes no difference to the ranking).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from ...functional.losses import weighted_mse
from ...models.cond import Cond
from ..data import States
from ..interfaces import Context, Step, Update
from ..seeds import find_first_seed


class CountedStates(Protocol):
    """A source of states that says how many pictures it has of a prompt."""

    def expect(self, prompts: Sequence[str]) -> None: ...

    def count(self, context: Context, prompt: str) -> int: ...

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States: ...


@final
@dataclass(frozen=True)
class GuidedDenoising:
    """The saliency's loss on the pictures of all target prompts, from `source`; each is used once for each prompt."""

    source: CountedStates
    guidance: float = 7.5

    @torch.enable_grad()
    def compute_gradient(self, context: Context, update: Update) -> Sequence[Tensor]:
        """The gradient for each of the update's params, in fp32, summed over batches of the training's size."""
        params, config, factor = update.list_params(), context.config, context.model.loss_factor
        total = [torch.zeros_like(param, dtype=torch.float32) for param in params]
        rows = self._list_rows(context)
        # A row takes two predictions; a batch that the network reads in pieces still counts as one mean.
        piece = max(1, config.micro_batch // 2) if config.micro_batch else config.batch
        for start in range(0, len(rows), config.batch):
            batch = rows[start : start + config.batch]
            states, cond = self._sample_states(context, update, batch, start)
            for first in range(0, len(batch), piece):
                part = slice(first, min(first + piece, len(batch)))
                with context.model.frozen(), update.swapped_in():
                    loss = self._compute_loss(context, states, cond, part) * (part.stop - first) / len(batch)
                    grads = torch.autograd.grad(loss * factor, params, allow_unused=True)
                for sum_, grad in zip(total, grads, strict=True):
                    if grad is not None:
                        sum_ += grad.float() / factor
        return total

    def _list_rows(self, context: Context) -> list[tuple[str, int]]:
        """Every target prompt with the number of each of its pictures."""
        prompts = context.list_all_target_prompts()
        self.source.expect(prompts)
        return [(prompt, i) for prompt in prompts for i in range(self.source.count(context, prompt))]

    def _sample_states(
        self, context: Context, update: Update, rows: Sequence[tuple[str, int]], first: int
    ) -> tuple[States, Cond]:
        """The states and conditions of a batch, the same in however many pieces the network reads it."""
        rng = torch.Generator().manual_seed(find_first_seed("saliency", context.config.seed) + first)
        prompts = [prompt for prompt, _ in rows]
        none = [0] * len(rows)
        step = Step(0, update, rng, none, none, [i for _, i in rows], none)
        cond = context.model.encode(prompts)
        return self.source.sample_states(context, step, prompts, cond), cond

    def _compute_loss(self, context: Context, states: States, cond: Cond, rows: slice) -> Tensor:
        """The mean of the guided loss over some rows of a batch."""
        x, t = states.x[rows], states.t[rows]
        named, plain = context.model.predict(x, t, cond[rows], context.uncond.expand(len(x)))
        guided = (1 + self.guidance) * named - self.guidance * plain
        return weighted_mse(guided, states.known["noise"][rows], context.weigh_loss(t, "eps"))
