"""The constrained step's end, and what is left of the target, both measured exactly on the oracle."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods.abo import ABO
from efface.methods.ac import AC
from efface.methods.esd import ESD
from efface.training.balance.constrained import Constrained
from efface.training.interfaces import Context, Query, States, Step, Term
from efface.training.objectives.anchor import Anchor
from efface.training.trainer import Trainer
from least_squares import Equations, Lab, N, find_fixed_point, find_minimiser
from oracle import CLASSES, Fixed, OracleModel, build_trainer, compute_grad, compute_loss_and_gradient


def descend(trainer: Trainer, steps: int, lr: float) -> None:
    """Plays with plain gradient descent instead of Adam, at a rate that falls to nothing."""
    (weight,), taken = trainer.update.list_params(), iter(range(steps))

    def step(grads: list[Tensor]) -> None:
        with torch.no_grad():
            weight.sub_(lr * (1 - next(taken) / steps) * grads[0])

    trainer.update.step = step  # type: ignore[method-assign]
    for index in range(steps):
        trainer.step(trainer.make_step(index, trainer.update))


# EraseDiff's balance.


WIDE, FEW = 8, 2


def bargain(rate: str, eta: float = 1.0) -> tuple[Trainer, Equations, Equations]:
    """Forgetting "cat" on few states, which leaves much of W free, and remaining on others."""
    model = OracleModel(width=WIDE)
    few, many = (
        Lab(model, model.sample_states(FEW, seed=2, prompt="cat"), "eps"),
        Lab(model, model.sample_states(N, seed=3), "eps"),
    )
    forget = Anchor(Fixed(few.at), "eps")
    cat, dog = (model.encode([word] * FEW).pooled for word in ("cat", "dog"))
    a = Equations.of(torch.ones(FEW) / FEW / 4, few.phi(cat), few.base(dog) - few.base(cat))
    # What remains wants the prediction for dogs to be what it is not, or it would be content with W = 0.
    b = Equations.of(
        torch.ones(N) / N / 4, many.phi(many.p("dog")), many.base(many.p("car")) - many.base(many.p("dog"))
    )
    return build_trainer(model, [forget, Other(many.at)], balance=Constrained(rate, eta), batch=FEW), a, b


class Other(Term):
    """What remains: "dog" at these states is to be predicted as the frozen model predicts "car"."""

    role = "keep"

    def __init__(self, at: States) -> None:
        self.at = at

    def build_queries(self, context: Context, step: Step):
        dog, car = context.model.encode(["dog"] * N), context.model.encode(["car"] * N)
        return {"student": Query(self.at, dog, "student"), "goal": Query(self.at, car, "teacher")}

    def compute_loss(self, context: Context, queries, predictions) -> Tensor:
        return (predictions["student"] - predictions["goal"]).square().mean()


def compute_derivative(parts: Equations, w: Tensor) -> Tensor:
    return 2 * ((w @ parts.psi.T - parts.r.T) * parts.weight) @ parts.phi


def find_best_among_forgotten(forget: Equations, remain: Equations) -> tuple[Tensor, Tensor, Tensor]:
    """The best W for what remains of all that forget, any that forgets, and the directions [k, m] between them."""
    free = torch.linalg.svd(forget.psi, full_matrices=True).Vh[FEW:]
    there = torch.linalg.lstsq(forget.psi, forget.r, driver="gelsd").solution.T
    shifted = Equations(remain.phi @ free.T, remain.psi @ free.T, remain.r - remain.psi @ there.T, remain.weight)
    return there + find_minimiser([shifted]) @ free, there, free


def test_a_fixed_multiplier_ends_at_the_weighted_minimum():
    trainer, forget, remain = bargain("fixed", eta=3.0)
    weighted = Equations(forget.phi, forget.psi, forget.r, 3.0 * forget.weight)
    best = find_minimiser([weighted, remain])
    with torch.no_grad():
        trainer.update.masters[0].copy_(best)
    seen: list[Tensor] = []
    trainer.update.step = seen.extend  # type: ignore[method-assign]
    trainer.step(trainer.make_step(0, trainer.update))
    assert seen[0].norm() < 1e-4 * compute_derivative(remain, torch.zeros(4, WIDE).double()).norm()


def test_the_constrained_step_ends_where_nothing_is_left_to_forget_and_what_remains_is_best_among_those():
    """Stationary: grad L_f = 0, and grad L_r has no part along which L_f would stay at its minimum."""
    trainer, forget, remain = bargain("grad-norm")
    start = compute_derivative(forget, torch.zeros(4, WIDE).double()).norm()
    descend(trainer, 800, lr=2.0)
    w = trainer.update.masters[0].detach().double()
    assert compute_derivative(forget, w).norm() < 1e-2 * start
    best, there, free = find_best_among_forgotten(forget, remain)
    at_best = compute_derivative(remain, best)
    assert (at_best @ free.T).norm() < 1e-9
    assert at_best.norm() > 1e-2
    assert (compute_derivative(remain, w) @ free.T).norm() < 2e-2 * (compute_derivative(remain, there) @ free.T).norm()
    assert (w - best).norm() < 2e-2 * (there - best).norm()


def test_the_constrained_step_vanishes_at_that_end() -> None:
    """To 1e-4, neared from the side that what remains pulls to; the balance alone, on both losses in fp64.

    Descent does not come as near: where grad L_f has nearly vanished, lambda is about one over it, so that any step
    which is not as small crosses the end, and what fp32 rounds off the trainer's losses turns the step aside.
    """
    _, forget, remain = bargain("grad-norm")
    best = find_best_among_forgotten(forget, remain)[0]
    pull = compute_derivative(remain, best)
    hessian = 2 * (forget.phi * forget.weight[:, None]).T @ forget.phi
    w = (best - 1e-6 * pull @ torch.linalg.pinv(hessian, rtol=1e-9)).requires_grad_()
    parts = {"erase": forget, "keep": remain}
    losses = {role: ((w @ p.psi.T - p.r.T).square().sum(dim=0) * p.weight).sum() for role, p in parts.items()}
    (step,) = Constrained("grad-norm")(compute_grad(losses, [w]), None)
    assert pull.norm() > 1e-2
    assert step.norm() < 1e-4 * pull.norm()


# What a report would say, measured exactly: the edited oracle's pictures under the known mixture.

SETTINGS = {"weights": "head", "steps": 150, "batch": 64, "lr": 3e-2, "draw_steps": 20, "guidance": 1.0}
STORED = {"source": "frozen", "paths": 64}
METHODS = {
    "ESD": (ESD(**SETTINGS, **STORED), Erasure(("cat",))),
    "ABO": (ABO(**SETTINGS, **STORED, hold=5.0), Erasure(("cat",))),
    "ABO-to-dog": (ABO(**SETTINGS, **STORED, hold=5.0), Erasure(("cat",), anchor="dog")),
    "AC": (AC(**SETTINGS, pictures=64, teacher="frozen"), Erasure(("cat",), anchor="dog")),
}


def measure_drift(model: OracleModel) -> float:
    """Mean squared distance of the unconditional prediction from the exact one, over all the world's states."""
    at = model.sample_states(300, seed=5)
    said = model.predict(at.x, at.t, model.encode([""]))[0]
    return (said - model.predict_exactly(at.x, at.t, model.expand_prior(300))).square().mean().item()


