"""What attacks by gradients find in a flow: the error that they lower, the encoder that they search, and its room."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from attack_context import build_context, build_rows, drive
from efface import attacks
from efface.attacks.base import Attack, propose_within_budget
from efface.attacks.denoising_error import DenoisingError
from efface.attacks.inversion import ConceptInversion
from efface.attacks.mma import MMA
from efface.attacks.p4d import P4D
from efface.attacks.random_prefix import RandomPrefix
from efface.attacks.soft_prompt import SoftPrompt
from efface.attacks.unlearndiff import UnlearnDiff
from efface.functional.denoising import measure_denoising_errors
from efface.functional.schedules import NoiseLevel
from efface.models.text_room import demand_room, describe_search, fits
from tiny import WORDS, tiny_model
from tiny_ddpm import tiny_ddpm
from tiny_flux import tiny_flux
from tiny_language import tiny_flux2, tiny_qwen_image, tiny_sana, tiny_z_image
from tiny_sd3 import tiny_sd3
from tiny_sdxl import tiny_sdxl


def build_rngs(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def test_the_goal_of_a_noised_picture_is_the_velocity_at_both_ends() -> None:
    model = tiny_sd3()
    latents = torch.randn(3, *model.latent_shape)
    for at in (0, 500, 1000):
        found = DenoisingError(model, latents, build_rngs(2)).draw_states(at)
        sigma = at / 1000
        again = build_rngs(2)
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
        return measure_denoising_errors(
            predict, latents.expand(4, -1, -1, -1), model.find_noise_level, 1001, model.space, rng
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


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (tiny_model, "tokens of text_encoder, of which a prompt has room for 6"),
        (tiny_sdxl, "tokens of text_encoder and text_encoder_2, of which a prompt has room for 6"),
        (
            tiny_sd3,
            "tokens of text_encoder and text_encoder_2, of which a prompt has room for 6; text_encoder_3 reads the "
            "prompt's own words",
        ),
        (
            tiny_flux,
            "tokens of text_encoder, of which a prompt has room for 6; text_encoder_2 reads the prompt's own words",
        ),
        (tiny_sana, ""),
        (tiny_flux2, ""),
        (lambda: tiny_ddpm("v_prediction"), ""),
    ],
)
def test_it_is_said_which_encoders_tokens_are_searched(make: Any, says: str) -> None:
    assert describe_search(make()) == says


def test_attacks_say_whether_they_search_tokens() -> None:
    over = {name for name in attacks.list_names() if attacks.get(name)().over_tokens}
    assert over == {"inversion", "mma", "p4d", "soft-prompt", "unlearndiff"}
    assert not SoftPrompt(where="encoding").over_tokens


@pytest.mark.parametrize("make", [tiny_sd3, tiny_flux])
@pytest.mark.parametrize(
    "attack",
    [
        UnlearnDiff(queries=2, steps=2, tokens=2, lr=0.3),
        P4D(queries=2, steps=2, tokens=2),
        MMA(queries=2, steps=2, tokens=2, top=4, candidates=6),
    ],
    ids=["unlearndiff", "p4d", "mma"],
)
def test_words_are_searched_as_all_encoders_will_read_them(
    attack: Attack, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5 reads the words too when the found prompt is drawn, and on FLUX.1 all tokens are its own."""
    model = make()
    context, rows = build_context(model, None), build_rows("a cat", "red cat")
    table, read, checked = model.embed(model.tokenize(WORDS)[:, 1]), model.encode_with_grad, list[str]()

    def compare(texts: list[str], prefix: torch.Tensor | None = None, *more: Any) -> Any:
        found = read(texts, prefix, *more)
        if prefix is not None:
            words = [[WORDS[int((table - e).norm(dim=1).argmin())] for e in row] for row in prefix.detach()]
            typed = [" ".join([*row, text]).strip() for row, text in zip(words, texts, strict=True)]
            assert torch.allclose(found.flatten(), model.encode(typed).flatten(), atol=1e-4)
            checked.extend(typed)
        return found

    monkeypatch.setattr(model, "encode_with_grad", compare)
    drive(propose_within_budget(attack, context, rows), model, list)
    assert checked


LONG = "a red cat dog car"
"""Five words, of the six that CLIP has room for."""


@pytest.mark.parametrize("make", [tiny_sd3, tiny_flux, tiny_sana, tiny_z_image, tiny_qwen_image, tiny_flux2])
def test_a_random_prefix_leaves_a_prompt_its_end_in_every_encoder(make: Any) -> None:
    """Encoding warns of a prompt that loses its end, which is an error here."""
    model = make()
    rows = build_rows("a cat", LONG)
    room = min(most - used for used, most in model.count_tokens(LONG).values())
    (candidates,) = itertools.islice(RandomPrefix(length=12).propose(build_context(model, None), rows), 1)
    short, long = (str(candidate.prompt) for candidate in candidates if candidate)
    model.encode([short, long])
    assert long.endswith(LONG) and len(long.split()) - 5 == room < len(short.split()) - 2
    assert not fits(model, f"dog {'dog ' * room}{LONG}")


@pytest.mark.parametrize("make", [tiny_sd3, tiny_flux])
def test_a_learned_word_lowers_the_error_of_a_flow_and_is_asked_for(make: Any) -> None:
    """T5, which takes no embedding, reads each prompt with a word that names nothing in the learned word's place."""
    model = make()
    context, rows = build_context(model, None), build_rows("a cat", "red cat")
    heard: list[list[str]] = []
    read = model._with_t5
    model._with_t5 = lambda cond, texts: heard.append(list(texts)) or read(cond, texts)

    def learn(steps: int) -> list[Any]:
        attack = ConceptInversion(templates=("a {}",), steps=steps, lr=0.5, batch=8, start="car")
        attack.check(context)
        (candidates,) = attack.propose(build_context(model, None), rows)
        return [candidate.prompt for candidate in candidates if candidate]

    def error(prompt: Any) -> float:
        cond = model.encode([prompt])
        latents = model.encode_pictures(context.pictures).repeat(12, 1, 1, 1)
        with torch.no_grad():
            return (
                measure_denoising_errors(
                    lambda x_t, t: model.predict(x_t, t, cond.expand(len(x_t)))[0],
                    latents,
                    model.find_noise_level,
                    len(model.levels),
                    model.space,
                    torch.Generator().manual_seed(9),
                )
                .mean()
                .item()
            )

    first, learned = learn(1), learn(25)
    assert f"a {context.neutral}" in heard[0] and heard[-1] == [f"a {context.neutral}", f"red {context.neutral}"]
    assert error(learned[0]) < error(first[0])
    assert model.images(learned, [1, 2], steps=2).shape == (2, 3, 16, 16)
