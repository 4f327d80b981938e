"""Attacks inside a training: through compose with any answer on the other axes, and RECE's inner step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import efface.methods.rece
import efface.training.objectives.attacked
import efface.training.trainer
from efface.concept import Erasure
from efface.functional import adversary
from efface.methods.compose import Compose
from efface.methods.rece import RECE
from efface.models.adapters.sd import StableDiffusion
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl

MIX: dict[str, Any] = {"objective": "attacked", "preserve": "adversarial", "update_": "mask", "source": "frozen"}
MIX |= {"steps": 4, "batch": 2, "draw_steps": 3, "paths": 2, "space": "x0", "centres": 4, "k_closest": 6}
MIX |= {"lr": 0.5, "start": 0.4, "beta": 1e-9, "attack_steps": 3, "attack_lr": 0.1, "warm_up": 2}
CAT = Erasure(("cat",))


def test_adversarial_preservation_pruning_and_an_attack_in_the_loop(model, monkeypatch):
    """The attack is made by `functional.adversary` once the warm-up is over, and other weights are pruned for it."""
    calls: list[tuple[int, float]] = []
    descend = adversary.descend

    def counted(error, start, steps, lr, **more):
        calls.append((steps, lr))
        return descend(error, start, steps, lr, **more)

    monkeypatch.setattr(efface.training.objectives.attacked, "descend", counted)
    attacked = Compose(**MIX).fit(model, CAT)
    # Of eight steps every other one is the search's; of the update's four the first two lie within the warm-up.
    assert len(calls) == 2 and set(calls) == {(3, 0.1)}
    plain = Compose(**{**MIX, "warm_up": 100}).fit(model, CAT)
    idle = {name: value for name, value in MIX.items() if not name.startswith("attack") and name != "warm_up"}
    spared = Compose(**{**idle, "objective": "negative-guidance"}).fit(model, CAT)
    assert all(torch.equal(value, spared.values[key]) for key, value in plain.values.items())
    assert any(not torch.equal(value, attacked.values[key]) for key, value in plain.values.items())
    assert all(key.endswith(":mask") for key in attacked.values)
    assert set(attacked.meta["notes"]) >= {"favourites"}


def test_killed_with_a_search_and_an_attack_beside_it_resumes(eps_model, tmp_path, monkeypatch):
    monkeypatch.setattr(efface.training.trainer, "SAVE_EVERY", 1)
    method, file = Compose(**{**MIX, "warm_up": 0}), tmp_path / "checkpoint"
    whole = method.fit(eps_model, CAT)

    def kill(step: int, of: int, **_: object) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fit(eps_model, CAT, progress=kill, checkpoint=file)
    resumed = method.fit(eps_model, CAT, checkpoint=file)
    assert whole.values.keys() == resumed.values.keys() and whole.values
    assert all(torch.equal(value, resumed.values[key]) for key, value in whole.values.items())


def test_settings_of_the_attack_are_refused_where_there_is_none(eps_model):
    with pytest.raises(ValueError, match="objective attacked would use it"):
        Compose(attack_steps=7)
    with pytest.raises(ValueError, match=r"\(DDPM\) has no text encoder"):
        Compose(objective="attacked", steps=1, draw_steps=3, weights="full").fit(tiny_ddpm(), CAT)


def test_prompts_of_two_text_encoders_are_hardened():
    """With the attack in the loop other weights come out than without it, and all are numbers."""
    how = {"objective": "attacked", "steps": 2, "draw_steps": 3, "attack_lr": 0.5}
    hard, soft = (Compose(**how, warm_up=w, attack_steps=3).fit(tiny_sdxl(), CAT).values for w in (0, 2))
    assert hard.keys() == soft.keys() and hard
    assert all(value.isfinite().all() for value in hard.values())
    assert any(not torch.equal(value, soft[name]) for name, value in hard.items())


def test_reces_attack_is_the_inner_step_of_the_adversary(eps_model: StableDiffusion, monkeypatch):
    found: list[torch.Tensor] = []

    def watched(*args):
        found.append(adversary.find_adversarial(*args))
        return found[-1]

    monkeypatch.setattr(efface.methods.rece, "find_adversarial", watched)
    RECE(epochs=2).fit(eps_model, CAT)
    assert len(found) == 2
    assert not torch.allclose(found[0], found[1])
