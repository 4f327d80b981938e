"""Half precision moves a result as far as its rounding must, which is simulated, and a mistake moves it further.

The bounds follow from the unit roundoff of the format by Monte Carlo arithmetic (`monte_carlo.py`), not from what runs
in half precision were seen to give. `tests/cuda/` holds every method to them on a stand-in for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from math import isnan, nan
from typing import Any

import pytest
import torch
from torch import Tensor

from efface.functional import losses
from efface.functional.adversary import NotFinite
from efface.functional.schedules import NoiseLevel
from efface.methods import mace
from efface.models.base import Model
from efface.models.cond import Cond
from efface.training import trainer
from efface.training.objectives import negative_guidance
from efface.training.updates.dense import Dense
from monte_carlo import compute_bound, measure_distance, simulate
from precise_results import HALF, attack, draw, fit, list_networks, measure_move, open_at

FP16, FP32 = torch.float16, torch.float32
SIGNS = ("step of ESD",)
"""What goes by signs: how many are uncertain grows with the roundoff, and their distance with its root."""
CLEAN: dict[str, Any] = {"space": "x0", "batch": 1, "draw_steps": 4}
"""ESD at the cleanest of four states, with errors in x0: its loss is a ten-thousandth of one at the noisiest."""
RESULTS: Mapping[str, tuple[str, Callable[[Any], Tensor]]] = {
    "gradient of ESD": ("epsilon", lambda model: fit("esd", model)),
    "gradient of ESD near the clean end": ("epsilon", lambda model: fit("esd", model, **CLEAN)),
    "step of ESD": ("epsilon", measure_move),
    "UCE": ("epsilon", lambda model: fit("uce", model)),
    "MACE": ("epsilon", lambda model: fit("mace", model)),
    "latents": ("epsilon", draw),
    "gradient of an attack": ("v_prediction", attack),
    "gradient of an attack near the clean end": ("v_prediction", lambda model: attack(model, 0)),
}
"""What is compared, by name: the model's kind of prediction, and the work."""


@cache
def open_model(dtype: torch.dtype, prediction: str) -> Any:
    return open_at(dtype, prediction=prediction)


@cache
def find_exactly(name: str) -> tuple[Tensor, float]:
    """A result in fp32, and how far rounding to bf16 moves it."""
    prediction, work = RESULTS[name]
    model = open_model(FP32, prediction)
    right = work(model)
    return right, simulate(lambda: work(model), right, list_networks(model), HALF)


def find_most(name: str, dtype: torch.dtype) -> float:
    """How far rounding to this dtype may move a result."""
    return compute_bound(find_exactly(name)[1], HALF, dtype, 0.5 if name in SIGNS else 1)


def measure_distance_of(name: str, dtype: torch.dtype) -> float:
    prediction, work = RESULTS[name]
    right = find_exactly(name)[0]
    try:
        return measure_distance(work(open_model(dtype, prediction)), right)
    except NotFinite:
        return nan


@pytest.mark.parametrize("dtype", [FP16, HALF])
@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_as_far_from_the_one_in_fp32_as_rounding_moves_it(name: str, dtype: torch.dtype) -> None:
    assert measure_distance_of(name, dtype) <= find_most(name, dtype)


Patch = Callable[[pytest.MonkeyPatch, type[Model]], None]


def push_harder(patch: pytest.MonkeyPatch, kind: type[Model]) -> None:
    """A coefficient is a tenth too large."""
    patch.setattr(negative_guidance, "negative_guidance", lambda a, b, eta: losses.negative_guidance(a, b, 1.1 * eta))


def push_much_harder(patch: pytest.MonkeyPatch, kind: type[Model]) -> None:
    """A coefficient is half too large."""
    patch.setattr(negative_guidance, "negative_guidance", lambda a, b, eta: losses.negative_guidance(a, b, 1.5 * eta))


def drop_the_loss_scale(patch: pytest.MonkeyPatch, kind: type[Model]) -> None:
    patch.setattr(kind, "loss_factor", 1.0)


def forget_to_divide(patch: pytest.MonkeyPatch, kind: type[Model]) -> None:
    """Gradients are left multiplied by the loss scale."""
    plain = trainer.compute_gradients
    patch.setattr(trainer, "compute_gradients", lambda params, loss, factor: plain(params, loss * factor))


def round_noise_levels(patch: pytest.MonkeyPatch, kind: type[Model]) -> None:
    """alpha_bar is cast to the network's dtype before it is taken from 1."""
    plain = kind.find_noise_level

    def noise_level(self: Model, t: Tensor) -> NoiseLevel:
        return NoiseLevel.from_alpha_bar(plain(self, t).alpha.square().to(self.dtype))

    patch.setattr(kind, "find_noise_level", noise_level)


def round_encodings(patch: pytest.MonkeyPatch, kind: type[Model]) -> None:
    """Text is encoded in bf16, whatever the model's dtype."""
    plain = kind._encode  # type: ignore[attr-defined]

    def encode(self: Any, texts: Any) -> Cond:
        cond = plain(self, texts)
        return cond.with_embedding(cond.tokens.to(HALF).to(cond.tokens.dtype))

    patch.setattr(kind, "_encode", encode)


def round_solutions(patch: pytest.MonkeyPatch, kind: type[Model]) -> None:
    """What a closed form solves for is cast to the weights' dtype before it is used further."""
    plain = mace.multiply_weights
    patch.setattr(
        mace, "multiply_weights", lambda weights, m: {k: v.to(weights[k].dtype) for k, v in plain(weights, m).items()}
    )


def round_what_learns(patch: pytest.MonkeyPatch, kind: type[Model]) -> None:
    """Masters have no more digits than the network's weights."""
    plain = Dense.refresh

    @torch.no_grad()
    def refresh(self: Dense) -> None:
        plain(self)
        for master, leaf in zip(self.masters, self.leaves, strict=True):
            master.copy_(leaf)

    patch.setattr(Dense, "refresh", refresh)


def guide_one_too_much(patch: pytest.MonkeyPatch, kind: type[Model]) -> None:
    """Guidance is counted from 0 where 1 is none."""
    plain = kind.choose_guidances
    patch.setattr(kind, "choose_guidances", lambda self, scale, n: plain(self, scale, n) + 1)


FAULTS: list[tuple[Patch, str, torch.dtype]] = [
    (push_harder, "gradient of ESD", FP16),
    (push_much_harder, "gradient of ESD", HALF),
    (drop_the_loss_scale, "gradient of ESD near the clean end", FP16),
    (forget_to_divide, "gradient of ESD", FP16),
    (round_noise_levels, "gradient of ESD near the clean end", HALF),
    (round_noise_levels, "gradient of ESD near the clean end", FP16),
    (round_encodings, "UCE", FP16),
    (round_solutions, "MACE", HALF),
    (round_solutions, "MACE", FP16),
    (round_what_learns, "step of ESD", HALF),
    (round_what_learns, "step of ESD", FP16),
    (guide_one_too_much, "latents", FP16),
]
"""Mistakes, the result that shows each, and at which dtype."""


@pytest.mark.parametrize(("fault", "name", "dtype"), FAULTS, ids=lambda each: getattr(each, "__name__", str(each)))
def test_a_mistake_moves_a_result_further_than_rounding(
    fault: Patch, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = find_most(name, dtype)  # before the mistake is made, for it simulates what is right
    fault(monkeypatch, type(open_model(dtype, RESULTS[name][0])))
    wrong = measure_distance_of(name, dtype)
    assert isnan(wrong) or wrong > allowed, (wrong, allowed)
