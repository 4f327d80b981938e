"""UCE, RECE and the null-space edit on models built from the real classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from efface import methods
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.functional.closed_form import solve_least_squares
from efface.models.adapters.sd import StableDiffusion
from efface.models.base import Model
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl

NAMES = ["uce", "rece", "nullspace"]
CAT = Erasure(("cat",), anchor="dog")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def fit(name: str, model: Model, erasure: Erasure = CAT, **settings: object) -> Edit:
    return methods.get(name)(**settings).fit(model, erasure)


def encode_tokens(model: Model, *texts: str) -> Tensor:
    return model.encode(texts).tokens.double()


def measure_worst_change(model: Model, edit: Edit, rows: Tensor) -> float:
    """The largest relative change of any layer's answer to these rows [n, d]."""
    base = model.weights
    before = {key: rows @ base[key].double().T for key in edit.values}
    changes = [(rows @ value.double().T - before[key]) for key, value in edit.values.items()]
    return max(
        (change.norm(dim=1) / before[key].norm(dim=1)).max().item()
        for change, key in zip(changes, edit.values, strict=True)
    )


def test_only_keys_and_values_of_cross_attention_move(name, eps_model):
    edit = fit(name, eps_model)
    wanted = [key for key in eps_model.weights if ".attn2.to_k." in key or ".attn2.to_v." in key]
    assert list(edit.values) == wanted
    assert all(not torch.equal(value, eps_model.weights[key]) for key, value in edit.values.items())


def test_uce_is_equation_7_in_every_layer(eps_model):
    """Layer by layer, from the prompts' last words: token 1, between the start and the end."""
    edit = fit("uce", eps_model, Erasure(("cat", "car"), anchor="dog", keep=("rose",)))
    c, goal, k = (
        encode_tokens(eps_model, "cat", "car")[:, 1],
        encode_tokens(eps_model, "dog", "dog")[:, 1],
        encode_tokens(eps_model, "rose"),
    )
    for key, value in edit.values.items():
        base = eps_model.weights[key].detach().double()
        expected = solve_least_squares(base, c, goal @ base.T, k[:, 1], 0.5)
        assert torch.allclose(value.double(), expected, atol=1e-6)


@pytest.mark.parametrize("templates", [("{}",), ("{}", "a {}")])
def test_uce_without_an_anchor_guides_to_the_bare_template(eps_model, templates):
    """The second release formats "image of {guide}" with an empty guide; the first goes to the empty prompt."""
    edit = fit("uce", eps_model, Erasure(("cat",)), templates=templates)
    places = {"cat": 1, "a cat": 2, "": 0, "a ": 1}  # last word before the end token, else the start token
    rows = [
        encode_tokens(eps_model, text)[0, places[text]] for t in templates for text in (t.format("cat"), t.format(""))
    ]
    c, goal = torch.stack(rows[::2]), torch.stack(rows[1::2])
    for key, value in edit.values.items():
        base = eps_model.weights[key].detach().double()
        assert torch.allclose(value.double(), solve_least_squares(base, c, goal @ base.T, c[:0], 0.5), atol=1e-6)
    first = fit("uce", eps_model, Erasure(("cat",)), templates=templates, tokens="all")
    whole = [encode_tokens(eps_model, t.format("cat"))[0, places[t.format("cat")] :] for t in templates]
    empty = [encode_tokens(eps_model, "")[0, : len(c)] for c in whole]
    c, goal = torch.cat(whole), torch.cat(empty)
    for key, value in first.values.items():
        base = eps_model.weights[key].detach().double()
        assert torch.allclose(value.double(), solve_least_squares(base, c, goal @ base.T, c[:0], 0.5), atol=1e-6)


def test_rece_without_epochs_is_the_first_release_of_uce(eps_model):
    request = Erasure(("cat",), anchor="dog", keep=("rose",))
    uce = fit("uce", eps_model, request, tokens="all", lamb=0.1, preserve_scale=0.1, keep_empty=True)
    rece = fit("rece", eps_model, request, epochs=0)
    assert all(torch.equal(value, uce.values[key]) for key, value in rece.values.items())


def test_rece_layer_by_layer(eps_model):
    """The authors' order of work on the weights themselves, where ours iterates one matrix."""
    edit = fit("rece", eps_model, Erasure(("cat", "car"), anchor="dog"), epochs=2, reg=0.01)
    base = {key: eps_model.weights[key].detach().double() for key in edit.values}
    empty, targets = encode_tokens(eps_model, "")[0], encode_tokens(eps_model, "cat", "car")
    goal = encode_tokens(eps_model, "dog")[0]
    pairs = torch.cat([t[1:] for t in targets]), torch.cat([goal[1:]] * 2)
    now = {key: solve_least_squares(w, pairs[0], pairs[1] @ w.T, empty, 0.1, 1.0, 0.1) for key, w in base.items()}
    for _ in range(2):
        square = 0.01 * torch.eye(16).double() + torch.stack([w.T @ w for w in now.values()]).sum(0)
        cross = torch.stack([now[key].T @ base[key] for key in now]).sum(0)
        back = targets.flatten(0, 1) @ (torch.linalg.inv(square) @ cross).T
        goals = torch.cat([goal, goal])
        # Once a target, as their script for nudity has it.
        twice = torch.cat([empty, empty])
        now = {key: solve_least_squares(w, back, goals @ w.T, twice, 0.1, 1.0, 0.1) for key, w in now.items()}
    assert all(torch.allclose(value.double(), now[key], atol=1e-5) for key, value in edit.values.items())


