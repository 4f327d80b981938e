"""AdvUnlearn: the attack's gradient by finite differences, what it reaches, and what it trains."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

from efface.concept import Erasure
from efface.functional.adversary import descend
from efface.methods.advunlearn import AdvUnlearn
from efface.models.adapters.sd import StableDiffusion
from efface.training.trainer import Trainer
from tiny import tiny_pipeline
from tiny_ddpm import tiny_ddpm

QUICK = AdvUnlearn(
    steps=2, batch=2, draw_steps=3, paths=2, lr=1e-3, source="frozen", attack_steps=4, attack_lr=1e-2, warm_up=0
)
QUICK = replace(QUICK, retain_batch=3, retain_paths=1, retain_template="a {}")


def build_trainer(model: StableDiffusion, method: AdvUnlearn = QUICK, erasure: Erasure | None = None) -> Trainer:
    erasure = erasure or Erasure(("cat",))
    parts = {
        "terms": method.build_terms(model, erasure),
        "update": method.build_update(),
        "balance": method.build_balance(),
    }
    return Trainer(model, erasure, name="test", arguments=asdict(method), config=method.build_config(), **parts)


def shake(trainer: Trainer) -> Trainer:
    """Moves the student away from the base, where the attack has nothing to find."""
    for i, master in enumerate(trainer.update.masters):
        with torch.no_grad():
            noise = torch.randn(master.shape, generator=torch.Generator().manual_seed(i))
            master.add_(0.3 * master.abs().mean() * noise)
    return trainer


@pytest.mark.parametrize(("rule", "radius"), [("adam", None), ("sign", None), ("adam", 0.3), ("sign", 0.3)])
def test_descent_on_a_bowl(rule, radius):
    goal, start = torch.tensor([[1.0, -2.0], [0.1, 0.2]]), torch.zeros(2, 2)
    found = descend(lambda d: (d - goal).square().sum(1), start, 1500, 5e-3, rule, radius)
    wanted = goal if radius is None else goal.clamp(-radius, radius)
    assert torch.allclose(found, wanted, atol=1.1e-2)
    assert not found.requires_grad
    assert torch.equal(start, torch.zeros(2, 2))


def test_rows_are_attacked_each_by_itself():
    goal = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))

    def error(d: torch.Tensor, rows: slice = slice(None)) -> torch.Tensor:
        return ((d - goal[rows]).square() * torch.tensor([1.0, 100.0, 0.01])[rows, None, None]).sum((1, 2))

    together = descend(error, torch.zeros(3, 2, 4), 20, 1e-2)
    alone = [descend(lambda d, i=i: error(d, slice(i, i + 1)), torch.zeros(1, 2, 4), 20, 1e-2) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


@pytest.mark.parametrize(("bad", "message"), [({"rule": "newton"}, "no rule 'newton'"), ({"lr": 0.0}, "above 0: got")])
def test_bad_descents(bad, message):
    with pytest.raises(ValueError, match=message):
        descend(lambda d: d.sum((1, 2)), torch.zeros(1, 1, 1), **({"steps": 1, "lr": 1.0} | bad))


def test_the_attacks_gradient_by_finite_differences():
    model = StableDiffusion(tiny_pipeline().to(torch.float64), "tiny", words=("cat", "dog", "car"))
    trainer = shake(build_trainer(model))
    term, step = trainer.terms[0], trainer.make_auxiliary_step(0, 0)
    queries = term.build_queries(trainer.context, step)
    states, prompts, prefix = queries["student"].states, queries["student"].prompts, queries["student"].prefix.double()
    way = torch.randn(prefix.shape, generator=torch.Generator().manual_seed(7), dtype=torch.double)
    with trainer.update.swapped_in():
        prefix.requires_grad_()
        (grad,) = torch.autograd.grad(term.compute_error(trainer.context, states, prompts, prefix).sum(), [prefix])
        with torch.no_grad():
            up, down = (
                term.compute_error(trainer.context, states, prompts, prefix + s * 1e-2 * way).double().sum()
                for s in (1, -1)
            )
    assert grad.abs().min() > 0
    assert (grad * way).sum().item() == pytest.approx((up - down).item() / 2e-2, rel=2e-2)


def test_the_attack_brings_the_student_back_to_the_target(model):
    """Against the error at the attack's own start, at the student's weights and with the base's prediction."""
    trainer = shake(build_trainer(model, replace(QUICK, attack_steps=0)))
    term, step = trainer.terms[0], trainer.make_auxiliary_step(0, 0)
    started = term.build_queries(trainer.context, step)["student"]
    term.attack = replace(term.attack, steps=40, lr=0.05)
    ended = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))["student"]
    assert torch.equal(started.states.x, ended.states.x)
    assert started.prefix.shape == ended.prefix.shape == (2, 1, 16)
    assert torch.allclose(
        ended.states.known["eps_c"], model.predict(ended.states.x, ended.states.t, ended.cond)[0], atol=1e-5
    )
    with torch.no_grad(), trainer.update.swapped_in():
        before, after = (
            term.compute_error(trainer.context, query.states, query.prompts, query.prefix) for query in (started, ended)
        )
    assert (after < before).all()
    again = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))["student"]
    assert torch.equal(again.prefix, ended.prefix)


