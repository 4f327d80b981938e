"""EAP and EraseDiff as whole methods on the oracle: each ends where its paper says, and that place is found by algebra.

What a method trains on is known exactly: EAP's states are all that it stored, EraseDiff's the pictures that it drew,
noised. There every loss is a quadratic of W, so that minima, the Pareto front and the saddle point are linear algebra.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.base import Trained
from efface.methods.eap import EAP
from efface.methods.erasediff import EraseDiff
from efface.training.interfaces import States
from efface.training.trainer import Trainer
from least_squares import Equations, find_minimiser
from oracle import CLASSES, OracleModel

KEPT = ("dog", "car", "rose")
ERASURE = Erasure(("cat",), keep=KEPT)


def train(method: Trained, model: OracleModel) -> tuple[Trainer, Edit]:
    """The method's own trainer, as `fit` runs it, and the Edit that it left."""
    trainer = Trainer(
        model,
        ERASURE,
        name=type(method).__name__,
        arguments=asdict(method),
        config=method.build_config(),
        terms=method.build_terms(model, ERASURE),
        update=method.build_update(),
        balance=method.build_balance(),
    )
    return trainer, trainer.train()


def sample_states(trainer: Trainer, term: int, word: str, points: Sequence[int], noise: Sequence[int]) -> States:
    """What a term's own source gives where a step says so."""
    n = len(noise)
    step = replace(trainer.make_auxiliary_step(0, 1), targets=[0] * n, templates=[0] * n, points=points, noise=noise)
    source = trainer.terms[term].source  # type: ignore[attr-defined]
    return source.sample_states(trainer.context, step, [word] * n, trainer.model.encode([word] * n))


def read_learned(edit: Edit) -> Tensor:
    """W [d, m]."""
    return edit.values["unet.head.weight"].double()


def loss(parts: list[Equations], w: Tensor) -> float:
    return sum(float(((w @ p.psi.T - p.r.T).square().sum(dim=0) * p.weight).sum()) for p in parts)


def scale_equations(part: Equations, by: float) -> Equations:
    return Equations(part.phi, part.psi, part.r, by * part.weight)


def towards(model: OracleModel, at: States, p: Tensor, goal: Tensor) -> Equations:
    """Mean squared error, over rows and numbers, of what the student says under p from the goal."""
    n = len(at.x)
    return Equations.of(
        torch.full((n,), 1 / at.x.numel()),
        model.unet.extract_features(at.x, at.t, p),
        goal - model.predict_exactly(at.x, at.t, p),
    )


def one_hot(word: str, n: int) -> Tensor:
    return torch.eye(4)[CLASSES.index(word)].expand(n, 4)


# EAP: min over W, max over what is chosen, of the erasing loss and the chosen word's damage.

GRADIENTS = ("straight-through", "score")
SEARCH: dict[str, Any] = {"weights": "head", "draw_steps": 10, "guidance": 1.0, "source": "frozen", "space": "eps"}
SEARCH |= {"paths": 24, "keep_paths": 24, "steps": 200, "batch": 32, "lr": 2e-2, "search_lr": 2e-2, "margin": 0.0}


@dataclass(frozen=True)
class Searched:
    """An EAP trained to its end: W, how likely each word is chosen, and the exact losses at all stored states."""

    model: OracleModel
    edit: Edit
    chances: Mapping[str, float]
    erase: Equations
    damage: Mapping[str, Equations]

    @staticmethod
    def by(gradient: Any) -> Searched:
        model = OracleModel()
        trainer, edit = train(EAP(**SEARCH, search_gradient=gradient), model)
        search = trainer.terms[1].search  # type: ignore[attr-defined]
        chances = dict(zip(search.lists[0], search.logits[0].detach().softmax(dim=0).tolist(), strict=True))
        places = list(itertools.product(range(SEARCH["draw_steps"]), range(SEARCH["paths"])))
        stored = tuple(zip(*places, strict=True))
        at, n = sample_states(trainer, 0, "cat", *stored), len(places)
        cat, nothing = (model.predict_exactly(at.x, at.t, p) for p in (one_hot("cat", n), model.expand_prior(n)))
        erase = towards(model, at, one_hot("cat", n), nothing - (cat - nothing))
        damage = {}
        for word in chances:
            at, p = sample_states(trainer, 1, word, *stored), one_hot(word, n)
            damage[word] = towards(model, at, p, model.predict_exactly(at.x, at.t, p))
        return Searched(model, edit, chances, erase, damage)

    def mix(self, chances: Mapping[str, float]) -> list[Equations]:
        return [self.erase, *(scale_equations(self.damage[word], share) for word, share in chances.items() if share)]

    def find_worst(self, w: Tensor) -> float:
        return max(loss([part], w) for part in self.damage.values())

    def find_saddle(self) -> float:
        """The value of the game: what the chooser can make sure of, by trying mixtures of three words."""
        of, value = 12, 0.0
        for counts in itertools.product(range(of + 1), repeat=3):
            if sum(counts) == of:
                parts = self.mix({word: k / of for word, k in zip(self.damage, counts, strict=True)})
                value = max(value, loss(parts, find_minimiser(parts)))
        return value


