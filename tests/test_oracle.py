"""Every objective and preservation against linear algebra, on a world whose scores are known."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from efface.training.balance.sum import Sum
from efface.training.interfaces import States, Term
from efface.training.objectives.adaptive_anchor import AdaptiveAnchor
from efface.training.objectives.anchor import Anchor
from efface.training.objectives.denoising import Denoising
from efface.training.objectives.gem import GEM
from efface.training.objectives.guidance import Guidance
from efface.training.objectives.negative_guidance import NegativeGuidance
from efface.training.objectives.wrong_noise import WrongNoise
from efface.training.preservation.adversarial import Adversarial
from efface.training.preservation.prompts import FixedPrompts
from efface.training.preservation.unconditional import Unconditional
from efface.training.states.pictures import ANY, Pictures
from efface.training.trainer import Trainer
from efface.training.vocabulary_search import SearchConfig, Vocabulary, VocabularySearch
from least_squares import Equations, Lab, N, find_fixed_point, find_minimiser
from oracle import CLASSES, SHAPE, Fixed, OracleModel, build_trainer, compute_loss_and_gradient

# The objectives. Equations and their solutions are in `least_squares`.

Case = tuple[list[Term], list[Equations], Callable[[list[Equations]], Tensor]]


def search() -> VocabularySearch:
    return VocabularySearch(
        Vocabulary(CLASSES), SearchConfig(lr=1e-2, temperature=1.0, hard=False, steps_per_round=0, top=2)
    )


def negative(lab: Lab) -> Case:
    cat, nothing = lab.p("cat"), lab.p("")
    goal = lab.base(nothing) - 1.5 * (lab.base(cat) - lab.base(nothing))
    return [NegativeGuidance(Fixed(lab.at), 1.5, lab.space)], [lab.towards(cat, goal)], find_minimiser


def anchor(lab: Lab) -> Case:
    return [Anchor(Fixed(lab.at), lab.space)], [lab.towards(lab.p("cat"), lab.base(lab.p("dog")))], find_minimiser


def guidance(lab: Lab, goal: str, detach: bool) -> Case:
    cat, dog, nothing = lab.p("cat"), lab.p("dog"), lab.p("")
    g = {"alternative": lab.base(dog) - lab.base(nothing), "neutral": 0 * lab.base(dog)}
    wanted = g.get(goal, -1.5 * (lab.base(cat) - lab.base(nothing)))
    moved = lab.phi(cat) - lab.phi(nothing)
    r = wanted - (lab.base(cat) - lab.base(nothing))
    equations = Equations.of(lab.weight(), lab.phi(cat) if detach else moved, r, moved)
    return (
        [Guidance(Fixed(lab.at), goal, 1.5, detach, lab.space)],
        [equations],
        find_fixed_point if detach else find_minimiser,
    )


def label(lab: Lab) -> Case:
    """The other prompt's answer is the student's own, and moves with it without a gradient."""
    cat, car = lab.p("cat"), lab.p("car")
    equations = Equations.of(lab.weight(), lab.phi(cat), lab.base(car) - lab.base(cat), lab.phi(cat) - lab.phi(car))
    return [WrongNoise(Fixed(lab.at), ["car"], "label", lab.space)], [equations], find_fixed_point


def own(lab: Lab, eps: Tensor, at: States) -> Tensor:
    """What the network of this space says where the noise is eps."""
    level = lab.model.levels[at.t]
    alpha, sigma = level.alpha.view(-1, 1, 1, 1), level.sigma.view(-1, 1, 1, 1)
    x0 = (at.x.double() - sigma * eps) / alpha
    return {"eps": eps, "v": alpha * eps - sigma * x0, "x0": x0, "flow": eps - x0}[lab.model.space]


def uniform(lab: Lab, trainer: Trainer) -> list[Equations]:
    noise = torch.rand((N, *SHAPE), generator=trainer.make_auxiliary_step(0, 0).generator).double()
    return [lab.towards(lab.p("cat"), own(lab, noise, lab.at))]


def draw_stored(model: OracleModel, prompt: str) -> Tensor:
    p = model.encode([prompt] * 30).pooled.double()
    return model.world.draw(p, torch.Generator().manual_seed(1)).float().view(30, *SHAPE)


def denoised(lab: Lab, trainer: Trainer, caption: str) -> list[Equations]:
    """The noise is found again from the state and the picture that it was made of."""
    step = trainer.make_auxiliary_step(0, 0)
    (query, _) = trainer.terms[0].build_queries(trainer.context, step).values()
    x0 = draw_stored(lab.model, "cat").double()[[i % 30 for i in step.noise]]
    level = lab.model.levels[query.states.t]
    alpha, sigma = level.alpha.view(-1, 1, 1, 1), level.sigma.view(-1, 1, 1, 1)
    eps = (query.states.x.double() - alpha * x0) / sigma
    return [lab.towards(lab.p(caption), own(lab, eps, query.states), query.states)]


def check_balanced(trainer: Trainer, parts: list[Equations], solve: Callable[[list[Equations]], Tensor]) -> None:
    """The trainer's gradient vanishes at the solution, and not at the base; the loss there is the smallest around."""
    loss, (start,) = compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    with torch.no_grad():
        trainer.update.masters[0].copy_(solve(parts))
    least, (grad,) = compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    assert start.norm() > 1e-3
    assert grad.norm() < 1e-4 * start.norm()
    assert solve is find_fixed_point or least < loss