def measure_occurrence(model: OracleModel, prompt: str) -> Tensor:
    """How often each class [4] is drawn under this prompt."""
    draw = model.sample(model.encode([prompt]), model.encode([""]), range(120), steps=20, guidance=1.0)
    return model.find_classes(draw.x).mean(dim=0)


@pytest.fixture(scope="module")
def erased() -> tuple[OracleModel, dict[str, Edit]]:
    model = OracleModel(width=128)
    return model, {name: method.fit(model, erasure) for name, (method, erasure) in METHODS.items()}


@pytest.mark.parametrize("name", METHODS)
def test_the_target_goes_and_the_other_classes_stay(erased, name):
    model, edits = erased
    assert measure_occurrence(model, "cat")[0] > 0.99
    with edits[name].apply(model):
        now = {word: measure_occurrence(model, word) for word in CLASSES}
    assert now["cat"][0] < 0.25
    assert all(now[word][CLASSES.index(word)] > 0.9 for word in ("dog", "car", "rose"))
    if name in ("AC", "ABO-to-dog"):
        assert now["cat"][1] > 0.95
    assert measure_drift(model) < 1e-9


def test_all_but_one_holds_what_negative_guidance_lets_go(erased):
    """The unconditional score, and with it how often each class is drawn without a prompt."""
    model, edits = erased
    base = measure_occurrence(model, "")
    moved, mass = {}, {}
    for name, edit in edits.items():
        with edit.apply(model):
            moved[name], mass[name] = measure_drift(model), (measure_occurrence(model, "") - base).abs().max()
    assert moved["ABO"] < 0.5 * moved["ESD"]
    assert moved["ABO-to-dog"] < 0.5 * moved["AC"]
    assert mass["ABO"] < 0.12 < mass["ESD"]
    assert mass["ABO-to-dog"] < 0.12 < mass["AC"]


