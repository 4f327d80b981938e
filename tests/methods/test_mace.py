"""MACE: both closed forms against numerical minimisers, the attention's loss against loops, and the three stages."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import efface.training.trainer
from efface.concept import Erasure
from efface.methods.closed_form import find_text_projections
from efface.methods.mace import MACE
from efface.models.adapters.sd import StableDiffusion
from efface.models.hooks.attention import record_cross_attention
from efface.training.config import TrainConfig
from efface.training.interfaces import Step
from efface.training.objectives.attention import ALL, WORDS, Attention, Focus, locate_words, measure_inside
from efface.training.states.pictures import Pictures
from efface.training.trainer import Trainer
from tiny_ddpm import tiny_ddpm

QUICK = MACE(
    steps=2, batch=2, pictures=2, draw_steps=3, lr=1e-2, lamb=1.0, contexts=("{}", "a {} car"), preserve_words=3
)


def draw_noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_masks_and_loss_against_loops():
    maps = [draw_noise(2, 3, 16, 5).float().softmax(-1), draw_noise(2, 2, 4, 5, seed=1).float().softmax(-1)]
    words = torch.tensor([[0.0, 1, 1, 0, 0], [0, 0, 1, 0, 1]])
    mask = (draw_noise(2, 1, 4, 4, seed=2) > 0).float()
    total = 0.0
    for a in maps:
        side, rows = int(a.shape[2] ** 0.5), []
        for n in range(2):
            square = 0.0
            for y in range(side):
                for x in range(side):
                    if mask[n, 0, y * 4 // side, x * 4 // side]:
                        square += sum(
                            float(a[n, h, y * side + x, k]) ** 2
                            for h in range(a.shape[1])
                            for k in range(5)
                            if words[n, k]
                        )
            rows.append(square**0.5)
        total += sum(rows) / 2
    assert measure_inside(maps, words, mask).item() == pytest.approx(total, rel=1e-4)
    assert measure_inside(maps, words, torch.zeros_like(mask)).item() == pytest.approx(0, abs=1e-5)
    leaf = maps[0].requires_grad_()
    (grad,) = torch.autograd.grad(measure_inside([leaf], words, torch.zeros_like(mask)), [leaf])
    assert grad.isfinite().all()

    single = maps[0].detach()
    found = locate_words([single], words, (4, 4), 0.5)
    for n in range(2):
        seen = np.array(
            [sum(float(single[n, h, p, k]) for h in range(3) for k in range(5) if words[n, k]) for p in range(16)]
        )
        scaled = (seen - seen.min()) / (seen.max() - seen.min())
        assert found[n, 0].flatten().tolist() == (scaled > 0.5).astype(float).tolist()
    assert locate_words(maps, words, (8, 8), 0.5).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="12 places are no smaller copy of 8 x 8"):
        locate_words([torch.ones(1, 1, 12, 5)], words[:1], (8, 8), 0.5)


def test_timesteps_of_importance(model):
    chances = Focus().compute_chances(1000)
    t = np.arange(1000)
    weight = 1 / (1 + np.exp(-0.05 * (t - 200))) - 1 / (1 + np.exp(-0.05 * (t - 400)))
    assert np.allclose(chances.numpy(), weight / weight.sum(), atol=1e-12)
    trainer = build_trainer(model)
    source = Pictures(2, 3, 3.0)
    step = trainer.make_auxiliary_step(0, 0)
    states = source.sample_states(trainer.context, step, ["cat", "cat"], trainer.context.uncond)
    moved = Focus().resample(trainer.context, states, torch.Generator().manual_seed(0))
    shelf = source.store["cat"]
    for i in range(2):
        picture, bar, old = (
            shelf[step.noise[i] % 2],
            model.find_noise_level(moved.t[i : i + 1]).alpha.square().float(),
            model.find_noise_level(states.t[i : i + 1]).alpha.square().float(),
        )
        said = (states.x[i] - old.sqrt() * picture) / (1 - old).sqrt()
        assert torch.allclose(moved.x[i], bar.sqrt() * picture + (1 - bar).sqrt() * said, atol=1e-3)
    assert ((moved.t > 50) & (moved.t < 550)).all()


def build_trainer(model: StableDiffusion, targets: tuple[str, ...] = ("cat",)) -> Trainer:
    from efface.training.balance.sum import Sum
    from efface.training.updates.lowrank import LowRank

    return Trainer(
        model,
        Erasure(targets),
        name="test",
        arguments=asdict(QUICK),
        config=TrainConfig(steps=QUICK.steps, batch=QUICK.batch, draw_steps=QUICK.draw_steps, templates=QUICK.contexts),
        terms=(Attention(Pictures(2, 3, 3.0), 0.5, True, None),),
        update=LowRank("xattn-strict", 1e-2, 1),
        balance=Sum(),
    )


def test_the_terms_words_and_that_training_lowers_the_attention(model):
    trainer = build_trainer(model, ("cat", "red dog"))

    def step() -> Step:
        return replace(trainer.make_auxiliary_step(0, 0), targets=[0, 1], templates=[0, 1])

    query = trainer.terms[0].build_queries(trainer.context, step())["mask"]
    assert query.cond.tensors[WORDS].tolist() == [[0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]]
    assert query.cond.tensors[ALL].tolist() == [[0, 1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 1, 1, 1]]
    with torch.no_grad(), record_cross_attention(model) as maps:
        model.predict(query.states.x, query.states.t, query.cond)
    with trainer.compute_losses(step()) as losses:
        mask = locate_words(maps.values(), query.cond.tensors[WORDS], (8, 8), 0.5)
        assert 0 < mask.mean() < 1
        assert losses["erase"].item() == pytest.approx(
            measure_inside(maps.values(), query.cond.tensors[ALL], mask).item(), rel=1e-4
        )
        before = losses["erase"].item()
    for _ in range(6):
        trainer.step(step())
    with torch.no_grad(), trainer.compute_losses(step()) as losses:
        assert losses["erase"].item() < before


@pytest.mark.parametrize("target", ["cat", "red cat"])
def test_refinement_against_a_minimiser_and_its_rows(eps_model, target):
    """Without training, fusing changes nothing: what is left is the refinement, by stacked least squares."""
    method = replace(QUICK, steps=1, lr=1e-12)
    edit = method.fit(eps_model, Erasure((target,), anchor="red dog", keep=("lion",)))
    own, goal = (
        [eps_model.encode([f.format(c)]).tokens[0].double().numpy() for f in QUICK.contexts]
        for c in (target, "red dog")
    )
    if target == "cat":
        # cat stands at 1 of "cat" and 2 of "a cat car"; red dog at 1, 2 and 2, 3.
        old = np.concatenate([own[0][[0]], own[0][2:7], own[1][:2], own[1][3:7]])
        new = np.concatenate([goal[0][[0]], goal[0][3:8], goal[1][:2], goal[1][4:8]])
    else:
        # What target and anchor share is aligned: only cat and dog, at 2 and at 3, have no row.
        old = np.concatenate([own[0][:2], own[0][3:8], own[1][:3], own[1][4:8]])
        new = np.concatenate([goal[0][:2], goal[0][3:8], goal[1][:3], goal[1][4:8]])
    words = edit.meta["notes"]["preserved"]
    assert words[0] == "lion"
    kept = [eps_model.encode([frame.format(w)]).tokens[0].double().numpy() for w in words for frame in QUICK.contexts]
    for name, weight in find_text_projections(eps_model).items():
        w = weight.double().numpy()
        rows = [old, *(0.1**0.5 * k for k in kept), np.eye(16)]
        answers = [new @ w.T, *(0.1**0.5 * k @ w.T for k in kept), w.T]
        by_hand = np.linalg.lstsq(np.concatenate(rows), np.concatenate(answers), rcond=None)[0].T
        assert np.allclose(edit.values[name].numpy(), by_hand, atol=1e-4)


def test_a_segmenters_masks(eps_model, monkeypatch):
    """It sees each picture once, as decoded, with the target's name; attention counts where its small mask is."""
    seen: list[tuple[str, torch.Tensor]] = []

    def left(pictures: torch.Tensor, thing: str) -> torch.Tensor:
        seen.extend((thing, picture) for picture in pictures)
        share = torch.zeros(len(pictures), *pictures.shape[2:])
        share[:, :, : pictures.shape[3] // 4] = 0.8
        return share

    trainer = build_trainer(eps_model, ("cat", "dog"))
    (term,) = trainer.terms
    trainer.terms = (term := Attention(term.source, 0.5, True, Focus(), left),)
    for index in range(8):
        step = trainer.make_auxiliary_step(index, 0)
        query = term.build_queries(trainer.context, step)["mask"]
        mask = query.states.known["mask"]
        assert mask.shape == (2, 1, 8, 8)
        assert mask[:, 0].tolist() == [[[1.0] * 2 + [0.0] * 6] * 8] * 2
        with record_cross_attention(eps_model) as maps:
            eps_model.predict(query.states.x, query.states.t, query.cond)
        with trainer.compute_losses(trainer.make_auxiliary_step(index, 0)) as losses:
            want = measure_inside(maps.values(), query.cond.tensors[ALL], mask)
            assert losses["erase"].item() == pytest.approx(want.item(), rel=1e-4)
    shown = {
        (target, picture.numpy().tobytes())
        for prompt, shelf in term.source.store.items()
        for target in ("cat", "dog")
        for picture in eps_model.decode(shelf)
        if target in prompt
    }
    assert {(thing, picture.numpy().tobytes()) for thing, picture in seen} <= shown
    assert len(seen) == len(term.masks) > 2

    monkeypatch.setattr(Attention, "_attend", None)
    monkeypatch.setitem(sys.modules, "my_segments", module := ModuleType("my_segments"))
    module.left, module.nothing = left, lambda pictures, thing: torch.zeros_like(pictures[:, 0])
    given = replace(QUICK, segmenter="my_segments:left").fit(eps_model, Erasure(("cat",), anchor="dog"))
    assert given.meta["arguments"]["segmenter"] == "my_segments:left"
    with pytest.warns(UserWarning, match="finds no 'cat' in a picture of it"):
        replace(QUICK, segmenter="my_segments:nothing").fit(eps_model, Erasure(("cat",), anchor="dog"))
    with pytest.raises(ValueError, match="no segmenter 'nowhere:f'"):
        replace(QUICK, segmenter="nowhere:f").fit(eps_model, Erasure(("cat",)))


def test_several_targets_are_trained_each_by_itself_and_resume(eps_model, tmp_path, monkeypatch):
    monkeypatch.setattr(efface.training.trainer, "SAVE_EVERY", 1)
    erasure = Erasure(("cat", "dog"), keep=("lion",))
    told: list[tuple[int, int]] = []
    # The neutral word has six tokens here, and eight is all there are.
    method = replace(QUICK, contexts=("{}",))
    whole = method.fit(eps_model, erasure, progress=lambda i, n, **_: told.append((i, n)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert set(whole.names) == set(find_text_projections(eps_model))
    assert whole.meta["notes"]["anchor"] == "object"
    assert whole.meta["request"] == {"targets": ["cat", "dog"], "anchor": "", "keep": ["lion"]}
    file = tmp_path / "checkpoint"
    beside = Path(f"{file}.0.done")

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    kills = 0
    while True:
        try:
            resumed = method.fit(eps_model, erasure, progress=kill, checkpoint=file)
            break
        except KeyboardInterrupt:
            kills += 1
        if kills == 3:
            assert beside.exists()
            with pytest.raises(ValueError, match="belongs to another run"):
                replace(method, seed=1).fit(eps_model, erasure, checkpoint=file)
    assert kills == 4
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(value, resumed.values[name]) for name, value in whole.values.items())
    assert resumed.meta == whole.meta


def test_bad_settings(eps_model):
    for bad, message in (
        ({"lamb": 0.0}, "lamb must be positive"),
        ({"contexts": ("a cat",)}, "a context holds the concept"),
        ({"contexts": ("a red red red red red {}",)}, "does not fit into the 8 tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(QUICK, **bad).fit(eps_model, Erasure(("cat",), anchor="dog"))
    with pytest.raises(ValueError, match=r"a share from 0 to below 1, got 1\.0"):
        replace(QUICK, threshold=1.0)
    with pytest.raises(ValueError, match="does not work on tiny"):
        QUICK.fit(tiny_ddpm(), Erasure(("cat",)))
