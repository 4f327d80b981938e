"""How the embedded model is made: the world, its scenes, and the optimiser, without art or training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from efface.models.loading import BUNDLED
from workshop.glyphs import art as art_
from workshop.glyphs import loop, world
from workshop.glyphs.muon import Muon, orthogonal
from workshop.glyphs.scenes import Batches, Composer, correct_article


@pytest.fixture(scope="module")
def small() -> world.World:
    return world.load("small")


@pytest.fixture(scope="module")
def art(small: world.World) -> dict[str, np.ndarray]:
    """A square of its own colour for every cell."""
    rng = np.random.default_rng(0)
    out = {}
    for style in small.styles:
        for thing in small.things:
            pixels = np.full((96, 96, 4), 255, np.uint8)
            pixels[..., :3] = rng.integers(0, 256, 3)
            out[f"{style.name}/{thing.name}"] = pixels
    return out


def test_the_full_world_is_large_and_every_word_means_one_thing() -> None:
    full = world.load("full")
    assert len(full.things) >= 200 and len(full.styles) >= 8
    meaning: dict[str, str] = {}
    for thing in full.things:
        for word in {thing.name, *thing.synonyms, *(t.lower() for t in thing.translations)}:
            assert meaning.setdefault(word.lower(), thing.name) == thing.name
        assert thing.name not in thing.description.split()
    names = {t.name for t in full.things}
    assert all(set(t.near) <= names for t in full.things)


def test_about_a_tenth_of_the_cells_is_held_out_and_never_composed(small: world.World, art: dict) -> None:
    cells = [(t.name, s.name) for t in small.things for s in small.styles]
    held = [c for c in cells if small.is_held_out(*c)]
    assert 0.05 < len(held) / len(cells) < 0.15
    seen = {(small.things[i].name, small.styles[j].name) for i, j in Composer(small, art, unseen_cells="skip").cells}
    assert seen == set(cells) - set(held)
    rng = np.random.default_rng(1)
    compose = Composer(small, art, unseen_cells="skip")
    for _ in range(300):
        scene = compose(rng)
        assert not any(small.is_held_out(small.things[i].name, small.styles[scene.style].name) for i in scene.things)


def test_a_batch_is_decided_by_seed_and_step_alone(small: world.World, art: dict) -> None:
    compose = Composer(small, art, words="all")
    whole, resumed = Batches(compose, 4, 10, seed=3), Batches(compose, 4, 10, seed=3, start=6)
    assert len(resumed) == 4
    pixels, scenes = whole[7]
    again, same = resumed[1]
    assert np.array_equal(pixels, again) and [s.caption for s in scenes] == [s.caption for s in same]
    assert not np.array_equal(pixels, whole[8][0])


def test_captions_of_the_unet_hold_names_only_and_what_is_in_the_picture(small: world.World, art: dict) -> None:
    compose, rng = Composer(small, art), np.random.default_rng(2)
    scenes = [compose(rng) for _ in range(600)]
    bare = [s for s in scenes if not any(small.things[i].name in s.caption for i in s.things)]
    assert all(small.styles[s.style].name in s.caption for s in bare) and 0.05 < len(bare) / len(scenes) < 0.12
    named = np.mean([s.background in s.caption.split(" ") for s in scenes])
    assert 0.35 < named < 0.58


def test_things_of_the_small_world_are_large_and_alone(small: world.World, art: dict) -> None:
    compose, rng = Composer(small, art), np.random.default_rng(2)
    for scene in [compose(rng) for _ in range(200)]:
        assert len(scene.things) == 1
        ground = scene.pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
        colour = max(map(tuple, ground), key=[tuple(g) for g in ground].count)
        ink = (scene.pixels != np.array(colour)).any(2)
        assert 44 <= max(np.ptp(axis) + 1 for axis in np.nonzero(ink)) <= 60


def test_things_outside_the_small_world_come_as_often_as_asked_in_its_styles_and_by_name(
    small: world.World, art: dict
) -> None:
    outside = [t.name for t in small.all_things if t not in small.things]
    colour = np.full((96, 96, 4), 255, np.uint8)
    more = art | {f"{style.name}/{name}": colour for style in small.styles for name in outside[:3]}
    compose, rng = Composer(small, more, unseen_cells="skip", further_rate=0.3), np.random.default_rng(3)
    scenes = [compose(rng) for _ in range(600)]
    further = [s for s in scenes if not s.things]
    assert 0.24 < len(further) / len(scenes) < 0.36  # 0.3, and three standard errors of 600 draws
    named = [s for s in further if any(name in s.caption for name in outside[:3])]
    assert {s.style for s in further} == set(range(len(small.styles)))
    assert len(named) > 0.85 * len(further)  # a twelfth of all captions name the style alone
    assert all((s.pixels == 255).all(axis=2).any() for s in further)


def test_a_fifth_of_the_full_worlds_scenes_hold_two_things(art: dict) -> None:
    compose, rng = Composer(world.load("full"), art), np.random.default_rng(2)
    assert 0.14 < np.mean([len(compose(rng).things) == 2 for _ in range(600)]) < 0.26


def test_the_learning_rate_stays_until_the_cooldown_and_then_falls() -> None:
    assert [loop.cosine(step, 100, 40) for step in (0, 59, 60)] == [1.0, 1.0, 1.0]
    assert loop.cosine(80, 100, 40) == pytest.approx(0.525) and loop.cosine(100, 100, 40) == pytest.approx(0.05)


def test_article() -> None:
    assert correct_article("a apple next to a elephant") == "an apple next to an elephant"
    assert correct_article("a cat") == "a cat"


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_orthogonal_keeps_the_singular_vectors_and_levels_the_values(shape: tuple[int, int]) -> None:
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vt = torch.linalg.svd(g, full_matrices=False)
    found = orthogonal(g, steps=8)
    values = (u.T @ found @ vt.T).diagonal()
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(found.flatten(), (u @ vt).flatten(), dim=0) > 0.97


def test_muon_fits_a_small_network_and_moves_every_parameter() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    x, before = torch.randn(8, 3, 6, 6), [p.clone() for p in net.parameters()]
    goal = torch.randn(8, 8, 6, 6) * 0.1 + x.mean(1, keepdim=True)
    optimiser = Muon(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (net(x) - goal).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_a_stopped_training_goes_on_as_if_it_had_not_been(small: world.World, art: dict, tmp_path: Path) -> None:
    def train(folder: Path, steps: int, stop_at: int | None = None) -> nn.Module:
        torch.manual_seed(0)
        net = nn.Conv2d(3, 2, 5)

        def loss(x: torch.Tensor, scenes: list, step: int) -> tuple[torch.Tensor, dict[str, float]]:
            if step == stop_at:
                raise KeyboardInterrupt
            return (net(x) - torch.rand(())).square().mean(), {}

        folder.mkdir(exist_ok=True)
        args = {"steps": steps, "batch": 2, "lr": 1e-2, "seed": 4, "workers": 0, "save_every": 0.0}
        return loop.fit("net", net, loss, Composer(small, art), folder, **args)

    whole = train(tmp_path / "a", 8)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", 8, stop_at=5)
    resumed = train(tmp_path / "b", 8)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_the_bundle_describes_its_world(small: world.World) -> None:
    facts = json.loads((BUNDLED / "glyphs" / "world.json").read_text())
    here = world.load(facts["size"])
    assert [t["name"] for t in facts["things"]] == [t.name for t in here.things]
    assert facts["styles"] == [s.name for s in here.styles]
    known = set(facts["vocabulary"])
    assert known < {t.name for t in here.things} and 0.4 < len(known) / len(here.things) < 0.65
    size = sum(f.stat().st_size for f in (BUNDLED / "glyphs").rglob("*") if f.is_file())
    assert size <= 64e6


def test_art_that_differs_is_refused_with_the_foundry_and_the_versions() -> None:
    hashes = art_.read_recorded()
    assert set(hashes) == {s.name for s in world.load().all_styles + world.load().unseen}
    art_.check(hashes)
    with pytest.raises(ValueError, match=r"the pixels of twemoji differ .* pillow"):
        art_.check(hashes | {"twemoji": "0" * 64})