FLOWS = [("flow", "flow"), ("flow", "eps"), ("flow", "x0")]


@pytest.fixture(params=[("eps", "eps"), ("eps", "x0"), ("v", "v"), ("v", "eps"), *FLOWS], ids="-".join)
def lab(request: pytest.FixtureRequest) -> Lab:
    model = OracleModel(request.param[0])
    return Lab(model, model.sample_states(N), request.param[1])


CASES = {
    "negative": negative,
    "anchor": anchor,
    "label": label,
    **{
        f"guidance-{goal}-{'detached' if detach else 'moving'}": lambda lab, goal=goal, detach=detach: guidance(
            lab, goal, detach
        )
        for goal in ("alternative", "neutral", "negative")
        for detach in (True, False)
    },
}


@pytest.mark.parametrize("case", CASES)
def test_objectives_are_solved_by_least_squares(lab, case):
    terms, parts, solve = CASES[case](lab)
    check_balanced(build_trainer(lab.model, terms), parts, solve)


def test_a_flow_learns_the_same_edit_as_noise_does() -> None:
    """Where W can meet every state exactly, both students say the same noise at the same (rescaled) states."""
    flow, noise = OracleModel("flow", width=200), OracleModel("eps", width=200)
    at = flow.sample_states(N)
    level = flow.levels[at.t]
    r = (level.alpha**2 + level.sigma**2).sqrt()
    bar = (level.alpha / r) ** 2
    lab = Lab(flow, at, "flow")
    _, parts, _ = negative(lab)
    u = lab.base(lab.p("cat")).flatten(1) + lab.phi(lab.p("cat")).double() @ find_minimiser(parts).T
    said = at.x.double().flatten(1) + level.alpha[:, None] * u
    x = at.x.double().flatten(1) / r[:, None]
    eps_c, eps_0 = (noise.world.predict_eps(x, bar, lab.p(word).double()) for word in ("cat", ""))
    assert torch.allclose(said, eps_0 - 1.5 * (eps_c - eps_0), atol=1e-4)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_gem_by_hand(lab, eta):
    """Of each row by itself; at the base it pulls to the anchor, and where the anchor is met nothing is left."""
    trainer = build_trainer(lab.model, [GEM(Fixed(lab.at), eta, lab.space)])
    goal = (lab.base(lab.p("dog")) - lab.base(lab.p("cat"))).flatten(1)
    phi, weight = lab.phi(lab.p("cat")).double(), lab.weight()
    rng = torch.Generator().manual_seed(3)
    for scale in (0.0, 1.0, 10.0):
        w = (scale * torch.randn(4, phi.shape[1], generator=rng).double()).float().double()
        with torch.no_grad():
            trainer.update.masters[0].copy_(w)
        loss, (grad,) = compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
        moved = phi @ w.T
        gap = weight * ((moved - goal).square().mean(dim=1) - eta * moved.square().mean(dim=1))
        assert loss == pytest.approx(gap.clamp(min=0).mean().item(), rel=1e-4)
        slope = 2 * ((weight * (gap > 0))[:, None] * (moved - goal - eta * moved) / 4).T @ phi / N
        assert (grad.double() - slope).norm() <= 1e-4 * slope.norm()
    best = find_minimiser([lab.towards(lab.p("cat"), lab.base(lab.p("dog")))])
    with torch.no_grad():
        trainer.update.masters[0].copy_(best)
    assert (
        compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))[0]
        < 0.5 * (weight * goal.square().mean(dim=1)).mean()
    )


