"""The face of guides: how a model is put under one, what an Edit keeps of it, and the drawing loop around it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import efface
from efface.catalog import GUIDERS
from efface.concept import Erasure, Prompt
from efface.edits.edit import Edit, apply
from efface.edits.provenance import describe_run
from efface.guidance import registry
from efface.guidance.negative import Negative
from efface.guidance.safree import SAFREE
from efface.guidance.sld import SLD
from efface.models.adapters.sd import StableDiffusion
from efface.models.base import Model
from efface.models.cond import Cond
from efface.models.guider import GuidedSampling, Guider, PlainSampling

PROMPTS, SEEDS = ["a cat", "dog"], [5, 6]
ALL = [
    Negative(prompt="cat"),
    SLD(prompt="cat", warm_up=0, scale=5000.0, threshold=1.0, momentum_scale=0.5, momentum_beta=0.7),
    SAFREE(
        concepts=("cat", "red"), alpha=0.01, self_validation=True, up_t=10, sharpness=2.5, midpoint=5.333, negative=True
    ),
]


def edit_of(model: StableDiffusion, guide: Guider) -> Edit:
    return Edit({}, {**describe_run(model, Erasure(("cat",)), "test", {}), "guide": registry.to_json(guide)})


@pytest.fixture(params=ALL, ids=lambda guide: type(guide).__name__)
def guide(request: pytest.FixtureRequest) -> Guider:
    return request.param


def test_every_guide_is_walked_over():
    kinds = [GUIDERS.get(name) for name in GUIDERS.list_names()]
    assert {type(each) for each in ALL} <= set(kinds)
    for kind in kinds:
        assert kind.__final__
        assert dataclasses.fields(kind)


def test_within_pictures_change_and_after_they_are_the_same(model, guide):
    before, cached = model.images(PROMPTS, SEEDS), dict(model._encoded)
    with model.guided_by(guide):
        assert not torch.equal(model.images(PROMPTS, SEEDS), before)
    assert model._encoded == cached
    assert torch.equal(model.images(PROMPTS, SEEDS), before)
    with pytest.raises(RuntimeError, match="on the way"), model.guided_by(guide):
        raise RuntimeError("on the way")
    assert torch.equal(model.images(PROMPTS, SEEDS), before)


def test_strength_is_off_at_nothing_and_grows_from_there(eps_model, guide):
    before = eps_model.images(PROMPTS, SEEDS).float()
    edit = edit_of(eps_model, guide)
    away = []
    for strength in (0.0, 1e-3, 0.3, 1.0):
        with edit.apply(eps_model, strength):
            away.append((eps_model.images(PROMPTS, SEEDS).float() - before).abs().mean().item())
    assert away[0] == 0
    assert away[1] < 0.2
    assert away[1] < away[2]
    assert away[3] > 0.2


def test_a_batch_is_its_pictures(eps_model, guide):
    """Prompts of different suspicion, steps and momentum share a batch."""
    with eps_model.guided_by(guide):
        together = eps_model.images(["a cat", "dog", "red car", ""], [5, 6, 7, 8])
        alone = [eps_model.images([p], [s]) for p, s in zip(["a cat", "dog", "red car", ""], [5, 6, 7, 8], strict=True)]
    assert (together.int() - torch.cat(alone).int()).abs().max() <= 1


def test_what_is_kept_comes_back(eps_model, guide, tmp_path):
    edit = edit_of(eps_model, guide)
    loaded = Edit.load(edit.save(tmp_path / "edit.safetensors"))
    assert loaded.build_guider() == guide
    assert loaded.build_guider(0.5).strength == 0.5
    assert not loaded.names


def test_one_at_a_time(eps_model, guide):
    with (
        eps_model.guided_by(guide),
        pytest.raises(ValueError, match=f"under the guide {type(guide).__name__} already"),
        eps_model.guided_by(guide),
    ):
        pass
    before = eps_model.images(PROMPTS, SEEDS)
    edit = edit_of(eps_model, guide)
    with (
        pytest.raises(ValueError, match=r"2 guides .*; only one can be in place at a time"),
        apply(eps_model, [edit, edit]),
    ):
        pass
    assert torch.equal(eps_model.images(PROMPTS, SEEDS), before)


def test_a_guide_beside_changed_weights(eps_model, guide):
    """It reads prompts with the text encoder as edited, and both go at the end."""
    name = next(name for name in eps_model.weights if name.endswith("final_layer_norm.weight"))
    record = describe_run(eps_model, Erasure(("cat",)), "test", {})
    weights = Edit({name: 0.5 * eps_model.weights[name].detach()}, record)
    before = eps_model.images(PROMPTS, SEEDS)
    drawn = []
    for edits in ([weights], [edit_of(eps_model, guide)], [weights, edit_of(eps_model, guide)]):
        with apply(eps_model, edits):
            drawn.append(eps_model.images(PROMPTS, SEEDS))
    assert not torch.equal(drawn[2], drawn[0])
    assert not torch.equal(drawn[2], drawn[1])
    assert torch.equal(eps_model.images(PROMPTS, SEEDS), before)


def test_recording_keeps_the_plain_predictions_and_changes_no_picture(model, guide):
    with model.guided_by(guide):
        cond, uncond = model.encode(PROMPTS), model.encode([""])
        plain = model.sample(cond, uncond, SEEDS)
        draw = model.sample(cond, uncond, SEEDS, record=True)
    assert torch.allclose(plain.x, draw.x, atol=1e-4)
    eps_0, eps_c = model.predict(draw.states[1], draw.t[1], uncond, cond)
    assert torch.allclose(draw.eps_c[1], eps_c, atol=1e-5)
    assert torch.allclose(draw.eps_0[1], eps_0, atol=1e-5)


def test_prompts_given_as_embeddings_draw(eps_model, guide):
    tokens = eps_model.encode(["dog"]).tokens[0]
    with eps_model.guided_by(guide):
        drawn = eps_model.images(["a cat", Prompt("a cat", tokens), Prompt("", tokens)], [1, 1, 1])
    assert torch.equal(drawn[1], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_plain_loop_asks_the_network_as_little_as_it_can(eps_model, monkeypatch, guidance):
    asked: list[int] = []
    predict = eps_model.predict
    monkeypatch.setattr(eps_model, "predict", lambda x, t, *conds: (asked.append(len(conds)), predict(x, t, *conds))[1])
    eps_model.images(["a cat"], [0], guidance=guidance, steps=2)
    assert asked == [1 if guidance == 1 else 2] * 2
    walk = PlainSampling(eps_model, eps_model.encode(["cat"]), eps_model.encode([""]), guidance)
    assert len(walk.list_conds(0)) == asked[0]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"name": "sdl", "arguments": {}}, "no guide 'sdl'; did you mean 'sld'"),
        ({"name": "../negative", "arguments": {}}, r"no guide '../negative'; did you mean 'negative'"),
        ({"name": "negative", "arguments": {"promt": "cat"}}, "guide negative takes prompt; the edit holds promt"),
    ],
)
def test_unknown_guides_are_refused_before_anything_is_swapped(eps_model, kept, message, monkeypatch):
    edit = Edit({}, {**describe_run(eps_model, Erasure(("cat",)), "test", {}), "guide": kept})
    monkeypatch.setattr(eps_model, "swap_in", lambda *_: pytest.fail("swapped"))
    with pytest.raises(ValueError, match=message), edit.apply(eps_model):
        pass


@dataclass(frozen=True, kw_only=True)
class Shove(Guider):
    """A guide with a tensor of its own: adds it to every prediction."""

    by: Tensor

    def begin(self, model: Model, cond: Cond, uncond: Cond, guidance: float) -> GuidedSampling:
        return Shoved(PlainSampling(model, cond, uncond, guidance), self.strength * self.by)


@dataclass(frozen=True)
class Shoved(GuidedSampling):
    plain: PlainSampling
    by: Tensor

    def list_conds(self, i: int) -> Sequence[Cond]:
        return self.plain.list_conds(i)

    def combine(self, i: int, x_t: Tensor, t: Tensor, said: Mapping[Cond, Tensor]) -> Tensor:
        return self.plain.combine(i, x_t, t, said) + self.by


def test_a_guides_own_tensors_lie_beside_the_weights(eps_model, monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "get", lambda name: {"shove": Shove}[name])
    record = {**describe_run(eps_model, Erasure(("cat",)), "test", {}), "guide": {"name": "shove", "arguments": {}}}
    by = torch.full(eps_model.latent_shape, 0.5)
    edit = Edit.load(Edit({"guide/by": by}, record).save(tmp_path / "edit.safetensors"))
    cond, uncond = eps_model.encode(["cat"]), eps_model.encode([""])
    with edit.apply(eps_model, 2.0):
        shoved = eps_model.sample(cond, uncond, [0], steps=1)
    plain = eps_model.sample(cond, uncond, [0], steps=1)
    # One DDIM step from pure noise to the end is affine in the prediction.
    scheduler = eps_model.build_scheduler()
    scheduler.set_timesteps(1)
    start, end = eps_model.levels.alpha.square()[scheduler.timesteps[0]].item(), scheduler.final_alpha_cumprod.item()
    slope = math.sqrt(1 - end) - math.sqrt(end * (1 - start) / start)
    assert torch.allclose(shoved.x - plain.x, slope * 1.0 * torch.ones_like(plain.x), rtol=1e-3)
    with pytest.raises(ValueError, match="tensors of a guide"):
        Edit({"guide/by": by}, {key: value for key, value in record.items() if key != "guide"}).build_guider()


def test_methods_hold_the_papers_settings_and_refuse_others(eps_model):
    for level, warm_up, scale in (("weak", 15, 200), ("medium", 10, 1000), ("strong", 7, 2000), ("max", 0, 5000)):
        told = efface.erase(eps_model, ["cat", "dog"], method="sld", level=level).meta["guide"]["arguments"]
        assert (told["prompt"], told["warm_up"], told["scale"]) == ("cat, dog", warm_up, scale)
    told = efface.erase(eps_model, "cat", method="sld", level="max", scale=7.0, template="a {}").meta["guide"]
    assert told["arguments"] == {**registry.to_json(ALL[1])["arguments"], "scale": 7.0, "prompt": "a cat"}
    with pytest.raises(ValueError, match="no level 'maximal'; there are weak, medium, strong, max"):
        efface.erase(eps_model, "cat", method="sld", level="maximal")
    told = efface.erase(eps_model, ["cat", "dog"], method="safree").meta["guide"]["arguments"]
    assert told["concepts"] == ["cat", "dog"]
    assert efface.erase(eps_model, ["cat"], method="negative").meta["guide"]["arguments"] == {"prompt": "cat"}