def test_null_space_holds_the_preserved_and_moves_the_target(eps_model):
    edit = fit("nullspace", eps_model, Erasure(("cat", "car"), anchor="dog", keep=("rose", "lion")))
    held = torch.cat([encode_tokens(eps_model, "rose", "lion")[:, 1], encode_tokens(eps_model, "")[0]])
    assert measure_worst_change(eps_model, edit, held) < 1e-5
    assert measure_worst_change(eps_model, edit, encode_tokens(eps_model, "cat")[:, 1]) > 1e-2
    assert edit.meta["notes"]["preserved"] == ["rose", "lion"]
    assert edit.meta["notes"]["free_directions"] == 16 - 8 - 2
    free = torch.linalg.svd(held)[2][len(held) :]
    for target in ("cat", "car"):
        rows = encode_tokens(eps_model, target)[0, 1:]
        share = (rows @ free.T).norm() / rows.norm()
        assert edit.meta["notes"]["reach"][target] == pytest.approx(share.item(), abs=1e-4)


def test_null_space_takes_words_while_they_leave_room(eps_model):
    words = {free: fit("nullspace", eps_model, free=free).meta["notes"]["preserved"] for free in (0.5, 0.25)}
    assert words == {0.5: [], 0.25: ["dog", "car", "tiger", "leopard"]}
    both = fit("nullspace", eps_model, free=0.25, templates=("{}", "a {}"))
    assert both.meta["notes"]["preserved"] == ["dog", "car"]
    with pytest.raises(
        ValueError, match="8 kept concepts in 1 templates leave no direction of 16 to erase 'cat' along"
    ):
        kept = ("dog", "car", "tiger", "leopard", "apple", "tomato", "rose", "lion")
        fit("nullspace", eps_model, Erasure(("cat",), keep=kept))


@pytest.mark.parametrize("name", ["uce", "rece"])
def test_what_is_kept_moves_less(name, eps_model):
    rows = encode_tokens(eps_model, "rose")[:, 1]
    held = fit(name, eps_model, Erasure(("cat",), anchor="dog", keep=("rose",)), preserve_scale=100.0)
    words = fit(name, eps_model, preserve_vocabulary=8, exclude=("tiger",), preserve_scale=100.0)
    assert measure_worst_change(eps_model, held, rows) < measure_worst_change(eps_model, fit(name, eps_model), rows)
    assert measure_worst_change(eps_model, words, rows) < measure_worst_change(eps_model, fit(name, eps_model), rows)
    assert words.meta["notes"]["preserved"] == ["dog", "car", "leopard", "apple", "tomato", "rose"]


@pytest.mark.parametrize("templates", [("{}", "a {}"), ("a {} rose",)])
def test_templates_matter_and_mix_with_many_targets(name, eps_model, templates):
    many = Erasure(("cat", "car", "tiger"), anchor="dog")
    one, more = fit(name, eps_model, many), fit(name, eps_model, many, templates=templates)
    assert any(not torch.equal(value, more.values[key]) for key, value in one.values.items())


def test_no_anchor_is_the_empty_prompt(name, eps_model):
    edit = fit(name, eps_model, Erasure(("cat",)), templates=("{}", "a {}"))
    assert all(value.isfinite().all() for value in edit.values.values())


def test_sdxl_too(name):
    model = tiny_sdxl()
    edit = fit(name, model)
    before = model.images(["a cat"], [0], steps=2)
    with edit.apply(model):
        assert not torch.equal(model.images(["a cat"], [0], steps=2), before)


def test_progress_is_told_of_every_layer_and_the_checkpoint_is_left_alone(name, eps_model, tmp_path):
    told: list[tuple[int, int]] = []
    file = tmp_path / "checkpoint"
    edit = methods.get(name)().fit(eps_model, CAT, progress=lambda i, n: told.append((i, n)), checkpoint=file)
    assert told == [(i + 1, len(edit.values)) for i in range(len(edit.values))]
    assert not file.exists()


def test_models_without_text_are_refused_before_work(name, monkeypatch):
    model = tiny_ddpm()
    monkeypatch.setattr(model, "encode", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match="does not work on tiny"):
        fit(name, model)


def test_a_model_without_a_tokenizer_is_refused_before_work(name, eps_model, monkeypatch):
    monkeypatch.setattr(eps_model, "encode", lambda *_: pytest.fail("work began"))
    monkeypatch.delattr(eps_model, "tokenizer")
    with pytest.raises(ValueError, match="no tokenizer"):
        fit(name, eps_model)


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("uce", {"lamb": 0.0}, "lamb must be positive, got 0.0"),
        ("uce", {"erase_scale": -1.0}, "erase_scale must be positive"),
        ("rece", {"reg": float("nan")}, "reg must be positive"),
        ("rece", {"epochs": -1}, "epochs must be at least 0, got -1"),
        ("nullspace", {"threshold": 1e-9}, r"threshold is in \[1e-6, 1\), got 1e-09"),
        ("nullspace", {"free": 1.5}, "free is a share of the directions, at most 1, got 1.5"),
        ("uce", {"templates": ("a",)}, "a template holds the concept"),
        ("uce", {"tokens": "some"}, "no tokens 'some'; there are last-subject, all"),
    ],
)
def test_bad_settings(name, bad, message, eps_model: StableDiffusion, monkeypatch):
    monkeypatch.setattr(eps_model, "encode", lambda *_: pytest.fail("work began"))
    with pytest.raises(ValueError, match=message):
        fit(name, eps_model, **bad)


def test_a_hundred_targets_at_once(name):
    """More targets than dimensions: the ridge holds the solve together, and nothing runs away."""
    model = tiny_model()
    letters = "abcdefghij"
    many = Erasure(tuple(f"{a}{b}" for a in letters for b in letters), anchor="dog")
    edit = fit(name, model, many)
    assert all(value.isfinite().all() for value in edit.values.values())
    row = encode_tokens(model, "ab")[:, 2]
    assert measure_worst_change(model, edit, row) > 1e-3
