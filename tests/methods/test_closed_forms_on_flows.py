"""RECE and the null-space edit on the embedders of SD3 and FLUX.1, against solutions that share no code with them.

What an embedder reads depends on the prompt alone, so that the solution is exact; the pooled embedding has its own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from efface import methods
from efface.concept import Erasure
from efface.models.base import Model
from tiny_flux import tiny_flux
from tiny_sd3 import tiny_sd3

SEQUENCE = "transformer.context_embedder.weight"
POOLED = "transformer.time_text_embed.text_embedder.linear_1.weight"
MODELS: dict[str, tuple[Callable[[], Model], tuple[tuple[int, int | None, int], ...]]] = {
    "sd3": (tiny_sd3, ((0, 8, 1), (8, None, 0))),
    "flux": (tiny_flux, ((0, None, 0),)),
}
"""By architecture: a model, and for each text encoder its first row, its end, and the place of a word of one token."""
CAT = Erasure(("cat",), anchor="dog")


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[Model, tuple[tuple[int, int | None, int], ...]]:
    build, spans = MODELS[request.param]
    return build(), spans


def read(model: Model, text: str, weight: str) -> Tensor:
    """The rows [n, d] that this weight reads of a prompt: all tokens, or the pooled embedding."""
    cond = model.encode([text])
    if weight == POOLED:
        return cond.tensors["pooled"].double()
    part = next(each.part for each in model.list_text_maps() if each.weight == weight)
    return model.get_text_inputs(cond, part)[0].detach().double()


def from_the_word(rows: Tensor, spans: tuple[tuple[int, int | None, int], ...]) -> Tensor:
    """The rows from the concept on, of each text encoder."""
    return rows if len(rows) == 1 else torch.cat([rows[start:end][at:] for start, end, at in spans])


def solve_least_squares(rows: Tensor, goals: Tensor, ridge: Tensor, wanted: Tensor) -> Tensor:
    """The X [d, m] that minimises |rows X - goals|^2 + |ridge X - wanted|^2, by a QR decomposition."""
    return torch.linalg.lstsq(torch.cat([rows, ridge]), torch.cat([goals, wanted]), driver="gelsd").solution


@pytest.mark.parametrize("weight", [SEQUENCE, POOLED])
def test_the_null_space_is_the_constrained_minimum(case, weight):
    """Over W = W0 + D P the sum |W c - W0 c*|^2 + lamb |D P|^2, where P is free of the empty prompt."""
    model, spans = case
    edit = methods.get("nullspace")(lamb=0.3, preserve_vocabulary=0).fit(model, CAT)
    w0 = model.weights[weight].detach().double()
    c, goal = (from_the_word(read(model, word, weight), spans) for word in ("cat", "dog"))
    empty = read(model, "", weight)
    _, sizes, right = torch.linalg.svd(empty, full_matrices=True)
    held = int((sizes > 1e-6 * sizes[0]).sum())
    free = right[held:].T  # [d, free], an orthonormal basis of what no row of the empty prompt uses
    along = solve_least_squares(
        c @ free, (goal - c) @ w0.T, 0.3**0.5 * torch.eye(free.shape[1]).double(), 0 * free.T @ w0.T
    )
    assert torch.allclose(edit.values[weight].double(), w0 + (free @ along).T, atol=1e-5)
    assert torch.allclose(empty @ edit.values[weight].double().T, empty @ w0.T, atol=1e-4)
    assert not torch.allclose(edit.values[weight].double(), w0, atol=1e-3)


@pytest.mark.parametrize("weight", [SEQUENCE, POOLED])
def test_rece_attacks_and_edits_the_embedder_in_turn(case, weight):
    """The authors' order of work on the one weight: an edit; then the embedding that brings the target back, and an
    edit that erases it too."""
    model, spans = case
    edit = methods.get("rece")(epochs=2, reg=0.01).fit(model, CAT)
    w0 = model.weights[weight].detach().double()
    unit = torch.eye(w0.shape[1]).double()
    cat, dog, empty = (read(model, word, weight) for word in ("cat", "dog", ""))

    def erase(w: Tensor, rows: Tensor, goals: Tensor) -> Tensor:
        held = torch.cat([0.1**0.5 * empty, 0.1**0.5 * unit])
        return solve_least_squares(rows, goals @ w.T, held, held @ w.T).T

    now = erase(w0, from_the_word(cat, spans), from_the_word(dog, spans))
    for _ in range(2):
        # c' minimises |W c' - W0 c|^2 + reg |c'|^2
        back = solve_least_squares(now, w0 @ cat.T, 0.01**0.5 * unit, 0 * cat.T).T
        now = erase(now, back, dog)
    assert torch.allclose(edit.values[weight].double(), now, atol=1e-5)