def test_uniform_noise(lab):
    trainer = build_trainer(lab.model, [WrongNoise(Fixed(lab.at), (), "uniform", lab.space)])
    check_balanced(trainer, uniform(lab, trainer), find_minimiser)


@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
@pytest.mark.parametrize("caption", ["cat", "rose"])
def test_denoising_under_the_true_caption_and_another(lab, noise, caption):
    source = Pictures(1, 5, 1.0, {ANY: draw_stored(lab.model, "cat")}, noise)
    trainer = build_trainer(lab.model, [Denoising(source, lab.space, "erase", ["cat"], {"cat": caption})])
    check_balanced(trainer, denoised(lab, trainer, caption), find_minimiser)


def test_uniform_noise_in_the_state_too(lab):
    source = Pictures(1, 5, 1.0, {ANY: draw_stored(lab.model, "cat")}, "uniform")
    trainer = build_trainer(lab.model, [WrongNoise(source, (), "uniform-noised", lab.space)])
    check_balanced(trainer, denoised(lab, trainer, "cat"), find_minimiser)


def test_the_adaptive_anchor_at_a_choice_held_fixed(lab):
    found = search()
    keep = Adversarial(Fixed(lab.at), found, lab.space)
    trainer = build_trainer(lab.model, [AdaptiveAnchor(Fixed(lab.at), found, 1.5, lab.space), keep])
    step = trainer.make_auxiliary_step(0, 0)
    p = found.select(trainer.context, step).cond.detach().pooled
    assert ((p > 0).sum(dim=1) == 2).all()
    goal = lab.base(p) - 1.5 * (lab.base(lab.p("cat")) - lab.base(p))
    parts = [lab.towards(lab.p("cat"), goal), lab.towards(p, lab.base(p))]
    check_balanced(trainer, parts, find_minimiser)


@pytest.mark.parametrize("share", [1.0, 5.0])
@pytest.mark.parametrize("kept", ["prompts", "unconditional", "adversarial"])
def test_preservation_beside_erasing(lab, kept, share):
    """Negative guidance and each preservation, as Sum weighs them."""
    terms, parts, _ = negative(lab)
    at = lab.model.sample_states(N, seed=1, prompt="dog")
    term = {
        "prompts": lambda: FixedPrompts(Fixed(at), ["dog"], lab.space),
        "unconditional": lambda: Unconditional(Fixed(at), lab.space),
        "adversarial": lambda: Adversarial(Fixed(at), search(), lab.space),
    }[kept]()
    trainer = build_trainer(lab.model, [*terms, term])
    step = trainer.make_auxiliary_step(0, 0)
    p = term.search.select(trainer.context, step).cond.detach().pooled if isinstance(term, Adversarial) else None
    p = lab.p("dog" if kept == "prompts" else "") if p is None else p
    held = lab.towards(p, lab.base(p, at), at)
    parts.append(Equations(held.phi, held.psi, held.r, share * held.weight))
    with torch.no_grad():
        trainer.update.masters[0].copy_(find_minimiser(parts))
    grads = Sum(keep=share)(partial(trainer.compute_gradient, trainer.make_auxiliary_step(0, 0)), None)
    with torch.no_grad():
        trainer.update.masters[0].zero_()
    _, (start,) = compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    assert grads[0].norm() < 1e-4 * start.norm()


def test_all_but_one_as_a_whole(lab):
    """Detached guidance and the unconditional score together, where no loss has this point as its minimum."""
    terms, parts, _ = guidance(lab, "alternative", detach=True)
    trainer = build_trainer(lab.model, [*terms, Unconditional(Fixed(lab.at), lab.space)])
    check_balanced(trainer, [*parts, lab.towards(lab.p(""), lab.base(lab.p("")))], find_fixed_point)
    assert compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))[0] < 10


def test_training_converges_to_the_solution():
    """The whole loop, Adam and all."""
    model = OracleModel(width=6)
    lab = Lab(model, model.sample_states(N), "eps")
    terms, parts, _ = negative(lab)
    trainer = build_trainer(model, terms, steps=500, lr=6e-2)
    start, _ = compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    edit = trainer.train()
    end, _ = compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    with torch.no_grad():
        trainer.update.masters[0].copy_(find_minimiser(parts))
    least, _ = compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    assert end - least < 1e-3 * (start - least)
    assert "unet.head.weight" in edit.values