@pytest.fixture(scope="module")
def fits() -> Mapping[str, Searched]:
    return {gradient: Searched.by(gradient) for gradient in GRADIENTS}


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_eap_ends_at_the_least_squares_of_what_it_chose(fits: Mapping[str, Searched], gradient: str) -> None:
    """Erasing and the damage, words weighed by how likely the search chooses them at its end."""
    fit = fits[gradient]
    parts, w = fit.mix(fit.chances), read_learned(fit.edit)
    start, end, least = (loss(parts, at) for at in (0 * w, w, find_minimiser(parts)))
    assert end - least < 0.05 * (start - least)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_eap_spares_what_erasing_alone_damages(fits: Mapping[str, Searched], gradient: str) -> None:
    """In the worst case, at next to no cost of the erasing loss."""
    fit = fits[gradient]
    alone, w = find_minimiser([fit.erase]), read_learned(fit.edit)
    assert fit.find_worst(w) < 0.1 * fit.find_worst(alone)
    start, end, least = (loss([fit.erase], at) for at in (0 * w, w, alone))
    assert end - least < 0.2 * (start - least)


def test_by_scores_eap_ends_at_the_saddle_point_and_straight_through_above_it(fits: Mapping[str, Searched]) -> None:
    """No W has a smaller worst case than the game's value; the published slope leaves the largest damage unseen."""
    above = {}
    for gradient, fit in fits.items():
        w = read_learned(fit.edit)
        above[gradient] = (loss([fit.erase], w) + fit.find_worst(w)) / fit.find_saddle()
        assert above[gradient] > 0.99
    assert above["score"] < 1.15
    assert above["score"] - 1 < 0.5 * (above["straight-through"] - 1)


# EraseDiff: what remains is best among what is forgotten as far, and forgetting comes first.

FORGET: dict[str, Any] = {"weights": "head", "draw_steps": 20, "guidance": 1.0, "pictures": 90, "wrong": "uniform"}
FORGET |= {"steps": 200, "batch": 512, "lr": 2e-2}
MANY = 4000


def draw_noised(n: int) -> tuple[Sequence[int], Sequence[int]]:
    """Every picture about equally often; when, and with what noise, the source draws itself."""
    return [0] * n, range(n)


def train_forgotten(rate: Any) -> tuple[Edit, list[Equations], list[Equations]]:
    """An EraseDiff played to its end, and its two losses: forgetting and what remains."""
    model = OracleModel()
    trainer, edit = train(EraseDiff(**FORGET, rate=rate), model)
    at = sample_states(trainer, 0, "cat", *draw_noised(3 * MANY))
    # The mean of U[0, 1): its spread adds to the loss what no W can change.
    forget = towards(model, at, one_hot("cat", 3 * MANY), torch.full_like(at.x, 0.5).double())
    remain = []
    for word in KEPT:
        at = sample_states(trainer, 1, word, *draw_noised(MANY))
        remain.append(
            scale_equations(towards(model, at, one_hot(word, MANY), at.known["noise"].double()), 1 / len(KEPT))
        )
    return edit, [forget], remain


def test_a_fixed_multiplier_ends_at_the_least_squares_of_both_losses() -> None:
    edit, forget, remain = train_forgotten("fixed")
    parts, w = forget + remain, read_learned(edit)
    start, end, least = (loss(parts, at) for at in (0 * w, w, find_minimiser(parts)))
    assert end - least < 0.05 * (start - least)


def test_the_constrained_step_forgets_further_and_ends_on_the_pareto_front() -> None:
    """Among all W that forget as far, next to none harms less: by trying multipliers until one forgets as far."""
    edit, forget, remain = train_forgotten("grad-norm")
    w = read_learned(edit)

    def front(multiplier: float) -> Tensor:
        return find_minimiser([*(scale_equations(p, multiplier) for p in forget), *remain])

    assert loss(forget, w) < loss(forget, front(1.0)) - 0.02 * loss(forget, 0 * w)
    as_far = front(solve_by_halving(lambda multiplier: loss(forget, front(multiplier)), loss(forget, w)))
    harm, least, base = (loss(remain, at) for at in (w, as_far, 0 * w))
    assert least > base
    assert harm - least < 0.05 * loss(forget, 0 * w)


def solve_by_halving(falling: Callable[[float], float], value: float) -> float:
    """Where a falling function takes this value, by halving in the exponent."""
    low, high = -6.0, 6.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(10.0**middle) > value else (low, middle)
    return 10.0 ** ((low + high) / 2)
