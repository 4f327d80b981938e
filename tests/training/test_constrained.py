from __future__ import annotations

import pytest
import torch

from efface.planning.tracker import AllocationTracker
from efface.training.balance.constrained import Constrained
from efface.training.interfaces import Update
from efface.training.objectives.denoising import Denoising
from efface.training.objectives.wrong_noise import WrongNoise
from efface.training.states.pictures import ANY, Pictures
from efface.training.updates.dense import Dense
from efface.training.updates.lowrank import LowRank
from efface.training.updates.mask import Mask
from efface.training.updates.salient import Salient
from oracle import Fixed, OracleModel, build_stirred, build_trainer, compute_grad

RATES = [("grad-norm", 0), ("gap", 2), ("constant", 0)]


def build_toy(seed: int = 0, scale: float = 1.0) -> tuple[dict, list[torch.Tensor]]:
    """Two quadratic losses that disagree, and a cost."""
    rng = torch.Generator().manual_seed(seed)
    params = [torch.randn(3, generator=rng).requires_grad_(), torch.randn(2, 2, generator=rng).requires_grad_()]
    goals = [[torch.randn(p.shape, generator=rng) for p in params] for _ in range(2)]
    forget, remain = (
        torch.stack([(p - g).square().sum() for p, g in zip(params, goal, strict=True)]).sum() for goal in goals
    )
    return {"erase": scale * forget, "keep": remain}, params