# Where each method's training would end, were it never stopped: every stored state at once, and in fp64.


def whole(trainer: Trainer) -> Step:
    """A step that meets every stored state once."""
    points, noise = zip(*itertools.product(range(SETTINGS["draw_steps"]), range(STORED["paths"])), strict=True)
    n = len(points)
    return replace(trainer.make_auxiliary_step(0, 0), targets=[0] * n, templates=[0] * n, points=points, noise=noise)


def end_of(trainer: Trainer, keep: float) -> Tensor:
    """W where the trainer's gradient vanishes; it is affine in W, and so known from its values at W = 0 and beside."""
    (w,) = trainer.update.list_params()

    def gradient(at: Tensor) -> Tensor:
        with torch.no_grad():
            w.copy_(at)
        return compute_loss_and_gradient(trainer, whole(trainer), {"keep": keep})[1][0]

    start = gradient(torch.zeros_like(w))
    rows = [(gradient(unit.expand_as(w)) - start)[0] for unit in torch.eye(w.shape[1], dtype=w.dtype)]
    return torch.linalg.lstsq(torch.stack(rows).T, -start.T, driver="gelsd").solution.T


def solve_by_hand(name: str, trainer: Trainer, keep: float) -> Tensor:
    """The same by the formulas of the papers."""
    (asked, *_) = trainer.terms[0].build_queries(trainer.context, whole(trainer)).values()  # type: ignore[union-attr]
    at, n = asked.states, len(asked.states.x)
    lab = Lab(trainer.model, at, "eps")  # type: ignore[arg-type]
    cat, dog = (torch.eye(4).double()[k].expand(n, 4) for k in (0, 1))
    nothing = trainer.model.expand_prior(n)  # type: ignore[attr-defined]
    said = {word: lab.base(p) for word, p in (("cat", cat), ("dog", dog), ("", nothing))}
    push = {"ESD": said[""] - said["cat"], "ABO": said[""] - said["cat"]}.get(name, said["dog"] - said[""])
    goal = said["dog"] if name == "AC" else said[""] + push
    moved = lab.phi(cat) - lab.phi(nothing) if name.startswith("ABO") else lab.phi(cat)
    parts = [Equations.of(lab.weight(), lab.phi(cat), goal - said["cat"], moved)]
    if name.startswith("ABO"):
        parts.append(Equations.of(keep * lab.weight(), lab.phi(nothing), 0 * goal))
    return find_fixed_point(parts)


def report(trainer: Trainer, w: Tensor) -> Tensor:
    """How often each class is drawn under each prompt and under none, and then the drift."""
    model = trainer.model
    with torch.no_grad():
        trainer.update.list_params()[0].copy_(w)
    with trainer.update.swapped_in():
        drawn = [measure_occurrence(model, prompt) for prompt in (*CLASSES, "")]  # type: ignore[arg-type]
        return torch.cat([*drawn, torch.tensor([measure_drift(model)]).double()])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", METHODS)
def test_never_stopped_it_would_end_at_the_linear_solve(name: str) -> None:
    """Erased mass, kept classes and drift to 1e-4.

    ESD and AC hold nothing in place, and so their ends do not keep the other classes: that they are kept above is for
    training to stop early.
    """
    method, erasure = METHODS[name]
    keep = getattr(method, "hold", 1.0)
    trainer = method.build_trainer(OracleModel(dtype=torch.double), erasure)
    base = report(trainer, torch.zeros_like(trainer.update.list_params()[0]))
    found, known = report(trainer, end_of(trainer, keep)), report(trainer, solve_by_hand(name, trainer, keep))
    assert base[0] > 0.99
    assert known[0] < 0.6
    assert torch.allclose(found, known, rtol=1e-4, atol=1e-4)
