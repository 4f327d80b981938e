"""The error that attacks by gradient lower, and its gradient, against finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from efface.attacks.base import build_denoising_error
from efface.attacks.denoising_error import DenoisingError
from efface.functional.adversary import measure_steepness
from efface.functional.tokens import compute_slopes
from efface.models.adapters.sd import StableDiffusion
from efface.models.adapters.sdxl import StableDiffusionXL
from tiny import WORDS, tiny_pipeline
from tiny_sdxl import tiny_sdxl_pipeline
from white_box_fixtures import ROWS, build_context


@pytest.mark.parametrize("where", ["before", "encoding"])
def test_the_gradient_through_the_model_by_finite_differences(where):
    model = StableDiffusion(tiny_pipeline("v_prediction").to(torch.float64), "tiny", words=WORDS)
    recall = build_denoising_error(build_context(model), ROWS, "test")
    states = recall.draw_states()
    prompts = [r.prompt for r in ROWS]
    own = model.encode(prompts)
    rng = torch.Generator().manual_seed(1)
    if where == "before":
        at = model.get_embedding_table().detach()[torch.randint(50, (3, 2), generator=rng)].double()
        error = lambda e: recall.compute_error(states, model.encode_with_grad(prompts, e))  # noqa: E731
    else:
        at = own.tokens.detach().double()
        error = lambda e: recall.compute_error(states, type(own)({"clip": e}))  # noqa: E731
    errors, grad = measure_steepness(error, at)
    assert grad.abs().amax(dim=(1, 2)).min() > 0
    for i in range(3):
        way = torch.randn(at.shape, generator=rng, dtype=torch.double)
        with torch.no_grad():
            up, down = (error(at + s * 1e-3 * way).double() for s in (1, -1))
        along = (grad * way).sum(dim=(1, 2))
        assert along[i].item() == pytest.approx((up - down)[i].item() / 2e-3, rel=2e-2, abs=1e-6)
    with torch.no_grad():
        assert torch.allclose(error(at), errors)


def test_the_error_is_that_of_the_noise_in_eps(model):
    """For both predictions: turned into noise by hand, against the noise that was added."""
    recall = build_denoising_error(build_context(model), ROWS, "test")
    same = DenoisingError(model, recall.latents, [torch.Generator().manual_seed(0) for _ in ROWS])
    again = DenoisingError(model, recall.latents, [torch.Generator().manual_seed(0) for _ in ROWS])
    assert torch.equal(same.draw_states(500).x, again.draw_states(500).x)
    states = recall.draw_states()
    cond = model.encode([r.prompt for r in ROWS])
    with torch.no_grad():
        errors, said = recall.compute_error(states, cond), model.predict(states.x, states.t, cond)[0]
    a = model.levels.alpha.square()[states.t.long()].float()[:, None, None, None]
    if model.space == "v":
        said, goal = ((1 - a).sqrt() * states.x + a.sqrt() * v for v in (said, states.known["goal"]))
    else:
        goal = states.known["goal"]
    assert torch.allclose(errors, (said - goal).square().mean(dim=(1, 2, 3)), rtol=1e-4)
    x0 = (states.x - (1 - a).sqrt() * goal) / a.sqrt()
    for picture in x0:
        assert min((picture - known).abs().max() for known in recall.latents) < 1e-3
    assert abs(float(goal.std()) - 1) < 0.2


def test_slopes_predict_what_a_substitution_brings(eps_model):
    """To first order: a hundredth of the way to another word, either way, changes the error by as much of the gap."""
    model = StableDiffusion(tiny_pipeline().to(torch.float64), "tiny", words=WORDS)
    recall = build_denoising_error(build_context(model), ROWS[:1], "test")
    states, table = recall.draw_states(), model.get_embedding_table().detach()
    ids = model.tokenize(["dog car"])[:, 1:3]
    error = lambda e: recall.compute_error(states, model.encode_with_grad(["a cat"], e))  # noqa: E731
    at, grad = table[ids], measure_steepness(error, table[ids])[1]
    slope = compute_slopes(grad, table)
    for place, other in ((0, 60), (1, 61), (1, 70)):
        way = torch.zeros_like(at)
        way[0, place] = table[other] - at[0, place]
        with torch.no_grad():
            up, down = (float(error(at + s * 1e-2 * way)) for s in (1, -1))
        promised = float(slope[0, place, other] - slope[0, place, ids[0, place]])
        assert (up - down) / 2e-2 == pytest.approx(promised, rel=0.03, abs=3e-5)


@pytest.mark.parametrize("where", ["clip", "pooled"])
def test_the_gradient_through_two_text_encoders_by_finite_differences(where):
    pipeline = tiny_sdxl_pipeline().to(torch.float64)
    model = StableDiffusionXL(pipeline, "tiny-xl", words=WORDS)
    recall = build_denoising_error(build_context(model), ROWS, "test")
    states, prompts, rng = recall.draw_states(), [r.prompt for r in ROWS], torch.Generator().manual_seed(1)
    other = model.encode(prompts)
    at = model.get_embedding_table().detach()[torch.randint(50, (3, 2), generator=rng)].double()

    def error(e: torch.Tensor) -> torch.Tensor:
        read = model.encode_with_grad(prompts, e)
        moved = replace(other, pooled=read.pooled) if where == "pooled" else other.with_embedding(read.tokens)
        return recall.compute_error(states, moved)

    _, grad = measure_steepness(error, at)
    for i in range(3):
        way = torch.randn(at.shape, generator=rng, dtype=torch.double)
        with torch.no_grad():
            up, down = (error(at + s * 5e-2 * way).double() for s in (1, -1))
        assert (grad * way).sum(dim=(1, 2))[i].item() == pytest.approx((up - down)[i].item() / 1e-1, rel=2e-2, abs=3e-6)