def test_an_attack_goes_on_from_the_last_prefix_or_from_words(eps_model):
    """Attacks of no steps show where they start."""
    for start in ("latest", "random"):
        trainer = shake(build_trainer(eps_model, replace(QUICK, attack_start=start)))
        term = trainer.terms[0]
        found = [term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))["student"].prefix]
        table = eps_model.get_embedding_table().detach()
        words = build_trainer(eps_model, replace(QUICK, attack_steps=0))
        first = words.terms[0].build_queries(words.context, words.make_auxiliary_step(0, 0))["student"].prefix
        assert all(any(torch.equal(row[0], word) for word in table) for row in first)
        assert not torch.equal(found[0], first)
        # An auxiliary step of the same index starts where the step did; only the next step goes on.
        again = term.build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))["student"].prefix
        assert torch.equal(again, found[0])
        term.attack = replace(term.attack, steps=0)
        later = term.build_queries(trainer.context, trainer.make_auxiliary_step(1, 0))["student"].prefix
        assert torch.equal(later, found[0]) == (start == "latest")
        assert start == "latest" or all(any(torch.equal(row[0], word) for word in table) for row in later)


def test_it_waits_for_the_warm_up_and_reaches_the_loss(eps_model):
    trainer = shake(build_trainer(eps_model, replace(QUICK, warm_up=5)))
    term = trainer.terms[0]
    assert term.build_queries(trainer.context, trainer.make_auxiliary_step(4, 0))["student"].prefix is None
    queries = term.build_queries(trainer.context, trainer.make_auxiliary_step(5, 0))
    assert queries["student"].prefix is not None
    with trainer.update.swapped_in():
        said = eps_model.predict(
            queries["student"].states.x,
            queries["student"].states.t,
            eps_model.encode_with_grad(queries["student"].prompts, queries["student"].prefix),
        )[0]
    with torch.no_grad(), trainer.compute_losses(trainer.make_auxiliary_step(5, 0), "erase") as losses:
        known = queries["student"].states.known
        target = known["eps_0"] - (known["eps_c"] - known["eps_0"])
        assert losses["erase"].item() == pytest.approx((said - target).square().mean().item(), rel=1e-4)


@pytest.mark.parametrize("source", ["student", "frozen"])
def test_only_the_text_encoder_moves_and_words_are_retained(eps_model, source):
    method = replace(QUICK, source=source)
    edit = method.fit(eps_model, Erasure(("cat",), keep=("dog", "car")))
    assert all(name.startswith("text_encoder.") for name in edit.names)
    moved = [name for name in edit.names if not torch.equal(edit.values[name], eps_model.weights[name])]
    assert any("q_proj" in name for name in moved)
    trainer = build_trainer(eps_model, method, Erasure(("cat",), keep=("dog", "car")))
    queries = trainer.terms[1].build_queries(trainer.context, trainer.make_auxiliary_step(0, 0))
    assert len(queries["student"].states.x) == 3
    assert set(queries["student"].prompts) <= {"a dog", "a car"}
    with trainer.compute_losses(trainer.make_auxiliary_step(0, 0), "keep") as losses:
        assert losses["keep"].item() == pytest.approx(0, abs=1e-9)


def test_bad_settings(eps_model):
    for bad, message in (
        ({"attack_tokens": 0}, "at least 1 token"),
        ({"attack_tokens": 7}, "7 tokens before the prompt do not fit; tiny reads 6"),
        ({"attack_lr": 0.0}, "lr above 0"),
        ({"attack_start": "last"}, "no attack start 'last'; there are latest, random"),
        ({"retain_batch": 0}, "at least 1 word to retain"),
        ({"retain_template": "a photo"}, "a template holds the concept"),
        ({"retain_words": 0}, "no word to hold in place is left of 0"),
    ):
        model = StableDiffusion(tiny_pipeline(), "tiny", words=("cat", "dog"))
        with pytest.raises(ValueError, match=message):
            replace(QUICK, **bad).fit(model, Erasure(("cat",)))
    with pytest.raises(ValueError, match="does not work on tiny"):
        replace(QUICK, weights="full").fit(tiny_ddpm(), Erasure(("cat",)))
