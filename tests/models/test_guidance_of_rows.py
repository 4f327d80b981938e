"""Pictures of different guidance that are drawn together are those that are drawn apart."""

from __future__ import annotations

import pytest
import torch

from efface.guidance.negative import Negative
from efface.models.adapters.sd import StableDiffusion
from tiny import tiny_model
from tiny_flux import tiny_flux

PROMPTS, SEEDS, GUIDANCES = ["a cat", "a dog", "a house"], [1, 2, 3], [1.0, 3.0, 7.5]


def draw_latents(model: StableDiffusion, guidances: list[float]) -> torch.Tensor:
    return torch.cat(
        [
            model.sample(model.encode([p]), model.encode([""]), [s], steps=3, guidance=g).x
            for p, s, g in zip(PROMPTS, SEEDS, guidances, strict=True)
        ]
    )


@pytest.mark.parametrize("guided", [False, True])
def test_rows_of_different_guidance_in_one_batch_are_each_drawn_at_its_own(guided: bool) -> None:
    model = tiny_model("epsilon")
    with model.guided_by(Negative(prompt="a car")) if guided else torch.no_grad():
        apart = draw_latents(model, GUIDANCES)
        together = model.sample(model.encode(PROMPTS), model.encode([""]), SEEDS, steps=3, guidance=GUIDANCES).x
        wrong = model.sample(model.encode(PROMPTS), model.encode([""]), SEEDS, steps=3, guidance=3.0).x
    assert (together - apart).abs().max() < 1e-4 < 1e-3 < (together - wrong)[[0, 2]].abs().amax()
    assert torch.equal(
        model.images(PROMPTS, SEEDS, steps=3, guidance=[3.0] * 3), model.images(PROMPTS, SEEDS, steps=3, guidance=3.0)
    )


def test_a_network_that_reads_the_guidance_reads_each_rows_own() -> None:
    model = tiny_flux()
    together = model.images(PROMPTS, SEEDS, steps=2, guidance=GUIDANCES)
    apart = [model.images([p], [s], steps=2, guidance=g) for p, s, g in zip(PROMPTS, SEEDS, GUIDANCES, strict=True)]
    assert (together.int() - torch.cat(apart).int()).abs().max() <= 1


def test_as_many_guidances_as_pictures_are_asked_for() -> None:
    model = tiny_model("epsilon")
    with pytest.raises(ValueError, match="one for each of 3; got 2"):
        model.images(PROMPTS, SEEDS, guidance=GUIDANCES[:2])
