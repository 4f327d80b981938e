from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from efface.concept import Erasure
from efface.functional.schedules import add_noise
from efface.methods.abo import ABO
from efface.methods.ac import AC
from efface.methods.erasediff import EraseDiff
from efface.methods.states import build_forget_pictures, build_remain_pictures, choose_labels
from efface.models.adapters.sd import StableDiffusion
from efface.training.preservation.nothing import NoPreservation
from efface.training.states.pictures import ANY, Pictures, read_latents
from efface.training.trainer import Trainer
from oracle import SHAPE, OracleModel, build_trainer
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm

GIVEN = torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(0))


def build_small_trainer(model=None, **settings) -> Trainer:
    return build_trainer(model or OracleModel(), [NoPreservation()], **{"batch": 64, "draw_steps": 3, **settings})


def sample_rows(source: Pictures, trainer: Trainer, index: int = 0, prompt: str = "cat"):
    prompts = [prompt] * trainer.config.batch
    step = trainer.make_auxiliary_step(index, 0)
    return step, source.sample_states(trainer.context, step, prompts, trainer.model.encode(prompts))


@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
@pytest.mark.parametrize("space", ["eps", "v", "x0"])
def test_states_and_what_a_perfect_denoiser_says(space, noise):
    """known is eps, v = sqrt(ab) eps - sqrt(1 - ab) x0, or x0, of the eps that x_t was made with."""
    trainer = build_small_trainer(OracleModel(space))
    source = Pictures(1, 3, 1.0, {ANY: GIVEN}, noise)
    step, at = sample_rows(source, trainer)
    x0 = GIVEN[[i % 7 for i in step.noise]].double()
    a = trainer.model.levels.alpha.square()[at.t].view(-1, 1, 1, 1)
    eps = (at.x.double() - a.sqrt() * x0) / (1 - a).sqrt()
    assert torch.allclose(add_noise(x0, eps, trainer.model.levels[at.t]).float(), at.x, atol=1e-5)
    wanted = {"eps": eps, "v": a.sqrt() * eps - (1 - a).sqrt() * x0, "x0": x0}[space]
    assert torch.allclose(at.known["noise"].double(), wanted, atol=1e-3)
    spread = {"gaussian": (0.0, 1.0), "uniform": (0.5, 12**-0.5)}[noise]
    assert (eps.mean().item(), eps.std().item()) == pytest.approx(spread, abs=0.15)


def test_timesteps_cover_the_schedule_evenly():
    trainer = build_small_trainer(batch=2000)
    t = sample_rows(Pictures(1, 3, 1.0, {ANY: GIVEN}), trainer)[1].t
    assert 0 <= t.min() < 10
    assert 990 <= t.max() <= 999
    assert t.float().mean().item() == pytest.approx(499.5, abs=30)