def dot(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rate", "inner"), RATES)
def test_forgetting_falls_at_the_rate_asked(rate, inner, seed):
    losses, params = build_toy(seed)
    floor = 0.25 * losses["erase"].item() if inner else None
    eta = 1.5
    forget, remain = (torch.autograd.grad(losses[role], params, retain_graph=True) for role in ("erase", "keep"))
    a_t = {"grad-norm": dot(forget, forget), "gap": 0.75 * losses["erase"].item(), "constant": 1.0}[rate] * eta
    step = Constrained(rate, eta, inner)(compute_grad(losses, params), floor)
    assert dot(step, forget) >= a_t * (1 - 1e-5)
    # Where remaining forgets fast enough by itself, nothing is added.
    if dot(remain, forget) >= a_t:
        assert all(torch.equal(s, r) for s, r in zip(step, remain, strict=True))
    else:
        assert dot(step, forget) == pytest.approx(a_t, rel=1e-4)


def test_a_gap_below_zero_asks_for_nothing_but_not_to_remember():
    """To remain is to remember here: that part goes, though the inner loop found no better loss."""
    p = torch.ones(1, requires_grad=True)
    losses = {"erase": p.square().sum(), "keep": (p - 3).square().sum()}
    (step,) = Constrained("gap", 1.0, 3)(compute_grad(losses, [p]), losses["erase"].item() + 1)
    assert step.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rate", ["grad-norm", "fixed"])
def test_no_third_set_of_gradients_is_alive(rate):
    count, numbers = 20, 1000

    def made(shares):
        return dict.fromkeys(shares, torch.tensor(1.0)), [torch.randn(numbers) for _ in range(count)]

    with AllocationTracker() as tally:
        step = Constrained(rate)(made, None)
    one_set = 4 * count * numbers
    assert len(step) == count
    assert 2 * one_set <= tally.peak < 2.5 * one_set


@pytest.mark.parametrize("rate", ["gap", "constant"])
def test_a_goal_of_nothing_adds_what_keeps_forgetting_where_it_is(rate):
    """By hand: the gradients are 2 and -4, so that two of the first bring the second to 0; a gap of 1 asks for more."""
    for eta, wanted in ((0.0, 0.0), (3.0, 1.5)):  # 1.5 is the least step along which the loss falls by 3
        p = torch.ones(1, requires_grad=True)
        losses = {"erase": p.square().sum(), "keep": (p - 3).square().sum()}
        (step,) = Constrained(rate, eta, 1 if rate == "gap" else 0)(compute_grad(losses, [p]), 0.0)
        assert step.item() == pytest.approx(wanted, abs=1e-6)


def test_fixed_is_a_weighted_sum_and_costs_count_among_what_remains():
    losses, params = build_toy()
    losses["cost"] = params[0].square().sum()
    step = Constrained("fixed", 0.7)(compute_grad(losses, params), None)
    wanted = torch.autograd.grad(losses["keep"] + losses["cost"] + 0.7 * losses["erase"], params)
    assert all(torch.allclose(s, w, atol=1e-6) for s, w in zip(step, wanted, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": "nonsense"}, "no rate 'nonsense'; there are grad-norm, gap, constant, fixed"),
        ({"rate": "gap"}, "only the rate 'gap' has inner steps, at least 1; got 0"),
        ({"rate": "grad-norm", "inner": 2}, "only the rate 'gap' has inner steps.* got 2 for 'grad-norm'"),
        ({"eta": -0.1}, "eta must not be below 0.* got -0.1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Constrained(**settings)


@pytest.mark.parametrize("missing", ["erase", "keep"])
def test_both_sides_are_needed(missing):
    """And that is said before there is a step."""
    model = build_stirred()
    at = Fixed(model.sample_states(4, prompt="cat"))
    sides = {"erase": WrongNoise(at, ["dog"], "label", "eps"), "keep": Denoising(at, "eps", "keep")}
    del sides[missing]
    with pytest.raises(ValueError, match="needs something to erase and something to keep"):
        build_trainer(model, [*sides.values()], update=Dense("head", 1e-2), balance=Constrained())


# The inner loop.


def build_small_trainer(update: Update, inner: int = 3):
    model = build_stirred()
    pictures = {ANY: torch.randn(6, *model.latent_shape, generator=torch.Generator().manual_seed(0))}
    source = Pictures(1, 3, 1.0, pictures)
    terms = [WrongNoise(source, ["car"], "label", "eps"), Denoising(source, "eps", "keep", ["dog"])]
    return build_trainer(model, terms, update=update, balance=Constrained("gap", 1.0, inner), batch=4, draw_steps=3)


UPDATES = {
    "dense": lambda: Dense("head", 1e-2),
    "low-rank": lambda: LowRank("head", 1e-2, 2),
    "mask": lambda: Mask("head", 1e-1, "hard-concrete"),
    "salient": lambda: Salient("head", 1e-2, 0.5, 2),
}


@pytest.mark.parametrize("moves", [0, 2])
@pytest.mark.parametrize("name", UPDATES)
def test_the_inner_loop_leaves_everything_as_it_was(name, moves):
    """Weights, moments and step counts, bit for bit, before the first step and later."""
    trainer = build_small_trainer(UPDATES[name]())
    for index in range(moves):
        trainer.step(trainer.make_step(index, trainer.update))
    base = {key: tensor.detach().clone() for key, tensor in trainer.model.weights.items()}
    before = trainer.update.state_dict()
    seen: list[torch.Tensor] = []
    step = trainer.update.step
    trainer.update.step = lambda grads: (step(grads), seen.append(trainer.update.list_params()[0].detach().clone()))  # type: ignore[method-assign]
    trainer.compute_erase_floor(moves)
    after = trainer.update.state_dict()
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[2])
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert all(torch.equal(tensor, base[key]) for key, tensor in trainer.model.weights.items())


def test_the_next_step_is_as_if_there_had_been_no_inner_loop():
    """The gap is measured and its rate is nothing: the step must be that of the same training without it."""
    results = []
    for balance in (Constrained("gap", 0.0, 2), Constrained("constant", 0.0)):
        trainer = build_small_trainer(Dense("head", 1e-2))
        trainer.balance = balance
        for index in range(3):
            trainer.step(trainer.make_step(index, trainer.update))
        results.append(trainer.update.compute_deltas())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


@pytest.mark.parametrize("first", ["erase", "keep"])
def test_the_floor_is_of_the_very_states_of_the_step(first):
    """With inner steps that hardly move, the floor is the step's own loss, whichever term is named first."""
    trainer = build_small_trainer(Dense("head", 1e-12))
    trainer.terms = sorted(trainer.terms, key=lambda term: term.role != first)
    floors: list[float | None] = []

    def balance(grad_of, floor):
        floors.append(floor)
        return grad_of({"erase": 1.0})[1]

    balance.inner = 2  # type: ignore[attr-defined]
    trainer.balance = balance  # type: ignore[assignment]
    loss = trainer.step(trainer.make_step(0, trainer.update))["erase"]
    assert floors == [pytest.approx(loss, rel=1e-5)]


def test_the_floor_lies_below_the_loss():
    model = OracleModel(width=8)
    at = model.sample_states(64, prompt="cat")
    terms = [WrongNoise(Fixed(at), ["dog"], "label", "eps"), Denoising(Fixed(at), "eps", "keep")]
    trainer = build_trainer(model, terms, update=Dense("head", 3e-2), balance=Constrained("gap", 1.0, 20), batch=64)
    with trainer.compute_losses(trainer.make_auxiliary_step(0, 0), "erase") as losses:
        start = losses["erase"].item()
    assert 0 < trainer.compute_erase_floor(0) < 0.9 * start
