"""What pictures teach: at the ends of a schedule, under which prompt, and whatever else a step asks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from efface.concept import Erasure
from efface.methods.ac import AC
from efface.models.adapters.sd import StableDiffusion
from efface.training.objectives.anchor import Anchor
from efface.training.objectives.denoising import Denoising
from efface.training.objectives.wrong_noise import WrongNoise
from efface.training.preservation.nothing import NoPreservation
from efface.training.preservation.unconditional import Unconditional
from efface.training.states.pictures import ANY, Pictures
from efface.training.trainer import Trainer
from oracle import OracleModel, build_trainer
from tiny import tiny_model, tiny_pipeline
from tiny_sd3 import tiny_sd3


def build_small_trainer(model, terms=None, **settings) -> Trainer:
    return build_trainer(model, terms or [NoPreservation()], **{"batch": 2, "draw_steps": 3, **settings})


def open_ends(space: str):
    """A model whose schedule ends in pure noise."""
    if space == "flow":
        return tiny_sd3()
    pipeline = tiny_pipeline("v_prediction" if space == "v" else "epsilon")
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, rescale_betas_zero_snr=True)
    return StableDiffusion(pipeline, "ends")


@pytest.mark.parametrize("wrong", ["", "uniform", "uniform-noised"])
@pytest.mark.parametrize("space", ["eps", "v", "flow"])
def test_a_schedule_that_ends_in_pure_noise_has_finite_targets(space, wrong):
    """Of 4,000 rows some are at the last timestep, whose x0 is not to be computed from x_t and eps."""
    model = open_ends(space)
    trainer = build_small_trainer(model, batch=4000, weights="full")
    given = torch.randn(7, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    source = Pictures(1, 3, 1.0, {ANY: given}, "uniform" if wrong == "uniform-noised" else "gaussian")
    term = WrongNoise(source, (), wrong, "eps") if wrong else Denoising(source, "eps", "erase")
    queries = term.build_queries(trainer.context, trainer.make_step(0, trainer.update))
    assert queries
    query = queries["wrong" if wrong else "noise"]
    t, goal = query.states.t, query.states.known["noise"]
    assert t.max() == len(model.levels) - 1 and t.min() == 0
    assert goal.isfinite().all()
    # As errors of noise: in these units a perfect prediction of the other spaces is that of noise.
    weight = trainer.context.weigh_loss(t, "eps")
    assert (weight[t == t.max()] == 0).all() == (space != "eps")


def test_pictures_of_a_prompt_do_not_depend_on_what_else_a_step_asks_for():
    """Else a resumed run would draw others: batches have an influence on a picture's last bits."""
    model = OracleModel()
    model.draw_batch = 2
    trainer = build_small_trainer(model, batch=2)
    step = trainer.make_step(0, trainer.update)
    asked: list[list[int]] = []
    sample = model.sample
    model.sample = lambda cond, uncond, seeds, **how: (asked.append(list(seeds)), sample(cond, uncond, seeds, **how))[1]
    for order in (["cat", "dog"], ["dog", "cat"], ["dog", "dog"]):
        asked.clear()
        source = Pictures(3, 4, 1.0)
        source.sample_states(trainer.context, step, order, model.encode(order))
        first, *_ = asked[0]
        assert asked == [[first, first + 1], [first + 2]] * len({*order})


@pytest.mark.parametrize(("anchor", "shown"), [("dog", ["dog", "a dog"]), ("", [""])])
def test_pictures_of_the_anchor_are_announced_and_not_those_of_the_targets(anchor, shown):
    """Memory is estimated from what is announced, and all that is announced is drawn together."""
    source = Pictures(5, 3, 1.0)
    other = Pictures(5, 3, 1.0)
    terms = [Anchor(source, "eps", states="anchor"), Unconditional(other, "eps")]
    trainer = build_small_trainer(
        OracleModel(), terms=terms, erasure=Erasure(("cat", "car", "rose"), anchor=anchor), templates=("{}", "a {}")
    )
    assert list(source.expected) == shown and source.estimate_footprint(trainer.context).drawn == 5 * len(shown)
    assert len(other.expected) == 6


@pytest.mark.parametrize("variant", ["model", "noise"])
def test_a_picture_of_the_anchor_is_called_the_target_in_its_own_template(variant):
    """Both of AC's losses are about one prompt with two concepts (eqs. 4 and 5), whichever template it has."""
    templates = ("{}", "a {}", "red {}")
    method = AC(variant=variant, pictures=1, draw_steps=2, batch=16, steps=1, templates=templates)
    trainer = method.build_trainer(tiny_model(), Erasure(("cat", "car"), anchor="dog"))
    term: Any = trainer.terms[0]
    shown: list[str] = []
    sample = term.source.sample_states
    term.source.sample_states = lambda c, s, prompts, cond: (shown.extend(prompts), sample(c, s, prompts, cond))[1]
    step = trainer.make_step(0, trainer.update)
    asked = term.build_queries(trainer.context, step)["student"].prompts
    targets = [trainer.erasure.targets[i] for i in step.targets]
    assert {*shown} == {"dog", "a dog", "red dog"}
    assert asked == [prompt.replace("dog", target) for prompt, target in zip(shown, targets, strict=True)]