@pytest.mark.parametrize("batch", [1, 8, 9])
def test_antithetic_timesteps_come_in_pairs(batch):
    trainer = build_small_trainer(batch=batch)
    t = sample_rows(Pictures(1, 3, 1.0, {ANY: GIVEN}, antithetic=True), trainer)[1].t
    half = -(-batch // 2)
    assert len(t) == batch
    assert torch.equal(t[half:], 999 - t[: batch - half])


def test_turns_differ_and_come_again():
    trainer = build_small_trainer()
    source = Pictures(1, 3, 1.0, {ANY: GIVEN})
    one, other, again = (sample_rows(source, trainer, index)[1] for index in (0, 1, 0))
    assert torch.equal(one.x, again.x)
    assert not torch.equal(one.x, other.x)


def test_the_model_draws_what_is_not_given_and_once(monkeypatch):
    model = OracleModel()
    trainer = build_small_trainer(model)
    source = Pictures(5, 8, 1.0, {"dog": GIVEN})
    draws: list[int] = []
    sample = model.sample
    monkeypatch.setattr(model, "sample", lambda c, *a, **k: (draws.append(len(c)), sample(c, *a, **k))[1])
    sample_rows(source, trainer, prompt="dog")
    assert not draws
    _, one = sample_rows(source, trainer, prompt="cat")
    _, two = sample_rows(source, trainer, prompt="cat")
    assert draws == [5]
    assert torch.equal(one.x, two.x)
    drawn = source.store["cat"]
    assert model.find_classes(drawn)[:, 0].min() > 0.99
    assert len(drawn.unique(dim=0)) == 5
    # Another seed of the training draws others; the same, the same.
    for seed, same in ((0, True), (1, False)):
        other = Pictures(5, 8, 1.0)
        sample_rows(other, build_small_trainer(model, seed=seed), prompt="cat")
        assert torch.equal(other.store["cat"], drawn) == same


def test_with_the_first_that_is_expected_all_are_drawn(monkeypatch):
    """So that no later step stops to draw, and a resumed run draws the same ones together."""
    model = OracleModel()
    trainer = build_small_trainer(model)
    draws: list[int] = []
    sample = model.sample
    monkeypatch.setattr(model, "sample", lambda c, *a, **k: (draws.append(len(c)), sample(c, *a, **k))[1])
    one, two = Pictures(2, 4, 1.0), Pictures(2, 4, 1.0)
    for source, order in ((one, ["dog", "cat"]), (two, ["cat", "dog"])):
        source.expect(["cat", "dog", "rose"])
        for prompt in order:
            sample_rows(source, trainer, prompt=prompt)
    assert draws == [6, 6]
    assert all(torch.equal(stack, two.store[prompt]) for prompt, stack in one.store.items())
    sample_rows(one, trainer, prompt="car")
    assert draws == [6, 6, 2]
    # Announced later, only what is missing is drawn: nothing that was trained on changes.
    before = dict(two.store)
    two.expect(["car"])
    sample_rows(two, trainer, prompt="car")
    assert draws == [6, 6, 2, 2]
    assert all(two.store[prompt] is stack for prompt, stack in before.items())


def test_more_prompts_than_are_drawn_at_once_keep_their_pictures():
    model = OracleModel()
    trainer = build_small_trainer(model, batch=4)
    source = Pictures(30, 4, 1.0)
    prompts = ["cat", "dog", "car", "rose"]
    source.sample_states(trainer.context, trainer.make_auxiliary_step(0, 0), prompts, model.encode(prompts))
    for k, prompt in enumerate(prompts):
        assert source.store[prompt].shape == (30, *SHAPE)
        assert model.find_classes(source.store[prompt])[:, k].mean() > 0.9


# Folders, and a real autoencoder.


def write_folder(path, **counts: int):
    rng = np.random.default_rng(0)
    for name, n in counts.items():
        (path / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path / name / f"{i}.png")
    return str(path)


def test_forget_pictures_serve_every_prompt_and_remain_pictures_their_captions(eps_model, tmp_path):
    forget, remain = write_folder(tmp_path / "f", cats=3), write_folder(tmp_path / "r", dog=2, car=1)
    method = EraseDiff(forget_images=forget, remain_images=remain, batch=2, pictures=4, draw_steps=3)
    source = build_forget_pictures(method, eps_model, Erasure(("cat",)))
    assert {key: tuple(stack.shape) for key, stack in source.store.items()} == {ANY: (3, 4, 8, 8)}
    kept, captions = build_remain_pictures(method, eps_model, Erasure(("cat",)))
    assert sorted(captions) == ["car", "dog"]
    assert {key: len(stack) for key, stack in kept.store.items()} == {"car": 1, "dog": 2}


def test_pictures_of_several_targets_are_told_apart_by_their_captions(eps_model, tmp_path):
    path = write_folder(tmp_path / "f", cat=2, **{"a red dog": 1, "dogs": 2})
    both = Erasure(("cat", "dog"))
    method = EraseDiff(forget_images=path, batch=2, templates=("{}", "a {}"))
    source = build_forget_pictures(method, eps_model, both)
    assert {key: len(stack) for key, stack in source.store.items()} == {"cat": 2, "a cat": 2, "dog": 3, "a dog": 3}
    source.expect(["cat", "a dog"])
    trainer = EraseDiff(remain_words=1, batch=2, weights="xattn").build_trainer(eps_model, both)
    assert source.estimate_footprint(trainer.context).images_at_once == 0
    assert source.estimate_footprint(trainer.context).image_bytes == 5 * 4 * 8 * 8 * 4
    for targets, says in (
        (("cat", "lion"), "has captions that name no target: 'a red dog', 'dogs'"),
        (("cat", "dog", "lion"), "has none of lion"),
    ):
        with pytest.raises(ValueError, match=says):
            build_forget_pictures(method, eps_model, Erasure(targets))
    abo = ABO(states="pictures", images=path, batch=2)
    guidance, _ = abo.build_terms(eps_model, both)
    assert guidance.source.source.store.keys() == {"cat", "dog"}
    longer = write_folder(tmp_path / "g", **{"hot dog": 1, "a dog": 1})
    store = build_forget_pictures(
        EraseDiff(forget_images=longer, batch=2), eps_model, Erasure(("dog", "hot dog"))
    ).store
    assert {key: len(stack) for key, stack in store.items()} == {"dog": 1, "hot dog": 1}


def test_what_remains_is_asked_for_in_one_way_and_is_no_target(eps_model, tmp_path):
    path = write_folder(tmp_path / "r", dog=1, **{"a cat, asleep": 1, "two cats": 1, "category": 1})
    with pytest.raises(ValueError, match=r"captions of what is to be erased: a cat, asleep, two cats; take these"):
        build_remain_pictures(EraseDiff(remain_images=path), eps_model, Erasure(("cat",)))
    with pytest.raises(ValueError, match=r"a folder's pictures or the concepts to keep \(car\), not both"):
        build_remain_pictures(EraseDiff(remain_images=path), eps_model, Erasure(("lion",), keep=("car",)))
    assert len(build_remain_pictures(EraseDiff(remain_images=path), eps_model, Erasure(("lion",)))[1]) == 4


def test_pictures_are_shared_out_among_the_prompts(eps_model):
    method = EraseDiff(pictures=12, templates=("{}", "a {}"))
    assert build_forget_pictures(method, eps_model, Erasure(("cat",))).drawn == 6
    assert build_forget_pictures(method, eps_model, Erasure(("cat", "dog"))).drawn == 3
    kept, captions = build_remain_pictures(method, eps_model, Erasure(("cat",), keep=("dog", "car", "bus")))
    assert (kept.drawn, len(captions)) == (2, 6)


def test_latents_are_the_scaled_middle_of_the_posterior(eps_model, tmp_path):
    path = write_folder(tmp_path / "f", cats=2)
    latents = read_latents(eps_model, path)
    assert latents.dtype == eps_model.dtype
    assert latents.shape == (2, *eps_model.latent_shape)
    files = sorted((tmp_path / "f" / "cats").iterdir())
    pixels = torch.stack([torch.from_numpy(crop(file, eps_model)) for file in files]).permute(0, 3, 1, 2)
    with torch.no_grad():
        middle = eps_model.vae.encode(pixels.float() / 127.5 - 1).latent_dist.mean
    assert torch.allclose(latents, middle * eps_model.vae.config.scaling_factor, atol=1e-5)


def crop(file, model: StableDiffusion) -> np.ndarray:
    """The middle square, scaled, by hand: 24 x 20 loses two columns a side."""
    with Image.open(file) as image:
        side = (model.resolution, model.resolution)
        return np.asarray(image.resize(side, Image.Resampling.BICUBIC, box=(2, 0, 22, 20))).copy()


def test_bad_folders_are_refused(eps_model, tmp_path):
    path = write_folder(tmp_path / "f", cats=2)
    with pytest.raises(ValueError, match="holds 2 pictures, fewer than a batch of 3"):
        read_latents(eps_model, path, 3)
    with pytest.raises(ValueError, match="holds 2 pictures, fewer than a batch of 8"):
        build_forget_pictures(EraseDiff(forget_images=path, batch=8), eps_model, Erasure(("cat",)))
    for method in (AC(anchor_images=path), ABO(states="pictures", images=path, batch=4)):
        with pytest.raises(ValueError, match="holds 2 pictures, fewer than a batch of 4"):
            method.build_terms(eps_model, Erasure(("cat",), anchor="dog"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        read_latents(eps_model, str(tmp_path / "empty"))
    (tmp_path / "f" / "cats" / "broken.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 file is no readable picture in .*: cats/broken.png"):
        read_latents(eps_model, path)


def test_what_remains_where_no_folder_is_given(eps_model):
    method = EraseDiff(pictures=10, remain_words=3, templates=("{}", "a {}"))
    source, captions = build_remain_pictures(method, eps_model, Erasure(("cat",), keep=("dog", "rose")))
    assert captions == ["dog", "a dog", "rose", "a rose"]
    assert source.drawn == 3
    _, captions = build_remain_pictures(method, eps_model, Erasure(("cat",)))
    assert captions == [t.format(w) for w in ("dog", "car", "tiger") for t in ("{}", "a {}")]
    with pytest.raises(ValueError, match="nothing remains"):
        build_remain_pictures(EraseDiff(remain_words=0), eps_model, Erasure(("cat",)))


def test_a_label_is_the_anchor_or_another_class_or_the_papers():
    model = tiny_ddpm()
    assert choose_labels(model, Erasure(("cat",), anchor="dog"), "x") == ("dog",)
    assert choose_labels(model, Erasure(("cat",)), "x") == ["dog", "hot dog", "Rose", "red car"]
    assert choose_labels(tiny_model(), Erasure(("cat",)), "x") == ("x",)
