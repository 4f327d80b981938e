"""The error that attacks lower for each row: how far a model is from drawing a concept, measured on its pictures.

For an edited model th' and a searched condition c, there are two errors at noised pictures:

- that of the noise, || eps_th'(x_t, c) - eps ||^2 (UnlearnDiffAtk, Zhang et al., ECCV 2024, arXiv 2310.11868;
  textual inversion, Gal et al., ICLR 2023, arXiv 2208.01618);
- that of the base's prediction for the concept, || eps_th'(x_t, c) - eps*(x_t, c_goal) ||^2 (P4D, Chin et al., ICML
  2024, arXiv 2309.06135).

Errors are measured in eps, whatever the model predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from ..edits.edit import Edit
from ..functional.adversary import measure_steepness_by_parts
from ..functional.losses import weighted_errors
from ..functional.schedules import add_noise, denoising_target, space_weight
from ..models.base import Model
from ..models.cond import Cond
from ..training.interfaces import States


@final
class DenoisingError:
    """Pictures of a concept, with new noise for each of n rows at every step; rows may leave.

    Args:
        model: the edited model.
        latents: the latents [m, c, h, w] of the pictures, which all rows share.
        rngs: the generators of the n rows, on the CPU, so that rows are independent of each other.
    """

    def __init__(self, model: Model, latents: Tensor, rngs: Sequence[torch.Generator]) -> None:
        self.model, self.latents, self.rngs = model, latents, list(rngs)

    def draw_states(self, at: int | None = None) -> States:
        """A picture for each row noised to timestep `at` or a random one; "goal" is the noise in the model's space."""
        picks = self._draw(len(self.latents))
        t = self._draw(len(self.model.levels)) if at is None else torch.full_like(picks, at)
        x0 = self.latents[picks.to(self.latents.device, non_blocking=True)]
        eps = torch.cat([torch.randn((1, *x0.shape[1:]), generator=rng) for rng in self.rngs]).to(x0, non_blocking=True)
        bar = self.model.find_noise_level(t)
        x_t = add_noise(x0, eps, bar)
        return States(x_t, t, {"goal": denoising_target(x0, eps, x_t, bar, self.model.space)})

    def compute_error(self, rows: States, cond: Cond) -> Tensor:
        """The mean squared error [n], in eps, between the prediction under `cond` (n rows) and the goal."""
        said = self.model.predict_guided(rows.x, rows.t, cond)
        weight = space_weight(self.model.find_noise_level(rows.t), self.model.space, "eps")
        return weighted_errors(said, rows.known["goal"], weight)

    def differentiate(self, states: States, at: Tensor, read: Callable[[Tensor, slice], Cond]) -> tuple[Tensor, Tensor]:
        """The error [n] of inputs [n, ...] and its gradient [n, ...], with `Model.gradient_rows` rows at once.

        Args:
            states: the result of `draw_states`, n rows.
            at: the inputs [n, ...].
            read: gives the conditions of m rows, with the guide's inputs, from their inputs [m, ...] and their slice.
        """

        def error(inputs: Tensor, part: slice) -> Tensor:
            known = {name: tensor[part] for name, tensor in states.known.items()}
            return self.compute_error(States(states.x[part], states.t[part], known), read(inputs, part))

        with self.model.frozen():
            return measure_steepness_by_parts(error, at, self.model.gradient_rows, self.model.loss_factor)

    def keep(self, rows: Sequence[int]) -> None:
        """Continues with these rows only."""
        self.rngs = [self.rngs[i] for i in rows]

    def _draw(self, of: int) -> Tensor:
        return torch.cat([torch.randint(of, (1,), generator=rng) for rng in self.rngs])


def require_gradients(model: Model, edit: Edit | None) -> None:
    """Raises ValueError where the edit is not a part of the network through which gradients pass."""
    guide = edit.build_guider() if edit is not None else None
    if guide is not None and not guide.in_network:
        raise ValueError(
            f"the edit is a guide ({type(guide).__name__.lower()}): it steers drawing and leaves the network alone, so "
            f"the gradients of {model.name} know nothing of it; attacks by prompts, or by the text encoder alone, work"
        )
