"""The procedures that ours is measured against, and how the measuring counts."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from benchmarks import plain
from benchmarks.common import count_network, format_table, measure_matmul_peak, measure_peak, measure_work
from benchmarks.plots import Line, plot
from efface import methods
from efface.concept import Erasure
from efface.training.interfaces import States, Step
from efface.training.states.pictures import Pictures
from efface.training.subsets import select
from efface.training.trainer import Trainer
from tiny import tiny_model

STEPS, UPDATES = 3, 2
QUICK = {"steps": UPDATES, "batch": 1, "draw_steps": STEPS, "lr": 1e-3, "paths": 2, "pictures": 2, "remain_words": 2}
QUICK |= {"sparsity": 0.05}
MORE = {"eap": {"candidates": ["dog", "car"]}, "erasediff": {"captions": ["dog", "car"], "label": "rose"}}


def build_request(name: str, updates: int = UPDATES, **more: object) -> plain.Asked:
    fields = methods.get(name).__dataclass_fields__
    given = {key: value for key, value in {**QUICK, **more}.items() if key in fields}
    return plain.Asked("cat", ("{}",), asdict(methods.get(name)(**given)), updates)


@pytest.mark.parametrize("name", plain.REFERENCES)
def test_it_teaches_with_a_model_that_stays(name, eps_model):
    before = {key: tensor.detach().clone() for key, tensor in eps_model.weights.items()}
    values = plain.REFERENCES[name](eps_model, build_request(name), **MORE.get(name, {}))
    assert all(torch.equal(tensor, before[key]) for key, tensor in eps_model.weights.items())
    assert all(tensor.grad is None for tensor in eps_model.weights.values())
    assert set(values) <= set(select(before, build_request(name).settings["weights"]))
    if name != "p-esd":  # of itself no weight goes within two updates
        assert any(not torch.equal(value, before[key]) for key, value in values.items())


@pytest.mark.parametrize("name", ["esd", "eap"])
def test_one_update_is_the_methods_own(name, eps_model, monkeypatch):
    """From the same state the plain procedure follows the trainer's gradient, on states that the student draws."""
    place, seed = 1, 77
    monkeypatch.setattr(plain.Pair, "place", lambda self: (place, seed))
    monkeypatch.setattr(
        plain, "gumbel_softmax", lambda pi, *_: torch.nn.functional.one_hot(pi.argmax(), len(pi)).float()
    )
    grads: list[torch.Tensor] = []
    monkeypatch.setattr(plain, "_step", lambda adam, loss: grads.extend(torch.autograd.grad(loss, _params(adam))))
    more = {"candidates": ["dog"]} if name == "eap" else {}
    fewer = {"search_turns": 0} if name == "eap" else {}
    plain.REFERENCES[name](eps_model, build_request(name, 1, **fewer), **more)

    fields = methods.get(name).__dataclass_fields__
    given = {key: value for key, value in {**QUICK, **fewer, "source": "student"}.items() if key in fields}
    model = tiny_model()
    model.own_words = ("dog",)
    trainer = methods.get(name)(**given, **({"margin": 0.0} if name == "eap" else {})).build_trainer(
        model, Erasure(("cat",))
    )
    step = Step(0, trainer.update, torch.Generator().manual_seed(0), [0], [0], [seed], [place])
    check_step(trainer, step, grads)


def test_one_update_of_the_reference_is_erasediffs_own(eps_model, monkeypatch):
    """At the same states the reference's step, from three passes and a copy that descends first, is the trainer's."""
    rng = torch.Generator().manual_seed(3)
    x, noise = torch.randn(2, 2, *eps_model.latent_shape, generator=rng)
    t = torch.tensor([400, 700])
    known = {"cat": 0, "dog": 1}  # what is forgotten, and what remains
    monkeypatch.setattr(plain, "_draw_picture", lambda pair, prompt: torch.full((1,), float(known[prompt])))

    def noised(pair, batch):
        picked = [int(latents) for _, latents in batch]
        return x[picked], t[picked], noise[picked]

    monkeypatch.setattr(plain, "_draw_noised", noised)
    steps: list[list[torch.Tensor]] = []

    class Noted(torch.optim.Adam):
        def step(self, closure=None):
            steps.append([param.grad.clone() for param in _params(self)])

    monkeypatch.setattr(plain, "Adam", Noted)
    plain.erasediff(eps_model, build_request("erasediff", 1), captions=["dog"], label="rose")

    def sample_states(self, trainer, step, prompts, cond):
        picked = [known[prompt] for prompt in prompts]
        return States(x[picked], t[picked], {"noise": noise[picked]})

    monkeypatch.setattr(Pictures, "sample_states", sample_states)
    given = {key: QUICK[key] for key in ("steps", "batch", "draw_steps", "lr", "pictures")}
    trainer = methods.get("erasediff")(**given, label="rose").build_trainer(
        tiny_model(), Erasure(("cat",), keep=("dog",))
    )
    check_step(trainer, trainer.make_auxiliary_step(0, stream=0), steps[-1])


def check_step(trainer: Trainer, step: Step, wanted: list[torch.Tensor]) -> None:
    """The gradient that the trainer would follow at this step is the one wanted."""
    ours: list[torch.Tensor] = []
    trainer.update.step = ours.extend  # type: ignore[method-assign]
    trainer.step(step)
    most = max(float(grad.abs().max()) for grad in ours)
    for mine, theirs in zip(ours, wanted, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-5 * most)


def _params(adam: torch.optim.Adam) -> list[torch.Tensor]:
    return adam.param_groups[0]["params"]


def test_rows_of_the_papers_procedure_are_as_many_as_it_says(eps_model, monkeypatch):
    """Half a guided trajectory, two answers of the teacher and one of the student, for every update."""
    monkeypatch.setattr(plain.Pair, "place", lambda self: (2, 5))
    with count_network(eps_model.unet) as count:
        plain.esd(eps_model, build_request("esd", 3))
    assert count.rows == 3 * (2 * 2 + 2 + 1)
    assert count.calls == 3 * (2 + 2 + 1)


def test_measures(eps_model):
    x = torch.zeros(2, *eps_model.latent_shape)
    cost = measure_work(
        lambda: eps_model.predict(x, 1, eps_model.encode([""]), eps_model.encode(["cat"])), eps_model.unet
    )
    assert (cost.rows, cost.calls) == (4, 1)
    assert cost.seconds > 0
    known = [torch.zeros(100)]
    assert measure_peak(lambda: torch.zeros(50) + 1, known) == 400 + 200 + 200
    assert measure_matmul_peak(torch.device("cpu"), torch.float32, side=64) > 0
    assert format_table(("a", "b"), [(1, 2.34567)]).splitlines()[-1] == "| 1 | 2.35 |"


def test_plots_are_pictures_of_their_points():
    svg = plot([Line("ours", [(1, 10), (10, 20), (100, 400)]), Line("<plain>", [(1, 5), (100, 5000)])], "n", "seconds")
    assert svg.count("<circle") == 5
    assert "&lt;plain&gt;" in svg
    with pytest.raises(ValueError, match="above 0"):
        plot([Line("a", [(0, 1)])], "n", "s")
