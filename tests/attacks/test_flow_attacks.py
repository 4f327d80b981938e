"""What attacks by gradients find in a flow: the error that they lower, the encoder that they search, and its room."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from efface.attacks.denoising_error import DenoisingError
from efface.functional.denoising import denoising_errors
from efface.functional.schedules import NoiseLevel
from efface.models.text_room import demand_room
from tiny_flux import tiny_flux
from tiny_language import tiny_flux2, tiny_qwen_image, tiny_sana, tiny_z_image
from tiny_sd3 import tiny_sd3


def rngs(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def test_the_goal_of_a_noised_picture_is_the_velocity_at_both_ends() -> None:
    model = tiny_sd3()
    latents = torch.randn(3, *model.latent_shape)
    for at in (0, 500, 1000):
        found = DenoisingError(model, latents, rngs(2)).rows(at)
        sigma = at / 1000
        again = rngs(2)
        picks = [int(torch.randint(3, (1,), generator=rng)) for rng in again]
        eps = torch.cat([torch.randn((1, *model.latent_shape), generator=rng) for rng in again])
        assert torch.allclose(found.x, (1 - sigma) * latents[picks] + sigma * eps, atol=1e-6)
        assert torch.equal(found.known["goal"], eps - latents[picks])


@pytest.mark.parametrize("make", [tiny_sd3, tiny_flux])
def test_token_embeddings_before_a_prompt_lower_the_error_of_a_flow(make: Any) -> None:
    """As concept inversion and a soft prompt do, whichever way the prompt is heard."""
    model = make()
    latents = torch.randn(1, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    prefix = model.embed(model.tokenize(["dog"])[:, 1:2]).detach().clone().requires_grad_()
    adam = torch.optim.Adam([prefix], lr=1.0)

    def error() -> torch.Tensor:
        def predict(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return model.predict(x_t, t, model.encode_with_grad(["a cat"], prefix))[0]

        rng = torch.Generator().manual_seed(0)
        return denoising_errors(
            predict, latents.expand(4, -1, -1, -1), model.noise_level, 1001, model.space, rng
        ).mean()

    first = error().item()
    for _ in range(15):
        adam.zero_grad()
        error().backward()
        adam.step()
    assert error().item() < first


def test_each_encoder_says_how_many_tokens_fit() -> None:
    for model in (tiny_sd3(), tiny_flux()):
        demand_room(model, 6)
        with pytest.raises(ValueError, match=r"7 tokens before the prompt do not fit; .* reads 6"):
            demand_room(model, 7)


@pytest.mark.parametrize("make", [tiny_sana, tiny_z_image, tiny_qwen_image, tiny_flux2])
def test_a_language_model_takes_no_token_embeddings(make: Any) -> None:
    with pytest.raises(ValueError, match="reads prompts by a language model within a template"):
        demand_room(make(), 1)


def test_levels_of_a_flow_are_as_many_as_its_timesteps_and_one() -> None:
    model = tiny_sd3()
    assert len(model.levels) == 1001
    assert torch.equal(model.levels.sigma, NoiseLevel.from_flow(torch.arange(1001, dtype=torch.double) / 1000).sigma)
