"""Revive: guesses pruned weights, whose zeros show which weights carried the concept, without the base and data.

Roots Beneath the Cut (Zhang et al., CVPR 2026, arXiv 2603.06640). In each matrix with zeros, the signs of the pruned
weights come from a low-rank completion (SoftImpute: columns' means first, singular values lowered by the smallest, at
most 500 rounds, tolerance 1e-5), of which the share with the largest guesses is trusted (0.6 in the paper); magnitudes
are the largest one left in the row. We know the method from its abstract and the authors' repository, not from the
whole paper. The authors prune the second layer of feed-forward blocks by ConceptPrune, which prunes large weights of
either sign, and restore above 70 % of the signs.

The differences are: beside the completion there is our mirror for learned masks (P-ESD, P-AC), after which the
remaining weights have the opposite signs of the pruned ones (`functional.revival.mirror`), which misleads a completion;
and beside the largest magnitude there is a lower quantile. All layers are examined, kernels as matrices. The base is
not used, for with it nothing would have to be guessed; `merge` is that attack. Noise instead of zeros hides pruned
weights (the authors' defence), and the attack says so; but noise that was stored in fp16 and put into fp32 weights is
visible by its missing digits, which is our finding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, final, get_args

from torch import Tensor

from ..functional.revival import complete, find_scars, find_trusted, mirror, restore
from ..models.base import Model
from ..suites.spec import Row
from ..training.subsets import select
from .base import Attack, AttackContext, Candidate, Proposals, Threat

Signs = Literal["mirror", "completion"]


@final
@dataclass(frozen=True, kw_only=True)
class Revive(Attack):
    """Estimates pruned weights from the zeros that they left, and draws the prompts with them."""

    threat: ClassVar[Threat] = "weights"
    version: ClassVar[str] = "1"
    learns_from_images: ClassVar[bool] = False
    budget_fields: ClassVar[tuple[str, ...]] = ()
    applies_to_base: ClassVar[bool] = False
    one_setting_per_query: ClassVar[bool] = True
    queries: int = 8
    """Number of queries of each row, one for every combination of the next three settings (fewer leave out the
    last)."""
    signs: tuple[Signs, ...] = ("mirror", "completion")
    """How signs are estimated: opposite to those that a learned mask left (mirror, ours), or by the paper's low-rank
    completion."""
    quantiles: tuple[float, ...] = (0.75, 1.0)
    """Which of the magnitudes left in its row a weight gets; 1 is the largest, the paper's."""
    shares: tuple[float, ...] = (1.0, 0.6)
    """Shares of the guessed signs that are trusted, those guessed largest (0.6 in the paper); the rest stay zero."""
    least: float = 1e-4
    """Share of a matrix that must be zero for it to count as pruned."""
    weights: str = r"\.weight$"
    """Which weights are examined: subsets or regular expressions, comma-separated; vectors never are."""

    def check_settings(self) -> None:
        unknown = [signs for signs in self.signs if signs not in get_args(Signs)]
        if unknown or not self.signs:
            raise ValueError(f"no signs {', '.join(unknown) or 'at all'}; there are {', '.join(get_args(Signs))}")
        for name in ("shares", "quantiles"):
            given = getattr(self, name)
            if not given or not 0 < min(given) <= max(given) <= 1:
                raise ValueError(f"{name} are above 0 and at most 1, one or more; got {given}")

    def list_stages(self) -> Sequence[str]:
        return [f"{share:.0%} of the {signs}'s signs, quantile {quant:g}" for signs, quant, share in self._list_mixes()]

    def _list_mixes(self) -> list[tuple[Signs, float, float]]:
        return list(itertools.product(self.signs, self.quantiles, self.shares))[: self.queries]

    def check(self, context: AttackContext) -> None:
        context.require_edited_weights()
        if not self._find_scars(context.model):
            raise ValueError(
                f"no weight of this model shows that it was pruned: no matrix has {self.least:.2%} zeros, nor noise of "
                "fewer digits; nothing was pruned, or noise took its place. merge and relearn need no zeros"
            )

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        found = self._find_scars(context.model)
        for (signs, quantile, share), note in zip(self._list_mixes(), self.list_stages(), strict=True):
            guesses = context.once(signs, partial(_guess, signs, context.model, found))
            with context.model.swap_in(_restore(context.model, found, guesses, quantile, share)):
                yield [Candidate(row.prompt, row.seed, note=note) for row in rows]

    def _find_scars(self, model: Model) -> dict[str, Tensor]:
        """The masks, bool [out, in], of pruned weights by name, for matrices in which pruning is visible."""
        now = model.weights
        matrices = [name for name in select(now, self.weights) if now[name].dim() >= 2]
        found = {name: find_scars(now[name].detach().flatten(1), self.least) for name in matrices}
        return {name: places for name, places in found.items() if places.any()}


def _guess(signs: Signs, model: Model, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Guesses [pruned] of the pruned weights, by name, in the order of their positions."""
    guess = mirror if signs == "mirror" else complete
    return {n: guess(model.weights[n].detach().flatten(1), places)[places] for n, places in found.items()}


def _restore(
    model: Model, found: Mapping[str, Tensor], guesses: Mapping[str, Tensor], quantile: float, share: float
) -> dict[str, Tensor]:
    """The weights with the trusted share of the guesses in their places; the rest of the places is zero."""
    out = {}
    for name, places in found.items():
        # Not as found: noise may stand in the places, which tells nothing of what was there.
        flat = model.weights[name].detach().flatten(1).masked_fill(places, 0)
        guess = flat.new_zeros(flat.shape, dtype=guesses[name].dtype)
        guess[places] = guesses[name].to(flat.device)
        out[name] = restore(flat, guess, find_trusted(guess, places, share), quantile).view_as(model.weights[name])
    return out
