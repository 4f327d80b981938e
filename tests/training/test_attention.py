"""MACE's attention where pictures are wide, layers are several, and thresholds lie at their ends."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from efface.concept import Erasure
from efface.models.adapters.sd import StableDiffusion
from efface.models.hooks.attention import record_cross_attention
from efface.training.config import TrainConfig
from efface.training.interfaces import Context, Query, States, Step
from efface.training.objectives.attention import ALL as AND_ENDS
from efface.training.objectives.attention import WORDS as OWN
from efface.training.objectives.attention import Attention, Focus, check_threshold, locate_words, measure_inside
from efface.training.preservation.nothing import NoPreservation
from efface.training.updates.lowrank import LowRank
from oracle import SHAPE, Fixed, OracleModel, build_trainer

WORDS = torch.tensor([[0.0, 1, 1, 0], [0, 0, 0, 1]])


def attention(places: int, seed: int) -> Tensor:
    """[2 rows, 3 heads, places, 4 tokens]."""
    return torch.randn(2, 3, places, 4, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_the_loss_of_a_wide_picture_by_loops():
    """A mask of 4 x 8, and a layer of 2 x 4 places in which every second row and column counts."""
    maps = attention(8, 0)
    mask = (torch.rand(2, 1, 4, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    rows = []
    for n in range(2):
        inside = [
            float(maps[n, h, 4 * y + x, k]) ** 2
            for y in range(2)
            for x in range(4)
            for h in range(3)
            for k in range(4)
            if mask[n, 0, 2 * y, 2 * x] and WORDS[n, k]
        ]
        rows.append(sum(inside) ** 0.5)
    assert measure_inside([maps], WORDS, mask).item() == pytest.approx(sum(rows) / 2, rel=1e-4)


@pytest.mark.parametrize("size", [(4, 8), (8, 4)])
def test_a_mask_is_of_the_mean_of_all_layers(size):
    layers = [attention(32, seed) for seed in range(3)]
    found = locate_words(layers, WORDS, size, 0.4)
    assert found.shape == (2, 1, *size)
    for n in range(2):
        seen = sum(layer[n, :, :, WORDS[n] > 0].sum(dim=(0, 2)) for layer in layers)
        share = (seen - seen.min()) / (seen.max() - seen.min())
        assert 0.1 < (share > 0.4).float().mean() < 0.9
        assert found[n].flatten().tolist() == (share > 0.4).float().tolist()


def test_a_mask_of_threshold_0_leaves_out_the_least_place_alone():
    check_threshold(0.0)
    assert locate_words([attention(32, 0)], WORDS, (4, 8), 0.0).sum().item() == 2 * 31


def test_rows_take_their_timesteps_independently():
    """Of a distribution on two timesteps, many rows take each about half the time, at their own pictures."""
    model = OracleModel()
    context = build_trainer(model, [NoPreservation()]).context
    focus, n = Focus(start=500, stop=501, sharp=2000.0), 400
    rng = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(n, *SHAPE, generator=rng), torch.randn(n, *SHAPE, generator=rng)
    bar = model.levels.alpha.square()[200].float()
    states = States(bar.sqrt() * x0 + (1 - bar).sqrt() * noise, torch.full((n,), 200), {"x0": x0, "noise": noise})
    moved = focus.resample(context, states, torch.Generator().manual_seed(1))
    assert moved.t.unique().tolist() == [500, 501]
    assert (moved.t == 500).float().mean().item() == pytest.approx(0.5, abs=0.1)
    own = model.levels.alpha.square()[moved.t].float().view(-1, 1, 1, 1)
    assert torch.allclose(moved.x, own.sqrt() * x0 + (1 - own).sqrt() * noise, atol=1e-5)
    assert moved.known.keys() == {"x0"} and moved.known["x0"] is x0


def ask(model: StableDiffusion, term: Attention, templates: tuple[str, str] = ("{}", "a {}")) -> Query:
    update = LowRank("xattn-strict", 1e-3, 1)
    config = TrainConfig(steps=1, batch=2, draw_steps=4, templates=templates)
    context = Context(model, Erasure(("cat", "red dog")), config, update, model.encode([""]))
    update.prepare(context)
    step = Step(0, update, torch.Generator().manual_seed(0), [0, 1], [0, 1], [0, 1], [0, 1])
    queries = term.build_queries(context, step)
    assert queries is not None
    return queries["mask"]


def wide_states() -> States:
    x0 = torch.randn(2, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    return States(x0, torch.tensor([300, 600]), {"x0": x0, "noise": torch.zeros_like(x0)})


@pytest.mark.parametrize("ends", [True, False])
def test_the_terms_mask_is_the_teachers_and_as_wide_as_its_pictures(eps_model, ends):
    query = ask(eps_model, Attention(Fixed(wide_states()), 0.3, ends, None))
    assert query.cond.tensors[OWN].tolist() == [[0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]]
    end = float(ends)
    assert query.cond.tensors[AND_ENDS].tolist() == [[0, 1, *[end] * 6], [0, 0, 1, 1, *[end] * 4]]
    with torch.no_grad(), record_cross_attention(eps_model) as maps:
        eps_model.predict(query.states.x, query.states.t, query.cond)
    mask = query.states.known["mask"]
    assert mask.shape == (2, 1, 4, 8) and 0 < mask.mean() < 1
    assert torch.equal(mask, locate_words(maps.values(), query.cond.tensors[OWN], (4, 8), 0.3))


def test_a_prompt_that_is_cut_off_has_one_end_token(eps_model):
    """Its last; all 8 places of the text are taken, and the target's words are before the cut."""
    with pytest.warns(UserWarning, match="1 prompt exceeds 8 tokens"):
        query = ask(eps_model, Attention(Fixed(wide_states()), 0.3, True, None), ("{} a a a a a a a a", "a {}"))
    assert query.cond.tensors[AND_ENDS].tolist()[0] == [0, 1, 0, 0, 0, 0, 0, 1]


def test_what_a_segmenter_finds_is_above_the_threshold_and_nothing_is_told(eps_model):
    """Of shares 0.5, 0.6 and 0 in the thirds of a picture, only the middle is above 0.5."""

    def thirds(pictures: Tensor, thing: str) -> Tensor:
        share = torch.zeros(len(pictures), *pictures.shape[2:])
        share[:, :, :4], share[:, :, 4:8] = 0.5, 0.6
        return share if thing == "cat" else torch.zeros_like(share)

    with pytest.warns(UserWarning, match="the segmenter finds no 'red dog' in a picture of it") as told:
        query = ask(eps_model, Attention(Fixed(wide_states()), 0.5, True, None, thirds))
    assert len(told) == 1
    cat, dog = query.states.known["mask"][:, 0].tolist()
    assert cat == [[0.0] * 2 + [1.0] * 2 + [0.0] * 4] * 4 and dog == [[0.0] * 8] * 4
    with warnings.catch_warnings(action="error"):
        ask(eps_model, Attention(Fixed(wide_states()), 0.4, True, None, lambda p, _: thirds(p, "cat")))


def test_states_of_no_picture_and_shares_that_are_none_are_refused(eps_model):
    states = wide_states()
    with pytest.raises(ValueError, match="Attention is about noised pictures; give it a source of pictures"):
        ask(eps_model, Attention(Fixed(States(states.x, states.t)), 0.5, True, None))
    for threshold in (-0.1, 1.0):
        with pytest.raises(ValueError, match="the mask's threshold is a share from 0 to below 1, got"):
            Attention(Fixed(states), threshold, True, None)
