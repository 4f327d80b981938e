"""Composition: the presets are choices of it, and what no chosen answer reads is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import efface
from efface import methods
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.compose import AXES, USES, Compose
from efface.models.adapters.sd import StableDiffusion
from efface.training import objectives

BASE: dict[str, Any] = {"steps": 2, "batch": 2, "draw_steps": 2, "lr": 1e-3}
FROZEN: dict[str, Any] = {"source": "frozen", "paths": 2}
SEARCH: dict[str, Any] = {"space": "x0", "centres": 4, "k_closest": 6}
MASK: dict[str, Any] = {"lr": 0.5, "start": 0.4, "beta": 1e-9}
CAT, TO_DOG, KEEP = Erasure(("cat",)), Erasure(("cat",), anchor="dog"), Erasure(("cat",), keep=("car",))
PICTURES: dict[str, Any] = {"weights": "xattn", "pictures": 3}
REMAIN: dict[str, Any] = {**PICTURES, "remain_words": 2, "preserve": "remain"}
PRESETS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Erasure]] = {
    "esd": ("esd", {**FROZEN, "eta": 2.0}, {}, CAT),
    "esd on its own trajectories": ("esd", {}, {}, CAT),
    "eap": ("eap", {**FROZEN, **SEARCH, "keep_weight": 0.5}, {"preserve": "adversarial"}, CAT),
    "eap with kept words": ("eap", {**FROZEN, **SEARCH}, {"preserve": "adversarial"}, KEEP),
    "eap by scores": (
        "eap",
        {**FROZEN, **SEARCH, "search_gradient": "score", "search_lr": 0.5},
        {"preserve": "adversarial"},
        CAT,
    ),
    "age": (
        "age",
        {**FROZEN, **SEARCH},
        {"objective": "adaptive-anchor", "preserve": "adversarial", "temperature": 0.1},
        CAT,
    ),
    "age with a soft choice": (
        "age",
        {**FROZEN, **SEARCH, "hard": False, "temperature": 2.0},
        {"objective": "adaptive-anchor", "preserve": "adversarial", "top": 5},
        CAT,
    ),
    "surgical without the unconditional score": (
        "surgical",
        {**FROZEN, **SEARCH, "hold": False, "keep_weight": 0.5},
        {"objective": "guidance", "preserve": "adversarial"},
        TO_DOG,
    ),
    "hardened": (
        "hardened",
        {**FROZEN, **SEARCH, "keep_weight": 0.5, "warm_up": 1, "attack_steps": 2, "attack_tokens": 2},
        {"objective": "attacked", "preserve": "adversarial", "attack_lr": 3e-2, "attack_start": "latest"},
        CAT,
    ),
    "abo": ("abo", FROZEN, {"objective": "guidance", "preserve": "unconditional"}, TO_DOG),
    "abo on pictures": (
        "abo",
        {"states": "pictures", "pictures": 3, "goal": "neutral"},
        {"objective": "guidance", "preserve": "unconditional"},
        CAT,
    ),
    "erasediff": (
        "erasediff",
        {"pictures": 3, "remain_words": 2, "weights": "xattn", "label": "car"},
        {"objective": "wrong-noise", "preserve": "remain", "balance": "constrained"},
        CAT,
    ),
    "erasediff with uniform noise": (
        "erasediff",
        {"pictures": 3, "remain_words": 2, "weights": "xattn", "wrong": "uniform-noised", "antithetic": True},
        {"objective": "wrong-noise", "preserve": "remain", "balance": "constrained"},
        CAT,
    ),
    "p-esd": ("p-esd", {**FROZEN, **MASK}, {"update": "mask"}, CAT),
    "p-ac": (
        "p-ac",
        {**FROZEN, **MASK, "weights": "xattn-strict"},
        {"objective": "anchor", "shows": "anchor", "update": "mask"},
        TO_DOG,
    ),
    "ac": (
        "ac",
        {"pictures": 3, "guidance": 6.0, "weights": "xattn-strict", "teacher": "frozen", "detach_start": False},
        {"objective": "anchor", "states": "pictures", "shows": "anchor"},
        TO_DOG,
    ),
    "salun": (
        "salun",
        {"pictures": 3, "remain_words": 2, "weights": "xattn", "looks": 1, "share": 0.3},
        {"objective": "wrong-noise", "preserve": "remain", "update": "salient", "keep_weight": 0.1},
        TO_DOG,
    ),
    "neggrad": (
        "neggrad",
        {"pictures": 3, "remain_words": 2, "weights": "xattn"},
        {"objective": "denoise-up", "preserve": "remain"},
        CAT,
    ),
}
MIXES: dict[str, tuple[dict[str, Any], Erasure]] = {
    "pruned eap": ({**SEARCH, **MASK, "preserve": "adversarial", "update": "mask"}, CAT),
    "abo with eap's preservation under erasediff's balance": (
        {**SEARCH, "objective": "guidance", "preserve": "adversarial", "balance": "constrained"},
        TO_DOG,
    ),
    "low-rank anchor with kept prompts": (
        {"objective": "anchor", "preserve": "prompts", "update": "low-rank", "rank": 2},
        Erasure(("cat",), anchor="dog", keep=("car", "rose")),
    ),
}


def erase_by_composing(model: StableDiffusion, erasure: Erasure, settings: dict[str, Any]) -> Edit:
    return efface.erase(model, erasure, "compose", **settings)


@pytest.mark.parametrize("case", PRESETS)
def test_a_preset_is_a_choice_on_every_axis(case: str, eps_model: StableDiffusion) -> None:
    preset, settings, choices, erasure = PRESETS[case]
    theirs = efface.erase(eps_model, erasure, preset, **{**BASE, **settings})
    # What only the preset has is set there to what Compose does.
    shared = {key: value for key, value in settings.items() if key not in ("teacher", "detach_start", "hold")}
    ours = erase_by_composing(eps_model, erasure, {**BASE, **shared, **choices})
    assert theirs.values and theirs.values.keys() == ours.values.keys()
    assert all(torch.equal(value, ours.values[key]) for key, value in theirs.values.items())
    # Not by standing still: the base is another.
    base = eps_model.weights
    assert not all(key in base and torch.equal(value, base[key]) for key, value in ours.values.items())


@pytest.mark.parametrize("case", MIXES)
def test_mixes_that_nobody_published(case: str, eps_model: StableDiffusion) -> None:
    settings, erasure = MIXES[case]
    before = {name: tensor.detach().clone() for name, tensor in eps_model.weights.items()}
    edit = erase_by_composing(eps_model, erasure, {**BASE, **FROZEN, **settings})
    assert all(torch.equal(before[name], tensor) for name, tensor in eps_model.weights.items())
    pictures = eps_model.images(["a cat"], [1])
    with edit.apply(eps_model):
        assert any(not torch.equal(before[name], tensor) for name, tensor in eps_model.weights.items())
    assert torch.equal(eps_model.images(["a cat"], [1]), pictures)
    assert edit.meta["arguments"]["objective"] == settings.get("objective", "negative-guidance")


def test_scores_need_rows_to_compare_and_a_choice_to_score(eps_model: StableDiffusion) -> None:
    choices = {**BASE, **FROZEN, **SEARCH, "preserve": "adversarial", "search_gradient": "score"}
    with pytest.raises(ValueError, match="give a batch of at least 2, got 1"):
        erase_by_composing(eps_model, CAT, {**choices, "batch": 1})
    with pytest.raises(ValueError, match="not of a mixture: give hard=True"):
        erase_by_composing(eps_model, CAT, {**choices, "hard": False, "top": 2})
    with pytest.raises(ValueError, match="top=2 mixes some, and needs hard=False"):
        erase_by_composing(eps_model, CAT, {**choices, "top": 2})
    with pytest.raises(ValueError, match="no search gradient 'slope'; there are straight-through, score"):
        erase_by_composing(eps_model, CAT, {**choices, "search_gradient": "slope"})


def test_every_setting_is_of_the_loop_or_of_an_answer() -> None:
    fields = {field.name for field in dataclasses.fields(Compose)}
    loop = {"weights", "steps", "lr", "batch", "space", "draw_steps", "guidance", "templates", "seed", "micro_batch"}
    loop |= {"moments", "option"}
    used = {name for names in USES.values() for name in names}
    assert fields == loop | set(AXES) | used
    assert {axis for axis, _ in USES} <= set(AXES)


@pytest.mark.parametrize("name", sorted(Compose().idle))
def test_a_setting_that_no_answer_reads_is_refused(name: str) -> None:
    default = getattr(Compose(), name)
    others = {
        "exclude": ("dog",),
        "rate": "fixed",
        "relaxation": "hard-concrete",
        "wrong": "uniform",
        "goal": "neutral",
        "shows": "anchor",
    }
    other = others.get(name, not default if isinstance(default, bool) else f"{default}x" if default == "" else None)
    if other is None:
        other = f"another {default}" if isinstance(default, str) else default + 1
    with pytest.raises(ValueError, match=rf"no use for {name}=.*objective negative-guidance.* would use it"):
        Compose(**{name: other})
    assert getattr(Compose(**{name: default}), name) == default


@pytest.mark.parametrize(
    ("settings", "erasure", "says"),
    [
        ({"objective": "nonsense"}, CAT, "no objective 'nonsense'; there are negative-guidance"),
        ({"balance": "nonsense"}, CAT, "no balance 'nonsense'; there are sum, constrained"),
        ({"rank": 4}, CAT, "update low-rank would use it"),
        ({"objective": "adaptive-anchor"}, CAT, "needs preserve adversarial"),
        ({"balance": "constrained"}, CAT, "what is preserved, and that is nothing"),
        ({"preserve": "adversarial", "hard": False, "source": "frozen"}, CAT, "no stored trajectory"),
        ({"update": "mask"}, CAT, "nothing would be pruned"),
        ({}, TO_DOG, "has no use for an anchor"),
        ({"objective": "guidance", "goal": "neutral"}, TO_DOG, "has no use for an anchor"),
        ({"objective": "anchor"}, CAT, "replaces the target by an anchor"),
        ({"objective": "guidance", "goal": "alternative"}, CAT, "replaces the target by an anchor"),
        ({}, KEEP, "no use for concepts to keep .*prompts, adversarial and remain"),
        ({"preserve": "prompts"}, CAT, "name at least one"),
    ],
)
def test_bad_compositions_are_refused_before_work(
    settings: dict[str, Any],
    erasure: Erasure,
    says: str,
    eps_model: StableDiffusion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eps_model, "encode", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        erase_by_composing(eps_model, erasure, settings)


def test_its_name_is_listed_with_what_depends_on_the_choice() -> None:
    can = methods.find_capabilities("compose")
    assert (can.anchor, can.keep, can.images) == ("by choice",) * 3


OWN_OBJECTIVE = '''"""Halved: the target's prediction is halved. An example, no paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor

from efface.training.objectives.negative_guidance import NegativeGuidance
from efface.training.interfaces import LossRole, Query, Source, Term


@final
class Halved(Term):
    """As ESD's, with what an option says of eta."""

    role: LossRole = "erase"

    def __init__(self, source: Source, space: str, pull: float) -> None:
        self.source = source
        self.inner = NegativeGuidance(source, pull, space)

    def prepare(self, context) -> None:
        self.inner.prepare(context)

    def build_queries(self, context, step):
        return self.inner.build_queries(context, step)

    def compute_loss(self, context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        return self.inner.compute_loss(context, queries, predictions)
'''


def test_an_answer_of_the_catalogue_needs_no_edit_here(
    tmp_path: Path, eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "halved.py").write_text(OWN_OBJECTIVE, encoding="utf-8")
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(tmp_path)])
    settings = {**BASE, **FROZEN}
    ours = erase_by_composing(eps_model, CAT, {**settings, "objective": "halved", "option": ("pull=2.0",)})
    theirs = erase_by_composing(eps_model, CAT, {**settings, "eta": 2.0})
    assert ours.values and all(torch.equal(value, theirs.values[key]) for key, value in ours.values.items())
    with pytest.raises(ValueError, match="no objective 'halved'; there are negative-guidance"):
        erase_by_composing(eps_model, CAT, {**settings, "objective": "halved"})  # nobody says what to pull by
    with pytest.raises(ValueError, match="no use for eta"):
        erase_by_composing(eps_model, CAT, {**settings, "objective": "halved", "option": ("pull=2.0",), "eta": 3.0})
    with pytest.raises(ValueError, match="option 'pull' is not a setting"):
        erase_by_composing(eps_model, CAT, {**settings, "option": ("pull",)})
